//! Wire vectors, field by field. The bytes are written by hand from RFC 8949 (CBOR) and RFC 8032 (Ed25519); what the
//! code prints must equal them, so that a change of the wire cannot pass unseen.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daitn_messages::{
    control::{Hello, JoinToken},
    encoding::{decode, encode},
    ids::{ArtifactId, EntityId, JobId, NodeId, OrganisationId},
    leaf::{Leaf, LeafKind},
    request::TrainingRequest,
    session::{ArtifactRef, Peer},
    signed::{NodeKey, Signed, Statement},
    units::UnixMillis,
};
use serde_json::json;

/// Hexadecimal with comments after `#`, as in the CBOR diagnostic tools.
fn bytes(annotated: &str) -> Vec<u8> {
    let digits: String = annotated
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.chars().filter(|c| !c.is_whitespace()))
        .collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

#[test]
fn hello() {
    let hello = Hello {
        version_min: 1,
        version_max: 2,
        build: "0.1.0".to_owned(),
        now: UnixMillis(1_000),
        addresses: vec![],
        enrolment: None,
        asks_only: false,
    };
    let expected = bytes(
        "a6                                      # map of 6
           6b 76657273696f6e5f6d696e    01         # version_min: 1
           6b 76657273696f6e5f6d6178    02         # version_max: 2
           65 6275696c64  65 302e312e30            # build: '0.1.0'
           63 6e6f77      19 03e8                  # now: 1000
           69 616464726573736573  80               # addresses: []
           69 656e726f6c6d656e74  f6               # enrolment: null",
    );
    assert_eq!(encode(&hello), expected);
    assert_eq!(decode::<Hello>(&expected).unwrap(), hello);
}

