//! `daitn job init`: writes a training request that can be planned as it is.

use super::App;
use crate::{
    commands::{entity, jurisdiction},
    failure::{Ending, Exit, Failure},
    measure::{Size, Span},
    output::Shown,
    paint::Paint,
};
use clap::Args;
use daitn_messages::{
    descriptor::Body,
    ids::{EntityId, EntityKind, OrganisationId, Slug},
    learning::{Architecture, LocalTraining, Metric, Strategy, Task},
    operation::{Operation, SearchAnswer},
    request::{
        DataFilter, Deployment, Hit, PlanKind, Search, Sla, TrainingParameters, TrainingRequest, Verification,
    },
};
use serde::Serialize;
use std::path::PathBuf;

/// What to ask for.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the model that comes out
    model: Slug,
    /// Write here instead of standard output; `.json` for JSON, TOML otherwise
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// Take features, target and classes from this dataset; without it, from the first whose target is --target
    #[arg(long, value_name = "DATASET")]
    like: Option<String>,
    /// The column to predict
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// Who asks
    #[arg(long, value_name = "NAME")]
    organisation: OrganisationId,
    /// The asker's jurisdiction, ISO 3166-1 alpha-2
    #[arg(long, value_name = "CODE", value_parser = jurisdiction)]
    jurisdiction: String,
    /// What for: policies decide by it
    #[arg(long, value_name = "WORD")]
    purpose: String,
    /// `linear`, `mlp:64-32` or `cnn:8x8x1:16-32:64` (height x width x channels : filters : hidden)
    #[arg(long, default_value = "mlp:64-32", value_parser = architecture)]
    architecture: Architecture,
    /// Inputs are (value - offset) * scale
    #[arg(long, default_value_t = 1.0, value_name = "NUMBER")]
    scale: f32,
    /// See --scale
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "NUMBER",
        allow_hyphen_values = true
    )]
    offset: f32,
    #[command(flatten)]
    training: Training,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    result: Outcome,
}

/// How sites train.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
struct Training {
    /// fed-avg, fed-prox, fed-avg-m, fed-adagrad, fed-adam, fed-yogi or scaffold; without it the network chooses
    #[arg(long, value_parser = strategy)]
    strategy: Option<Strategy>,
    /// rounds, itinerary or hybrid; without it the network chooses
    #[arg(long, value_parser = plan_kind)]
    kind: Option<PlanKind>,
    /// Rounds, or cycles of an itinerary
    #[arg(long, default_value_t = 50, value_name = "N")]
    rounds: u32,
    /// Passes over a site's data in each round
    #[arg(long, default_value_t = 2, value_name = "N")]
    epochs: u32,
    /// Examples in a step
    #[arg(long, default_value_t = 32, value_name = "N")]
    batch_size: u32,
    /// Rate of plain SGD
    #[arg(long, default_value_t = 0.1, value_name = "NUMBER")]
    learning_rate: f32,
    /// Seed of initial weights and shuffling
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u32,
    /// Scale updates down to this many times the median norm; promised to policies as `norm-clip`
    #[arg(long, value_name = "FACTOR")]
    norm_clip: Option<f32>,
    /// Sites that must answer in a round; without it two thirds
    #[arg(long, value_name = "N")]
    quorum: Option<u32>,
}

/// Bounds of the whole.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bounds")]
struct Bounds {
    /// At least this many sites
    #[arg(long, default_value_t = 1, value_name = "N")]
    sites_min: u32,
    /// At most this many sites
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    sites_max: u32,
    /// At least this many records in all
    #[arg(long, default_value_t = 0, value_name = "N")]
    records_min: u64,
    /// The whole job, from acceptance to registration
    #[arg(long, value_name = "DURATION")]
    deadline: Option<Span>,
    /// Bytes moved between nodes
    #[arg(long, value_name = "SIZE")]
    bytes_max: Option<Size>,
    /// Only data of these organisations
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    from: Vec<OrganisationId>,
}

