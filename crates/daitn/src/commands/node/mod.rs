//! `daitn node`: the nodes of the domain.

mod attach;
mod join;

use super::{App, confirmed};
use crate::{
    client::Client,
    failure::{Ending, Exit, Failure},
    output::Shown,
    paint::Paint,
    render::{age, bytes, date_time, facts},
    views::{Done, List, Row},
};
use clap::Subcommand;
use daitn_messages::{
    control::Link,
    ids::NodeId,
    operation::{NodeView, Operation},
    rejection::Rejection,
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this machine a node of a domain: makes its key, checks the center's, and joins
    Join(join::JoinArguments),
    /// Run a node until Ctrl-C
    Run(join::RunArguments),
    /// Attach an aggregator, verifier, model host or compute facility to a node on this machine
    Attach(Box<attach::AttachArguments>),
    /// Take a terminal back from a node on this machine
    Detach(attach::DetachArguments),
    /// List the domain's nodes
    List,
    /// One node
    Get {
        /// Its name, its key, or the beginning of its key
        node: String,
    },
    /// Give a node no new work
    Drain {
        /// Its name, its key, or the beginning of its key
        node: String,
        /// Give it work again
        #[arg(long)]
        undo: bool,
    },
    /// Throw a node out; what it attached is withdrawn
    Revoke {
        /// Its name, its key, or the beginning of its key
        node: String,
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
}

impl Command {
    /// Whether it goes on until it is stopped.
    pub(crate) fn is_long_lived(&self) -> bool {
        matches!(self, Self::Run(_))
    }
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    match command {
        Command::Join(arguments) => return join::join(app, arguments).await,
        Command::Run(arguments) => return join::run(app, arguments).await,
        Command::Attach(arguments) => return attach::attach(app, *arguments).await,
        Command::Detach(arguments) => return attach::detach(app, arguments).await,
        Command::List => {
            let nodes: Vec<NodeView> = app.client()?.ask(&Operation::ListNodes).await?;
            app.output.show(&List(nodes))?;
        }
        Command::Get { node } => {
            let client = app.client()?;
            let view: NodeView = client
                .ask(&Operation::GetNode(find(&client, &node).await?))
                .await?;
            app.output.show(&One(view))?;
        }
        Command::Drain { node, undo } => {
            let client = app.client()?;
            let id = find(&client, &node).await?;
            let _: serde_json::Value = client.ask(&Operation::DrainNode(id, !undo)).await?;
            app.output.show(&Done::new(
                if undo {
                    "gets work again"
                } else {
                    "gets no new work"
                },
                &id,
            ))?;
        }
        Command::Revoke { node, yes } => {
            confirmed(
                yes,
                &format!("throwing out {node} cannot be undone: to come back it has to join anew"),
            )?;
            let client = app.client()?;
            let id = find(&client, &node).await?;
            let _: serde_json::Value = client.ask(&Operation::RevokeNode(id)).await?;
            app.output.show(&Done::new("thrown out", &id))?;
        }
    }
    Ok(Exit::Done)
}

/// A node by its key, by its name, or by the beginning of its key, where only one has it.
async fn find(client: &Client, text: &str) -> Result<NodeId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let nodes: Vec<NodeView> = client.ask(&Operation::ListNodes).await?;
    let found: Vec<NodeId> = nodes
        .iter()
        .filter(|n| n.name == text || (text.len() >= 4 && n.node.to_string().starts_with(text)))
        .map(|n| n.node)
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Rejection::not_found("node", text)
            .with_hint("List them: daitn node list")
            .into()),
        several => Err(Failure::usage(format!(
            "`{text}` fits {} nodes: use the key",
            several.len()
        ))),
    }
}

/// By which way it is connected.
fn way(node: &NodeView) -> &'static str {
    match node.relayed {
        Some(true) => "relayed",
        Some(false) => "direct",
        None => "-",
    }
}

/// How it reaches others, as measured.
fn links(node: &NodeView) -> String {
    let line = |link: &Link| {
        let other = if link.from == node.node {
            link.to
        } else {
            link.from
        };
        let way = if link.relayed { "relayed" } else { "direct" };
        let rate = bytes(link.bytes_per_second);
        format!(
            "{} {way}, {:.1} ms, {rate}/s",
            other.short(),
            link.rtt_micros as f64 / 1000.0
        )
    };
    let lines: Vec<String> = node.links.iter().map(line).collect();
    if lines.is_empty() {
        "none measured".to_owned()
    } else {
        lines.join("\n")
    }
}

fn state(paint: Paint, node: &NodeView) -> String {
    match (node.revoked, node.online, node.draining) {
        (true, _, _) => paint.bad("thrown out"),
        (_, true, true) => paint.warn("draining"),
        (_, true, false) => paint.good("online"),
        (_, false, _) => paint.warn("offline"),
    }
}

impl Row for NodeView {
    const COLUMNS: &'static [&'static str] = &[
        "NODE",
        "NAME",
        "ORGANISATION",
        "STATE",
        "WAY",
        "ATTACHED",
        "SEEN",
        "BUILD",
    ];
    const EMPTY: &'static str =
        "No nodes. Make a token for the first: daitn token create --organisation NAME";

    fn name(&self) -> String {
        self.node.to_string()
    }
    fn cells(&self, paint: Paint, wide: bool) -> Vec<String> {
        let attached: Vec<String> = self
            .entities
            .iter()
            .map(|e| {
                if wide {
                    e.to_string()
                } else {
                    format!("{}:{}", e.kind, e.name)
                }
            })
            .collect();
        vec![
            paint.name(if wide {
                self.node.to_string()
            } else {
                self.node.short()
            }),
            self.name.clone(),
            self.organisation.to_string(),
            state(paint, self),
            way(self).to_owned(),
            attached.join(", "),
            age(self.last_seen, crate::commands::now()),
            self.build.clone(),
        ]
    }
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct One(NodeView);

impl Shown for One {
    fn human(&self, paint: Paint, _: bool) -> String {
        let node = &self.0;
        let attached: Vec<String> = node.entities.iter().map(ToString::to_string).collect();
        facts(
            paint,
            &[
                ("Node", paint.name(node.node)),
                ("Name", node.name.clone()),
                ("Organisation", node.organisation.to_string()),
                ("State", state(paint, node)),
                ("Way", way(node).to_owned()),
                (
                    "Attached",
                    if attached.is_empty() {
                        "nothing".to_owned()
                    } else {
                        attached.join("\n")
                    },
                ),
                ("Ways to", links(node)),
                ("Last heard", date_time(node.last_seen)),
                ("Build", node.build.clone()),
            ],
        )
    }
    fn names(&self) -> Vec<String> {
        vec![self.0.node.to_string()]
    }
}
