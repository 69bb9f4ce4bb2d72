//! A small page for machines on loopback: `/metrics`, `/livez`, `/readyz`. Loopback only, because it asks for no key;
//! other machines read the same through the gateway with one.

use crate::{health::Health, metrics::Metrics};
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use std::net::SocketAddr;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is visible from other machines.
    #[error(
        "{0} is not a loopback address: metrics and health are served without a key and only on this machine"
    )]
    NotLoopback(SocketAddr),
    /// The port cannot be taken.
    #[error("cannot listen on {address}; take another port or 0 for any free one")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A running page.
pub struct OamServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl OamServer {
    /// Refuses an address that other machines reach.
    ///
    /// # Errors
    /// If the address is not loopback.
    pub fn check(address: SocketAddr) -> Result<(), ServeError> {
        if address.ip().is_loopback() {
            Ok(())
        } else {
            Err(ServeError::NotLoopback(address))
        }
    }

    /// Binds and serves.
    ///
    /// # Errors
    /// If the address is not loopback or cannot be bound.
    pub async fn bind(address: SocketAddr, metrics: Metrics, health: Health) -> Result<Self, ServeError> {
        Self::check(address)?;
        let failed = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = Router::new()
            .route("/metrics", get(page))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state((metrics, health));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(async {
                let _ = stopped.await;
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "the metrics page ended");
            }
        });
        Ok(Self { address, stop, task })
    }

    /// The page's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Ends it, after the answers under way.
    pub async fn shutdown(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// The media type that Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn page(State((metrics, _)): State<(Metrics, Health)>) -> impl IntoResponse {
    ([("content-type", OPEN_METRICS)], metrics.to_text())
}

async fn ready(State((_, health)): State<(Metrics, Health)>) -> impl IntoResponse {
    let findings = health.run().await;
    let status = if findings.iter().all(|f| f.ok) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::to_string(&findings).unwrap_or_default();
    (status, [("content-type", "application/json")], body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn a_failed_check_makes_the_process_not_ready() {
        let (metrics, health) = (Metrics::default(), Health::default());
        let server = OamServer::bind("127.0.0.1:0".parse().unwrap(), metrics, health.clone())
            .await
            .unwrap();
        assert_eq!(get(server.address, "/readyz").await, (200, "[]".to_owned()));
        health
            .add("store", || async { Err("disk full".to_owned()) })
            .await;
        let (status, body) = get(server.address, "/readyz").await;
        assert_eq!(status, 503);
        assert_eq!(body, r#"[{"check":"store","ok":false,"cause":"disk full"}]"#);
        assert_eq!(get(server.address, "/metrics").await.1, "# EOF\n");
        server.shutdown().await;
    }

    #[tokio::test]
    async fn other_machines_are_not_served() {
        let refused = OamServer::bind(
            "0.0.0.0:0".parse().unwrap(),
            Metrics::default(),
            Health::default(),
        )
        .await;
        assert!(matches!(refused, Err(ServeError::NotLoopback(_))));
    }
}
