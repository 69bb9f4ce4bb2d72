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
    job::{DeploymentPhase, DeploymentView},
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
        /// Its id: `daitn model deployments`; or NAME, or NAME@VERSION, where that has one deployment
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
        /// A CSV file with the model's feature columns, in the place of --row
        #[arg(long, value_name = "FILE", conflicts_with = "row")]
        file: Option<PathBuf>,
    },
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    let client = app.client()?;
    match command {
        Command::List => {
            let views = models(&client).await?;
            let served = if app.output.is_human() {
                served_instead(&client, &views).await?
            } else {
                Vec::new()
            };
            app.output.show(&Models { views, served })?;
        }
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
            let deployment = deployment_of(&client, &deployment).await?;
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

/// At most so many versions are looked up for a list; of the others, the newest's quality is told as the newest's.
const SERVED_LOOKED_UP_MAX: usize = 50;

/// The versions that answer in the place of the newest, which a list of models does not hold.
async fn served_instead(client: &Client, views: &[ModelView]) -> Result<Vec<ModelView>, Failure> {
    let other = |view: &ModelView| {
        let version = view.served.filter(|version| *version != view.model.version)?;
        let name = view.model.name.clone();
        Some(ModelVersion { name, version })
    };
    let mut served = Vec::new();
    for model in views.iter().filter_map(other).take(SERVED_LOOKED_UP_MAX) {
        served.push(client.ask(&Operation::GetModel(model)).await?);
    }
    Ok(served)
}

/// The deployment that is meant: by its id, or by a model of which one deployment has not ended.
async fn deployment_of(client: &Client, text: &str) -> Result<DeploymentId, Failure> {
    // What begins like an id is meant as one, also where it is mistyped.
    if text.starts_with("dep-") {
        return parsed(text);
    }
    let (name, version) = name_and_version(text)?;
    let deployments: Vec<DeploymentView> = client.ask(&Operation::ListDeployments).await?;
    the_only(deployments, text, &name, version)
}

fn the_only(
    mut deployments: Vec<DeploymentView>,
    text: &str,
    name: &Slug,
    version: Option<u32>,
) -> Result<DeploymentId, Failure> {
    deployments.retain(|deployment| {
        let has_ended = matches!(
            deployment.phase,
            DeploymentPhase::Stopped | DeploymentPhase::Failed
        );
        let is_asked = version.is_none_or(|version| deployment.model.version == version);
        !has_ended && is_asked && &deployment.model.name == name
    });
    match deployments.as_slice() {
        [only] => Ok(only.id.clone()),
        [] => Err(Failure::from(Rejection::not_found("active deployment of", text))
            .hint("`daitn model deployments` lists them, with those that have ended.")),
        several => {
            let each = |d: &DeploymentView| format!("{} (version {})", d.id, d.model.version);
            let ids: Vec<String> = several.iter().map(each).collect();
            let message = format!("`{text}` has {} deployments: {}", several.len(), ids.join(", "));
            Err(Failure::usage(message).hint("Say which by its id; `daitn model deployments` lists them."))
        }
    }
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
        match (failure.rejection.code, version) {
            (Code::NotFound, _) => failure.rejection.hint = Rejection::not_found("model", model).hint,
            (Code::ModelUnavailable, Some(_)) => {
                failure.rejection.hint = format!(
                    "`daitn model deploy {bare}` serves this version; `daitn model query {name}` asks the one that is \
                     served, if one is."
                );
            }
            _ => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(digit: u8, name: &str, version: u32, phase: &str) -> DeploymentView {
        serde_json::from_value(serde_json::json!({
            "id": DeploymentId::new(1, [digit; 10]), "model": { "name": name, "version": version },
            "replicas": 1, "phase": phase, "hosts": [], "cause": null,
        }))
        .unwrap()
    }

    #[test]
    fn a_model_with_one_deployment_names_it() {
        let all = || {
            vec![
                deployment(1, "los", 1, "stopped"),
                deployment(2, "los", 2, "ready"),
                deployment(3, "digits", 1, "ready"),
                deployment(4, "digits", 2, "placing"),
                deployment(5, "gone", 1, "failed"),
            ]
        };
        let asked = |text: &str| {
            let (name, version) = name_and_version(text).unwrap();
            the_only(all(), text, &name, version)
        };
        assert_eq!(asked("los").unwrap(), all()[1].id);
        assert_eq!(asked("digits@1").unwrap(), all()[2].id);
        let several = asked("digits").unwrap_err();
        assert_eq!(several.exit as u8, 2);
        for told in &all()[2..4] {
            assert!(
                several.rejection.message.contains(told.id.as_str()),
                "{several:?}"
            );
        }
        for ended in ["gone", "los@1", "nobody"] {
            let missing = asked(ended).unwrap_err().rejection;
            assert_eq!(missing.code, Code::NotFound, "{ended}");
            assert!(missing.hint.contains("daitn model deployments"), "{missing:?}");
        }
    }
}
