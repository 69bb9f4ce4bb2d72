//! Whatever bytes come in: every decoder answers with a value or a typed rejection, never a panic, and a value that
//! decodes encodes to something that decodes to the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daitn_messages::{
    control::{CenterMessage, Hello, JoinToken, NodeMessage, NodeReply},
    descriptor::Descriptor,
    encoding::{decode, encode},
    ids::{ArtifactId, EntityId, NodeId},
    leaf::Leaf,
    learning::{Architecture, LocalTraining, ModelSpec, Task},
    limits,
    order::{ServeOrder, WorkOrder},
    plan::Verdict,
    receipt::Receipt,
    request::TrainingRequest,
    session::{ArtifactRef, InferQuery, Peer, SessionReply, SessionRequest, TrainStep},
    signed::Signed,
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

fn try_decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        let again = encode(&value);
        let twice = encode(&decode::<T>(&again).expect("what we encode decodes"));
        assert_eq!(again, twice);
    }
}

fn every_decoder(bytes: &[u8]) {
    try_decode::<Hello>(bytes);
    try_decode::<NodeMessage>(bytes);
    try_decode::<NodeReply>(bytes);
    try_decode::<CenterMessage>(bytes);
    try_decode::<SessionRequest>(bytes);
    try_decode::<SessionReply>(bytes);
    try_decode::<Signed<Descriptor>>(bytes);
    try_decode::<Descriptor>(bytes);
    try_decode::<WorkOrder>(bytes);
    try_decode::<Receipt>(bytes);
    try_decode::<Verdict>(bytes);
    try_decode::<TrainingRequest>(bytes);
    try_decode::<Leaf>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = JoinToken::from_text(text);
        let _ = serde_json::from_str::<TrainingRequest>(text);
        let _ = text.parse::<EntityId>();
    }
}

fn arb_peer() -> impl Strategy<Value = Peer> {
    (
        any::<[u8; 32]>(),
        proptest::collection::vec(any::<(u32, u16)>(), 0..3),
        any::<Option<u8>>(),
    )
        .prop_map(|(node, addresses, relay)| Peer {
            node: NodeId(node),
            addresses: addresses
                .into_iter()
                .map(|(ip, port)| (std::net::Ipv4Addr::from(ip), port).into())
                .collect(),
            relay: relay.map(|n| format!("http://relay-{n}.example/")),
        })
}

fn arb_artifact() -> impl Strategy<Value = ArtifactRef> {
    (any::<[u8; 32]>(), any::<u64>()).prop_map(|(id, bytes)| ArtifactRef {
        id: ArtifactId(id),
        bytes,
    })
}

fn arb_request() -> impl Strategy<Value = SessionRequest> {
    let ids = (any::<u64>(), any::<[u8; 10]>());
    prop_oneof![
        (
            ids,
            any::<u64>(),
            any::<u32>(),
            arb_artifact(),
            proptest::collection::vec(arb_peer(), 0..3)
        )
            .prop_map(
                |((at, random), epoch, cycle, input, holders)| SessionRequest::Train(TrainStep {
                    order: daitn_messages::ids::OrderId::new(at, random),
                    job: daitn_messages::ids::JobId::new(at, random),
                    epoch,
                    cycle,
                    position: cycle / 2,
                    input,
                    control: (epoch % 2 == 0).then_some(input),
                    holders,
                    counted_cycles: (cycle % 3 > 0).then_some(cycle),
                })
            ),
        (any::<u32>(), any::<u32>(), any::<[u8; 10]>()).prop_map(|(version, n_rows, random)| {
            SessionRequest::Infer(InferQuery {
                model: daitn_messages::learning::ModelVersion {
                    name: "digits".parse().unwrap(),
                    version,
                },
                n_rows,
                decision: daitn_messages::ids::DecisionId::new(u64::from(version), random),
            })
        }),
    ]
}

