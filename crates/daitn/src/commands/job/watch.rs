//! Following a job: live events while the stream holds, and again from the newest view when it breaks.

use crate::{
    client::Client,
    failure::{Exit, Failure},
    output::Output,
    progress::Progress,
};
use daitn_messages::{
    ids::JobId,
    job::{JobEvent, JobView},
};
use std::time::Duration;

/// A stream that breaks this many times in a row, with nothing in between, is given up.
const N_BREAKS_MAX: u32 = 60;
/// Pause before the stream is opened again: the control center may be restarting.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows a job until it has ended; its last view.
pub(crate) async fn follow(
    output: Output,
    client: &Client,
    job: JobId,
    indent: &'static str,
) -> Result<JobView, Failure> {
    let mut progress = Progress::new(output, indent);
    let mut n_breaks = 0;
    loop {
        match stream(output, client, &job, &mut progress, &mut n_breaks).await {
            Ok(()) => {}
            Err(failure) if failure.exit == Exit::Connection && n_breaks < N_BREAKS_MAX => {
                if n_breaks == 0 {
                    output.warn(format!("{}: trying again", failure.rejection.message));
                }
            }
            Err(failure) => {
                progress.finish();
                return Err(failure);
            }
        }
        // The stream has ended or broken: what counts is the durable state.
        match super::get(client, job.clone()).await {
            Ok(view) if view.phase.is_terminal() => {
                progress.take(&JobEvent::View {
                    job: Box::new(view.clone()),
                });
                progress.finish();
                return Ok(view);
            }
            Ok(_) => {}
            Err(failure) if failure.exit == Exit::Connection && n_breaks < N_BREAKS_MAX => {}
            Err(failure) => return Err(failure),
        }
        n_breaks += 1;
        if n_breaks > N_BREAKS_MAX {
            return Err(Failure::unreachable("the job's events cannot be followed")
                .hint(format!("The job goes on. Look later: daitn job get {job}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn stream(
    output: Output,
    client: &Client,
    job: &JobId,
    progress: &mut Progress,
    n_breaks: &mut u32,
) -> Result<(), Failure> {
    let mut events = client.watch(job).await?;
    while let Some(event) = events.next().await? {
        *n_breaks = 0;
        output.event(&event)?;
        progress.take(&event);
        let ended = match &event {
            JobEvent::Phase { phase, .. } => phase.is_terminal(),
            JobEvent::View { job } => job.phase.is_terminal(),
            _ => false,
        };
        if ended {
            return Ok(());
        }
    }
    Ok(())
}
