//! A job's events as a client reads them.

use crate::{
    lab::{Lab, PATIENCE, read_back},
    samples,
};
use daitn_messages::{
    job::{JobEvent, JobPhase},
    operation::Scope,
    units::UnixMillis,
};
use serde_json::{Value, json};

/// Reads server-sent events from a response as they come.
struct Reader {
    response: reqwest::Response,
    text: String,
}

/// One event.
#[derive(Debug, PartialEq)]
struct Event {
    id: String,
    kind: String,
    data: Value,
}

impl Reader {
    async fn open(lab: &Lab, last: Option<&str>) -> Self {
        let path = format!("/v1/jobs/{}/events", samples::job_id());
        let mut request = lab.get(&path, Scope::Read);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next event, or `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim_start_matches([':', ' ']).to_owned())
                };
                let Some(data) = field("data") else { continue };
                let data = serde_json::from_str(&data).unwrap();
                return Some(Event {
                    id: field("id").unwrap(),
                    kind: field("event").unwrap(),
                    data,
                });
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .unwrap()
                .unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

fn cycle(n: u32) -> JobEvent {
    JobEvent::Cycle {
        cycle: samples::cycle(n),
    }
}

#[tokio::test]
async fn a_watcher_sees_the_job_and_then_what_happens_until_its_end() {
    let lab = Lab::start().await;
    let mut reader = Reader::open(&lab, None).await;
    let first = reader.next().await.unwrap();
    assert_eq!(
        (first.kind.as_str(), &first.data["terminal"]),
        ("view", &json!(false))
    );
    assert_eq!(first.data["job"], read_back(&samples::job(JobPhase::Training, 1)));
    lab.control.events.send(cycle(1)).unwrap();
    lab.control
        .events
        .send(JobEvent::Phase {
            phase: JobPhase::Verifying,
            at: UnixMillis(15),
        })
        .unwrap();
    lab.control
        .events
        .send(JobEvent::Phase {
            phase: JobPhase::NotVerified,
            at: UnixMillis(16),
        })
        .unwrap();
    let second = reader.next().await.unwrap();
    assert_eq!(
        (second.kind.as_str(), &second.data["cycle"]["cycle"]),
        ("cycle", &json!(1))
    );
    // A client that knows the vocabulary reads an event as what it is.
    let event: JobEvent = serde_json::from_value(second.data.clone()).unwrap();
    assert_eq!(event, cycle(1));
    let third = reader.next().await.unwrap();
    assert_eq!(
        (&third.data["phase"], &third.data["terminal"]),
        (&json!("verifying"), &json!(false))
    );
    let last = reader.next().await.unwrap();
    assert_eq!(
        (&last.data["phase"], &last.data["terminal"]),
        (&json!("not-verified"), &json!(true))
    );
    assert_eq!(reader.next().await, None);
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked() {
    let lab = Lab::start().await;
    let mut reader = Reader::open(&lab, None).await;
    reader.next().await.unwrap();
    lab.control.snapshots.send_modify(|snapshot| {
        let mut without = daitn_messages::snapshot::Snapshot::clone(snapshot);
        without.keys.clear();
        *snapshot = std::sync::Arc::new(without);
    });
    assert_eq!(reader.next().await, None);
}

#[tokio::test]
async fn a_watcher_that_comes_back_gets_what_it_missed() {
    let lab = Lab::start().await;
    let mut reader = Reader::open(&lab, None).await;
    let known = reader.next().await.unwrap().id;
    drop(reader);
    *lab.control.job.lock().unwrap() = samples::job(JobPhase::Training, 3);
    let mut reader = Reader::open(&lab, Some(&known)).await;
    let missed = [reader.next().await.unwrap(), reader.next().await.unwrap()];
    assert_eq!(
        missed.each_ref().map(|e| e.data["cycle"]["cycle"].clone()),
        [json!(1), json!(2)]
    );
    // And from there on as it happens.
    lab.control.events.send(cycle(3)).unwrap();
    assert_eq!(reader.next().await.unwrap().data["cycle"]["cycle"], json!(3));
    // Ids rise without a gap: the third one read here is known as such elsewhere.
    *lab.control.job.lock().unwrap() = samples::job(JobPhase::Succeeded, 4);
    let mut again = Reader::open(&lab, Some(&missed[0].id)).await;
    let view = again.next().await.unwrap();
    assert_eq!(
        (view.kind.as_str(), &view.data["terminal"]),
        ("view", &json!(true))
    );
    assert_eq!(again.next().await, None);
    // Who has seen the end is told not to come again.
    let path = format!("/v1/jobs/{}/events", samples::job_id());
    let done = lab
        .get(&path, Scope::Read)
        .header("last-event-id", view.id)
        .send()
        .await
        .unwrap();
    assert_eq!(done.status(), 204);
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_still_sees_everything() {
    let lab = Lab::start().await;
    let mut reader = Reader::open(&lab, None).await;
    reader.next().await.unwrap();
    // More at once than the channel holds: whatever of them is lost there is in the job's record.
    *lab.control.job.lock().unwrap() = samples::job(JobPhase::Training, 101);
    for n in 1..=100 {
        lab.control.events.send(cycle(n)).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let event = reader.next().await.unwrap();
        assert_eq!(event.kind, "cycle");
        seen.push(event.data["cycle"]["cycle"].as_u64().unwrap());
    }
    assert_eq!(seen, (1..=100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_and_ends_with_the_gateway() {
    let limits = daitn_gateway::GatewayLimits {
        heartbeat: std::time::Duration::from_millis(20),
        ..Default::default()
    };
    let lab = Lab::start_within(limits).await;
    let mut reader = Reader::open(&lab, None).await;
    reader.next().await.unwrap();
    let chunk = tokio::time::timeout(PATIENCE, reader.response.chunk())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(chunk.starts_with(b":"), "{chunk:?}");
    assert_eq!(lab.gateway.stats().snapshot().streams_open, 1);
    let stats = lab.gateway.stats();
    tokio::time::timeout(PATIENCE, lab.gateway.shutdown())
        .await
        .unwrap();
    assert_eq!(reader.next().await, None);
    assert_eq!(
        (stats.snapshot().streams_open, stats.snapshot().connections_open),
        (0, 0)
    );
}

#[tokio::test]
async fn a_watcher_that_leaves_frees_its_place() {
    let limits = daitn_gateway::GatewayLimits {
        streams_max: 1,
        ..Default::default()
    };
    let lab = Lab::start_within(limits).await;
    let reader = Reader::open(&lab, None).await;
    let path = format!("/v1/jobs/{}/events", samples::job_id());
    let refused = lab.get(&path, Scope::Read).send().await.unwrap();
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers()["retry-after"].to_str().unwrap()
        ),
        (503, "1")
    );
    drop(reader);
    while lab.get(&path, Scope::Read).send().await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_job_that_may_not_be_seen_is_not_there() {
    let lab = Lab::start().await;
    let other = daitn_messages::ids::JobId::new(9, [9; 10]);
    let response = lab
        .get(&format!("/v1/jobs/{other}/events"), Scope::Read)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "E0104");
}
