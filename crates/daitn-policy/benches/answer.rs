//! How long an answer takes: the control center asks once for each candidate site of a plan.
#![allow(missing_docs)]

use daitn_messages::policy::{PolicyQuestion, UseContext, Verb};
use daitn_policy::{OwnerPolicy, PolicySet, ResourceFacts};

fn main() {
    divan::main();
}

fn question() -> (PolicyQuestion, ResourceFacts) {
    let what = "dataset:st-mary/digits".parse().expect("an entity");
    let facts = ResourceFacts::new(&what, "DE");
    let question = PolicyQuestion {
        who: "university".parse().expect("a slug"),
        verb: Verb::Train,
        what,
        context: UseContext {
            purpose: "research".into(),
            algorithm: "fed-avg".into(),
            protections: vec!["norm-clip".into()],
            cohort: 5,
            jurisdiction: "DE".into(),
            recipients: vec!["aggregators".parse().expect("a slug")],
        },
    };
    (question, facts)
}

/// The policy that `daitn data init` writes, four rules.
#[divan::bench]
fn owner_policy(bencher: divan::Bencher<'_, '_>) {
    let text = OwnerPolicy {
        purposes: vec!["research".into()],
        purposes_forbidden: vec!["commercial".into()],
        cohort_min: 3,
        ..OwnerPolicy::default()
    }
    .to_cedar()
    .expect("a valid policy");
    let policies = PolicySet::parse(&text).expect("a valid policy");
    let (question, facts) = question();
    bencher.bench(|| policies.answer(divan::black_box(&question), &facts));
}

/// A policy of this many rules, of which one applies.
#[divan::bench(args = [1, 10, 100])]
fn rules(bencher: divan::Bencher<'_, '_>, n_rules: usize) {
    let text: String = (0..n_rules)
        .map(|i| {
            format!(
                "@id(\"rule-{i}\") permit (principal, action == Action::\"train\", resource) \
                 when {{ context.purpose == \"research\" && context.cohort > {i} }};\n"
            )
        })
        .collect();
    let policies = PolicySet::parse(&text).expect("a valid policy");
    let (question, facts) = question();
    bencher.bench(|| policies.answer(divan::black_box(&question), &facts));
}

/// Reading and checking a text, once for each descriptor version.
#[divan::bench]
fn parse(bencher: divan::Bencher<'_, '_>) {
    let text = OwnerPolicy {
        purposes: vec!["research".into()],
        ..OwnerPolicy::default()
    }
    .to_cedar()
    .expect("a valid policy");
    bencher.bench(|| PolicySet::parse(divan::black_box(&text)));
}
