//! A control center and a gateway as one process. They are two endpoints with two keys and meet only through messages:
//! no payload of a session passes the control plane's endpoint.

use super::{
    bound::{Bound, again},
    kept::{self, Wanted},
    oam, ports,
    relay::{self, Relaying},
};
use crate::{
    config::Config,
    context::ApiKey,
    failure::{Exit, Failure},
    files::{Lock, key, read_text, write_private},
    output::Output,
    paint::Paint,
    shutdown::Stop,
};
use daitn_control::{Center, CenterConfig, CenterHandle, OnRevoked, Timing};
use daitn_fabric::{Admit, Endpoint, EndpointOptions, Relay};
use daitn_gateway::{Control, Gateway, GatewayHandle, JobFeed};
use daitn_messages::{
    ids::JobId,
    operation::{Answer, Operation, Principal, Scope},
    rejection::{Code, Rejection},
    session::Peer,
    signed::NodeKey,
    snapshot::Snapshot,
};
use daitn_oam::{health::Health, metrics::Metrics, server::OamServer};
use daitn_store::Store;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::json;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::watch;

/// Sessions of the gateway get this long to end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// How to run it, beyond its configuration.
pub(crate) struct RunCenter<'a> {
    /// Where its state is kept.
    pub(crate) directory: &'a Path,
    /// Its configuration.
    pub(crate) config: Config,
    /// The context that is written.
    pub(crate) context: Wanted,
    /// Whether the end of standard input stops it.
    pub(crate) stop_with_stdin: bool,
}

/// Runs a control center and a gateway until they are told to stop.
pub(crate) async fn run(given: RunCenter<'_>, output: Output) -> Result<Exit, Failure> {
    let RunCenter {
        directory,
        mut config,
        context,
        stop_with_stdin,
    } = given;
    // Whose directory it is comes first: the process that has it has its ports too.
    let _lock = if Lock::exists(directory) {
        let lock = Lock::take(directory)?;
        ports::center(&config, directory)?;
        lock
    } else {
        ports::center(&config, directory)?;
        Lock::take(directory)?
    };
    config.center.domain = Some(kept::domain(directory, &config.center)?);
    let context = kept::context(
        &context,
        &config.center.name(),
        admin_key_kept(directory)?.as_ref(),
    )?;
    let stop = Stop::new(stop_with_stdin)?;
    let parts = start(directory, &config).await?;
    let admin = admin_key(directory, &config, &parts.center).await?;
    let url = public_url(&config, &parts.gateway);
    kept::keep_domain(directory, &config.center.name())?;
    if let Some(name) = &context {
        kept::write_context(name, &url, admin, &config)?;
    }
    tell(output, &config, &parts, directory, context.as_deref())?;
    let ending = tokio::select! {
        () = stop.wait() => Ok(Exit::Done),
        fault = parts.center.ended() => Err(match fault {
            Some(error) => unusable(directory, &error, error.remedy()),
            None => Failure::internal("the control center ended by itself"),
        }),
    };
    tracing::info!("the control center and the gateway shut down");
    parts.shutdown().await;
    ending
}

/// Everything that runs.
struct Parts {
    center: CenterHandle,
    gateway: GatewayHandle,
    sessions: Endpoint,
    relay: Option<Relay>,
    oam: Option<OamServer>,
}

impl Parts {
    /// First what takes requests, then what answers them.
    async fn shutdown(self) {
        self.gateway.shutdown().await;
        self.sessions.shutdown(SHUTDOWN_GRACE).await;
        self.center.shutdown().await;
        if let Some(relay) = self.relay {
            relay.shutdown().await;
        }
        if let Some(oam) = self.oam {
            oam.shutdown().await;
        }
    }
}

