//! `daitn up`: a control center and a gateway on this machine.

use super::App;
use crate::{
    config::{AddressOrOff, Config},
    failure::{Ending, Failure},
    roles::{
        center::{self, RunCenter},
        kept::Wanted,
        oam,
    },
};
use clap::Args;
use daitn_gateway::TlsFiles;
use daitn_messages::ids::Slug;
use std::{net::SocketAddr, path::PathBuf};

/// How to run it. What is given here comes before the configuration.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where its state is kept; made if it is not there
    #[arg(long, value_name = "DIRECTORY", default_value = "daitn-data")]
    dir: PathBuf,
    /// The configuration; without it `daitn.toml` in the directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The domain's name; the directory keeps it from its first start
    #[arg(long, value_name = "NAME")]
    domain: Option<Slug>,
    /// TCP address of the APIs; needs a certificate where it is not loopback
    #[arg(long, env = "DAITN_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// UDP address of the control plane, which nodes dial
    #[arg(long, env = "DAITN_FABRIC_LISTEN", value_name = "ADDRESS")]
    fabric_listen: Option<SocketAddr>,
    /// An address that join tokens name, instead of those that this machine knows of itself; may be given again
    #[arg(long, value_name = "ADDRESS")]
    announce: Vec<SocketAddr>,
    /// Also run a relay at this TCP address, for nodes that UDP does not reach; needs a certificate where it is not
    /// loopback
    #[arg(long, value_name = "ADDRESS")]
    relay: Option<SocketAddr>,
    /// Where /metrics, /livez and /readyz are served, to this machine only; `off`: nowhere; without it a free port
    #[arg(long, value_name = "ADDRESS|off")]
    metrics_listen: Option<AddressOrOff>,
    /// The relay's URL as nodes see it: the name in the certificate, https://relay.example.org:8472
    #[arg(long, value_name = "URL", requires = "relay")]
    relay_url: Option<String>,
    /// Certificate chain for HTTPS and the relay, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Name of the context that is written for the other commands; without it the domain's name, or one made from it
    /// where another network has that
    #[arg(long, value_name = "NAME")]
    context_name: Option<String>,
    /// Write no context
    #[arg(long, conflicts_with = "context_name")]
    no_context: bool,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs it.
pub(crate) async fn run(app: &App, arguments: Arguments) -> Ending {
    let config = config(&arguments)?;
    oam::logs(&config.log)?;
    let context = match (arguments.no_context, arguments.context_name) {
        (true, _) => Wanted::Nothing,
        (false, Some(name)) => Wanted::Named(name),
        (false, None) => Wanted::LikeDomain,
    };
    let given = RunCenter {
        directory: &arguments.dir,
        config,
        context,
        stop_with_stdin: arguments.stop_with_stdin,
    };
    Box::pin(center::run(given, app.output)).await
}

fn config(arguments: &Arguments) -> Result<Config, Failure> {
    let mut config = Config::load(arguments.config.as_deref(), &arguments.dir)?;
    if let Some(domain) = &arguments.domain {
        config.center.domain = Some(domain.clone());
    }
    if let Some(listen) = arguments.listen {
        config.gateway.listen = listen;
    }
    if let Some(listen) = arguments.fabric_listen {
        config.center.listen = listen;
    }
    if !arguments.announce.is_empty() {
        config.center.announce.clone_from(&arguments.announce);
    }
    if let Some(relay) = arguments.relay {
        config.center.relay = Some(relay);
    }
    if let Some(listen) = arguments.metrics_listen {
        config.metrics.listen = listen.0;
    }
    if let Some(url) = &arguments.relay_url {
        config.center.relay_url.clone_from(url);
    }
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        config.gateway.tls = Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        });
    }
    Ok(config)
}
