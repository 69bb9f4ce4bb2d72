//! `daitn status`: the state of the domain in one look; with `--wait` also when it is not there yet.

use super::App;
use crate::{
    client::Client,
    failure::{Ending, Exit, Failure},
    measure::Span,
    output::Shown,
    paint::Paint,
    render::{count, counted, facts},
};
use clap::Args;
use daitn_messages::operation::{Operation, StatusView};
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether to wait.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Wait this long until the domain answers, and until what is asked for beside is there
    #[arg(long, value_name = "DURATION")]
    wait: Option<Span>,
    /// With --wait: until so many nodes are online
    #[arg(long, default_value_t = 0, requires = "wait", value_name = "N")]
    nodes: u64,
    /// With --wait: until so many entities are described
    #[arg(long, default_value_t = 0, requires = "wait", value_name = "N")]
    descriptors: u64,
}

/// Runs it.
pub(crate) async fn run(app: &App, arguments: &Arguments) -> Ending {
    let until = Instant::now() + arguments.wait.map_or(Duration::ZERO, |wait| wait.0);
    loop {
        let failure = match look(app).await {
            Ok(status)
                if status.nodes_online >= arguments.nodes && status.descriptors >= arguments.descriptors =>
            {
                app.output.show(&Status(status))?;
                return Ok(Exit::Done);
            }
            Ok(status) => Failure::timed_out(format!(
                "{} online in time, {} published",
                counted(status.nodes_online, "node"),
                counted(status.descriptors, "descriptor")
            ))
            .hint("See which are missing: daitn node list"),
            Err(failure) => failure,
        };
        // Without a context, or without a connection yet: `daitn up` may be starting this moment.
        let may_come = matches!(failure.exit, Exit::Connection | Exit::TimeOut | Exit::Usage);
        if !may_come || Instant::now() + PAUSE > until {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(app: &App) -> Result<StatusView, Failure> {
    let client: Client = app.client()?;
    client.ask(&Operation::Status).await
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Status(StatusView);

impl Shown for Status {
    fn human(&self, paint: Paint, wide: bool) -> String {
        let status = &self.0;
        let offline = status.nodes.saturating_sub(status.nodes_online);
        let health = match (status.nodes, offline) {
            (0, _) => paint.warn("has no nodes yet: daitn token create --organisation NAME"),
            (_, 0) => paint.good("is healthy: every node is online"),
            (_, n) => paint.warn(format!("misses {n} of its nodes: daitn node list")),
        };
        let center = if wide {
            status.center.to_string()
        } else {
            status.center.short()
        };
        let pairs = [
            (
                "Nodes",
                format!("{} online of {}", count(status.nodes_online), count(status.nodes)),
            ),
            ("Descriptors", count(status.descriptors)),
            (
                "Jobs",
                format!("{} active of {}", count(status.jobs_active), count(status.jobs)),
            ),
            ("Models served", count(status.models_served)),
            ("Log leaves", count(status.leaves)),
            ("Registry", format!("version {}", count(status.state_version))),
            ("Center", format!("{center}, build {}", status.build)),
        ];
        format!(
            "Domain {} {health}.\n\n{}",
            paint.name(&status.domain),
            facts(paint, &pairs)
        )
    }
    fn names(&self) -> Vec<String> {
        vec![self.0.domain.clone()]
    }
}
