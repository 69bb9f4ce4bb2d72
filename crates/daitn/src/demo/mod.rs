//! `daitn demo`: a whole network on this machine, on real data, from nothing to served answers. Real processes, real
//! keys, real enrolment, real SQLite; nothing is canned.

mod baseline;
mod cast;
mod digits;
mod narrator;
mod network;
mod process;
mod queries;
pub(crate) mod reader;
mod summary;

use crate::{
    commands::{agent, all, job},
    context::Contexts,
    failure::{Ending, Exit, Failure},
    output::{Output, Shown},
    render::{count, section},
    roles::kept,
    shutdown::Stop,
    views::{Given, Hits, described, label_bars, total_ms},
};
use cast::{AGENT, FACILITATOR, MODEL, PROVIDERS};
use clap::Args;
use daitn_messages::{
    descriptor::Body,
    ids::{EntityId, EntityKind},
    job::{JobPhase, JobView},
    learning::{Architecture, LocalTraining, Metric, Task},
    operation::{Operation, SearchAnswer},
    plan::{Plan, Verdict},
    request::{DataFilter, Deployment, Hit, Search, Sla, TrainingParameters, TrainingRequest, Verification},
};
use digits::{Dealt, Digits, N_CLASSES};
use narrator::Narrator;
use network::Network;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use summary::{AgentAnswer, Summary};

/// Seed of the split, and of everything that is trained.
const SEED: u64 = 7;
/// What the verification units must find.
const TARGET: f64 = 0.85;
/// Rounds, or cycles of an itinerary.
const ROUNDS: u32 = 30;
/// So many digits the agent is asked to read: the first of the hold-outs, whatever they are.
const N_ASKED: usize = 3;
/// A registered agent must be found within this time.
const FOUND_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// The context with which the demo's network is reached after `--keep`, or this with a number where another network has
/// it.
const CONTEXT: &str = "demo";

/// How to run it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Keep the network up until Ctrl-C, reachable with the context that the summary names
    #[arg(long)]
    keep: bool,
    /// Where everything is kept; without it a temporary directory that is removed at the end
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, output: Output) -> Ending {
    let place = Place::new(arguments.dir.as_deref())?;
    let stop = Stop::new(false)?;
    let mut narrator = Narrator::new(output);
    narrator.title(
        "A network of six organisations trains, verifies, deploys and queries a model of handwritten digits",
        &format!(
            "everything is real and on this machine, under {}",
            place.path.display()
        ),
    );
    narrator.step("control center", "Start a control center with a gateway");
    let mut network = Network::begin(&place.path).await?;
    narrator.good(format!(
        "SQLite, fresh keys; REST, Open Inference Protocol and A2A at {}",
        network.url
    ));
    let context = kept::free_context(CONTEXT)?;
    let mut stopped = Box::pin(stop.wait());
    let ending = tokio::select! {
        told = Box::pin(tell(&mut network, &mut narrator, output, &context)) => told,
        () = &mut stopped => Err(Failure::new(daitn_messages::rejection::Code::Stopped, "the demo was interrupted")),
    };
    let ending = match ending {
        Ok(summary) if arguments.keep => {
            let summary = Summary {
                kept: true,
                ..summary
            };
            keep(&network, &context, &summary, output, stopped).await
        }
        Ok(summary) => {
            output.say("");
            output.show(&summary)
        }
        Err(failure) => Err(failure),
    };
    output.say("\nShutting everything down …");
    network.stop().await;
    place.clean(output);
    ending.map(|()| Exit::Done)
}

/// Where the demo's files are.
struct Place {
    path: PathBuf,
    temporary: bool,
}

impl Place {
    fn new(given: Option<&Path>) -> Result<Self, Failure> {
        let (path, temporary) = match given {
            Some(path) => (path.to_owned(), false),
            None => (
                std::env::temp_dir().join(format!("daitn-demo-{}", std::process::id())),
                true,
            ),
        };
        if path.exists() && path.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::file(&path, "is not empty").hint("Give an empty directory with --dir."));
        }
        crate::files::private_directory(&path)?;
        let path = std::fs::canonicalize(&path).map_err(|error| Failure::file(&path, error))?;
        Ok(Self { path, temporary })
    }

    fn clean(&self, output: Output) {
        if !self.temporary {
            output.say(format!("Data, state and logs stay in {}.", self.path.display()));
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            output.warn(format!("{} could not be removed: {error}", self.path.display()));
        }
    }
}

