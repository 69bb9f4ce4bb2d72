//! Processes are killed in the middle of a job. It ends all the same, and as well as an undisturbed one.

use crate::lab::{Lab, accuracy};
use serde_json::Value;
use std::{sync::mpsc, time::Duration};

const ROUNDS: u32 = 40;
/// The killing happens after so many cycles.
const KILL_AFTER: u64 = 3;

/// What the undisturbed run reaches.
fn undisturbed(lab: &Lab) -> f64 {
    let ended = lab.ended(&lab.apply(&lab.request(ROUNDS)));
    assert_eq!(ended["phase"], "succeeded", "{ended}");
    accuracy(&ended)
}

/// Runs the job, kills after some cycles, and waits for the end.
fn disturbed(lab: &mut Lab, kill: impl FnOnce(&mut Lab, &Value)) -> Value {
    let job = lab.apply(&lab.request(ROUNDS));
    let mut events = lab.stream(&["job", "watch", &job]);
    let view = events.until("the job's view", |event| event["event"] == "view");
    events.until("the third cycle", |event| {
        event["event"] == "cycle" && event["cycle"]["cycle"] == KILL_AFTER
    });
    kill(lab, &view["job"]["plan"]);
    drop(events);
    lab.ended(&job)
}

fn check(ended: &Value, undisturbed: f64, n_lab_sites: u64) {
    assert_eq!(ended["phase"], "succeeded", "{ended}");
    let cycles: Vec<u64> = ended["cycles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["cycle"].as_u64().unwrap())
        .collect();
    assert_eq!(
        cycles,
        (0..u64::from(ROUNDS)).collect::<Vec<_>>(),
        "every cycle once"
    );
    for cycle in ended["cycles"].as_array().unwrap() {
        let (n_sites, n_examples) = (&cycle["n_sites"], &cycle["n_examples"]);
        // Every site has an equal share of 1,400 images: whoever were counted twice would show. The control center tells
        // counts to the nearest ten only.
        let share = 1400 / n_lab_sites;
        let exact = n_sites.as_u64().unwrap() * share;
        assert_eq!(n_examples.as_u64().unwrap(), (exact + 5) / 10 * 10, "{cycle}");
        assert!(n_sites.as_u64().unwrap() <= n_lab_sites);
    }
    let found = accuracy(ended);
    assert!(
        (found - undisturbed).abs() <= 0.02,
        "{found} against {undisturbed}"
    );
}

#[test]
fn a_site_is_killed() {
    let mut lab = Lab::start().with_sites(4);
    let expected = undisturbed(&lab);
    let ended = disturbed(&mut lab, |lab, _| lab.kill_node("site-1"));
    check(&ended, expected, 4);
    let last = ended["cycles"].as_array().unwrap().last().unwrap();
    assert_eq!(last["n_sites"], 3, "{last}");
    assert!(
        ended["left_out"]
            .as_array()
            .unwrap()
            .iter()
            .any(|l| l["dataset"] == "dataset:site-1/digits")
    );
}

#[test]
fn a_site_is_killed_and_comes_back() {
    let mut lab = Lab::start().with_sites(3);
    let expected = undisturbed(&lab);
    let ended = disturbed(&mut lab, |lab, _| {
        lab.kill_node("site-1");
        lab.run_node("site-1");
    });
    check(&ended, expected, 3);
}

#[test]
fn the_aggregator_is_killed_and_comes_back() {
    let mut lab = Lab::start().with_sites(3);
    let expected = undisturbed(&lab);
    let ended = disturbed(&mut lab, |lab, _| {
        lab.kill_node("works-combiner");
        lab.run_node("works-combiner");
    });
    check(&ended, expected, 3);
}

#[test]
fn the_aggregator_is_killed_and_a_spare_takes_over() {
    let mut lab = Lab::start();
    lab.node("works.spare").aggregator("spare").run();
    let mut lab = lab.with_sites(3);
    let expected = undisturbed(&lab);
    let ended = disturbed(&mut lab, |lab, plan| {
        let conductor = plan["aggregator"]["entity"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        lab.kill_node(&format!("works-{conductor}"));
    });
    assert!(
        ended["epoch"].as_u64().unwrap() > 1,
        "a new conductor has a new epoch: {ended}"
    );
    check(&ended, expected, 3);
}

#[test]
fn the_control_center_is_killed_and_comes_back() {
    let mut lab = Lab::start().with_sites(3);
    let expected = undisturbed(&lab);
    let ended = disturbed(&mut lab, |lab, _| {
        lab.kill_center();
        lab.start_center();
    });
    check(&ended, expected, 3);
}

/// The stages of a job at which somebody dies.
const STAGES: [&str; 4] = ["accepted", "training", "verifying", "deploying"];

/// A new job that has come to a stage.
fn job_at(lab: &Lab, stage: &str) -> String {
    // After a restart the nodes come back one by one, and only who is there is planned with.
    lab.online();
    let job = lab.apply(&lab.request(ROUNDS));
    if stage != "accepted" {
        let mut events = lab.stream(&["job", "watch", &job]);
        events.until(stage, |event| {
            event["phase"] == stage || event["job"]["phase"] == stage
        });
    }
    job
}

/// The center dies at every stage of a job, one after the other: what it has acknowledged is there again.
#[test]
fn the_control_center_is_killed_at_every_stage() {
    let mut lab = Lab::start().with_sites(2);
    let expected = undisturbed(&lab);
    for stage in STAGES {
        let job = job_at(&lab, stage);
        lab.kill_center();
        lab.start_center();
        check(&lab.ended(&job), expected, 2);
    }
}

/// Every node dies at every stage of a job, and comes back.
#[test]
fn every_node_is_killed_at_every_stage() {
    let mut lab = Lab::start().with_sites(2);
    let expected = undisturbed(&lab);
    for node in ["site-1", "works-combiner", "works-judge", "works-host"] {
        for stage in STAGES {
            let job = job_at(&lab, stage);
            lab.kill_node(node);
            lab.run_node(node);
            let ended = lab.ended(&job);
            println!("{node} at {stage}");
            check(&ended, expected, 2);
        }
    }
}

/// The center dies at drawn moments while jobs are accepted, trained, verified and deployed beside each other: each that
/// was acknowledged is there again and ends as if nothing had been.
#[test]
fn the_control_center_is_killed_at_random_points_in_a_loop() {
    const KILLS: u64 = 10;
    const LONGEST_MS: u64 = 1_500;
    let mut lab = Lab::start().with_sites(2);
    let expected = undisturbed(&lab);
    let mut drawn = 1_u64;
    let mut jobs = Vec::new();
    for _ in 0..KILLS {
        jobs.push(job_at(&lab, "accepted"));
        // Knuth's generator (TAOCP 3.3.4): the high bits are the random ones.
        drawn = drawn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis((drawn >> 33) % LONGEST_MS);
        killed_within(&mut lab, jobs.last().unwrap(), moment);
        lab.start_center();
    }
    let known = lab.json(&["job", "list"]).data();
    for job in &jobs {
        let listed = known
            .as_array()
            .unwrap()
            .iter()
            .filter(|line| line["id"] == **job);
        assert_eq!(listed.count(), 1, "{job} was acknowledged: {known}");
        check(&lab.ended(job), expected, 2);
    }
}

/// Kills the center at this moment, or when the job has ended if that is before.
fn killed_within(lab: &mut Lab, job: &str, moment: Duration) {
    let mut events = lab.stream(&["job", "watch", job]);
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        while events
            .next_line()
            .is_some_and(|event| event["phase"] != "succeeded")
        {}
        // Who waited may have killed the center already, and does not wait any more.
        let _ = ended.send(());
    });
    let _ = end.recv_timeout(moment);
    lab.kill_center();
}
