//! Joining: tokens that cannot be used are refused with their code, and `doctor` names what stands between.

use crate::lab::{Lab, Ran, attach};
use serde_json::json;

fn join(lab: &Lab, token: &str, directory: &str) -> Ran {
    lab.json(&[
        "node",
        "join",
        token,
        "--dir",
        directory,
        "--listen",
        "127.0.0.1:0",
    ])
}

#[test]
fn a_spent_revoked_expired_or_broken_token_is_refused() {
    let lab = Lab::start();
    let spent = lab.token("st-mary", &[]);
    join(&lab, &spent, "first").ok();
    let again = join(&lab, &spent, "second");
    assert_eq!((again.code, &again.error()["code"]), (3, &json!("E0202")));

    let revoked = lab.token("st-mary", &[]);
    let tokens = lab.json(&["token", "list"]).data();
    let open = tokens
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["uses_left"] == 1)
        .unwrap();
    lab.run(&["token", "revoke", open["token"].as_str().unwrap(), "--yes"])
        .ok();
    assert_eq!(join(&lab, &revoked, "third").error()["code"], "E0202");

    let expired = lab.token("st-mary", &["--valid", "1ms"]);
    assert_eq!(join(&lab, &expired, "fourth").error()["code"], "E0202");

    for refused in ["second", "third", "fourth"] {
        assert!(
            !lab.path(refused).exists(),
            "{refused}: a refused join leaves nothing behind"
        );
    }
    // But for what was there before.
    std::fs::create_dir(lab.path("sixth")).unwrap();
    lab.write("sixth/notes", "mine");
    let again = join(&lab, &spent, "sixth");
    assert_eq!(again.error()["code"], "E0202");
    let left = std::fs::read_dir(lab.path("sixth")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes"]);

    let broken = lab.write("broken", "daitn1-abcdefg");
    let found = join(&lab, &format!("@{}", broken.display()), "fifth");
    assert_eq!((found.code, &found.error()["code"]), (3, &json!("E0202")));
    assert_eq!(lab.json(&["node", "list"]).data().as_array().unwrap().len(), 1);
}

#[test]
fn a_terminal_that_the_token_does_not_allow_is_refused() {
    let mut lab = Lab::start();
    let token = lab.token("works", &["--terminals", "aggregator"]);
    join(&lab, &token, "works").ok();
    lab.run_node("works");
    lab.online();
    let host = lab.json(&attach("model-host", "host", "works"));
    assert_eq!((host.code, &host.error()["code"]), (1, &json!("E0205")));
    lab.run(&attach("aggregator", "combiner", "works")).ok();
    let entities = lab.json(&["search"]).data();
    assert_eq!(entities.as_array().unwrap().len(), 1);
}

#[test]
fn doctor_names_what_fails() {
    let mut lab = Lab::start();
    let token = lab.token("st-mary", &[]);
    let well = lab.json(&["doctor", "--against", &token]).data();
    let marks: Vec<&str> = well
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["mark"].as_str().unwrap())
        .collect();
    assert!(
        marks.iter().all(|mark| *mark != "FAIL") && marks.len() >= 4,
        "{well}"
    );
    let gateway = lab.json(&["doctor"]).data();
    assert!(
        gateway.as_array().unwrap().iter().all(|f| f["mark"] == "PASS"),
        "{gateway}"
    );

    lab.kill_center();
    let found = lab.run(&["doctor", "--against", &token, "-o", "json"]);
    assert_eq!(found.code, 1);
    let report: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    let failed: Vec<&serde_json::Value> = report["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["mark"] == "FAIL")
        .collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["check"], "UDP and pinned key");
    assert!(!failed[0]["mend"].as_str().unwrap().is_empty());

    // Joining looks by itself, and keeps the key that the center may have seen.
    let unreachable = join(&lab, &token, "st-mary");
    assert_eq!(
        (unreachable.code, &unreachable.error()["code"]),
        (3, &json!("E0206"))
    );
    assert!(
        unreachable.error()["details"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["mark"] == "FAIL")
    );
    let key = std::fs::read(lab.path("st-mary/node.key")).unwrap();
    lab.start_center();
    join(&lab, &token, "st-mary").ok();
    assert_eq!(std::fs::read(lab.path("st-mary/node.key")).unwrap(), key);
}

#[test]
fn a_revoked_node_ends_and_what_it_attached_is_withdrawn() {
    let mut lab = Lab::start();
    lab.node("st-mary").dataset(0..100, &[]).run();
    lab.online();
    assert_eq!(lab.json(&["data", "list"]).data().as_array().unwrap().len(), 1);
    lab.run(&["node", "revoke", "st-mary", "--yes"]).ok();
    assert_eq!(lab.json(&["data", "list"]).data().as_array().unwrap().len(), 0);
    assert_eq!(
        lab.wait_node("st-mary"),
        3,
        "the node says that it is not enrolled"
    );
}

/// What a token or a node is worth, the control center knows; asking spends nothing.
#[test]
fn doctor_asks_the_center_who_would_be_welcome() {
    let mut lab = Lab::start();
    let admission = |lab: &Lab, arguments: &[&str]| {
        let found = lab.run(&[&["doctor"], arguments, &["-o", "json"]].concat());
        let report: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
        let findings = report["data"].as_array().unwrap().clone();
        let of = |check: &str| findings.iter().find(|f| f["check"] == check).cloned();
        (found.code, of("admission").unwrap_or_else(|| panic!("{report}")))
    };
    let token = lab.token("st-mary", &[]);
    for _ in 0..2 {
        let (code, found) = admission(&lab, &["--against", &token]);
        assert_eq!((code, &found["mark"]), (0, &json!("PASS")), "{found}");
    }
    join(&lab, &token, "st-mary").ok();
    let (code, found) = admission(&lab, &["--against", &token]);
    assert!(
        code == 1 && found["found"].as_str().unwrap().contains("spent"),
        "{found}"
    );
    let withdrawn = lab.token("uni", &[]);
    let listed = lab.json(&["token", "list"]).data();
    let listed = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["organisation"] == "uni");
    let id = listed.unwrap()["token"].as_str().unwrap().to_owned();
    lab.run(&["token", "revoke", &id, "--yes"]).ok();
    let (code, found) = admission(&lab, &["--against", &withdrawn]);
    assert!(
        code == 1 && found["found"].as_str().unwrap().contains("revoked"),
        "{found}"
    );

    // A node that has joined, that runs, and that was thrown out.
    assert_eq!(admission(&lab, &["--node-dir", "st-mary"]).1["mark"], "PASS");
    lab.run_node("st-mary");
    lab.online();
    assert_eq!(admission(&lab, &["--node-dir", "st-mary"]).1["mark"], "PASS");
    lab.run(&["node", "revoke", "st-mary", "--yes"]).ok();
    lab.wait_node("st-mary");
    let (code, found) = admission(&lab, &["--node-dir", "st-mary"]);
    assert_eq!((code, &found["mark"]), (1, &json!("FAIL")), "{found}");
}