async fn keep(
    network: &Network,
    context: &str,
    summary: &Summary,
    output: Output,
    stopped: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut contexts = Contexts::load()?;
    contexts.contexts.insert(context.to_owned(), network.context());
    contexts.save()?;
    output.say("");
    output.show(summary)?;
    output.say(format!("\nThe network stays up at {} until Ctrl-C.", network.url));
    stopped.await;
    let mut contexts = Contexts::load()?;
    contexts.contexts.remove(context);
    contexts.save().map(drop)
}

/// The story.
async fn tell(
    network: &mut Network,
    narrator: &mut Narrator,
    output: Output,
    context: &str,
) -> Result<Summary, Failure> {
    let digits = Digits::read()?;
    let n_units = cast::FACILITIES
        .iter()
        .filter(|f| f.kind == EntityKind::Verifier)
        .count();
    let dealt = digits.deal(PROVIDERS.len(), n_units, SEED)?;
    join(network, narrator, &digits, &dealt).await?;
    describe(network, narrator).await?;
    refuse(network, narrator, &digits).await?;
    let plan = plan(network, narrator, &digits).await?;
    let trained = train(network, narrator, output, &plan).await?;
    let centralised_accuracy = compare(narrator, &digits, &dealt, &plan.request)?;
    let hold_out = dealt.hold_outs.concat();
    let agent = ask_agent(network, narrator, &digits, &hold_out[..N_ASKED]).await?;
    let (answered, killed) = query(network, narrator, &digits, &hold_out).await?;
    let n_nodes = network.n_nodes() + 1;
    let a = &trained.actual;
    Ok(Summary {
        accuracy: summary::accuracy(&trained),
        centralised_accuracy,
        nodes: n_nodes,
        plan_kind: plan.kind.as_str().to_owned(),
        strategy: plan.strategy.as_str().to_owned(),
        cycles: trained.cycles.len(),
        predicted_ms: [
            plan.prediction.ms_low,
            plan.prediction.ms,
            plan.prediction.ms_high,
        ],
        actual_ms: total_ms(a),
        phases: *a,
        predicted_bytes: plan.prediction.bytes,
        actual_bytes: a.bytes,
        sites_away: plan.sites.iter().filter(|site| site.compute.is_some()).count(),
        queries: answered.into(),
        killed,
        agent,
        total_ms: narrator.elapsed_ms(),
        steps_ms: narrator.end(),
        kept: false,
        look_further: vec![
            format!("daitn --context {context} job get {}", trained.id),
            format!("daitn --context {context} explain {}", plan.decision),
            format!("daitn --context {context} model get {MODEL}"),
        ],
        job: trained.id,
    })
}

async fn join(
    network: &mut Network,
    narrator: &mut Narrator,
    digits: &Digits,
    dealt: &Dealt,
) -> Result<(), Failure> {
    narrator.step(
        "joining",
        "Ten nodes of six organisations join, each with its own key and one-off token",
    );
    network.join(digits, dealt).await?;
    narrator.good(format!(
        "{} node processes; {} digits dealt to five sites by Dirichlet 0.1, {} kept back by two verification units",
        network.n_nodes(),
        count(dealt.sites.iter().map(Vec::len).sum::<usize>() as u64),
        count(dealt.hold_outs.iter().map(Vec::len).sum::<usize>() as u64),
    ));
    Ok(())
}

async fn describe(network: &Network, narrator: &mut Narrator) -> Result<(), Failure> {
    narrator.step(
        "describing",
        "What they describe: signed cards; no row, no file name, no exact count",
    );
    let found: SearchAnswer = network.client.ask(&Operation::Search(Search::default())).await?;
    narrator.tell(Hits(found.hits).human(narrator.paint(), false));
    let datasets: Vec<Hit> = all(&network.client, EntityKind::Dataset).await?;
    let forbidding = PROVIDERS
        .iter()
        .find(|p| p.forbids_commercial)
        .map(|p| p.organisation);
    let shown = datasets
        .iter()
        .find(|hit| forbidding == Some(hit.descriptor.organisation().as_str()));
    if let Some(Hit { descriptor, .. }) = shown
        && let Body::Dataset(dataset) = &descriptor.body
    {
        narrator.gap();
        let title = format!(
            "{}: {} ({})",
            descriptor.entity,
            descriptor.title,
            described(descriptor)
        );
        narrator.tell(section(
            narrator.paint(),
            &title,
            &label_bars(dataset).unwrap_or_default(),
        ));
    }
    Ok(())
}

