//! `daitn status`: the state of the domain in one look.

use super::App;
use crate::{
    failure::{Ending, Exit},
    output::Shown,
    paint::Paint,
    render::{count, facts},
};
use daitn_messages::operation::{Operation, StatusView};

/// Runs it.
pub(crate) async fn run(app: &App) -> Ending {
    let client = app.client()?;
    let status: StatusView = client.ask(&Operation::Status).await?;
    app.output.show(&Status(status))?;
    Ok(Exit::Done)
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
            ("Log", format!("{} leaves", count(status.leaves))),
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
