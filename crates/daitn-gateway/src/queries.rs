//! A query's way to a replica: choose, ask, and on a failure of the host go on to another, as long as nothing of an
//! answer has reached the client. One that is silent for unusually long is not waited for alone: a second one is asked
//! beside it, and the first whole answer is the client's.

use crate::{
    decisions::{Attempt, Decision},
    gateway::Gateway,
    routing::{self, InFlight, Pick},
    sessions::{Blame, Inferred, SessionFailure},
    stats::count,
    view::{Model, Served, View},
};
use bytes::Bytes;
use daitn_messages::{
    ids::{DecisionId, EntityId, Slug},
    operation::Principal,
    rejection::{Code, Rejection},
    session::InferQuery,
    snapshot::UnservedModel,
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
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

/// A hedge that could not be is tried again after twice as long, so many times twice.
const DOUBLINGS_MAX: u32 = 10;

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
    let mut asking = Asking::new(gateway, query, decision.id.clone());
    let result = asking.answer().await;
    decision.attempts = asking.records();
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

/// A query and the replicas that were asked it.
struct Asking<'a> {
    gateway: &'a Gateway,
    query: &'a Query<'a>,
    decision: DecisionId,
    /// There and back.
    bytes: u64,
    deadline: Instant,
    asked: Vec<Asked>,
    /// The places in `asked` of those that have not ended, with what comes of them.
    running: FuturesUnordered<BoxFuture<'a, (usize, Result<Inferred, SessionFailure>)>>,
}

/// A replica that was asked.
struct Asked {
    pick: Pick,
    started: Instant,
    /// Asked beside another that had been silent for this long.
    beside: Option<Duration>,
    /// While it is waited for.
    in_flight: Option<InFlight>,
    answered: bool,
    outcome: String,
    took: Duration,
}

impl<'a> Asking<'a> {
    fn new(gateway: &'a Gateway, query: &'a Query<'a>, decision: DecisionId) -> Self {
        Self {
            gateway,
            query,
            decision,
            bytes: (query.input.len() + output_bytes(query)) as u64,
            deadline: Instant::now() + gateway.limits().query_timeout,
            asked: Vec::with_capacity(ATTEMPTS_MAX),
            running: FuturesUnordered::new(),
        }
    }

    async fn answer(&mut self) -> Result<Inferred, Rejection> {
        let begun = Instant::now();
        let pace = &self.query.served.pace;
        let wait = pace
            .begins(self.bytes)
            .filter(|_| self.query.served.replicas.len() > 1);
        // One hedge for a query; a replica that is asked in place of one that failed has the same time before it.
        let mut hedge_at = wait.map(|wait| begun + wait);
        let mut n_in_vain = 0;
        if !self.go_on() {
            return Err(refusal(self.query, None));
        }
        loop {
            tokio::select! {
                biased;
                next = self.running.next() => {
                    let Some((n, result)) = next else {
                        return Err(refusal(self.query, None));
                    };
                    let failure = match self.ended(n, result) {
                        Ok(inferred) => {
                            pace.answered(self.bytes, begun.elapsed());
                            return Ok(inferred);
                        }
                        Err(failure) => failure,
                    };
                    if failure.blame() == Blame::Query {
                        return Err(failure.rejection(Code::BadTensor));
                    }
                    // Where another is under way, that one is waited for.
                    if self.running.is_empty() {
                        if !self.go_on() {
                            return Err(refusal(self.query, Some(&failure)));
                        }
                        count(&self.gateway.stats.failovers_total);
                        hedge_at = hedge_at.and(wait).map(|wait| Instant::now() + wait);
                    }
                }
                () = until(hedge_at) => {
                    let is_asked = self.hedge(n_in_vain > 0);
                    n_in_vain += 1;
                    // Nobody was fit, or the share was used up: that is looked at again, later each time.
                    let later = wait.filter(|_| !is_asked).map(|wait| wait * (1 << n_in_vain.min(DOUBLINGS_MAX)));
                    hedge_at = later.map(|later| Instant::now() + later);
                }
            }
        }
    }

    /// Asks one that was not asked yet; false where there is none, or no time.
    fn go_on(&mut self) -> bool {
        let random = self.gateway.random.next();
        let now = self.gateway.clock.now();
        let pick = routing::pick(
            &self.query.served.replicas,
            &self.tried(),
            self.bytes,
            now,
            random,
        );
        let pick = pick.filter(|_| self.asked.len() < ATTEMPTS_MAX && Instant::now() < self.deadline);
        pick.map(|pick| self.ask(pick, None)).is_some()
    }

    /// Asks a second one beside the first, if there is a good one, or `any`, and the share of such queries is not used up.
    fn hedge(&mut self, any: bool) -> bool {
        let random = self.gateway.random.next();
        let now = self.gateway.clock.now();
        let served = self.query.served;
        let choose = if any { routing::pick } else { routing::pick_fit };
        let pick = choose(&served.replicas, &self.tried(), self.bytes, now, random);
        let waited = self.asked.last().map(|asked| asked.started.elapsed());
        let pick = pick.filter(|_| self.asked.len() < ATTEMPTS_MAX && served.pace.hedge());
        pick.map(|pick| {
            count(&self.gateway.stats.hedges_total);
            self.ask(pick, waited);
        })
        .is_some()
    }

    fn tried(&self) -> Vec<usize> {
        self.asked.iter().map(|asked| asked.pick.chosen.index).collect()
    }

