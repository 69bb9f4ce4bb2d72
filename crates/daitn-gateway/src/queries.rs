//! A query's way to a replica: choose, ask, and on a failure of the host go on to another, as long as nothing of an
//! answer has reached the client.

use crate::{
    decisions::{Attempt, Decision},
    gateway::Gateway,
    routing::{self, Pick},
    sessions::{Blame, Inferred, SessionFailure},
    stats::count,
    view::{Served, View},
};
use bytes::Bytes;
use daitn_messages::{
    ids::{DecisionId, EntityId, Slug},
    operation::Principal,
    rejection::{Code, Rejection},
    session::InferQuery,
    snapshot::UnservedModel,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// So many replicas are asked in turn.
const ATTEMPTS_MAX: usize = 4;
/// While others are left to ask, a replica gets this many times what was predicted, …
const PATIENCE_FACTOR: f64 = 20.0;
/// … at least this, …
const PATIENCE_MIN: Duration = Duration::from_millis(1000);
/// … at most this, …
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// … and a second for each so many bytes.
const PATIENCE_BYTES_PER_SECOND: usize = 1024 * 1024;

/// A query for a model that was found, with its input checked.
pub(crate) struct Query<'a> {
    pub(crate) view: &'a View,
    pub(crate) served: &'a Served,
    pub(crate) principal: &'a Principal,
    pub(crate) n_rows: u32,
    /// `n_rows` × number of features, little-endian f32.
    pub(crate) input: Bytes,
}

/// An answer or a refusal, and the decision that explains it.
pub(crate) struct Answered {
    pub(crate) decision: DecisionId,
    pub(crate) result: Result<Inferred, Rejection>,
}

/// Asks replicas until one answers.
pub(crate) async fn answer(gateway: &Gateway, query: &Query<'_>) -> Answered {
    let mut decision = decision(gateway, query);
    let result = attempts(gateway, query, &mut decision).await;
    decision.outcome = match &result {
        Ok(inferred) => format!("answered; {} µs in the host", inferred.host_micros),
        Err(rejection) => rejection.to_string(),
    };
    let id = decision.id.clone();
    gateway.decisions.keep(decision);
    Answered {
        result: result.map_err(|rejection| rejection.with_decision(id.clone())),
        decision: id,
    }
}

fn decision(gateway: &Gateway, query: &Query<'_>) -> Decision {
    let at = gateway.clock.wall();
    let model = &query.served.model.model;
    Decision {
        id: gateway.decision_id(at),
        at,
        organisation: query.principal.organisation.clone(),
        kind: "query",
        subject: format!("{}/{}", model.name, model.version),
        snapshot_version: query.view.version,
        snapshot_age_ms: at.since(query.view.made_at),
        n_candidates: query.served.replicas.len(),
        attempts: Vec::new(),
        outcome: String::new(),
    }
}

async fn attempts(
    gateway: &Gateway,
    query: &Query<'_>,
    decision: &mut Decision,
) -> Result<Inferred, Rejection> {
    let deadline = Instant::now() + gateway.limits().query_timeout;
    let replicas = &query.served.replicas;
    let bytes = (query.input.len() + output_bytes(query)) as u64;
    let mut tried = Vec::with_capacity(ATTEMPTS_MAX);
    let mut last: Option<SessionFailure> = None;
    while tried.len() < ATTEMPTS_MAX && Instant::now() < deadline {
        let now = gateway.clock.now();
        let Some(pick) = routing::pick(replicas, &tried, bytes, now, gateway.random.next()) else {
            break;
        };
        tried.push(pick.chosen.index);
        if tried.len() > 1 {
            count(&gateway.stats.failovers_total);
        }
        let is_last = tried.len() == ATTEMPTS_MAX.min(replicas.len());
        let left = deadline.saturating_duration_since(Instant::now());
        let within = if is_last {
            left
        } else {
            patience(&pick, query).min(left)
        };
        let started = Instant::now();
        let result = attempt(gateway, query, &pick, decision.id.clone(), within).await;
        decision
            .attempts
            .push(attempt_record(query, &pick, &result, started.elapsed()));
        match result {
            Ok(inferred) => return Ok(inferred),
            Err(failure) if failure.blame() == Blame::Query => return Err(failure.rejection(Code::BadTensor)),
            Err(failure) => last = Some(failure),
        }
    }
    Err(refusal(query, last.as_ref()))
}

/// How long to wait for a replica while another could be asked.
fn patience(pick: &Pick, query: &Query<'_>) -> Duration {
    let predicted = Duration::try_from_secs_f64(pick.chosen.predicted_seconds * PATIENCE_FACTOR);
    let bytes = query.input.len() + output_bytes(query);
    let moving = Duration::from_secs((bytes / PATIENCE_BYTES_PER_SECOND) as u64);
    predicted
        .unwrap_or(PATIENCE_MAX)
        .clamp(PATIENCE_MIN, PATIENCE_MAX)
        + moving
}