async fn refuse(network: &Network, narrator: &mut Narrator, digits: &Digits) -> Result<(), Failure> {
    narrator.step(
        "refusing",
        "Ask for the impossible: a commercial model from all five sites",
    );
    let wanted = request(digits, "commercial", PROVIDERS.len())?;
    let verdict = job::verdict(&network.client, wanted).await?;
    if job::refusal(&verdict).is_none() {
        return Err(Failure::internal(
            "a commercial purpose was planned against a site's policy",
        ));
    }
    narrator.tell(short_refusal(narrator, &verdict));
    Ok(())
}

/// What stands against a request, without the nearest one in full.
fn short_refusal(narrator: &Narrator, verdict: &Verdict) -> String {
    let Verdict::Infeasible {
        binding,
        nearest,
        excluded,
        ..
    } = verdict
    else {
        return String::new();
    };
    let paint = narrator.paint();
    let mut lines: Vec<String> = binding
        .iter()
        .map(|c| format!("{} {}", paint.bad("✗ infeasible:"), c.explanation))
        .collect();
    for e in excluded {
        lines.push(format!("  {} {} [{}]", e.entity, e.reason, e.policies.join(", ")));
    }
    if let Some(nearest) = nearest {
        let near = format!(
            "purpose {}, at least {} sites",
            nearest.purpose, nearest.sla.sites_min
        );
        lines.push(format!("{} {near}", paint.dim("  nearest that would do:")));
    }
    lines.join("\n")
}

async fn plan(network: &Network, narrator: &mut Narrator, digits: &Digits) -> Result<Plan, Failure> {
    narrator.step(
        "planning",
        "Ask for a research model, and see the plan before anything moves",
    );
    let verdict = job::verdict(&network.client, request(digits, "research", 4)?).await?;
    if let Some(refusal) = job::refusal(&verdict) {
        return Err(refusal);
    }
    let Verdict::Feasible { plan } = verdict else {
        return Err(Failure::internal("a verdict is neither feasible nor infeasible"));
    };
    narrator.tell(Given::plan(Plan::clone(&plan)).human(narrator.paint(), false));
    Ok(*plan)
}

async fn train(
    network: &Network,
    narrator: &mut Narrator,
    output: Output,
    plan: &Plan,
) -> Result<JobView, Failure> {
    narrator.step(
        summary::JOB_STEP,
        "Train where the data is, verify on data that no trainer saw, deploy two replicas",
    );
    let begun = job::apply(&network.client, plan.id.clone(), None).await?;
    let ended = job::follow(output, &network.client, begun.id, "    ").await?;
    match (ended.phase, &ended.cause) {
        (JobPhase::Succeeded, _) => Ok(ended),
        (_, Some(cause)) => Err(cause.clone().into()),
        (phase, None) => Err(Failure::internal(format!(
            "the job ended as {phase:?} without a cause"
        ))),
    }
}

fn compare(
    narrator: &mut Narrator,
    digits: &Digits,
    dealt: &Dealt,
    request: &TrainingRequest,
) -> Result<f64, Failure> {
    narrator.step(
        "the baseline",
        "Compare: the same model with all data in one place, trained in this process",
    );
    let accuracy = baseline::centralised(digits, dealt, request)?;
    narrator.good(format!(
        "{} on the same hold-outs",
        crate::render::percent(accuracy)
    ));
    Ok(accuracy)
}

