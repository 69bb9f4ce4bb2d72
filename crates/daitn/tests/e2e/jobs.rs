//! Jobs, deployments and the processes themselves: submitting twice, plans that went stale, the same model twice, versions,
//! stopping, metrics, and leaving in order.

use crate::lab::{Lab, accuracy};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Rows of the third image.
pub(crate) const ROW: &str = "0,0,0,4,15,12,0,0,0,0,3,16,15,14,0,0,0,0,8,13,8,16,0,0,0,0,1,6,15,11,0,0,0,1,8,13,15,1,0,0,0,9,16,16,\
                   5,0,0,0,0,3,13,16,16,11,5,0,0,0,0,3,11,16,9,0";

/// GET from a loopback page, without a client library; status and body.
pub(crate) fn get(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text)
}

#[test]
fn the_same_request_gives_the_same_model_and_a_repeated_key_the_same_job() {
    let lab = Lab::start().with_sites(3);
    let request = lab.request(10);
    let weights = |ended: &Value| ended["cycles"].as_array().unwrap().last().unwrap()["global"].clone();
    let first = lab.ended(&lab.apply(&request));
    let second = lab.ended(&lab.apply(&request));
    assert_eq!(
        (&first["phase"], &second["phase"]),
        (&json!("succeeded"), &json!("succeeded"))
    );
    assert_eq!(weights(&first), weights(&second), "bit-identical");
    assert!((accuracy(&first) - accuracy(&second)).abs() < f64::EPSILON);
    assert_eq!(
        (&first["model"]["version"], &second["model"]["version"]),
        (&json!(1), &json!(2))
    );

    let file = lab.write("request.json", &request.to_string());
    let verdict = lab.json(&["job", "plan", file.to_str().unwrap()]).data();
    let plan = verdict["plan"]["id"].as_str().unwrap();
    let apply = || {
        lab.json(&["job", "apply", plan, "--idempotency-key", "once"])
            .data()["id"]
            .clone()
    };
    let job = apply();
    assert_eq!(apply(), job);
    lab.ended(job.as_str().unwrap());
    // Its job has ended: nothing begins, and who asks is told so.
    let again = lab.run(&["job", "apply", plan]).ok();
    let told = format!("job {} has ended already", job.as_str().unwrap());
    assert!(again.stderr.contains(&told), "{}", again.stderr);
    assert_eq!(apply(), job);
    assert_eq!(lab.json(&["job", "list"]).data().as_array().unwrap().len(), 3);

    assert_eq!(
        lab.json(&["model", "query", "digits", "--row", "1,2"]).code,
        2,
        "a row has 64 values"
    );
}

#[test]
fn a_plan_from_a_state_that_has_moved_is_stale() {
    let lab = Lab::start().with_sites(2);
    let file = lab.write("request.json", &lab.request(3).to_string());
    let verdict = lab.json(&["job", "plan", file.to_str().unwrap()]).data();
    // Its owners tell no label shares: what is reckoned with is shown, and that it is assumed.
    let shown = lab.run(&["job", "plan", file.to_str().unwrap()]).ok().stdout;
    let skew = verdict["plan"]["prediction"]["skew"].as_f64().unwrap();
    assert!(
        shown.contains(&format!("Label skew  {skew:.2} is reckoned with"))
            && shown.contains(&format!("{skew:.2} is assumed")),
        "{shown}"
    );
    lab.run(&["node", "revoke", "site-0", "--yes"]).ok();
    let refused = lab.json(&["job", "apply", verdict["plan"]["id"].as_str().unwrap()]);
    assert_eq!((refused.code, &refused.error()["code"]), (5, &json!("E0303")));
}