fn output_bytes(query: &Query<'_>) -> usize {
    query.n_rows as usize * query.served.model.spec.task.n_outputs() * size_of::<f32>()
}

async fn attempt(
    gateway: &Gateway,
    query: &Query<'_>,
    pick: &Pick,
    decision: DecisionId,
    within: Duration,
) -> Result<Inferred, SessionFailure> {
    let replica = &query.served.replicas[pick.chosen.index];
    let in_flight = replica.health.enter();
    let request = InferQuery {
        model: query.served.model.model.clone(),
        n_rows: query.n_rows,
        decision,
    };
    let started = Instant::now();
    let asked = gateway.sessions.infer(
        &replica.peer,
        request,
        query.input.clone(),
        output_bytes(query),
        within,
    );
    let result = asked.await;
    let now = gateway.clock.now();
    match &result {
        Ok(inferred) => in_flight.answered(now, started.elapsed(), inferred.in_flight, inferred.rtt),
        Err(failure) => match failure.blame() {
            Blame::Query | Blame::Host => drop(in_flight),
            Blame::Full => in_flight.full(now),
            Blame::Broken => {
                tracing::debug!(host = %replica.host, node = %replica.peer.node, "a replica failed: {failure}");
                if in_flight.failed(now) {
                    count(&gateway.stats.ejections_total);
                    tracing::warn!(host = %replica.host, "a replica fails repeatedly and is left out for a while: {failure}");
                }
            }
        },
    }
    result
}

fn attempt_record(
    query: &Query<'_>,
    pick: &Pick,
    result: &Result<Inferred, SessionFailure>,
    took: Duration,
) -> Attempt {
    let host = |index: usize| -> EntityId { query.served.replicas[index].host.clone() };
    Attempt {
        host: host(pick.chosen.index),
        chosen: Some(pick.chosen),
        other: pick.other.map(|other| (host(other.index), other)),
        outcome: match result {
            Ok(_) => "answered".to_owned(),
            Err(failure) => failure.to_string(),
        },
        took,
    }
}

fn refusal(query: &Query<'_>, last: Option<&SessionFailure>) -> Rejection {
    let model = &query.served.model.model;
    match last {
        Some(failure) if failure.blame() == Blame::Full => Rejection::new(
            Code::Overloaded,
            format!(
                "every replica of model `{}` version {} is full",
                model.name, model.version
            ),
        ),
        Some(failure) => Rejection::new(
            Code::ModelUnavailable,
            format!(
                "no replica of model `{}` version {} answered: {failure}",
                model.name, model.version
            ),
        ),
        None => Rejection::new(
            Code::ModelUnavailable,
            format!(
                "model `{}` version {} has no ready replica",
                model.name, model.version
            ),
        ),
    }
}

/// The version of a model that answers whoever asks, or why none does: who may query was decided by policy when the
/// snapshot was made.
pub(crate) fn served(
    view: &View,
    principal: &Principal,
    name: &str,
    version: Option<&str>,
) -> Result<Arc<Served>, Rejection> {
    let served = find(view, principal, name, version)?;
    served.model.access.check(principal, &served.entity())?;
    Ok(served)
}

/// A model that exists, and that nobody can query now.
fn not_served(unserved: &UnservedModel) -> Rejection {
    let name = &unserved.model.name;
    let message = format!("model `{name}` is not served now: {}", unserved.why);
    Rejection::new(Code::ModelUnavailable, message).with_hint(format!(
        "`daitn model get {name}` shows its deployments; `daitn model deploy {name}` makes one."
    ))
}

fn find(
    view: &View,
    principal: &Principal,
    name: &str,
    version: Option<&str>,
) -> Result<Arc<Served>, Rejection> {
    let unknown = || {
        let shown: String = name.chars().take(80).collect();
        Rejection::not_found("model", shown)
            .with_hint("POST /v2/repository/index lists the models that are served.")
    };
    let slug: Slug = name.parse().map_err(|_| unknown())?;
    let model = view.models.get(&slug).ok_or_else(|| {
        let unserved = view.unserved_named(principal, &slug);
        unserved.map_or_else(unknown, not_served)
    })?;
    let found = match version {
        None => model.default(),
        Some(version) => version
            .parse()
            .ok()
            .and_then(|version: u32| model.versions.get(&version)),
    };
    found.cloned().ok_or_else(|| {
        let versions: Vec<String> = model.versions.keys().map(ToString::to_string).collect();
        Rejection::not_found(
            "version of the model",
            version.unwrap_or_default().chars().take(20).collect::<String>(),
        )
        .with_hint(format!("Versions served: {}.", versions.join(", ")))
    })
}
