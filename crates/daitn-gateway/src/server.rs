//! The listener: TCP connections, TLS, HTTP/1.1, and the gateway's beginning and end.
//!
//! Tasks: one accepts connections, one for each connection answers its requests one after the other, one takes in
//! snapshots. All end by [`GatewayHandle::shutdown`].

use crate::{
    config::GatewayConfig,
    control::Control,
    decisions::Decisions,
    error::StartError,
    front::{Front, Hosts},
    gateway::{Clock, Gateway as State, MetricsText},
    input::BODY_UNIT_BYTES,
    net::Unstalled,
    openapi,
    routing::Random,
    sessions::Sessions,
    stats::GatewayStats,
    tls,
    view::{self, View},
};
use arc_swap::ArcSwap;
use daitn_fabric::{DATA_ALPN, Endpoint, IncomingSession, Refusal, Routes};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// When the system has no more sockets to give, we wait so long before asking again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Outward APIs of the network on one address.
#[derive(Debug)]
pub struct Gateway {}

impl Gateway {
    /// Begins to listen, and returns when it does.
    ///
    /// # Errors
    /// Where the address cannot be bound, the certificate cannot be used, or is missing for an address that can be
    /// reached from outside.
    pub async fn start(
        config: GatewayConfig,
        control: Arc<dyn Control>,
        endpoint: Endpoint,
    ) -> Result<GatewayHandle, StartError> {
        Self::start_with_metrics(config, control, endpoint, None).await
    }

    /// As [`Self::start`], and answers `GET /metrics` with this text.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with_metrics(
        config: GatewayConfig,
        control: Arc<dyn Control>,
        endpoint: Endpoint,
        metrics: Option<MetricsText>,
    ) -> Result<GatewayHandle, StartError> {
        let listen = config.listen;
        let (tls, hosts) = usable(&config)?;
        let unbound = |source| StartError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(unbound)?;
        let local_addr = listener.local_addr().map_err(unbound)?;
        let stop = CancellationToken::new();
        let_hosts_in(&endpoint);
        let gateway = Arc::new(state(config, hosts, control, endpoint, metrics, stop.clone()));
        let tasks = TaskTracker::new();
        take_in(&gateway);
        tasks.spawn(keep_view(gateway.clone()));
        let front = Arc::new(Front {
            gateway: gateway.clone(),
            router: openapi::router(gateway.clone()),
        });
        let handle = GatewayHandle {
            local_addr,
            secure: tls.is_some(),
            stats: gateway.stats.clone(),
            stop,
            abort: CancellationToken::new(),
            tasks: tasks.clone(),
            grace: gateway.limits().shutdown_grace,
        };
        tasks.spawn(accept(listener, tls, front, tasks.clone(), handle.abort.clone()));
        tracing::info!(%local_addr, secure = handle.secure, "the gateway listens");
        Ok(handle)
    }
}

impl GatewayConfig {
    /// Whether a gateway could start with this, as far as can be known before anything is bound.
    ///
    /// # Errors
    /// Where the certificate cannot be used, or is missing for an address that can be reached from outside, or a URL is
    /// none.
    pub fn check(&self) -> Result<(), StartError> {
        usable(self).map(drop)
    }
}

fn usable(config: &GatewayConfig) -> Result<(Option<TlsAcceptor>, Hosts), StartError> {
    let listen = config.listen;
    if config.tls.is_none() && !listen.ip().to_canonical().is_loopback() {
        return Err(StartError::CertificateNeeded { listen });
    }
    let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
    Ok((tls, Hosts::new(config)?))
}

/// A gateway that runs.
#[derive(Debug)]
pub struct GatewayHandle {
    local_addr: SocketAddr,
    secure: bool,
    stats: Arc<GatewayStats>,
    stop: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
    grace: Duration,
}

