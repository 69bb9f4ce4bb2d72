//! `daitn node join` and `run`: how a machine becomes part of a domain.

use super::super::{App, doctor, now};
use crate::{
    config::{AddressOrOff, Config},
    failure::{Ending, Exit, Failure},
    files::{Lock, key, private_directory, read_secret, read_text, write_private},
    output::Shown,
    paint::Paint,
    render::facts,
    roles::{
        member::{Member, relay_authorities, relay_ca, terminals},
        node::{self, RunNode},
        oam, ports,
    },
};
use clap::Args;
use daitn_fabric::{Endpoint, EndpointOptions};
use daitn_messages::{
    control::{JoinToken, Welcome},
    ids::{NodeId, OrganisationId, Slug},
    rejection::Code,
};
use serde::Serialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// How to join.
#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// The join token: `@FILE`, `-` for standard input, or the token itself, which others on this machine can then see
    token: String,
    /// The node's directory: its key, its state and its terminals
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// What the node calls itself; without it the directory's name
    #[arg(long, value_name = "NAME")]
    name: Option<Slug>,
    /// UDP address to join from
    #[arg(long, default_value = "0.0.0.0:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Certificates (PEM) that the domain's relay may be believed by, where no well-known authority signed its own
    #[arg(long, value_name = "FILE")]
    relay_ca: Option<PathBuf>,
}

/// How to run.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The node's directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// The configuration; without it `daitn.toml` in the directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// UDP address of the data plane, instead of the configuration's
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where /metrics, /livez and /readyz are served, to this machine only; `off`: nowhere; without it a free port
    #[arg(long, value_name = "ADDRESS|off")]
    metrics_listen: Option<AddressOrOff>,
    /// Threads for training, instead of the configuration's
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Joins.
pub(super) async fn join(app: &App, arguments: JoinArguments) -> Ending {
    let text = read_secret(&arguments.token)?;
    let token = JoinToken::from_text(&text)?;
    Member::none_in(&arguments.dir)?;
    ports::udp(arguments.listen, "--listen")?;
    let half_made = HalfMade::in_directory(&arguments.dir);
    private_directory(&arguments.dir)?;
    let _lock = Lock::take(&arguments.dir)?;
    let name = name(&arguments)?;
    let key = key(&arguments.dir.join("node.key"))?;
    let mut options = EndpointOptions::new(*key.to_bytes()).bound_to(arguments.listen);
    options.relays = token.center.relay.iter().cloned().collect();
    options.relay_pass = Some(token.relay_pass());
    if let Some(file) = &arguments.relay_ca {
        write_private(&relay_ca(&arguments.dir), read_text(file)?.as_bytes())?;
    }
    options.relay_authorities = relay_authorities(&arguments.dir)?;
    let endpoint = Endpoint::bind(options)
        .await
        .map_err(|error| Failure::usage(error.to_string()))?;
    let enrolled = daitn_terminals::enrol(&endpoint, &token, name.as_str(), now()).await;
    endpoint.shutdown(Duration::from_millis(200)).await;
    let welcome = match enrolled {
        Ok(welcome) => welcome,
        Err(rejection) => {
            if rejection.code == Code::Unreachable {
                // The center may have taken the key and spent the token, and its answer may be lost: with the same key
                // the same command joins.
                half_made.keep();
            }
            return Err(doctor::after_failed_join(app, &text, rejection.into()).await);
        }
    };
    half_made.keep();
    let member = Member {
        name,
        organisation: welcome.organisation.clone(),
        relay: welcome.relay.clone().or_else(|| token.center.relay.clone()),
        center: token.center,
    };
    member.save(&arguments.dir)?;
    private_directory(&terminals(&arguments.dir))?;
    app.output.say(format!(
        "Describe what it has (daitn data publish, daitn node attach), then:\n  daitn node run --dir {}",
        arguments.dir.display()
    ));
    app.output
        .show(&Joined::new(key.id(), &member, welcome, arguments.dir))?;
    Ok(Exit::Done)
}

/// What joining makes before the center has said yes: gone when this is dropped, unless it is kept. What was there before
/// stays.
struct HalfMade {
    /// Files, then directories from within outwards.
    paths: Vec<PathBuf>,
}

impl HalfMade {
    fn in_directory(directory: &Path) -> Self {
        let files = ["node.key", "lock"].map(|name| directory.join(name));
        let directories = directory.ancestors().filter(|path| !path.as_os_str().is_empty());
        let all = files
            .into_iter()
            .chain([relay_ca(directory)])
            .chain(directories.map(Path::to_owned));
        Self {
            paths: all.filter(|path| !path.exists()).collect(),
        }
    }

    fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        for path in &self.paths {
            // What somebody has put into a directory keeps it.
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
        }
    }
}

fn name(arguments: &JoinArguments) -> Result<Slug, Failure> {
    if let Some(name) = &arguments.name {
        return Ok(name.clone());
    }
    let last = arguments
        .dir
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    last.parse()
        .map_err(|_| Failure::usage("the directory's name makes no name for the node: give --name"))
}

/// Runs.
pub(super) async fn run(app: &App, arguments: RunArguments) -> Ending {
    let mut config = Config::load(arguments.config.as_deref(), &arguments.dir)?;
    if let Some(listen) = arguments.listen {
        config.node.listen = listen;
    }
    if let Some(listen) = arguments.metrics_listen {
        config.metrics.listen = listen.0;
    }
    if let Some(threads) = arguments.threads {
        config.node.threads = threads;
    }
    oam::logs(&config.log)?;
    let given = RunNode {
        directory: &arguments.dir,
        config,
        stop_with_stdin: arguments.stop_with_stdin,
    };
    Box::pin(node::run(given, app.output)).await
}

/// A node that has joined.
#[derive(Serialize)]
struct Joined {
    node: NodeId,
    name: Slug,
    organisation: OrganisationId,
    center: NodeId,
    build: String,
    directory: PathBuf,
}

impl Joined {
    fn new(node: NodeId, member: &Member, welcome: Welcome, directory: PathBuf) -> Self {
        Self {
            node,
            name: member.name.clone(),
            organisation: member.organisation.clone(),
            center: member.center.node,
            build: welcome.build,
            directory,
        }
    }
}

impl Shown for Joined {
    fn human(&self, paint: Paint, _: bool) -> String {
        let pairs = [
            ("Node", paint.name(self.node)),
            ("Name", self.name.to_string()),
            ("Organisation", self.organisation.to_string()),
            ("Center", format!("{}, build {}", self.center.short(), self.build)),
            ("Directory", self.directory.display().to_string()),
        ];
        format!("{}\n\n{}", paint.good("Joined."), facts(paint, &pairs))
    }
    fn names(&self) -> Vec<String> {
        vec![self.node.to_string()]
    }
}