/// How the result is judged and served.
#[derive(Debug, Args)]
#[command(next_help_heading = "Result")]
struct Outcome {
    /// accuracy, macro-f1, rmse, mae or r2; without it accuracy for classes and rmse for numbers
    #[arg(long, value_parser = metric)]
    metric: Option<Metric>,
    /// The value that verification units must find reached: at least this accuracy, macro-f1 or r2, without it 0.9; at
    /// most this rmse or mae, in the unit of what is predicted, which has no default
    #[arg(long, value_name = "NUMBER")]
    reach: Option<f64>,
    /// How many verification units must agree
    #[arg(long, default_value_t = 1, value_name = "N")]
    verifiers: u32,
    /// Deploy a verified model on this many hosts; 0 only registers it
    #[arg(long, default_value_t = 1, value_name = "N")]
    replicas: u32,
}

/// Runs it.
pub(crate) async fn run(app: &App, arguments: Arguments) -> Ending {
    let example = example(app, &arguments).await?;
    let Body::Dataset(dataset) = &example.descriptor.body else {
        return Err(Failure::usage(format!(
            "{} is not a dataset",
            example.descriptor.entity
        )));
    };
    let default_metric = match dataset.task {
        Task::Classification { .. } => Metric::Accuracy,
        Task::Regression => Metric::Rmse,
    };
    let (training, bounds, result) = (arguments.training, arguments.bounds, arguments.result);
    let metric = result.metric.unwrap_or(default_metric);
    // Before anything is asked of a metric that would be refused anyway.
    metric
        .check_task(&dataset.task, &dataset.target)
        .map_err(|rejection| Failure::from(rejection).into_usage())?;
    let request = TrainingRequest {
        model: arguments.model,
        organisation: arguments.organisation,
        jurisdiction: arguments.jurisdiction,
        purpose: arguments.purpose,
        architecture: arguments.architecture,
        features: dataset.features.clone(),
        target: dataset.target.clone(),
        task: dataset.task.clone(),
        scale: arguments.scale,
        offset: arguments.offset,
        data: DataFilter {
            organisations: bounds.from.clone(),
            ..DataFilter::default()
        },
        protections: training
            .norm_clip
            .map(|_| "norm-clip".to_owned())
            .into_iter()
            .collect(),
        training: parameters(&training),
        sla: sla(&bounds),
        verification: Verification {
            metric,
            target: reach(metric, result.reach, &dataset.target)?,
            required: result.verifiers,
            units: None,
        },
        deployment: (result.replicas > 0).then_some(Deployment {
            replicas: result.replicas,
            policy: String::new(),
        }),
    };
    request
        .validate()
        .map_err(|rejection| Failure::from(rejection).into_usage())?;
    write(app, request, arguments.file, arguments.force)
}

fn parameters(training: &Training) -> TrainingParameters {
    TrainingParameters {
        strategy: training.strategy,
        kind: training.kind,
        rounds: training.rounds,
        local: LocalTraining {
            epochs: training.epochs,
            batch_size: training.batch_size,
            learning_rate: training.learning_rate,
            seed: u64::from(training.seed),
        },
        quorum: training.quorum,
        round_deadline_ms: None,
        norm_clip: training.norm_clip,
    }
}

fn sla(bounds: &Bounds) -> Sla {
    Sla {
        deadline_ms: bounds.deadline.map(Span::ms),
        bytes_max: bounds.bytes_max.map(|size| size.0),
        cost_micros_max: None,
        sites_min: bounds.sites_min,
        sites_max: bounds.sites_max,
        records_min: bounds.records_min,
    }
}

/// The dataset whose columns are taken.
async fn example(app: &App, arguments: &Arguments) -> Result<Hit, Failure> {
    let client = app.client()?;
    if let Some(like) = &arguments.like {
        let hit: Hit = client
            .ask(&Operation::GetEntity(entity(like, EntityKind::Dataset)?))
            .await?;
        if let Body::Dataset(dataset) = &hit.descriptor.body {
            check_target(
                &hit.descriptor.entity,
                &dataset.target,
                arguments.target.as_deref(),
            )?;
        }
        return Ok(hit);
    }
    let search = Search {
        kind: Some(EntityKind::Dataset),
        target: arguments.target.clone(),
        limit: 1,
        ..Search::default()
    };
    let answer: SearchAnswer = client.ask(&Operation::Search(search)).await?;
    answer.hits.into_iter().next().ok_or_else(|| {
        Failure::from(daitn_messages::rejection::Rejection::not_found(
            "dataset with target",
            arguments.target.as_deref().unwrap_or("any"),
        ))
        .hint("See what there is: daitn data list")
    })
}