async fn ask_agent(
    network: &mut Network,
    narrator: &mut Narrator,
    digits: &Digits,
    records: &[usize],
) -> Result<Vec<AgentAnswer>, Failure> {
    narrator.step(
        "the agent",
        "Ask an A2A agent behind a node to read three digits; it asks the network's model",
    );
    queries::served(&network.client, MODEL).await?;
    network.agent().await?;
    let agent = EntityId {
        kind: EntityKind::Agent,
        organisation: parsed(FACILITATOR)?,
        name: parsed(AGENT)?,
    };
    found(network, &agent).await?;
    let mut answers = Vec::new();
    for record in records {
        let image = digits.image(*record);
        let pixels: Vec<String> = image.iter().map(|pixel| format!("{pixel:.0}")).collect();
        let question = format!("Which digit is this? {}", pixels.join(" "));
        let said = agent::call(&network.client, &agent, &question).await?;
        answers.push(AgentAnswer::of(said.text, digits.label(*record)));
    }
    let drawn: Vec<Vec<String>> = records
        .iter()
        .map(|record| digits::drawn(digits.image(*record)))
        .collect();
    for row in 0..drawn[0].len() {
        let side_by_side: Vec<&str> = drawn.iter().map(|image| image[row].as_str()).collect();
        narrator.tell(side_by_side.join("    "));
    }
    for AgentAnswer { said, digit, right } in &answers {
        let told = format!(
            "{agent} says: “{said}” It is {} {digit}",
            reader::article(&digit.to_string())
        );
        if *right {
            narrator.good(format!("{told}."));
        } else {
            narrator.refused(format!("{told}: here the model is wrong."));
        }
    }
    Ok(answers)
}

/// Waits until the agent is found by its skill.
async fn found(network: &Network, agent: &EntityId) -> Result<(), Failure> {
    let begun = Instant::now();
    let search = Search {
        skill: Some("read-digit".to_owned()),
        ..Search::default()
    };
    loop {
        let answer: SearchAnswer = network.client.ask(&Operation::Search(search.clone())).await?;
        if answer.hits.iter().any(|hit| &hit.descriptor.entity == agent) {
            return Ok(());
        }
        if begun.elapsed() > FOUND_TIMEOUT {
            return Err(Failure::timed_out(format!(
                "{agent} was registered and cannot be found by its skill"
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn query(
    network: &mut Network,
    narrator: &mut Narrator,
    digits: &Digits,
    records: &[usize],
) -> Result<(queries::Answered, String), Failure> {
    narrator.step(
        "queries",
        "Send 200 queries, and kill one of the two replicas in the middle",
    );
    let query = queries::served(&network.client, MODEL).await?;
    let (answered, killed) = queries::send(network, &query, MODEL, digits, records).await?;
    if answered.lost > 0 {
        narrator.refused(format!("{} queries were lost", answered.lost));
    } else {
        let right = answered.right;
        narrator.good(format!(
            "{} answers, none lost, {right} of them right; {killed} is gone",
            answered.answered
        ));
    }
    Ok((answered, killed))
}

fn request(digits: &Digits, purpose: &str, sites_min: usize) -> Result<TrainingRequest, Failure> {
    let request = TrainingRequest {
        model: parsed(MODEL)?,
        organisation: parsed(FACILITATOR)?,
        jurisdiction: "DE".to_owned(),
        purpose: purpose.to_owned(),
        architecture: Architecture::Mlp { hidden: vec![64, 32] },
        features: digits.features(),
        target: "label".to_owned(),
        task: Task::Classification {
            classes: (0..N_CLASSES).map(|digit| digit.to_string()).collect(),
        },
        scale: 1.0 / 16.0,
        offset: 0.0,
        data: DataFilter::default(),
        training: TrainingParameters {
            strategy: None,
            kind: None,
            rounds: ROUNDS,
            local: LocalTraining {
                epochs: 2,
                batch_size: 32,
                learning_rate: 0.1,
                seed: SEED,
            },
            quorum: None,
            round_deadline_ms: None,
            norm_clip: None,
        },
        protections: Vec::new(),
        sla: Sla {
            sites_min: u32::try_from(sites_min).unwrap_or(u32::MAX),
            ..Sla::default()
        },
        verification: Verification {
            metric: Metric::Accuracy,
            target: TARGET,
            required: 2,
            units: None,
        },
        deployment: Some(Deployment {
            replicas: 2,
            policy: String::new(),
        }),
    };
    request.validate()?;
    Ok(request)
}

/// A constant name, as an id.
fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    crate::commands::parsed(text)
}
