//! `daitn job`: from a request to a verified model.

mod init;
mod watch;

pub(crate) use watch::follow;

use super::{App, confirmed, parsed};
use crate::{
    client::Client,
    failure::{Ending, Exit, Failure},
    files::read_text,
    views::{Done, Given, Job, List},
};
use clap::{Args, Subcommand};
use daitn_messages::{
    ids::{JobId, PlanId},
    job::{JobSummary, JobView},
    operation::Operation,
    plan::{Plan, Verdict},
    rejection::{Code, Rejection},
    request::TrainingRequest,
    written,
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a training request, from flags and the columns of a discovered dataset
    Init(Box<init::Arguments>),
    /// Ask whether and how the network can do it: a verdict and a plan; nothing moves
    Plan {
        /// The request, TOML or JSON, as `daitn job init` writes it
        file: PathBuf,
    },
    /// Begin the job of a plan
    Apply {
        /// The plan's id, as `daitn job plan` prints it
        plan: String,
        #[command(flatten)]
        submit: Submit,
    },
    /// Plan, show, apply and watch, in one go
    Run {
        /// The request, TOML or JSON, as `daitn job init` writes it
        file: PathBuf,
        #[command(flatten)]
        submit: Submit,
    },
    /// List jobs
    List,
    /// One job in full
    Get {
        /// The job's id: `daitn job list`
        job: String,
    },
    /// Follow a job until it ends
    Watch {
        /// The job's id: `daitn job list`
        job: String,
    },
    /// Stop a job
    Stop {
        /// The job's id: `daitn job list`
        job: String,
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
    /// Why a job's plan is as it is: the decision record
    Explain {
        /// The job's id: `daitn job list`
        job: String,
    },
}

/// How a job is submitted.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// A repeated key gives the job that the first one began, instead of another
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    match command {
        Command::Init(arguments) => init::run(app, *arguments).await,
        Command::Plan { file } => {
            let request = request(&file)?;
            let verdict = verdict(&app.client()?, request.clone()).await?;
            let refusal = refusal(&verdict);
            if refusal.is_none() || app.output.is_human() {
                app.output.show(&Given::answer(verdict, request))?;
            }
            refusal.map_or(Ok(Exit::Done), Err)
        }
        Command::Apply { plan, submit } => {
            let job = apply(&app.client()?, parsed(&plan)?, submit.idempotency_key).await?;
            if job.phase.is_terminal() {
                app.output.say(format!(
                    "The plan's job {} has ended already; plan again for another.",
                    job.id
                ));
                return ending(app, job);
            }
            app.output.say(format!("Follow it: daitn job watch {}", job.id));
            app.output.show(&Job(job))?;
            Ok(Exit::Done)
        }
        Command::Run { file, submit } => plan_and_run(app, &file, submit).await,
        Command::List => {
            let jobs: Vec<JobSummary> = app.client()?.ask(&Operation::ListJobs).await?;
            app.output.show(&List(jobs))?;
            Ok(Exit::Done)
        }
        Command::Get { job } => {
            app.output.show(&Job(get(&app.client()?, parsed(&job)?).await?))?;
            Ok(Exit::Done)
        }
        Command::Watch { job } => watch(app, &app.client()?, parsed(&job)?).await,
        Command::Stop { job, yes } => {
            let job: JobId = parsed(&job)?;
            confirmed(
                yes,
                &format!("stopping {job} cannot be undone: it would have to be planned again"),
            )?;
            let _: serde_json::Value = app.client()?.ask(&Operation::StopJob(job.clone())).await?;
            app.output.show(&Done::new("stopped", &job))?;
            Ok(Exit::Done)
        }
        Command::Explain { job } => {
            let client = app.client()?;
            let decision = get(&client, parsed(&job)?).await?.plan.decision;
            let record = client.ask(&Operation::Explain(decision)).await?;
            app.output.show(&crate::views::Decision(record))?;
            Ok(Exit::Done)
        }
    }
}

