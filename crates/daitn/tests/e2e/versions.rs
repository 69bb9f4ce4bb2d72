//! Versions of a model: which one answers, told by the answers themselves.

use crate::{
    jobs::ROW,
    lab::{Lab, until},
};
use serde_json::{Value, json};

/// What the model answers, whichever version it is.
fn answer(lab: &Lab, model: &str) -> Value {
    lab.json(&["model", "query", model, "--row", ROW]).data()
}

/// Waits until a version answers; every query until then must be answered too.
#[track_caller]
fn until_it_answers(lab: &Lab, version: &str) -> Value {
    let mut last = Value::Null;
    until(&format!("version {version} answers"), || {
        last = answer(lab, "digits");
        last["version"] == version
    });
    last["answers"].clone()
}

/// Trains a version that answers like no other: each has another seed.
fn train(lab: &Lab, seed: u64) -> Value {
    let mut request = lab.request(6);
    request["training"]["local"]["seed"] = json!(seed);
    request["verification"]["target"] = json!(0.5);
    let ended = lab.ended(&lab.apply(&request));
    assert_eq!(ended["phase"], "succeeded", "{ended}");
    until_it_answers(lab, &ended["model"]["version"].to_string())
}

#[test]
fn rolling_back_deploying_again_and_stopping_change_who_answers() {
    let lab = Lab::start().with_sites(2);
    let first = train(&lab, 1);
    let second = train(&lab, 2);
    assert_ne!(first, second, "two models that do not answer alike");
    let listed = |newest: &str, served: &str| {
        let table = lab.run(&["model", "list"]).ok().stdout;
        let mut lines = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let (header, row) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(header[..3], ["MODEL", "NEWEST", "SERVED"], "{table}");
        assert_eq!(row[..3], ["digits", newest, served], "{table}");
        // What was found is of the one that answers, which is said where it is not the newest.
        let of = format!("(version {served})");
        assert_eq!(table.contains(&of), newest != served, "{table}");
    };
    listed("2", "2");
    lab.json(&["model", "rollback", "digits", "--yes"]).data();
    assert_eq!(until_it_answers(&lab, "1"), first, "the older one's very answers");
    // The newest is still there, and is not the one that answers.
    listed("2", "1");
    let again = lab.json(&["model", "deploy", "digits@2"]).data();
    assert_eq!(until_it_answers(&lab, "2"), second);
    // Stopped, it answers no more, and is still registered.
    let up = |lab: &Lab| -> Vec<String> {
        let all = lab.json(&["model", "deployments"]).data();
        let up = all.as_array().unwrap().iter().filter(|d| d["phase"] != "stopped");
        up.map(|d| d["id"].as_str().unwrap().to_owned()).collect()
    };
    assert!(up(&lab).contains(&again["id"].as_str().unwrap().to_owned()));
    for deployment in up(&lab) {
        lab.run(&["model", "stop", &deployment, "--yes"]).ok();
    }
    until("nobody answers", || {
        lab.run(&["model", "query", "digits", "--row", ROW]).code == 1
    });
    assert_eq!(lab.json(&["model", "list"]).data()[0]["model"]["version"], 2);
    for (asked, version) in [("digits", 2), ("digits@1", 1), ("digits@2", 2)] {
        let shown = lab.json(&["model", "get", asked]).data();
        assert_eq!(shown["model"]["version"], version, "{asked}");
    }
    let missing = lab.run(&["model", "get", "digits@9", "-o", "json"]);
    assert_eq!(missing.error()["code"], "E0104");
    lab.json(&["model", "deploy", "digits@1"]).data();
    until("it answers again", || {
        lab.run(&["model", "query", "digits", "--row", ROW]).code == 0
    });
    assert_eq!(answer(&lab, "digits")["answers"], first);
}

/// Whoever may only query has all that querying takes, also from a file.
#[test]
fn a_key_for_queries_is_enough_to_query_a_file() {
    let lab = Lab::start().with_sites(2);
    let by_row = train(&lab, 1);
    let key = lab
        .run(&["key", "create", "--organisation", "works", "--scopes", "query"])
        .ok()
        .stdout;
    // The columns stand in another order, and there is one more that the model does not take.
    let names: Vec<String> = (0..64).rev().map(|i| format!("p{i}")).collect();
    let values: Vec<&str> = ROW.split(',').rev().map(str::trim).collect();
    let file = lab.write(
        "q.csv",
        &format!("note,{}\nx,{}\n", names.join(","), values.join(",")),
    );
    let queried = |file: &str| {
        let mut command = lab.command(&["model", "query", "digits", "--file", file, "-o", "json"]);
        crate::lab::ran(command.env("DAITN_API_KEY", key.trim()))
    };
    let by_file = queried(file.to_str().unwrap()).data();
    assert_eq!(by_file["answers"], by_row);
    let missing = queried("nowhere.csv");
    assert_eq!((missing.code, &missing.error()["code"]), (2, &json!("E0104")));
}
