//! `daitn model`: what was trained, where it comes from, where it runs, and what it answers.

use super::{App, confirmed, parsed};
use crate::{
    client::{Client, Endpoint, read, segment},
    failure::{Ending, Exit, Failure},
    inference::{Query, Rows},
    views::{Deployed, Done, List, Model, Models},
};
use clap::Subcommand;
use daitn_messages::{
    ids::{DeploymentId, Slug},
    job::DeploymentView,
    learning::ModelVersion,
    operation::{ModelView, Operation},
    rejection::{Code, Rejection},
};
use std::path::PathBuf;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List registered models
    List,
    /// A version of a model in full: where it comes from, what was found, where it runs
    Get {
        /// NAME, or NAME@VERSION; the newest version without one
        model: String,
    },
    /// List deployments
    Deployments,
    /// Deploy a registered model
    Deploy {
        /// NAME, or NAME@VERSION; the newest version without one
        model: String,
        /// On how many hosts
        #[arg(long, default_value_t = 1, value_name = "N")]
        replicas: u32,
    },
    /// Stop a deployment
    Stop {
        /// Its id
        deployment: String,
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
    /// Serve the version before the one that is served
    Rollback {
        /// The model's name
        model: Slug,
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
    /// Query a deployed model (Open Inference Protocol)
    Query {
        /// NAME, or NAME@VERSION; `organisation/NAME` and its full id do as well
        model: String,
        /// A row of feature values, separated by commas; may be given again
        #[arg(long, value_name = "VALUES", allow_hyphen_values = true)]
        row: Vec<String>,
        /// A CSV file with the model's feature columns
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    let client = app.client()?;
    match command {
        Command::List => app.output.show(&Models(models(&client).await?))?,
        Command::Get { model } => {
            let view = match name_and_version(&model)? {
                (name, None) => find(&client, &name).await?,
                (name, Some(version)) => {
                    let model = ModelVersion { name, version };
                    client.ask(&Operation::GetModel(model)).await?
                }
            };
            app.output.show(&Model(view))?;
        }
        Command::Deployments => {
            let deployments: Vec<DeploymentView> = client.ask(&Operation::ListDeployments).await?;
            app.output.show(&List(deployments))?;
        }
        Command::Deploy { model, replicas } => {
            let (model, version) = name_and_version(&model)?;
            let view: DeploymentView = client
                .ask(&Operation::Deploy {
                    model,
                    version,
                    replicas,
                })
                .await?;
            app.output
                .say(format!("Follow it: daitn model get {}", view.model.name));
            app.output.show(&Deployed(view))?;
        }
        Command::Stop { deployment, yes } => {
            let deployment: DeploymentId = parsed(&deployment)?;
            confirmed(
                yes,
                &format!("stopping {deployment} ends its answers until the model is deployed again"),
            )?;
            let _: serde_json::Value = client.ask(&Operation::StopDeployment(deployment.clone())).await?;
            app.output.show(&Done::new("stopped", &deployment))?;
        }
        Command::Rollback { model, yes } => {
            confirmed(
                yes,
                &format!("rolling back {model} changes at once which version answers"),
            )?;
            let view: DeploymentView = client.ask(&Operation::RollBack(model)).await?;
            app.output.say(format!(
                "Version {} is being placed; until it is ready the one before answers. Follow it: daitn model get {}",
                view.model.version, view.model.name
            ));
            app.output.show(&Deployed(view))?;
        }
        Command::Query { model, row, file } => query(app, &client, &model, &row, file).await?,
    }
    Ok(Exit::Done)
}

/// `digits` or `digits@3`.
fn name_and_version(text: &str) -> Result<(Slug, Option<u32>), Failure> {
    match text.split_once('@') {
        None => Ok((parsed(text)?, None)),
        Some((name, version)) => {
            let wrong = |_| Failure::usage(format!("`{version}` is not a version: write NAME@3"));
            Ok((parsed(name)?, Some(version.parse().map_err(wrong)?)))
        }
    }
}

/// Registered models with their deployments.
pub(crate) async fn models(client: &Client) -> Result<Vec<ModelView>, Failure> {
    client
        .rest(&Endpoint::new(reqwest::Method::GET, "/v1/models"))
        .await
}

async fn find(client: &Client, name: &Slug) -> Result<ModelView, Failure> {
    models(client)
        .await?
        .into_iter()
        .find(|view| &view.model.name == name)
        .ok_or_else(|| Rejection::not_found("model", name).into())
}

async fn query(
    app: &App,
    client: &Client,
    model: &str,
    rows: &[String],
    file: Option<PathBuf>,
) -> Result<(), Failure> {
    // A model's name is the domain's: whose it is need not be said.
    let bare = model.rsplit_once('/').map_or(model, |(_, name)| name);
    let (name, version) = name_and_version(bare)?;
    if rows.is_empty() && file.is_none() {
        return Err(Failure::usage(
            "there is nothing to ask: give --row VALUES, or --file FILE with the model's columns",
        )
        .hint(format!("What it takes: daitn model get {name}")));
    }
    let path = match version {
        None => format!("/v2/models/{}", segment(name.as_str())),
        Some(version) => format!("/v2/models/{}/versions/{version}", segment(name.as_str())),
    };
    let found = client
        .call(&Endpoint::new(reqwest::Method::GET, path.as_str()))
        .await;
    let found = found.map_err(|mut failure| {
        // The protocol has no field for a hint.
        if failure.rejection.code == Code::NotFound {
            failure.rejection.hint = Rejection::not_found("model", model).hint;
        }
        failure
    })?;
    let metadata: serde_json::Value = read(&found.body)?;
    let query = Query::of(&metadata)?;
    let rows = match file {
        Some(file) => Rows::from_csv(&file, query.columns()?)?,
        None => Rows::from_arguments(rows)?,
    };
    let (answer, decision) = client.post(&format!("{path}/infer"), &query.body(&rows)?).await?;
    let answers = query.read(&answer, decision)?;
    app.output.show(&answers)
}