#[test]
fn a_job_is_stopped_and_says_so() {
    let lab = Lab::start().with_sites(2);
    let job = lab.apply(&lab.request(5_000));
    let mut events = lab.stream(&["job", "watch", &job]);
    events.until("a cycle", |event| event["event"] == "cycle");
    // What was actual is told when it has ended, not before.
    let told = |lab: &Lab| lab.run(&["job", "get", &job]).ok().stdout;
    let going = told(&lab);
    assert!(
        going.contains("Predicted\n") && !going.contains("actual"),
        "{going}"
    );
    lab.run(&["job", "stop", &job, "--yes"]).ok();
    let watched = lab.json(&["job", "watch", &job]);
    assert_eq!((watched.code, &watched.error()["code"]), (1, &json!("E0401")));
    assert_eq!(lab.json(&["job", "get", &job]).data()["phase"], "stopped");
    assert!(told(&lab).contains("Predicted and actual"));
}

#[test]
fn a_model_that_misses_its_target_is_not_served() {
    let lab = Lab::start().with_sites(2);
    let mut request = lab.request(1);
    request["verification"]["target"] = json!(0.999);
    let job = lab.apply(&request);
    let watched = lab.json(&["job", "watch", &job]);
    assert_eq!((watched.code, &watched.error()["code"]), (1, &json!("E0406")));
    // A plan is to be applied where it is asked for, and not where it is applied already.
    let file = lab.write("missed.json", &request.to_string());
    let file = file.to_str().unwrap();
    assert!(
        lab.run(&["job", "plan", file])
            .ok()
            .stdout
            .contains("daitn job apply plan-")
    );
    let run = lab.run(&["job", "run", file]);
    assert!(
        run.code == 1 && run.stderr.contains("Gates") && !run.stderr.contains("daitn job apply"),
        "{}",
        run.stderr
    );
    // People read the cause once: as the failure, and later in the job's record.
    let told = lab.run(&["job", "watch", &job]);
    assert!(!told.stdout.contains("Cause"), "{}", told.stdout);
    assert!(told.stderr.contains("E0406"), "{}", told.stderr);
    assert!(lab.run(&["job", "get", &job]).ok().stdout.contains("Cause"));
    // To apply its plan again fails as it did.
    let plan = lab.json(&["job", "get", &job]).data()["plan"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let again = lab.json(&["job", "apply", &plan]);
    assert_eq!((again.code, &again.error()["code"]), (1, &json!("E0406")));
    assert!(
        again.stderr.contains(&format!("job {job} has ended already")),
        "{}",
        again.stderr
    );
    assert_eq!(lab.json(&["model", "list"]).data(), json!([]));
    let refused = lab.json(&["model", "query", "digits", "--row", ROW]);
    assert_eq!(refused.code, 1);
}

/// What went wrong lies in the request, and the one who can change it is told so, once for all sites.
#[test]
fn a_training_that_diverges_says_what_to_change() {
    let lab = Lab::start().with_sites(2);
    let mut request = lab.request(2);
    request["architecture"] = json!({ "kind": "linear" });
    request["scale"] = json!(1e25);
    let job = lab.apply(&request);
    let watched = lab.json(&["job", "watch", &job]);
    let error = watched.error();
    assert_eq!((watched.code, &error["code"]), (1, &json!("E0409")), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("dataset:site-0/digits, dataset:site-1/digits: E0409"),
        "{message}"
    );
    assert!(
        error["hint"].as_str().unwrap().contains("learning_rate"),
        "{error}"
    );
}

#[test]
fn processes_show_their_metrics_and_leave_in_order() {
    let mut lab = Lab::start().with_sites(1);
    for (metrics, counts) in [
        (lab.center_ready()["metrics"].clone(), "daitn_center_events_total"),
        (
            lab.node_ready("site-0")["metrics"].clone(),
            "daitn_node_connected{} 1.0",
        ),
    ] {
        let url = metrics.as_str().unwrap();
        let (status, page) = get(url);
        assert!(status == 200 && page.contains(counts), "{page}");
        let (status, page) = get(&url.replace("/metrics", "/readyz"));
        assert!(
            status == 200 && page.contains("\"disk\"") && page.contains("\"control center\""),
            "{page}"
        );
    }
    assert_eq!(lab.stop_node("site-0"), 0);
    assert_eq!(lab.stop_center(), 0);
    // Everything that was acknowledged is there again.
    lab.start_center();
    assert_eq!(lab.json(&["node", "list"]).data().as_array().unwrap().len(), 4);
}