async fn start(directory: &Path, config: &Config) -> Result<Parts, Failure> {
    let mut bound = Bound::load(directory)?;
    let (center_key, gateway_key) = (
        key(&directory.join("center.key"))?,
        key(&directory.join("gateway.key"))?,
    );
    let relaying = relay::start(config, &bound, &[center_key.id(), gateway_key.id()]).await?;
    let listen = again(config.center.listen, bound.control);
    let control = endpoint(&center_key, listen, relaying.as_ref(), Arc::new(|_, _| true)).await?;
    // The sessions' endpoint listens where the control plane's does, at a port of its own.
    let beside = SocketAddr::new(config.center.listen.ip(), bound.sessions);
    let snapshots = Arc::new(OnceLock::new());
    let admit = hosts_only(snapshots.clone());
    let sessions = endpoint(&gateway_key, beside, relaying.as_ref(), admit).await?;
    bound.control = port_of(&control).unwrap_or(bound.control);
    bound.sessions = port_of(&sessions).unwrap_or(bound.sessions);
    bound.relay = relaying
        .as_ref()
        .map_or(bound.relay, |relaying| relaying.relay.address().port());
    let center = center(
        directory,
        config,
        center_key,
        control.clone(),
        &sessions,
        relaying.as_ref(),
    )
    .await?;
    snapshots.get_or_init(|| center.snapshot());
    let relay = relaying.map(|relaying| relaying.open(&center));
    let served = serve(directory, config, &mut bound, &center, (&control, &sessions)).await;
    match served {
        Ok((gateway, oam)) => Ok(Parts {
            center,
            gateway,
            sessions,
            relay,
            oam,
        }),
        Err(failure) => {
            // What runs already is ended in order, or its peers would wait for it.
            sessions.shutdown(SHUTDOWN_GRACE).await;
            center.shutdown().await;
            if let Some(relay) = relay {
                relay.shutdown().await;
            }
            Err(failure)
        }
    }
}

/// Opens the gateway and the metrics, once the center decides.
async fn serve(
    directory: &Path,
    config: &Config,
    bound: &mut Bound,
    center: &CenterHandle,
    (control, sessions): (&Endpoint, &Endpoint),
) -> Result<(GatewayHandle, Option<OamServer>), Failure> {
    let (metrics, health) = (Metrics::default(), Health::default());
    let gateway = gateway(config, bound, center, sessions, &metrics).await?;
    bound.api = gateway.local_addr().port();
    bound.save(directory)?;
    oam::watch_fabric(&metrics, "center", control.clone());
    oam::watch_fabric(&metrics, "gateway", sessions.clone());
    oam::watch_gateway(&metrics, gateway.stats());
    oam::watch_center(&metrics, center.clone());
    oam::check_disk(&health, directory).await;
    check_center(&health, center.clone()).await;
    let oam = oam::serve(&config.metrics, metrics, health).await?;
    Ok((gateway, oam))
}

/// Who may dial the gateway's sessions in: nodes that the newest snapshot names, and nobody before there is one.
fn hosts_only(snapshots: Arc<OnceLock<watch::Receiver<Arc<Snapshot>>>>) -> Admit {
    Arc::new(move |node, _| {
        let newest = snapshots.get().map(watch::Receiver::borrow);
        newest.is_some_and(|snapshot| snapshot.hosts.binary_search(&node).is_ok())
    })
}

async fn endpoint(
    key: &NodeKey,
    listen: SocketAddr,
    relay: Option<&Relaying>,
    admit: Admit,
) -> Result<Endpoint, Failure> {
    let mut options = EndpointOptions::new(*key.to_bytes()).bound_to(listen);
    options.admit = admit;
    if let Some(relay) = relay {
        options.relays = vec![relay.url.clone()];
        options.relay_authorities.clone_from(&relay.authorities);
    }
    Endpoint::bind(options).await.map_err(|error| {
        Failure::usage(error.to_string())
            .hint("Another process may have the port: give another --fabric-listen.")
    })
}

fn port_of(endpoint: &Endpoint) -> Option<u16> {
    endpoint.peer().addresses.first().map(SocketAddr::port)
}

async fn center(
    directory: &Path,
    config: &Config,
    key: NodeKey,
    control: Endpoint,
    sessions: &Endpoint,
    relaying: Option<&Relaying>,
) -> Result<CenterHandle, Failure> {
    let store = Store::open(database(directory))
        .await
        .map_err(|error| unusable(directory, &error, error.is_of_storage().then(|| error.remedy())))?;
    let relay = relaying.map(|relaying| relaying.url.clone());
    let announced = (!config.center.announce.is_empty()).then(|| Peer {
        node: key.id(),
        addresses: config.center.announce.clone(),
        relay: relay.clone(),
    });
    let center = CenterConfig {
        domain: config.center.name().to_string(),
        operator: config.center.organisation.clone(),
        key,
        peer: announced,
        relay,
        gateways: vec![sessions.peer()],
        timing: Timing::default(),
        on_revoked: relaying.map_or_else(OnRevoked::default, Relaying::on_revoked),
    };
    Center::start(center, store, control)
        .await
        .map_err(|error| unusable(directory, &error, error.remedy()))
}

fn database(directory: &Path) -> PathBuf {
    directory.join("control.db")
}

/// The control center cannot begin or go on. Where there is a remedy, its disk or its database is at fault.
fn unusable(directory: &Path, error: &dyn std::error::Error, remedy: Option<&'static str>) -> Failure {
    match remedy {
        Some(remedy) => {
            let path = database(directory);
            Failure::new(Code::Storage, format!("{}: {error}", path.display())).hint(remedy)
        }
        None => Failure::internal(error.to_string()),
    }
}

