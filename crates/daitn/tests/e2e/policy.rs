//! Policies: what the owner forbids is refused when planning, and by the owner's node itself.

use crate::lab::{Lab, rows};
use serde_json::json;

#[test]
fn a_forbidden_purpose_is_infeasible_with_the_determining_policy() {
    let mut lab = Lab::start();
    lab.node("st-mary")
        .dataset(0..300, &["--forbid-purpose", "commercial"])
        .run();
    let lab = lab.with_sites(2);
    let mut request = lab.request(3);
    request["purpose"] = json!("commercial");
    request["sla"] = json!({ "sites_min": 3 });
    let file = lab.write("commercial.json", &request.to_string());
    let refused = lab.json(&["job", "plan", file.to_str().unwrap()]);
    let error = refused.error();
    assert_eq!((refused.code, &error["code"]), (1, &json!("E0302")));
    assert!(
        error["policies"]
            .as_array()
            .unwrap()
            .contains(&json!("purpose-forbidden")),
        "{error}"
    );
    let excluded = &error["details"]["excluded"][0];
    assert_eq!(excluded["entity"], "dataset:st-mary/digits");
    assert_eq!(excluded["constraint"], "policy");

    let can = |purpose| {
        lab.json(&[
            "policy",
            "can",
            "works",
            "train",
            "dataset:st-mary/digits",
            "--purpose",
            purpose,
        ])
    };
    assert_eq!(can("research").data()["allowed"], true);
    let no = can("commercial");
    assert_eq!(no.code, 1);
    let answer: serde_json::Value = serde_json::from_str(&no.stdout).unwrap();
    assert_eq!(answer["data"]["determining"], json!(["purpose-forbidden"]));
}

/// The center's copy of the policy is of the moment of publishing; the node reads its own file before each use. Here
/// the owner changes their mind after the plan: the node refuses a validly signed order, and the job goes on without it.
#[test]
fn the_node_refuses_what_the_plan_allowed() {
    let mut lab = Lab::start();
    let policy = |rule: &str| format!("@id(\"owner\")\n{rule} (principal, action, resource);\n");
    let permit = policy("permit");
    let policy_file = lab.write("owner.cedar", &permit);
    let data = lab.write("owner.csv", &rows(0..300));
    let description = format!(
        "kind = \"dataset\"\nname = \"digits\"\ntitle = \"digits\"\njurisdiction = \"DE\"\npath = {:?}\n\
         target = \"label\"\nclasses = [\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]\n\
         license = \"CC-BY-4.0\"\ncreator = \"owner\"\ndate_published = \"1998-07-01\"\npolicy_file = {:?}\n",
        data.display().to_string(),
        policy_file.display().to_string()
    );
    let file = lab.write("owner.toml", &description);
    let token = lab.token("owner", &[]);
    lab.run(&[
        "node",
        "join",
        &token,
        "--dir",
        "owner",
        "--listen",
        "127.0.0.1:0",
    ])
    .ok();
    lab.run(&["data", "publish", file.to_str().unwrap(), "--node-dir", "owner"])
        .ok();
    lab.run_node("owner");
    let lab = lab.with_sites(2);
    let file = lab.write("request.json", &lab.request(10).to_string());
    let verdict = lab.json(&["job", "plan", file.to_str().unwrap()]).data();
    assert_eq!(verdict["plan"]["sites"].as_array().unwrap().len(), 3);
    lab.write("owner.cedar", &policy("forbid"));
    let job = lab
        .json(&["job", "apply", verdict["plan"]["id"].as_str().unwrap()])
        .data();
    let ended = lab.ended(job["id"].as_str().unwrap());
    assert_eq!(ended["phase"], "succeeded", "{ended}");
    let left_out = &ended["left_out"][0];
    assert_eq!(left_out["dataset"], "dataset:owner/digits", "{ended}");
    assert_eq!(left_out["reason"]["code"], "E0301");
    assert!(
        ended["cycles"]
            .as_array()
            .unwrap()
            .iter()
            .all(|cycle| cycle["n_sites"] == 2)
    );
}

#[test]
fn a_description_without_a_policy_or_with_a_broken_one_is_refused() {
    let lab = Lab::start();
    let data = lab.write("d.csv", &rows(0..50));
    let with = |policy: &str| {
        let text = format!(
            "kind = \"dataset\"\nname = \"d\"\ntitle = \"d\"\njurisdiction = \"DE\"\npath = {:?}\ntarget = \"label\"\n\
             license = \"x\"\ncreator = \"x\"\ndate_published = \"2020-01-01\"\npolicy = {policy:?}\n",
            data.display().to_string()
        );
        let file = lab.write("d.toml", &text);
        lab.json(&["data", "validate", file.to_str().unwrap()])
    };
    with("permit (principal, action, resource);").ok();
    for policy in [
        "",
        "permit (principal",
        "permit (principal, action, resource) when { context.nothing };",
    ] {
        let refused = with(policy);
        assert_eq!(
            (refused.code, &refused.error()["code"]),
            (2, &json!("E0304")),
            "{policy}"
        );
    }
}

/// A description is asked as its node will ask it; what no node or center ever asks is no question.
#[test]
fn a_description_is_asked_on_this_machine() {
    let lab = Lab::start();
    let data = lab.write("d.csv", &rows(0..50));
    lab.run(&[
        "data",
        "init",
        data.to_str().unwrap(),
        "--name",
        "d",
        "--target",
        "label",
        "--jurisdiction",
        "FR",
        "--creator",
        "owner",
        "--forbid-purpose",
        "marketing",
        "--cohort-min",
        "2",
    ])
    .ok();
    let ask = |more: &[&str]| {
        let question = ["policy", "test", "d.toml", "--who", "lab"];
        lab.json(&[&question[..], more].concat())
    };
    ask(&["--what", "owner/d", "--cohort", "2"]).ok();
    for refused in [
        &["--what", "owner/d", "--cohort", "1"][..],
        &["--what", "owner/d", "--cohort", "2", "--purpose", "marketing"],
    ] {
        assert_eq!(ask(refused).code, 1, "{refused:?}");
    }
    let verb = ask(&["--verb", "query", "--what", "dataset:owner/d"]);
    assert_eq!((verb.code, &verb.error()["code"]), (2, &json!("E0101")));
    assert_eq!(verb.error()["hint"], "Of a dataset, ask: train, discover.");
    assert_eq!(ask(&["--what", "owner/d", "--algorithm", "fed-avrg"]).code, 2);

    let text = std::fs::read_to_string(lab.path("d.toml")).unwrap();
    let wrong = text.replace(
        "permit (",
        "permit (principal, action == Action::\"look\", resource);\npermit (",
    );
    lab.write("d.toml", &wrong);
    let error = lab.json(&["policy", "test", "d.toml"]).error();
    assert_eq!(error["code"], "E0304");
    let hint = error["hint"].as_str().unwrap();
    assert!(
        hint.contains("train, evaluate, discover, serve or query"),
        "{hint}"
    );
}
