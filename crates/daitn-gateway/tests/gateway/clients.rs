//! Unchanged clients that others wrote, against the gateway: tritonclient, a2a-sdk, openapi-spec-validator. They run
//! where `DAITN_PYTHON` names a Python that has them; scripts/check.sh sets it.

use crate::lab::{ALL_SCOPES, AgentNode, Host, Lab, secret, served};
use daitn_messages::operation::Scope;
use serde_json::Value;
use std::{path::PathBuf, process::Stdio, sync::atomic::Ordering::SeqCst};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A script in that Python; `None` where there is none.
fn script(path: &str) -> Option<Command> {
    let Some(python) = std::env::var_os("DAITN_PYTHON") else {
        println!("skipped: DAITN_PYTHON names no Python with the clients; scripts/check.sh sets it");
        return None;
    };
    let mut command = Command::new(python);
    command
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path))
        .kill_on_drop(true);
    Some(command)
}

async fn result(mut command: Command) -> Value {
    let output = command.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn tritonclient_queries_a_model() {
    let Some(mut command) = script("tests/python/oip_client.py") else {
        return;
    };
    let host = Host::start(60, 3, 2).await;
    let lab = Lab::start().await;
    lab.publish(
        vec![served(1, crate::samples::spec(3, &["no", "yes"]), &[&host])],
        Vec::new(),
    )
    .await;
    command
        .arg(lab.gateway.local_addr().to_string())
        .arg(secret(Scope::Query))
        .arg("digits");
    let found = result(command).await;
    assert_eq!(found["queries"], host.n_queries.load(SeqCst));
    for (name, why) in [
        ("narrow", "takes 3 features, the shape has 2"),
        ("wide", "must be FP32"),
        ("unknown", "E0104"),
        ("nobody", "E0701"),
    ] {
        assert!(found[name].as_str().unwrap().contains(why), "{name}: {found}");
    }
}

#[tokio::test]
async fn openapi_spec_validator_reads_the_document() {
    let Some(mut command) = script("../daitn/tests/python/openapi.py") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, daitn_gateway::document().to_string()).unwrap();
    command.arg(file);
    let found = result(command).await;
    assert_eq!(found["openapi"], "3.1.0");
    assert!(found["paths"].as_u64().unwrap() > 30, "{found}");
}

/// An agent made with a2a-sdk, and its URL.
async fn parrot(mut command: Command) -> (Child, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.next_line().await.unwrap().unwrap();
    (child, ready.strip_prefix("ready ").unwrap().to_owned())
}

#[tokio::test]
async fn a2a_sdk_calls_an_agent_through_the_gateway_as_it_calls_it_directly() {
    let (Some(agent), Some(mut direct), Some(mut through)) = (
        script("../daitn/tests/python/a2a_agent.py"),
        script("../daitn/tests/python/a2a_client.py"),
        script("../daitn/tests/python/a2a_client.py"),
    ) else {
        return;
    };
    let lab = Lab::start().await;
    let (_agent, origin) = parrot(agent).await;
    let card = lab
        .http
        .get(format!("{origin}/.well-known/agent-card.json"))
        .send()
        .await
        .unwrap();
    let node = AgentNode::start_in_front_of(61, &card.text().await.unwrap(), format!("{origin}/rpc")).await;
    lab.publish(Vec::new(), vec![node.agent.clone()]).await;
    direct.arg(&origin);
    through.arg(lab.url("/a2a/acme/helper")).arg(secret(Scope::Query));
    let (direct, through) = (result(direct).await, result(through).await);
    assert_eq!(through, direct);
    assert_eq!(through["stream"]["text"], "you said hello through the network");
    assert_eq!(node.called.lock().unwrap().len(), 2);
}

/// Checks of schemathesis that have no say here: the samples know no state, so nothing that is made can be found.
const CHECKS_EXCLUDED: &str = "use_after_free,ensure_resource_availability";
/// What has the right form may still be refused for what it says: 422. A tensor must fit its model, which no schema says.
const CONFIGURATION: &str = r#"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 401, 403, 404, 409, 422, 429, "5xx"]
[[operations]]
include-path-regex = "^/v2/models/.*/infer$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 413, 422]
[warnings]
enabled = false
"#;

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let Some(python) = std::env::var_os("DAITN_PYTHON") else {
        return;
    };
    let program = PathBuf::from(python).with_file_name("schemathesis");
    if !program.exists() {
        println!("skipped: the Python that DAITN_PYTHON names has no schemathesis");
        return;
    }
    let lab = Lab::start().await;
    *lab.control.job.lock().unwrap() = crate::samples::job(daitn_messages::job::JobPhase::Succeeded, 1);
    let host = Host::start(62, 3, 2).await;
    let node = AgentNode::start(63, &crate::agents::card()).await;
    let models = vec![served(1, crate::samples::spec(3, &["no", "yes"]), &[&host])];
    lab.publish(models, vec![node.agent.clone()]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("schemathesis.toml"), CONFIGURATION).unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(&folder)
        .args(["run", &lab.url("/v1/openapi.json"), "--checks", "all"]);
    command.args([
        "--exclude-checks",
        CHECKS_EXCLUDED,
        "--phases",
        "examples,coverage,fuzzing",
    ]);
    command.args([
        "--seed",
        "1",
        "--max-examples",
        "10",
        "--continue-on-failure",
        "--no-color",
    ]);
    command.args(["--header", &format!("Authorization: Bearer {ALL_SCOPES}")]);
    let output = command.kill_on_drop(true).output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(lab.gateway.stats().snapshot().panics_total, 0);
}
