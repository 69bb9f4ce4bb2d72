//! The domain's relay beside the control center: where it may listen, and whom it serves.

use super::bound::{Bound, again};
use crate::{config::Config, failure::Failure, files::read_text};
use daitn_control::{CenterHandle, OnRevoked};
use daitn_fabric::{Relay, RelayAccess, RelayOptions, RelayTls};
use daitn_gateway::TlsFiles;
use daitn_messages::ids::NodeId;
use futures_util::FutureExt;
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::watch;

/// A relay that serves the control center's own endpoints only, until the control center says whom else.
pub(super) struct Relaying {
    pub(super) relay: Relay,
    /// Where nodes find it.
    pub(super) url: String,
    /// What the control center's own endpoints believe it by.
    pub(super) authorities: Vec<Vec<u8>>,
    center: watch::Sender<Option<CenterHandle>>,
}

impl Relaying {
    /// Lets the control center say whom it serves.
    pub(super) fn open(self, center: &CenterHandle) -> Relay {
        self.center.send_replace(Some(center.clone()));
        self.relay
    }

    /// Breaks off whom the control center throws out.
    pub(super) fn on_revoked(&self) -> OnRevoked {
        let door = self.relay.door();
        OnRevoked::new(move |node| door.disconnect(node))
    }
}

/// Starts the relay that the configuration asks for, if it does.
pub(super) async fn start(
    config: &Config,
    bound: &Bound,
    own: &[NodeId],
) -> Result<Option<Relaying>, Failure> {
    let Some(listen) = config.center.relay else {
        return Ok(None);
    };
    let tls = tls(listen, config.gateway.tls.as_ref())?;
    if listen.ip().is_unspecified() && config.center.relay_url.is_empty() {
        let message = format!("the relay listens on {listen}, which says to no node where to find it");
        return Err(Failure::usage(message)
            .hint("Name it as its certificate does: --relay-url https://relay.example.org:PORT"));
    }
    let (center, asked) = watch::channel(None);
    let mut options = RelayOptions::new(again(listen, bound.relay), access(own.to_vec(), asked));
    options.tls = tls.as_ref().map(|tls| tls.server.clone());
    let relay = Relay::bind(options)
        .await
        .map_err(|error| Failure::usage(error.to_string()))?;
    let url = match config.center.relay_url.as_str() {
        "" => relay.url(),
        url => url.to_owned(),
    };
    Ok(Some(Relaying {
        relay,
        url,
        authorities: tls.map(|tls| tls.chain).unwrap_or_default(),
        center,
    }))
}

/// The certificate, which only a relay on loopback does without: nodes show it what they hold a join token by, and learn
/// from it at which address they are seen.
fn tls(listen: SocketAddr, files: Option<&TlsFiles>) -> Result<Option<RelayTls>, Failure> {
    let Some(files) = files else {
        if listen.ip().to_canonical().is_loopback() {
            return Ok(None);
        }
        let message = format!("a relay on {listen} needs a certificate: without one it serves loopback only");
        return Err(Failure::usage(message).hint(
            "Give --tls-cert FILE and --tls-key FILE, and --relay-url with the name in the certificate.",
        ));
    };
    let (chain, key) = (read_text(&files.certificate)?, read_text(&files.key)?);
    RelayTls::from_pem(chain.as_bytes(), key.as_bytes())
        .map(Some)
        .map_err(|error| Failure::file(&files.certificate, error))
}

/// The control center's own endpoints pass at once; everybody else when the control center, once it runs, says so.
fn access(own: Vec<NodeId>, center: watch::Receiver<Option<CenterHandle>>) -> RelayAccess {
    Arc::new(move |node, pass| {
        if own.contains(&node) {
            return std::future::ready(true).boxed();
        }
        let mut center = center.clone();
        async move {
            // The relay bounds how long it waits for this answer. An error means that the start has failed.
            let center = match center.wait_for(Option::is_some).await {
                Ok(center) => center.clone(),
                Err(_) => None,
            };
            match center {
                Some(center) => center.may_relay(node, pass).await,
                None => false,
            }
        }
        .boxed()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_does_without_a_certificate() {
        for inside in ["127.0.0.1:0", "[::1]:8472", "[::ffff:127.0.0.1]:1"] {
            assert!(tls(inside.parse().unwrap(), None).unwrap().is_none(), "{inside}");
        }
        for outside in ["0.0.0.0:8472", "192.0.2.7:443", "[::]:8472"] {
            let failure = tls(outside.parse().unwrap(), None).unwrap_err();
            assert!(
                failure.rejection.message.contains("needs a certificate"),
                "{outside}"
            );
            assert!(failure.rejection.hint.contains("--tls-cert"), "{outside}");
        }
    }
}