/// Refuses a target beside `--like` that is not the dataset's. An owner declares one, and data of another is not trained
/// on for it: a request for a column that is a feature there could not be planned.
fn check_target(like: &EntityId, offered: &str, target: Option<&str>) -> Result<(), Failure> {
    match target.filter(|target| *target != offered) {
        None => Ok(()),
        Some(target) => Err(Failure::usage(format!(
            "--target {target} does not fit --like {like}: its owner offers it to predict `{offered}`"
        ))
        .hint(format!(
            "Leave out --target, or leave out --like: the first dataset whose target is `{target}` is then taken."
        ))),
    }
}

/// The value to be reached. An error has the unit of what is predicted, so that no number fits all.
fn reach(metric: Metric, given: Option<f64>, target: &str) -> Result<f64, Failure> {
    /// Nine of ten right, or nine tenths of the variance explained.
    const SHARE: f64 = 0.9;
    match (given, metric) {
        (Some(given), _) => Ok(given),
        (None, Metric::Rmse | Metric::Mae) => Err(Failure::usage(format!(
            "which {} of `{target}` is good enough? Say --reach NUMBER, in the unit of `{target}`",
            metric.as_str()
        ))
        .hint(
            "Without a unit: --metric r2 --reach 0.8, which is the share of the variance that is explained.",
        )),
        (None, _) => Ok(SHARE),
    }
}

fn write(app: &App, request: TrainingRequest, file: Option<PathBuf>, force: bool) -> Ending {
    if let Some(path) = file.as_ref().filter(|path| !force && path.exists()) {
        let message = format!("{} is there already", path.display());
        return Err(
            Failure::usage(message).hint("Add --force to replace it, or write elsewhere with --file.")
        );
    }
    let written = Written { request, file };
    let json = written
        .file
        .as_ref()
        .is_some_and(|path| path.extension().is_some_and(|e| e == "json"));
    let text = if json {
        serde_json::to_string_pretty(&written.request)
            .map_err(|error| Failure::internal(error.to_string()))?
    } else {
        written.toml()?
    };
    match &written.file {
        Some(path) => {
            std::fs::write(path, format!("{}\n", text.trim_end()))
                .map_err(|error| Failure::io(path, &error))?;
            app.output.say(format!("Next: daitn job plan {}", path.display()));
            app.output.show(&written)?;
        }
        None => app.output.show_text(&written, text.trim_end())?,
    }
    Ok(Exit::Done)
}

/// What was written, and where.
#[derive(Serialize)]
struct Written {
    request: TrainingRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl Written {
    fn toml(&self) -> Result<String, Failure> {
        let body = toml::to_string(&self.request)
            .map_err(|error| Failure::internal(format!("the request cannot be written: {error}")))?;
        Ok(format!(
            "# A training request: what model is wanted, from what kind of data, within which bounds.\n\
             # Ask what it would take: daitn job plan FILE\n\n{body}"
        ))
    }
}

impl Shown for Written {
    fn human(&self, paint: Paint, _: bool) -> String {
        let path = self
            .file
            .as_ref()
            .map_or_else(String::new, |p| p.display().to_string());
        format!("{} written", paint.name(path))
    }
    fn names(&self) -> Vec<String> {
        self.file.iter().map(|p| p.display().to_string()).collect()
    }
}

fn widths(text: &str) -> Result<Vec<u32>, String> {
    text.split('-')
        .map(|w| w.parse().map_err(|_| format!("`{w}` is not a width")))
        .collect()
}

fn architecture(text: &str) -> Result<Architecture, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["linear"] => Ok(Architecture::Linear),
        ["mlp", hidden] => Ok(Architecture::Mlp {
            hidden: widths(hidden)?,
        }),
        ["cnn", image, filters, hidden] => {
            let sides = widths(&image.replace('x', "-"))?;
            let [height, width, channels] = sides[..] else {
                return Err("an image is HEIGHTxWIDTHxCHANNELS, for instance 8x8x1".to_owned());
            };
            let hidden = hidden.parse().map_err(|_| format!("`{hidden}` is not a width"))?;
            Ok(Architecture::Cnn {
                height,
                width,
                channels,
                filters: widths(filters)?,
                hidden,
            })
        }
        _ => Err("expected linear, mlp:64-32 or cnn:8x8x1:16-32:64".to_owned()),
    }
}

