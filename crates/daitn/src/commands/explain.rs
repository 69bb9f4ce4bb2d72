//! `daitn explain`: opens the record of a decision.

use super::App;
use crate::failure::{Ending, Exit, Failure};
use clap::Args;
use daitn_messages::{ids::DecisionId, job::DecisionRecord, operation::Operation};

/// Which.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The decision's id, as plans, refusals and answers name it: `dec-…`
    decision: String,
}

/// Runs it.
pub(crate) async fn run(app: &App, arguments: &Arguments) -> Ending {
    let text = &arguments.decision;
    if text.starts_with("job-") {
        let message = format!("`{text}` is a job, not a decision");
        return Err(Failure::usage(message).hint(format!("Its plan's decision: daitn job explain {text}")));
    }
    let decision: DecisionId = super::parsed(text)?;
    let record: DecisionRecord = app.client()?.ask(&Operation::Explain(decision)).await?;
    app.output.show(&crate::views::Decision(record))?;
    Ok(Exit::Done)
}