#[test]
fn a_hash_is_a_byte_string_on_the_wire_and_hexadecimal_in_json() {
    let artifact = ArtifactRef {
        id: ArtifactId([0xab; 32]),
        bytes: 300,
    };
    let expected = bytes(&format!(
        "a2                       # map of 2
           62 6964 5820 {}           # id: h'abab…'
           65 6279746573 19 012c     # bytes: 300",
        "ab".repeat(32)
    ));
    assert_eq!(encode(&artifact), expected);
    let json = format!(r#"{{"id":"{}","bytes":300}}"#, "ab".repeat(32));
    assert_eq!(serde_json::to_string(&artifact).unwrap(), json);
    assert_eq!(serde_json::from_str::<ArtifactRef>(&json).unwrap(), artifact);
}

#[test]
fn the_hash_of_nothing_is_blake3s() {
    // From the BLAKE3 paper's test vectors, input_len 0.
    let expected = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(ArtifactId::of(b"").to_string(), expected);
}

#[test]
fn a_leaf_is_canonical() {
    let leaf = Leaf::new(
        LeafKind::Plan,
        UnixMillis(7),
        "plan-x".to_owned(),
        ArtifactId([1; 32]),
    );
    let expected = bytes(&format!(
        "a6
           66 666f726d6174 01                 # format: 1
           64 6b696e64 64 706c616e            # kind: 'plan'
           62 6174 07                         # at: 7
           67 7375626a656374 66 706c616e2d78  # subject: 'plan-x'
           64 68617368 5820 {}                # hash
           68 636f6e6365726e73 80             # concerns: []",
        "01".repeat(32)
    ));
    assert_eq!(leaf.to_bytes(), expected);
}

#[test]
fn a_time_ordered_id_is_a_ulid() {
    // The ULID of time 1469918176385 (2016-07-30T22:36:16.385Z) begins with 01ARYZ6S41 (ulid/spec, README).
    let id = JobId::new(1_469_918_176_385, [0; 10]);
    assert_eq!(id.as_str(), "job-01aryz6s410000000000000000");
    assert_eq!(
        JobId::new(0, [0xff; 10]).as_str(),
        "job-0000000000zzzzzzzzzzzzzzzz"
    );
}

#[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
struct Note {
    text: String,
}

impl Statement for Note {
    const CONTEXT: &'static str = "test/v1/note";
}

#[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
struct OtherNote {
    text: String,
}

impl Statement for OtherNote {
    const CONTEXT: &'static str = "test/v1/other-note";
}

#[test]
fn keys_are_those_of_rfc_8032() {
    // RFC 8032, section 7.1, test 1.
    let secret = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let key = NodeKey::from_bytes(&secret.try_into().unwrap());
    assert_eq!(
        key.id().to_string(),
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
    assert!(
        !format!("{key:?}").contains("9d61b1"),
        "a secret key never prints"
    );
}

#[test]
fn a_signature_is_bound_to_its_kind_and_its_signer_and_every_bit() {
    let (key, other) = (NodeKey::from_bytes(&[1; 32]), NodeKey::from_bytes(&[2; 32]));
    let note = Note {
        text: "hello".to_owned(),
    };
    let signed = Signed::seal(&note, &key);
    assert_eq!(signed.open(key.id()).unwrap(), note);
    assert!(signed.open(other.id()).is_err(), "another signer is not believed");

    let wire = encode(&signed);
    let as_other: Signed<OtherNote> = decode(&wire).unwrap();
    assert!(
        as_other.open(key.id()).is_err(),
        "a note does not pass for another kind of statement"
    );
    for position in 0..wire.len() * 8 {
        let mut flipped = wire.clone();
        flipped[position / 8] ^= 1 << (position % 8);
        if let Ok(message) = decode::<Signed<Note>>(&flipped) {
            assert!(
                message == signed || message.open(key.id()).is_err(),
                "bit {position} can be flipped"
            );
        }
    }
}

#[test]
fn a_join_token_reads_back_and_a_cut_one_says_so() {
    let token = JoinToken {
        token: daitn_messages::ids::TokenId::new(1, [3; 10]),
        secret: vec![9; 32],
        center: Peer {
            node: NodeId([4; 32]),
            addresses: vec!["127.0.0.1:4433".parse().unwrap()],
            relay: None,
        },
        organisation: "st-mary".parse().unwrap(),
    };
    let text = token.to_text();
    assert_eq!(JoinToken::from_text(&format!(" {text}\n")).unwrap(), token);
    for cut in 0..text.len() {
        let refused = JoinToken::from_text(&text[..cut]).unwrap_err();
        assert_eq!(refused.code.as_str(), "E0202");
    }
}

#[test]
fn unknown_fields_are_ignored_and_what_follows_is_not() {
    // A newer peer adds a field `zone` to ArtifactRef.
    let newer = bytes(&format!(
        "a3 62 6964 5820 {} 65 6279746573 01 64 7a6f6e65 61 61",
        "00".repeat(32)
    ));
    assert_eq!(decode::<ArtifactRef>(&newer).unwrap().bytes, 1);
    let mut longer = newer;
    longer.push(0);
    assert!(
        decode::<ArtifactRef>(&longer)
            .unwrap_err()
            .message
            .contains("after its end")
    );
}

#[test]
fn a_request_of_a_newer_peer_is_read() {
    let request = json!({
        "model": "digits", "organisation": "lab", "jurisdiction": "DE", "purpose": "research",
        "architecture": {"kind": "linear"}, "features": ["x"], "target": "y", "task": {"kind": "regression"},
        "training": {"rounds": 3, "local": {"epochs": 1, "batch_size": 8, "learning_rate": 0.5, "seed": 7}},
        "verification": {"metric": "rmse", "target": 1.0, "required": 1},
    });
    let known: TrainingRequest = serde_json::from_value(request).unwrap();
    assert_eq!(newer_peers(&known), known);
    assert_eq!(newer_peers(&known.training), known.training);
    assert_eq!(newer_peers(&known.verification), known.verification);
    assert_eq!(newer_peers(&known.data), known.data);
    assert_eq!(newer_peers(&known.sla), known.sla);
}

/// A value as a newer peer writes it, with a field that is not known here, and as it is read.
fn newer_peers<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    #[derive(serde::Serialize)]
    struct Newer<'a, T> {
        zone: &'a str,
        #[serde(flatten)]
        known: &'a T,
    }
    decode(&encode(&Newer {
        zone: "a",
        known: value,
    }))
    .unwrap()
}

#[test]
fn names_are_checked_when_they_are_read() {
    for wrong in ["", "-a", "a-", "A", "a b", "a/../b", "ä", &"a".repeat(64)] {
        assert!(wrong.parse::<OrganisationId>().is_err(), "{wrong:?} is no slug");
    }
    for wrong in [
        "digits",
        "dataset:x",
        "dataset:x/",
        "thing:a/b",
        "dataset:../a",
        "dataset:a/b/c",
    ] {
        assert!(wrong.parse::<EntityId>().is_err(), "{wrong:?} is no entity");
    }
    let hash = "ab".repeat(32);
    for wrong in [
        "../../etc/x",
        &hash[1..],
        &format!("{hash}0"),
        &hash.replace('a', "g"),
    ] {
        assert!(wrong.parse::<ArtifactId>().is_err(), "{wrong:?} is no digest");
    }
    assert_eq!(
        "dataset:st-mary/digits".parse::<EntityId>().unwrap().to_string(),
        "dataset:st-mary/digits"
    );
}
