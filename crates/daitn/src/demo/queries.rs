//! Two hundred queries, and a replica that dies in the middle of them.

use super::{digits::Digits, network::Network};
use crate::{
    client::{Client, Endpoint, read},
    failure::Failure,
    inference::{Query, Rows},
};
use daitn_messages::{job::DeploymentView, operation::Operation};
use futures_util::{StreamExt, stream};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How many queries are sent.
pub(crate) const N_QUERIES: u32 = 200;
/// How many are under way at once.
const N_AT_ONCE: usize = 8;
/// After so many answers one replica is killed.
const KILL_AFTER: u32 = N_QUERIES / 2;
/// A deployed model must answer at the gateway within this time.
const SERVED_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two looks at whether it does.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of the queries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answered {
    /// With an answer.
    pub(crate) answered: u32,
    /// Without.
    pub(crate) lost: u32,
    /// With the right answer.
    pub(crate) right: u32,
    /// The median time of an answer, microseconds.
    pub(crate) median_micros: u64,
    /// The longest time of an answer, microseconds: the failover is in it.
    pub(crate) longest_micros: u64,
}

/// Waits until the gateway serves the model, and learns how it is queried.
pub(crate) async fn served(client: &Client, model: &str) -> Result<Query, Failure> {
    let begun = Instant::now();
    let ready = Endpoint::new(reqwest::Method::GET, format!("/v2/models/{model}/ready"));
    loop {
        match client.call(&ready).await {
            Ok(_) => break,
            Err(failure) if begun.elapsed() > SERVED_TIMEOUT => return Err(failure),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    let metadata = client
        .call(&Endpoint::new(
            reqwest::Method::GET,
            format!("/v2/models/{model}"),
        ))
        .await?;
    Query::of(&read(&metadata.body)?)
}

/// Sends the queries, and kills the node of a replica in the middle. The name of that node comes back too.
pub(crate) async fn send(
    network: &mut Network,
    query: &Query,
    model: &str,
    digits: &Digits,
    records: &[usize],
) -> Result<(Answered, String), Failure> {
    let victim = victim(&network.client, model).await?;
    let client = network.client.clone();
    let path = format!("/v2/models/{model}/infer");
    let (n_done, half) = (AtomicU32::new(0), Notify::new());
    let chosen = (0..N_QUERIES as usize).map(|i| records[i % records.len()]);
    let asking = stream::iter(chosen)
        .map(|record| {
            let (client, path, n_done, half) = (&client, path.as_str(), &n_done, &half);
            async move {
                let begun = Instant::now();
                let answer = one(client, path, query, digits.image(record)).await;
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                if n_done.fetch_add(1, Ordering::Relaxed) + 1 == KILL_AFTER {
                    half.notify_one();
                }
                (
                    answer.map(|digit| digit == digits.label(record).to_string()),
                    micros,
                )
            }
        })
        .buffer_unordered(N_AT_ONCE)
        .collect::<Vec<_>>();
    let killing = async {
        half.notified().await;
        network.kill(&victim).await
    };
    let (answers, killed) = tokio::join!(asking, killing);
    killed?;
    if let Some(Err(first)) = answers
        .iter()
        .map(|(answer, _)| answer)
        .find(|answer| answer.is_err())
    {
        tracing::warn!(failure = %first.rejection, "a query was lost");
    }
    Ok((counted(&answers), victim))
}

fn counted(answers: &[(Result<bool, Failure>, u64)]) -> Answered {
    let mut micros: Vec<u64> = answers.iter().map(|(_, micros)| *micros).collect();
    micros.sort_unstable();
    let n = |wanted: fn(&Result<bool, Failure>) -> bool| {
        u32::try_from(answers.iter().filter(|(answer, _)| wanted(answer)).count()).unwrap_or(u32::MAX)
    };
    Answered {
        answered: n(Result::is_ok),
        lost: n(Result::is_err),
        right: n(|answer| matches!(answer, Ok(true))),
        median_micros: micros.get(micros.len() / 2).copied().unwrap_or(0),
        longest_micros: micros.last().copied().unwrap_or(0),
    }
}

async fn one(client: &Client, path: &str, query: &Query, image: &[f32]) -> Result<String, Failure> {
    let (answer, _) = client
        .post(path, &query.body(&Rows::new(&[image.to_vec()])?)?)
        .await?;
    let answers = query.read(&answer, None)?;
    answers
        .answers()
        .first()
        .and_then(|answer| answer.class.clone())
        .ok_or_else(|| Failure::internal("the model named no class"))
}

/// The node of one of the model's replicas.
async fn victim(client: &Client, model: &str) -> Result<String, Failure> {
    let deployments: Vec<DeploymentView> = client.ask(&Operation::ListDeployments).await?;
    let of_model = deployments.iter().filter(|d| d.model.name.as_str() == model);
    let host = of_model.flat_map(|d| &d.hosts).find(|(_, _, ready)| *ready);
    // In the demo a host's terminal has the name of its node.
    host.map(|(entity, _, _)| entity.name.to_string())
        .ok_or_else(|| Failure::internal("no replica is ready"))
}