/// Reads a request: JSON where the name says so, TOML otherwise.
pub(crate) fn request(path: &Path) -> Result<TrainingRequest, Failure> {
    let text = read_text(path)?;
    let wrong = |error: &dyn std::fmt::Display| Failure::file(path, error);
    let request: TrainingRequest = if path.extension().is_some_and(|e| e == "json") {
        let given = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        written::read(&mut serde_json::Deserializer::from_str(&text), &given)
    } else {
        let given = toml::from_str(&text).map_err(|error| wrong(&error))?;
        let read = toml::Deserializer::parse(&text).map_err(|error| wrong(&error))?;
        written::read(read, &given)
    }
    .map_err(|misread| wrong(&misread))?;
    request.validate().map_err(|rejection| {
        let message = format!("{}: {}", path.display(), rejection.message);
        Failure::from(Rejection { message, ..rejection }).into_usage()
    })?;
    Ok(request)
}

/// Asks for a verdict.
pub(crate) async fn verdict(client: &Client, request: TrainingRequest) -> Result<Verdict, Failure> {
    client.ask(&Operation::Plan(Box::new(request))).await
}

/// Begins a plan's job.
pub(crate) async fn apply(client: &Client, plan: PlanId, key: Option<String>) -> Result<JobView, Failure> {
    client
        .ask(&Operation::Apply {
            plan,
            idempotency_key: key,
        })
        .await
}

/// One job.
pub(crate) async fn get(client: &Client, job: JobId) -> Result<JobView, Failure> {
    client.ask(&Operation::GetJob(job)).await
}

/// An infeasible verdict as a failure; none for a plan.
pub(crate) fn refusal(verdict: &Verdict) -> Option<Failure> {
    let Verdict::Infeasible {
        decision,
        binding,
        nearest,
        excluded,
    } = verdict
    else {
        return None;
    };
    let reasons: Vec<&str> = binding.iter().map(|c| c.explanation.as_str()).collect();
    let message = if reasons.is_empty() {
        "no plan meets the request".to_owned()
    } else {
        reasons.join(" ")
    };
    let mut policies: Vec<String> = excluded.iter().flat_map(|e| e.policies.iter().cloned()).collect();
    policies.sort_unstable();
    policies.dedup();
    let mut failure = Failure::new(Code::Infeasible, message);
    failure.rejection.policies = policies;
    failure.rejection.decision.clone_from(decision);
    if nearest.is_some() {
        failure =
            failure.hint("Change the request towards the nearest feasible one, shown above, and plan again.");
    }
    Some(failure.details(json!(verdict)))
}

async fn plan_and_run(app: &App, file: &Path, submit: Submit) -> Ending {
    let request = request(file)?;
    let client = app.client()?;
    let verdict = verdict(&client, request.clone()).await?;
    if let Some(refusal) = refusal(&verdict) {
        if app.output.is_human() {
            app.output.show(&Given::answer(verdict, request))?;
        }
        return Err(refusal);
    }
    let Verdict::Feasible { plan } = verdict else {
        return Err(Failure::internal("a verdict is neither feasible nor infeasible"));
    };
    let plan_id = show_plan(app, *plan);
    let job = apply(&client, plan_id, submit.idempotency_key).await?;
    app.output.say(format!("Job {}", job.id));
    watch(app, &client, job.id).await
}

/// While a job runs its plan is progress: it goes to standard error, and only for people.
fn show_plan(app: &App, plan: Plan) -> PlanId {
    let id = plan.id.clone();
    if app.output.is_human() {
        let view = Given::plan(plan);
        app.output.say(crate::output::Shown::human(
            &view,
            crate::paint::Paint::stderr(),
            false,
        ));
        app.output.say("");
    }
    id
}

async fn watch(app: &App, client: &Client, job: JobId) -> Ending {
    ending(app, follow(app.output, client, job, "").await?)
}

/// Shows a job that has ended; a failure where it did not succeed.
fn ending(app: &App, ended: JobView) -> Ending {
    let failure = ended
        .cause
        .clone()
        .filter(|_| ended.phase != daitn_messages::job::JobPhase::Succeeded);
    match failure {
        None => {
            app.output.show(&Job(ended))?;
            Ok(Exit::Done)
        }
        Some(cause) => {
            if app.output.is_human() {
                // The cause is the failure, which is told below: once is enough.
                let cause = None;
                app.output.show(&Job(JobView {
                    cause,
                    ..ended.clone()
                }))?;
            }
            Err(Failure {
                exit: Exit::Refused,
                ..Failure::from(cause)
            }
            .details(json!(ended)))
        }
    }
}
