//! Structured search against a plain filter over all descriptors, while entities come, change and go.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use daitn_messages::{
    descriptor::{AgentBody, AgentSkill, Body, Descriptor},
    ids::{ArtifactId, EntityId, EntityKind},
    request::Search,
    units::UnixMillis,
};
use daitn_topology::{Matches, Sight, Topology};
use proptest::prelude::*;
use support::*;

fn described(kind: u8, organisation: u8, name: u8, version: u64, variant: u8) -> Descriptor {
    let (prefix, body) = match kind {
        0 => (
            "dataset",
            dataset_with(u64::from(variant) * 10, None, |body| {
                body.features.truncate(usize::from(variant % 3) + 1);
                body.target = format!("t{}", variant % 2);
                body.policy = format!("policy {}", variant % 4);
            }),
        ),
        1 => ("verifier", verifier()),
        2 => (
            "agent",
            Body::Agent(Box::new(AgentBody {
                card: "{}".into(),
                card_hash: ArtifactId::of(b"{}"),
                protocol_version: "1.0".into(),
                skills: vec![AgentSkill {
                    id: format!("s{}", variant % 3),
                    name: "A skill".into(),
                    tags: vec![format!("tag{}", variant % 2), "s0".into()],
                }],
                streaming: false,
            })),
        ),
        _ => ("aggregator", aggregator(0)),
    };
    Descriptor {
        entity: entity(&format!("{prefix}:o{organisation}/n{name}")),
        version,
        node: node("n"),
        title: String::new(),
        description: String::new(),
        jurisdiction: ["DE", "FR"][usize::from(variant) % 2].into(),
        issued_at: UnixMillis(0),
        body,
    }
}

/// The filter, word for word as the request documents it.
fn fits(search: &Search, descriptor: &Descriptor) -> bool {
    let (features, target, records): (&[String], Option<&str>, u64) = match &descriptor.body {
        Body::Dataset(body) => (&body.features, Some(&body.target), body.records),
        Body::Verifier(body) => (&body.features, Some(&body.target), body.records),
        _ => (&[], None, 0),
    };
    let skilled = |wanted: &String| match &descriptor.body {
        Body::Agent(agent) => agent
            .skills
            .iter()
            .any(|skill| skill.id == *wanted || skill.tags.contains(wanted)),
        _ => false,
    };
    search.kind.is_none_or(|kind| kind == descriptor.entity.kind)
        && (search.organisations.is_empty() || search.organisations.contains(descriptor.organisation()))
        && (search.jurisdictions.is_empty() || search.jurisdictions.contains(&descriptor.jurisdiction))
        && search.features.iter().all(|feature| features.contains(feature))
        && search
            .target
            .as_deref()
            .is_none_or(|wanted| target == Some(wanted))
        && search.skill.as_ref().is_none_or(skilled)
        && records >= search.records_min
}