    fn ask(&mut self, pick: Pick, beside: Option<Duration>) {
        let query = self.query;
        let n = self.asked.len();
        let left = self.deadline.saturating_duration_since(Instant::now());
        let is_last = n + 1 == ATTEMPTS_MAX.min(query.served.replicas.len());
        let within = if is_last {
            left
        } else {
            patience(&pick, query).min(left)
        };
        let replica = &query.served.replicas[pick.chosen.index];
        self.asked.push(Asked {
            pick,
            started: Instant::now(),
            beside,
            in_flight: Some(replica.health.enter()),
            answered: false,
            outcome: String::new(),
            took: Duration::ZERO,
        });
        let request = InferQuery {
            model: query.served.model.model.clone(),
            n_rows: query.n_rows,
            decision: self.decision.clone(),
        };
        let output_bytes = output_bytes(query);
        let sessions = &self.gateway.sessions;
        self.running.push(Box::pin(async move {
            let input = query.input.clone();
            let asked = sessions.infer(&replica.peer, request, input, output_bytes, within);
            (n, asked.await)
        }));
    }

    /// Settles what came of one, for the replica's health and for the record.
    fn ended(
        &mut self,
        n: usize,
        result: Result<Inferred, SessionFailure>,
    ) -> Result<Inferred, SessionFailure> {
        let asked = &mut self.asked[n];
        asked.took = asked.started.elapsed();
        asked.answered = result.is_ok();
        asked.outcome = match &result {
            Ok(_) => "answered".to_owned(),
            Err(failure) => failure.to_string(),
        };
        if let Some(in_flight) = asked.in_flight.take() {
            settle(self.gateway, self.query, asked, in_flight, &result);
        }
        result
    }

    /// What is kept of each replica that was asked. Those that had not ended are waited for no longer.
    fn records(&mut self) -> Vec<Attempt> {
        let answered = self.asked.iter().position(|asked| asked.answered);
        for n in 0..self.asked.len() {
            let asked = &mut self.asked[n];
            let Some(in_flight) = asked.in_flight.take() else {
                continue;
            };
            asked.took = asked.started.elapsed();
            "had not answered".clone_into(&mut asked.outcome);
            let was_outpaced = answered.is_some_and(|answered| n < answered);
            if was_outpaced && in_flight.outpaced(self.gateway.clock.now(), asked.took) {
                left_out(self.gateway, self.query, asked, "others answer in its place");
            }
        }
        let host = |index: usize| -> EntityId { self.query.served.replicas[index].host.clone() };
        let record = |asked: &Asked| Attempt {
            host: host(asked.pick.chosen.index),
            chosen: Some(asked.pick.chosen),
            other: asked.pick.other.map(|other| (host(other.index), other)),
            beside: asked.beside,
            answered: asked.answered,
            outcome: asked.outcome.clone(),
            took: asked.took,
        };
        self.asked.iter().map(record).collect()
    }
}

/// Waits until then, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
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

/// Tells a replica's health what came of a query.
fn settle(
    gateway: &Gateway,
    query: &Query<'_>,
    asked: &Asked,
    in_flight: InFlight,
    result: &Result<Inferred, SessionFailure>,
) {
    let now = gateway.clock.now();
    match result {
        Ok(inferred) => in_flight.answered(now, asked.took, inferred.in_flight, inferred.rtt),
        Err(failure) => match failure.blame() {
            Blame::Query | Blame::Host => drop(in_flight),
            Blame::Full => in_flight.full(now),
            Blame::Broken => {
                let replica = &query.served.replicas[asked.pick.chosen.index];
                tracing::debug!(host = %replica.host, node = %replica.peer.node, "a replica failed: {failure}");
                if in_flight.failed(now) {
                    left_out(gateway, query, asked, &failure.to_string());
                }
            }
        },
    }
}

/// A replica is out for a while.
fn left_out(gateway: &Gateway, query: &Query<'_>, asked: &Asked, why: &str) {
    count(&gateway.stats.ejections_total);
    let host = &query.served.replicas[asked.pick.chosen.index].host;
    tracing::warn!(%host, "a replica fails repeatedly and is left out for a while: {why}");
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
    found
        .cloned()
        .ok_or_else(|| not_this_version(model, principal, &slug, version.unwrap_or_default()))
}

/// Why a version of a model of which others are served does not answer: it waits to be deployed, or there is none such.
fn not_this_version(model: &Model, principal: &Principal, name: &Slug, version: &str) -> Rejection {
    // Who may not query the model is not told what there is of it.
    let known = model.default();
    let refused = known.and_then(|known| known.model.access.check(principal, &known.entity()).err());
    if let Some(refused) = refused {
        return refused;
    }
    let served: Vec<String> = model.versions.keys().map(ToString::to_string).collect();
    let served = served.join(", ");
    let newest = known.map_or(0, |known| known.model.newest);
    let asked = version.parse().ok();
    match asked.filter(|asked: &u32| (1..=newest).contains(asked)) {
        Some(asked) => Rejection::new(
            Code::ModelUnavailable,
            format!("version {asked} of `{name}` is registered but not served; served: {served}"),
        )
        .with_hint(format!(
            "`daitn model deploy {name}@{asked}` serves it; a query that names no version is answered now."
        )),
        None => {
            let shown: String = version.chars().take(20).collect();
            let message = format!("`{name}` has no version {shown}; served: {served}");
            Rejection::new(Code::NotFound, message).with_hint(format!("Look at it: daitn model get {name}"))
        }
    }
}