async fn gateway(
    config: &Config,
    bound: &Bound,
    center: &CenterHandle,
    sessions: &Endpoint,
    metrics: &Metrics,
) -> Result<GatewayHandle, Failure> {
    let mut section = config.gateway.clone();
    section.listen = again(section.listen, bound.api);
    let text = metrics.clone();
    let control = Arc::new(InProcess(center.clone()));
    Gateway::start_with_metrics(
        section,
        control,
        sessions.clone(),
        Some(Arc::new(move || text.to_text())),
    )
    .await
    .map_err(|error| Failure::usage(error.to_string()))
}

/// The control center in this process, as the gateway sees it.
struct InProcess(CenterHandle);

impl Control for InProcess {
    fn call(&self, principal: Principal, operation: Operation) -> BoxFuture<'_, Result<Answer, Rejection>> {
        self.0.call(principal, operation).boxed()
    }
    fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.snapshot()
    }
    fn watch_job(&self, principal: Principal, job: JobId) -> BoxFuture<'_, Result<JobFeed, Rejection>> {
        self.0.watch_job(principal, job).boxed()
    }
}

/// A check that sends a question through the center's loop, with the authority of a key that is in force.
async fn check_center(health: &Health, center: CenterHandle) {
    health
        .add("control center", move || {
            let center = center.clone();
            async move {
                if let Some(fault) = center.failed() {
                    return Err(fault.to_string());
                }
                let keys = center.snapshot().borrow().keys.clone();
                let asker = keys
                    .into_iter()
                    .map(|key| key.principal)
                    .find(|p| p.scopes.contains(&Scope::Read));
                match asker {
                    Some(asker) => center
                        .call(asker, Operation::Status)
                        .await
                        .map(drop)
                        .map_err(|r| r.to_string()),
                    None => Err("no API key may read: make one that may".to_owned()),
                }
            }
        })
        .await;
}

/// The first API key, made at the first start and kept in a file that only its owner reads.
async fn admin_key(directory: &Path, config: &Config, center: &CenterHandle) -> Result<ApiKey, Failure> {
    if let Some(key) = admin_key_kept(directory)? {
        return Ok(key);
    }
    let path = key_file(directory);
    let made = center
        .bootstrap_key(config.center.organisation.clone())
        .await
        .map_err(|rejection| {
            Failure::from(rejection).hint(format!(
                "{} is gone, and its key is in force. Restore the file, or begin in a fresh directory.",
                path.display()
            ))
        })?;
    write_private(&path, made.secret.as_bytes())?;
    Ok(ApiKey::new(made.secret))
}

/// That key, where it was made before.
fn admin_key_kept(directory: &Path) -> Result<Option<ApiKey>, Failure> {
    let path = key_file(directory);
    let kept = path.exists().then(|| read_text(&path)).transpose()?;
    Ok(kept.map(|text| ApiKey::new(text.trim())))
}

fn key_file(directory: &Path) -> PathBuf {
    directory.join("admin.key")
}

/// Where clients find the gateway: the name in its certificate, if it was told.
fn public_url(config: &Config, gateway: &GatewayHandle) -> String {
    config.gateway.public_url.clone().unwrap_or_else(|| gateway.url())
}

fn tell(
    output: Output,
    config: &Config,
    parts: &Parts,
    directory: &Path,
    context: Option<&str>,
) -> Result<(), Failure> {
    let (paint, url, domain) = (
        Paint::stderr(),
        public_url(config, &parts.gateway),
        config.center.name(),
    );
    let peer = parts.center.peer();
    let addresses: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
    let context_line = match context {
        Some(name) => format!("context {} is in use", paint.name(name)),
        None => format!("API key in {}", key_file(directory).display()),
    };
    output.say(format!(
        "Domain {} is up.\n  APIs     {url}   {context_line}\n  Nodes    UDP {}\n  Metrics  {}\n  State    {}\n\nNext, in another \
         terminal:\n  daitn token create --organisation NAME     a token for a node of an organisation\n  daitn status\n\
         Stop it with Ctrl-C.",
        paint.name(&domain),
        addresses.join(", "),
        oam::told(parts.oam.as_ref()),
        directory.display()
    ));
    output.ready(&json!({
        "event": "ready",
        "domain": domain,
        "url": url,
        "center": peer.node,
        "addresses": addresses,
        "relay": peer.relay,
        "key_file": std::fs::canonicalize(key_file(directory)).unwrap_or_else(|_| key_file(directory)),
        "context": context,
        "metrics": parts.oam.as_ref().map(OamServer::url),
    }))
}