fn arb_serve_order() -> impl Strategy<Value = ServeOrder> {
    (
        arb_artifact(),
        proptest::collection::vec(arb_peer(), 0..4),
        any::<u32>(),
        "[ -~]{0,20}",
    )
        .prop_map(|(weights, holders, version, column)| ServeOrder {
            deployment: daitn_messages::ids::DeploymentId::new(u64::from(version), [1; 10]),
            model: daitn_messages::learning::ModelVersion {
                name: "m".parse().unwrap(),
                version,
            },
            spec: ModelSpec {
                architecture: Architecture::Mlp {
                    hidden: vec![version],
                },
                features: vec![column.clone()],
                target: column,
                task: Task::Regression,
                scale: 0.5,
                offset: -1.0,
            },
            weights,
            gateways: holders.iter().map(|p| p.node).collect(),
            holders,
            readers: vec![],
        })
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        every_decoder(&bytes);
    }

    #[test]
    fn changed_messages_are_refused_or_read(
        request in arb_request(), order in arb_serve_order(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        for valid in [encode(&request), encode(&order)] {
            let mut bytes = valid.clone();
            let position = at.index(bytes.len());
            bytes[position] = byte;
            every_decoder(&bytes);
            every_decoder(&valid[..cut.index(valid.len())]);
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself(request in arb_request(), order in arb_serve_order(), peer in arb_peer()) {
        prop_assert_eq!(decode::<SessionRequest>(&encode(&request)).unwrap(), request);
        prop_assert_eq!(&decode::<ServeOrder>(&encode(&order)).unwrap(), &order);
        let json = serde_json::to_string(&order).unwrap();
        prop_assert_eq!(serde_json::from_str::<ServeOrder>(&json).unwrap(), order);
        prop_assert_eq!(decode::<Peer>(&encode(&peer)).unwrap(), peer);
    }
}

#[test]
fn announced_lengths_take_no_memory() {
    // An array, a map, a text and a byte string that announce 2^63 entries and bring none.
    for head in [0x9b_u8, 0xbb, 0x7b, 0x5b] {
        let mut bytes = vec![head, 0x7f];
        bytes.extend([0xff; 7]);
        every_decoder(&bytes);
    }
    // 100,000 arrays in each other: refused by depth, not by the end of the stack.
    every_decoder(&vec![0x81; 100_000]);
    // The same within an unknown field of a known message.
    let mut nested = vec![0xa1, 0x61, b'x'];
    nested.extend(vec![0x81; 100_000]);
    every_decoder(&nested);
    // And as JSON.
    assert!(serde_json::from_str::<TrainingRequest>(&"[".repeat(100_000)).is_err());
}

#[test]
fn a_frame_over_its_bound_is_refused_unread() {
    let rejection = decode::<Hello>(&vec![0; limits::FRAME_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(rejection.code.as_str(), "E0102");
}

#[test]
fn numbers_at_their_ends_are_refused_by_validation() {
    let sound = LocalTraining {
        epochs: 2,
        batch_size: 32,
        learning_rate: 0.1,
        seed: 7,
    };
    assert!(sound.validate().is_ok());
    for epochs in [0, limits::LOCAL_EPOCHS_MAX + 1, u32::MAX] {
        assert!(LocalTraining { epochs, ..sound }.validate().is_err());
    }
    for learning_rate in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e9] {
        assert!(
            LocalTraining {
                learning_rate,
                ..sound
            }
            .validate()
            .is_err()
        );
    }
    for batch_size in [0, u32::MAX] {
        assert!(LocalTraining { batch_size, ..sound }.validate().is_err());
    }
}

#[test]
fn texts_that_a_terminal_would_obey_are_refused() {
    for text in ["\u{1b}[31m", "a\u{202e}b", "\0", "\u{2066}", "\r"] {
        assert!(limits::bounded("purpose", text, 200).is_err(), "{text:?}");
    }
    for text in ["research", "Forschung über Schlaf", "علم", "two\nlines"] {
        assert!(limits::bounded("purpose", text, 200).is_ok(), "{text:?}");
    }
    assert_eq!(
        limits::bounded("note", "abc", 2).unwrap_err().code.as_str(),
        "E0102"
    );
}