prop_compose! {
    fn any_search()(
        kind in proptest::option::of(proptest::sample::select(EntityKind::ALL.to_vec())),
        organisations in prop::collection::vec(0_u8..5, 0..3),
        jurisdictions in prop::collection::vec(proptest::sample::select(vec!["DE", "FR", "XX"]), 0..3),
        features in prop::collection::vec(proptest::sample::select(vec!["p0", "p1", "p2", "q"]), 0..3),
        target in proptest::option::of(proptest::sample::select(vec!["t0", "t1", "label"])),
        skill in proptest::option::weighted(0.3, proptest::sample::select(vec!["s0", "s1", "tag1", "none"])),
        records_min in proptest::sample::select(vec![0_u64, 0, 50, 100]),
        (limit, offset) in (0_u32..8, 0_u32..8),
    ) -> Search {
        Search {
            text: String::new(),
            kind,
            organisations: organisations.iter().map(|o| format!("o{o}").parse().unwrap()).collect(),
            jurisdictions: jurisdictions.into_iter().map(String::from).collect(),
            features: features.into_iter().map(String::from).collect(),
            target: target.map(String::from),
            skill: skill.map(String::from),
            records_min, limit, offset,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Upsert(u8, u8, u8, u64, u8),
    Withdraw(u8, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..4, 0_u8..4, 0_u8..4, 1_u64..4, 0_u8..12).prop_map(|(k, o, n, v, x)| Step::Upsert(k, o, n, v, x)),
        1 => (0_u8..4, 0_u8..4, 0_u8..4).prop_map(|(k, o, n)| Step::Withdraw(k, o, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn search_finds_what_a_plain_filter_finds(
        steps in prop::collection::vec(step(), 0..120), searches in prop::collection::vec(any_search(), 8),
    ) {
        let mut topology = Topology::default();
        let mut plain: std::collections::BTreeMap<EntityId, Descriptor> = std::collections::BTreeMap::new();
        for step in steps {
            let before = topology.version();
            let changed = match step {
                Step::Upsert(k, o, n, version, x) => {
                    let descriptor = described(k, o, n, version, x);
                    let newer = plain.get(&descriptor.entity).is_none_or(|known| known.version < version);
                    if newer {
                        plain.insert(descriptor.entity.clone(), descriptor.clone());
                    }
                    prop_assert_eq!(topology.upsert(descriptor), newer);
                    newer
                }
                Step::Withdraw(k, o, n) => {
                    let id = described(k, o, n, 1, 0).entity;
                    let was_there = plain.remove(&id).is_some();
                    prop_assert_eq!(topology.withdraw(&id), was_there);
                    was_there
                }
            };
            prop_assert_eq!(topology.version() > before, changed);
        }
        prop_assert_eq!(topology.len(), plain.len());
        for search in searches {
            let expected: Vec<EntityId> = plain.values().filter(|d| fits(&search, d)).map(|d| d.entity.clone()).collect();
            let found = topology.search(&search);
            prop_assert_eq!(found.total, expected.len());
            let limit = if search.limit == 0 { 50 } else { search.limit as usize };
            let page: Vec<EntityId> = expected.iter().skip(search.offset as usize).take(limit).cloned().collect();
            prop_assert_eq!(found.ids, page);
            let matches = topology.matches(&search);
            for id in plain.keys() {
                prop_assert_eq!(matches.contains(id), expected.contains(id));
            }
            check_sight(matches, &plain, &expected)?;
        }
    }
}

/// What another organisation sees: texts that decide by themselves are asked about once.
fn check_sight(
    matches: Matches<'_>,
    plain: &std::collections::BTreeMap<EntityId, Descriptor>,
    expected: &[EntityId],
) -> Result<(), TestCaseError> {
    let own = "o1".parse().unwrap();
    let text = |descriptor: &Descriptor| match &descriptor.body {
        Body::Dataset(body) => body.policy.clone(),
        _ => String::new(),
    };
    // One text hides, one looks at the entity, the others show.
    let seen = |descriptor: &Descriptor| match text(descriptor).as_str() {
        "policy 0" => Sight::OfPolicy(false),
        "policy 1" => Sight::OfEntity(descriptor.entity.name.as_str() != "n2"),
        _ => Sight::OfPolicy(true),
    };
    let mut asked = Vec::new();
    let seen_matches = matches.seen_by(&own, &mut |descriptor| {
        if !text(descriptor).ends_with('1') {
            asked.push(text(descriptor));
        }
        seen(descriptor)
    });
    let by_hand = expected.iter().filter(|id| {
        let descriptor = &plain[*id];
        id.organisation == own || matches!(seen(descriptor), Sight::OfPolicy(true) | Sight::OfEntity(true))
    });
    let by_hand: Vec<EntityId> = by_hand.cloned().collect();
    prop_assert_eq!(seen_matches.page(0, usize::MAX), by_hand);
    let n_asked = asked.len();
    asked.sort_unstable();
    asked.dedup();
    prop_assert_eq!(asked.len(), n_asked);
    Ok(())
}

/// More matches than are sorted: the page is found by walking.
#[test]
fn pages_of_many_matches_are_in_the_order_of_ids() {
    let mut net = Net::default();
    for i in (0..5_000).rev() {
        net.on("n", &format!("dataset:o{}/d{i:04}", i % 7), dataset(10, None));
    }
    let mut all = Vec::new();
    for offset in (0..5_000).step_by(500) {
        let search = Search {
            kind: Some(EntityKind::Dataset),
            limit: 500,
            offset,
            ..Search::default()
        };
        let found = net.0.search(&search);
        assert_eq!(found.total, 5_000);
        all.extend(found.ids);
    }
    assert_eq!(all.len(), 5_000);
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
}
