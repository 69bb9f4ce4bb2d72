//! What owners attach to their nodes: what is refused leaves nothing behind, what could not be opened can be taken back,
//! and who obeys a new description from when.

use crate::lab::{self, Lab, until};
use serde_json::{Value, json};
use std::fs;

/// The files of a node's terminals.
fn files(lab: &Lab, node: &str) -> Vec<String> {
    let entries = fs::read_dir(lab.path(node).join("terminals")).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_refused_leaves_the_node_as_it_was() {
    let mut lab = Lab::start();
    let data = lab.write("holdout.csv", "w,x,y\n5,1,2\n6,2,\n7,3,4\n");
    let data = data.to_str().unwrap();
    let attach = |lab: &Lab, name: &str, more: &[&str]| {
        let verifier = [
            "node",
            "attach",
            "verifier",
            name,
            "--node-dir",
            "works",
            "--path",
            data,
        ];
        lab.json(&[&verifier[..], more].concat())
    };
    lab.node("works").aggregator("combiner");
    for running in [false, true] {
        if running {
            lab.run_node("works");
            lab.online();
        }
        let before = files(&lab, "works");
        // A column that is not there, a target with a gap, a law that is none.
        for (target, law, code, why) in [
            ("z", "DE", 2, "no column `z`"),
            ("y", "DE", 2, "no value"),
            ("x", "Germany", 2, "alpha-2"),
        ] {
            let refused = attach(&lab, "judge", &["--target", target, "--jurisdiction", law]);
            let error = refused.error();
            assert_eq!(refused.code, code, "{error}");
            assert!(error["message"].as_str().unwrap().contains(why), "{error}");
        }
        assert_eq!(files(&lab, "works"), before, "running: {running}");
        attach(
            &lab,
            if running { "second" } else { "first" },
            &["--target", "x", "--jurisdiction", "DE"],
        )
        .ok();
    }
    // The control center refuses a kind that the token does not allow: then too.
    let token = lab.token("st-mary", &["--terminals", "dataset"]);
    let join = [
        "node",
        "join",
        &token,
        "--dir",
        "st-mary",
        "--listen",
        "127.0.0.1:0",
    ];
    lab.run(&join).ok();
    lab.run_node("st-mary");
    lab.online();
    let refused = lab.json(&lab::attach("model-host", "host", "st-mary"));
    assert_eq!((refused.code, &refused.error()["code"]), (1, &json!("E0205")));
    assert!(files(&lab, "st-mary").is_empty());
}

#[test]
fn what_could_not_be_opened_can_be_taken_back() {
    let mut lab = Lab::start();
    let data = lab.write("holdout.csv", "x,y\n1,2\n2,5\n");
    let attach = [
        "node",
        "attach",
        "verifier",
        "judge",
        "--node-dir",
        "works",
        "--jurisdiction",
        "DE",
        "--target",
        "y",
        "--path",
        data.to_str().unwrap(),
    ];
    lab.node("works");
    lab.run(&attach).ok();
    fs::remove_file(&data).unwrap();
    lab.run_node("works");
    let terminals = &lab.node_ready("works")["terminals"];
    assert!(terminals[0]["problem"].is_object(), "{terminals}");
    let detach = [
        "node",
        "detach",
        "verifier",
        "judge",
        "--node-dir",
        "works",
        "--yes",
    ];
    let told = lab.json(&detach).data();
    assert_eq!(told["was_open"], false, "{told}");
    assert!(files(&lab, "works").is_empty());
    assert_eq!(lab.json(&detach).error()["code"], "E0104");
}

#[test]
fn what_is_published_while_the_center_is_away_is_told_when_it_is_back() {
    let mut lab = Lab::start();
    lab.node("st-mary").dataset(0..100, &[]).run();
    lab.online();
    lab.stop_center();
    let file = lab.path("st-mary-data.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replacen("title = ", "title = \"Other digits\"\n# title = ", 1),
    )
    .unwrap();
    let publish = ["data", "publish", file.to_str().unwrap(), "--node-dir", "st-mary"];
    let told = lab.json(&publish).data();
    assert_eq!(
        (&told["published"], &told["version"]),
        (&json!(false), &json!(2)),
        "{told}"
    );
    lab.start_center();
    until("the center has it", || {
        let known: Value = lab.json(&["data", "get", "st-mary/digits"]).data();
        known["descriptor"]["version"] == 2 && known["descriptor"]["title"] == "Other digits"
    });
}