/// A strategy by name, with the parameters of its paper.
pub(crate) fn strategy(text: &str) -> Result<Strategy, String> {
    // 10^-1.5, the rate that Reddi 2021 (arXiv 2003.00295) finds to be safe, and its other defaults.
    let (eta, tau) = (0.031_622_776, 1e-3);
    Ok(match text {
        "fed-avg" => Strategy::FedAvg,
        "fed-prox" => Strategy::FedProx { mu: 0.1 },
        "fed-avg-m" => Strategy::FedAvgM { beta: 0.9, eta: 1.0 },
        "fed-adagrad" => Strategy::FedAdagrad { eta: 0.1, tau },
        "fed-adam" => Strategy::FedAdam {
            eta,
            beta1: 0.9,
            beta2: 0.99,
            tau,
        },
        "fed-yogi" => Strategy::FedYogi {
            eta,
            beta1: 0.9,
            beta2: 0.99,
            tau,
        },
        "scaffold" => Strategy::Scaffold,
        _ => {
            return Err(
                "expected fed-avg, fed-prox, fed-avg-m, fed-adagrad, fed-adam, fed-yogi or scaffold"
                    .to_owned(),
            );
        }
    })
}

fn plan_kind(text: &str) -> Result<PlanKind, String> {
    [PlanKind::Rounds, PlanKind::Itinerary, PlanKind::Hybrid]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| "expected rounds, itinerary or hybrid".to_owned())
}

fn metric(text: &str) -> Result<Metric, String> {
    [
        Metric::Accuracy,
        Metric::MacroF1,
        Metric::Rmse,
        Metric::Mae,
        Metric::R2,
    ]
    .into_iter()
    .find(|metric| metric.as_str() == text)
    .ok_or_else(|| "expected accuracy, macro-f1, rmse, mae or r2".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before, `--target` was passed over in silence where `--like` was given.
    #[test]
    fn another_target_than_the_datasets_is_refused() {
        let like: EntityId = "dataset:ward/stays".parse().unwrap();
        assert!(check_target(&like, "days", None).is_ok());
        assert!(check_target(&like, "days", Some("days")).is_ok());
        let refused = check_target(&like, "days", Some("age")).unwrap_err();
        assert_eq!(refused.exit as u8, 2);
        for part in ["age", "dataset:ward/stays", "days"] {
            assert!(refused.rejection.message.contains(part), "{refused:?}");
        }
    }

    #[test]
    fn an_error_has_no_default_bound() {
        assert_eq!(reach(Metric::Accuracy, None, "label").unwrap(), 0.9);
        assert_eq!(reach(Metric::Rmse, Some(4.5), "days").unwrap(), 4.5);
        for metric in [Metric::Rmse, Metric::Mae] {
            let asked = reach(metric, None, "days").unwrap_err();
            assert_eq!(asked.exit as u8, 2);
            assert!(
                asked.rejection.message.contains("--reach") && asked.rejection.message.contains("days"),
                "{asked:?}"
            );
        }
    }

    #[test]
    fn architectures_read() {
        assert_eq!(architecture("linear"), Ok(Architecture::Linear));
        assert_eq!(
            architecture("mlp:64-32"),
            Ok(Architecture::Mlp { hidden: vec![64, 32] })
        );
        let cnn = Architecture::Cnn {
            height: 8,
            width: 8,
            channels: 1,
            filters: vec![16, 32],
            hidden: 64,
        };
        assert_eq!(architecture("cnn:8x8x1:16-32:64"), Ok(cnn));
        for wrong in ["", "mlp", "mlp:a", "cnn:8x8:16:64", "rnn:3"] {
            assert!(architecture(wrong).is_err(), "{wrong}");
        }
    }
}
