//! Two nodes, each behind a NAT of its own that lets nothing in, and a control center outside: network namespaces with
//! real addresses, routes and translation. What the nodes have for each other goes over the domain's relay.
//!
//! ```text
//!   st-mary ── nat a ──┐                    ┌── nat b ── works
//!   192.168.71.2       10.71.1.2   10.71.2.2       192.168.72.2
//!                        └── center 10.71.1.1 ─┘
//! ```
//!
//! Needs root, `ip` and `nft`; without them it says so and is passed over.

use crate::{
    lab::{CENTER, Lab, accuracy, ran},
    net::{ADDRESS, Net, Ports},
};
use serde_json::{Value, json};

/// A lab whose center is at [`ADDRESS`] and whose nodes are behind their NATs.
fn lab(net: &Net) -> Lab {
    let mut lab = Lab::prepare();
    for (place, namespace) in [(CENTER, "center"), ("st-mary", "node-a"), ("works", "node-b")] {
        lab.namespaces.insert(place, net.name(namespace).to_owned());
    }
    lab.listen = "0.0.0.0:0";
    lab.up = ["--fabric-listen", &format!("{ADDRESS}:0")]
        .map(ToOwned::to_owned)
        .to_vec();
    lab
}

/// The same, with a relay at the center.
fn lab_with_relay(net: &Net) -> Lab {
    let mut lab = lab(net);
    let made = rcgen::generate_simple_self_signed([ADDRESS.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = lab.write("relay-ca.pem", &made.cert.pem());
    let key = lab.write("key.pem", &made.signing_key.serialize_pem());
    let relay = [
        "--relay",
        &format!("{ADDRESS}:8472"),
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    lab.up.extend(relay.map(ToOwned::to_owned));
    lab.start_center();
    lab
}

/// The demo's agent on the machine of the works, which reads no digit here.
fn start_agent(lab: &mut Lab) {
    let agent = lab.command_at(
        "works",
        &[
            "demo-agent",
            "--listen",
            "127.0.0.1:8700",
            "--gateway",
            "http://127.0.0.1:1",
            "--model",
            "none",
            "-o",
            "jsonl",
            "--stop-with-stdin",
        ],
    );
    lab.beside("agent", agent);
}

#[test]
fn a_gateway_reaches_an_agent_behind_nat_on_the_connection_that_its_node_made() {
    let Some(net) = Net::new(Ports::Drawn) else { return };
    let mut lab = lab(&net);
    lab.start_center();
    start_agent(&mut lab);
    lab.node("works").agent("reader", "http://127.0.0.1:8700").run();
    lab.online();
    let said = lab.json(&["agent", "call", "works/reader", "hello"]).data();
    assert!(said["text"].as_str().unwrap().contains("64 pixels"), "{said}");
}

#[test]
fn two_nodes_behind_nat_train_serve_and_talk_over_the_relay() {
    let Some(net) = Net::new(Ports::Drawn) else { return };
    let mut lab = lab_with_relay(&net);
    start_agent(&mut lab);
    lab.node("st-mary")
        .dataset(0..700, &[])
        .aggregator("combiner")
        .host("host")
        .run();
    lab.node("works")
        .dataset(700..1400, &[])
        .verifier("judge", 1400..1797)
        .agent("reader", "http://127.0.0.1:8700")
        .run();
    lab.online();

    // Weights and updates between the two, reports and orders with the center.
    let mut request = lab.request(5);
    request["training"]["round_deadline_ms"] = json!(20_000);
    let job = lab.ended(&lab.apply(&request));
    assert_eq!(job["phase"], "succeeded", "{job}");
    assert!(accuracy(&job) > 0.85);
    let left_out: Vec<&Value> = job["cycles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["left_out"])
        .collect();
    assert!(
        left_out.iter().all(|l| l.as_array().is_none_or(Vec::is_empty)),
        "{left_out:?}"
    );

    // A session of the gateway with an agent behind NAT.
    let said = lab.json(&["agent", "call", "works/reader", "hello"]).data();
    assert!(said["text"].as_str().unwrap().contains("64 pixels"), "{said}");

    // Each knows by which way it is connected: to the center directly, to each other by the relay.
    let nodes = lab.json(&["node", "list"]).data();
    for node in nodes.as_array().unwrap() {
        assert_eq!(node["relayed"], json!(false), "{node}");
    }
    let one = lab.json(&["node", "get", "works"]).data();
    let links = one["links"].as_array().unwrap();
    assert!(links.len() == 1 && links[0]["relayed"] == json!(true), "{one}");
}

#[test]
fn a_node_that_udp_does_not_reach_joins_and_runs_by_the_relay_alone() {
    let Some(net) = Net::new(Ports::Drawn) else { return };
    let mut lab = lab_with_relay(&net);
    net.sh("nat-a", "nft insert rule ip guard through meta l4proto udp drop");
    lab.node("st-mary").dataset(0..100, &[]).run();
    lab.online();
    let node = lab.json(&["node", "get", "st-mary"]).data();
    assert_eq!(node["relayed"], json!(true), "{node}");
    // Who is not enrolled and shows no token is turned away: the same way, another key, a token that is spent.
    let spent = lab.token("works", &["--uses", "1"]);
    ran(&mut lab.command_at(
        "st-mary",
        &[
            "node",
            "join",
            &spent,
            "--dir",
            "one",
            "--relay-ca",
            "relay-ca.pem",
        ],
    ))
    .ok();
    let again = ran(&mut lab.command_at(
        "st-mary",
        &[
            "node",
            "join",
            &spent,
            "--dir",
            "two",
            "--relay-ca",
            "relay-ca.pem",
            "-o",
            "json",
        ],
    ));
    assert_ne!(
        again.error()["code"],
        "E0202",
        "the center, which would have said so, was not reached"
    );
}