impl GatewayHandle {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The URL of where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http{}://{}", if self.secure { "s" } else { "" }, self.local_addr)
    }

    /// What it has counted.
    #[must_use]
    pub fn stats(&self) -> Arc<GatewayStats> {
        self.stats.clone()
    }

    /// Takes no new connection, ends streams, lets requests under way end within the grace time, then closes.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "requests were still under way after {:?} and are broken off",
                self.grace
            );
            self.abort.cancel();
            self.tasks.wait().await;
        }
    }
}

fn state(
    config: GatewayConfig,
    hosts: Hosts,
    control: Arc<dyn Control>,
    endpoint: Endpoint,
    metrics: Option<MetricsText>,
    stop: CancellationToken,
) -> State {
    let mut seed = [0; 8];
    // Without randomness from the system two gateways may draw alike, which is no reason not to start.
    let _ = getrandom::fill(&mut seed);
    let limits = config.limits.clone();
    State {
        config,
        hosts,
        control,
        view: ArcSwap::default(),
        sessions: Sessions::new(endpoint),
        decisions: Decisions::default(),
        stats: Arc::default(),
        clock: Clock::start(),
        random: Random::new(u64::from_le_bytes(seed)),
        requests: Semaphore::new(limits.requests_max),
        streams: Arc::new(Semaphore::new(limits.streams_max)),
        bodies: Arc::new(Semaphore::new(limits.bodies_bytes_max / BODY_UNIT_BYTES)),
        metrics,
        stop,
    }
}

/// Hosts behind NAT dial in, and sessions to them are opened on their connections. They open none themselves.
fn let_hosts_in(endpoint: &Endpoint) {
    let nothing = |incoming: IncomingSession| async move { incoming.session.refuse(Refusal::Unsupported) };
    endpoint.serve(Routes::new().on(DATA_ALPN, 0, nothing));
}

/// Takes in the snapshot that the control center has now.
fn take_in(gateway: &State) {
    let snapshot = gateway.control.snapshot().borrow().clone();
    gateway.sessions.learn(view::peers(&snapshot));
    let view = View::new(
        &snapshot,
        &gateway.view.load(),
        gateway.limits().requests_per_key_max,
    );
    gateway.view.store(Arc::new(view));
}

/// Takes in every new snapshot. When the control center is gone the last one stays in force.
async fn keep_view(gateway: Arc<State>) {
    let mut snapshots = gateway.control.snapshot();
    loop {
        take_in(&gateway);
        tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() {
                    tracing::warn!("the control center is gone; queries go on with the newest snapshot");
                    return;
                }
            }
            () = gateway.stop.cancelled() => return,
        }
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    front: Arc<Front>,
    tasks: TaskTracker,
    abort: CancellationToken,
) {
    let stop = front.gateway.stop.clone();
    let connections = Arc::new(Semaphore::new(front.gateway.limits().connections_max));
    loop {
        let next = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, front, abort) = (tls.clone(), front.clone(), abort.clone());
        tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = connection(stream, from, tls, front) => {}
                () = abort.cancelled() => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, tls: Option<TlsAcceptor>, front: Arc<Front>) {
    let _open = front.gateway.stats.connection_opened();
    // Small answers must not wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%from, "TCP_NODELAY could not be set: {error}");
    }
    let limits = front.gateway.limits();
    let stream = Unstalled::new(stream, limits.write_stall);
    let Some(tls) = tls else {
        return requests(stream, from, front).await;
    };
    match tokio::time::timeout(limits.handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, from, front).await,
        Ok(Err(error)) => tracing::debug!(%from, "TLS handshake failed: {error}"),
        Err(_) => tracing::debug!(%from, "TLS handshake took too long"),
    }
}

/// Answers the requests of a connection, one after the other.
async fn requests<S>(stream: S, from: SocketAddr, front: Arc<Front>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stop = front.gateway.stop.clone();
    let limits = front.gateway.limits().clone();
    let service = service_fn(move |request| {
        let front = front.clone();
        async move { Ok::<_, Infallible>(front.answer(from, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_bytes_max)
        .max_headers(limits.headers_max)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that goes away is no failure of ours.
        tracing::debug!(%from, "connection ended: {error}");
    }
}
