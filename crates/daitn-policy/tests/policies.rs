//! Policies by tables (policy, question → answer), texts that must be refused, and random owner policies against an
//! evaluator written here.
#![allow(missing_docs, clippy::unwrap_used)]

use daitn_messages::{
    policy::{PolicyAnswer, PolicyQuestion, UseContext, Verb},
    rejection::{Code, Rejection},
};
use daitn_policy::{OwnerPolicy, PolicyError, PolicySet, ResourceFacts, combine, forbids};
use proptest::prelude::*;

fn question() -> PolicyQuestion {
    PolicyQuestion {
        who: "university".parse().unwrap(),
        verb: Verb::Train,
        what: "dataset:st-mary/digits".parse().unwrap(),
        context: UseContext {
            purpose: "research".into(),
            algorithm: "fed-avg".into(),
            protections: vec!["norm-clip".into()],
            cohort: 5,
            jurisdiction: "DE".into(),
            recipients: vec!["aggregators".parse().unwrap()],
        },
    }
}

fn ask(text: &str, change: impl FnOnce(&mut PolicyQuestion)) -> PolicyAnswer {
    let mut question = question();
    change(&mut question);
    let facts = ResourceFacts {
        labels: vec!["license:CC-BY-4.0".into()],
        ..ResourceFacts::new(&question.what, "FR")
    };
    PolicySet::parse(text).unwrap().answer(&question, &facts)
}

#[track_caller]
fn check(text: &str, change: impl FnOnce(&mut PolicyQuestion), allowed: bool, determining: &[&str]) {
    let answer = ask(text, change);
    assert_eq!(answer.errors, Vec::<String>::new());
    assert_eq!(
        (answer.allowed, answer.determining),
        (allowed, determining.iter().map(|d| d.to_string()).collect())
    );
}

const RESEARCH: &str = r#"
    @id("research") permit (principal, action == Action::"train", resource) when { context.purpose == "research" };
    @id("no-trade") forbid (principal, action, resource) when { context.purpose == "commercial" };
"#;

#[test]
fn the_answer_names_the_rules_that_determined_it() {
    check(RESEARCH, |_| (), true, &["research"]);
    check(
        RESEARCH,
        |q| q.context.purpose = "commercial".into(),
        false,
        &["no-trade"],
    );
    // Nobody spoke of care: silence denies.
    check(RESEARCH, |q| q.context.purpose = "care".into(), false, &[]);
    check(RESEARCH, |q| q.verb = Verb::Evaluate, false, &[]);
    // A forbid that applies overrules every permit.
    let both = "permit (principal, action, resource); @id(\"never\") forbid (principal, action, resource);";
    check(both, |_| (), false, &["never"]);
    // Rules without an id are named by their place; several can determine.
    let two = "permit (principal, action, resource); permit (principal, action, resource);";
    check(two, |_| (), true, &["policy0", "policy1"]);
}

#[test]
fn every_field_of_the_question_and_the_facts_can_decide() {
    let when =
        |condition: &str| format!("@id(\"it\") permit (principal, action, resource) when {{ {condition} }};");
    for condition in [
        r#"principal == Organisation::"university""#,
        r#"action == Action::"train""#,
        r#"resource == Dataset::"dataset:st-mary/digits""#,
        r#"resource is Dataset"#,
        r#"resource in Organisation::"st-mary""#,
        r#"resource.organisation == Organisation::"st-mary""#,
        r#"resource.jurisdiction == "FR""#,
        r#"resource.kind == "dataset""#,
        r#"resource.labels.contains("license:CC-BY-4.0")"#,
        r#"context.purpose == "research""#,
        r#"context.algorithm like "fed-*""#,
        r#"context.protections.containsAny(["norm-clip", "dp"])"#,
        r#"context.cohort == 5"#,
        r#"["DE", "FR"].contains(context.jurisdiction)"#,
        r#"context.recipients == [Organisation::"aggregators"]"#,
    ] {
        let text = when(condition);
        check(&text, |_| (), true, &["it"]);
        check(&when(&format!("!({condition})")), |_| (), false, &[]);
    }
}

#[test]
fn every_verb_can_be_asked_of_every_kind() {
    for verb in Verb::ALL {
        let text = format!("@id(\"it\") permit (principal, action == Action::\"{verb}\", resource);");
        for kind in daitn_messages::ids::EntityKind::ALL {
            let what = format!("{kind}:st-mary/thing");
            check(
                &text,
                |q| (q.verb, q.what) = (verb, what.parse().unwrap()),
                true,
                &["it"],
            );
        }
    }
}

#[test]
fn a_rule_that_fails_denies_whatever_the_others_say() {
    // 2^63 - 1 + 5 overflows: the permit applies all the same, but nobody knows what the failed rule would have said.
    let text = r#"
        @id("all") permit (principal, action, resource);
        @id("broken") forbid (principal, action, resource) when { context.cohort + 9223372036854775807 < 0 };
    "#;
    let answer = ask(text, |_| ());
    assert!(!answer.allowed);
    assert_eq!(answer.determining, Vec::<String>::new());
    assert_eq!(answer.errors.len(), 1);
    assert!(answer.errors[0].contains("broken"), "{answer:?}");
    assert!(forbids(&answer));
}

#[test]
fn the_domain_may_forbid_but_its_permit_is_not_needed() {
    let answer = |allowed: bool, ids: &[&str]| PolicyAnswer {
        allowed,
        determining: ids.iter().map(|i| i.to_string()).collect(),
        errors: vec![],
    };
    let yes = answer(true, &["mine"]);
    assert_eq!(combine(yes.clone(), None), yes);
    assert_eq!(combine(yes.clone(), Some(answer(false, &[]))), yes);
    assert_eq!(combine(yes.clone(), Some(answer(true, &["d"]))), yes);
    assert_eq!(
        combine(yes, Some(answer(false, &["d"]))),
        answer(false, &["domain:d"])
    );
    // The domain cannot permit what the owner does not.
    assert!(!combine(answer(false, &[]), Some(answer(true, &["d"]))).allowed);
}

#[track_caller]
fn refused(text: &str) -> PolicyError {
    let error = PolicySet::parse(text).expect_err(&text.chars().take(200).collect::<String>());
    assert!(!error.remedy().is_empty());
    let rejection = Rejection::from(error.clone());
    assert_eq!(rejection.code, Code::PolicyInvalid);
    assert!(!rejection.hint.is_empty());
    assert!(rejection.message.len() < 2_000, "{}", rejection.message);
    error
}

#[test]
fn an_empty_policy_is_refused() {
    for text in ["", " \n\t", "// only a comment\n"] {
        assert_eq!(refused(text), PolicyError::Empty);
    }
}

#[test]
fn a_syntax_error_names_its_place() {
    for (text, line, column) in [
        ("permit (principal, action, resource)", 1, 37),
        (
            "permit (principal, action, resource);\nallow (principal, action, resource);",
            2,
            1,
        ),
        (
            "permit (principal, action, resource)\n  when { context.purpose = \"x\" };",
            2,
            10,
        ),
        ("permit (principal, action, resource) when { \"open };", 1, 45),
    ] {
        let PolicyError::Syntax { position, .. } = refused(text) else {
            panic!("{text}: {:?}", refused(text))
        };
        let position = position.expect(text);
        assert_eq!((position.line, position.column), (line, column), "{text}");
    }
}

#[test]
fn a_policy_that_does_not_fit_the_schema_is_refused_with_its_rule() {
    for condition in [
        "context.pupose == \"research\"",
        "context.cohort > \"three\"",
        "resource.owner == principal",
        "principal == User::\"alice\"",
        "action == Action::\"delete\"",
        "context.recipients.contains(\"aggregators\")",
        "context.purpose",
    ] {
        let text = format!(
            "permit (principal, action, resource);\n@id(\"second\")\nforbid (principal, action, resource) when {{\n{condition} }};"
        );
        let PolicyError::Schema { policy, position, .. } = refused(&text) else {
            panic!("{condition}: {:?}", refused(&text))
        };
        assert_eq!(policy, "second", "{condition}");
        assert!(position.is_some_and(|p| p.line >= 2), "{condition}: {position:?}");
    }
}

#[test]
fn ids_are_bounded_and_differ() {
    let rule = "permit (principal, action, resource);";
    let same = format!("@id(\"a\") {rule} @id(\"a\") {rule}");
    assert_eq!(refused(&same), PolicyError::SameId { id: "a".into() });
    // The second rule's own name is the place of the first.
    let clash = format!("{rule} @id(\"policy0\") {rule}");
    assert_eq!(refused(&clash), PolicyError::SameId { id: "policy0".into() });
    for id in ["", "a\\nb", &"x".repeat(201)] {
        assert!(
            matches!(
                refused(&format!("@id(\"{id}\") {rule}")),
                PolicyError::BadId { .. }
            ),
            "{id}"
        );
    }
}

#[test]
fn hostile_texts_are_refused_without_harm() {
    let rule = |condition: &str| format!("permit (principal, action, resource) when {{ {condition} }};");
    let deep =
        |open: &str, close: &str, n: usize| rule(&format!("{}true{}", open.repeat(n), close.repeat(n)));
    for text in [
        deep("(", ")", 5_000),
        deep("[", "]", 5_000),
        deep("{a: ", "}", 5_000),
        deep("if true then false else ", "", 2_000),
        deep("!", "", 20_000),
        deep("-", "", 20_000),
        rule(&vec!["true"; 6_000].join(" && ")),
        rule(&vec!["true"; 6_000].join(" || ")),
        rule(&format!("context{}", ".a".repeat(20_000))),
        rule(&format!("resource{}", " has a".repeat(5_000))),
        rule(&format!("resource{}", "[\"a\"]".repeat(5_000))),
    ] {
        assert!(
            matches!(
                refused(&text),
                PolicyError::TooComplex { .. } | PolicyError::Syntax { .. } | PolicyError::Schema { .. }
            ),
            "{}",
            &text[..100]
        );
    }
    let many = "permit (principal, action, resource);".repeat(257);
    assert_eq!(refused(&many), PolicyError::TooMany { found: 257, max: 256 });
    assert!(matches!(
        refused(&"/".repeat(70_000)),
        PolicyError::TooLong { .. }
    ));
    assert!(matches!(
        refused("permit (principal == ?principal, action, resource);"),
        PolicyError::Slot { .. }
    ));
    let disguised = rule("context.purpose == \"re\u{202e}search\"");
    assert!(matches!(refused(&disguised), PolicyError::Disguised { .. }));
}

/// Just under the bounds everything works, on the small stack of a test thread (2 MiB).
#[test]
fn what_the_bounds_allow_evaluates() {
    let rule =
        |condition: &str| format!("@id(\"it\") permit (principal, action, resource) when {{ {condition} }};");
    let deep = format!("{}true{}", "(".repeat(46), ")".repeat(46));
    check(&rule(&deep), |_| (), true, &["it"]);
    let wide = vec!["context.cohort < 6"; 120].join(" && ");
    check(&rule(&wide), |_| (), true, &["it"]);
    let ifs = format!("{}true", "if context.cohort < 1 then false else ".repeat(160));
    check(&rule(&ifs), |_| (), true, &["it"]);
}

#[test]
fn a_rule_that_can_never_apply_is_a_warning() {
    let text = "permit (principal, action, resource) when { resource is Dataset && resource is Agent };";
    assert_eq!(PolicySet::parse(text).unwrap().warnings().len(), 1);
    assert_eq!(PolicySet::parse(RESEARCH).unwrap().warnings().len(), 0);
}

/// What an [`OwnerPolicy`] means, without Cedar.
fn by_hand(policy: &OwnerPolicy, q: &PolicyQuestion) -> bool {
    let allowed = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
    let touches = matches!(q.verb, Verb::Train | Verb::Evaluate);
    let granted = touches
        && allowed(&policy.purposes, &q.context.purpose)
        && allowed(&policy.jurisdictions, &q.context.jurisdiction)
        && (policy.organisations.is_empty() || policy.organisations.contains(&q.who));
    let forbidden = touches && policy.purposes_forbidden.contains(&q.context.purpose);
    let lacking = q.verb == Verb::Train
        && !((q.context.cohort >= policy.cohort_min || policy.cohort_min == 1)
            && policy
                .protections
                .iter()
                .all(|p| q.context.protections.contains(p))
            && allowed(&policy.algorithms, &q.context.algorithm)
            && (policy.recipients.is_empty()
                || q.context.recipients.iter().all(|r| policy.recipients.contains(r))));
    q.verb == Verb::Discover || (granted && !forbidden && !lacking)
}

fn some_of(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(values, 0..=values.len())
        .prop_map(|chosen| chosen.into_iter().map(ToOwned::to_owned).collect())
}

fn organisations() -> impl Strategy<Value = Vec<daitn_messages::ids::OrganisationId>> {
    some_of(&["alpha", "beta", "gamma"]).prop_map(|v| v.iter().map(|o| o.parse().unwrap()).collect())
}

const PURPOSES: &[&str] = &[
    "research",
    "care",
    "commercial",
    "a \"quoted\" \\ one\n",
    "soigné",
];

prop_compose! {
    fn owner_policy()(
        purposes in some_of(PURPOSES), purposes_forbidden in some_of(PURPOSES),
        organisations in organisations(), jurisdictions in some_of(&["DE", "FR"]), cohort_min in 0_u32..4,
        protections in some_of(&["norm-clip", "dp"]), algorithms in some_of(&["fed-avg", "itinerary"]),
        recipients in organisations(),
    ) -> OwnerPolicy {
        OwnerPolicy { purposes, purposes_forbidden, organisations, jurisdictions, cohort_min, protections, algorithms, recipients }
    }
}

prop_compose! {
    fn any_question()(
        who in proptest::sample::select(vec!["alpha", "beta", "gamma", "delta"]),
        verb in proptest::sample::select(Verb::ALL.to_vec()),
        purpose in proptest::sample::select(PURPOSES.to_vec()),
        algorithm in proptest::sample::select(vec!["fed-avg", "itinerary", "scaffold"]),
        protections in some_of(&["norm-clip", "dp"]), cohort in 0_u32..5,
        jurisdiction in proptest::sample::select(vec!["DE", "FR", "US"]), recipients in organisations(),
    ) -> PolicyQuestion {
        PolicyQuestion {
            who: who.parse().unwrap(),
            verb,
            what: "dataset:st-mary/digits".parse().unwrap(),
            context: UseContext {
                purpose: purpose.into(), algorithm: algorithm.into(), protections, cohort,
                jurisdiction: jurisdiction.into(), recipients,
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn owner_policies_mean_what_they_say(policy in owner_policy(), questions in prop::collection::vec(any_question(), 20)) {
        let text = policy.to_cedar().unwrap();
        let policies = PolicySet::parse(&text).unwrap();
        prop_assert!(policies.warnings().is_empty(), "{:?}", policies.warnings());
        for question in questions {
            let facts = ResourceFacts::new(&question.what, "DE");
            let answer = policies.answer(&question, &facts);
            prop_assert_eq!(&answer.errors, &Vec::<String>::new());
            prop_assert_eq!(answer.allowed, by_hand(&policy, &question), "{}\n{:?}", text, question);
            // Answers are values: the same question gives the same answer, and a permit always has a reason.
            prop_assert!(!answer.allowed || !answer.determining.is_empty());
            prop_assert_eq!(policies.answer(&question, &facts), answer);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = PolicySet::parse(&text);
    }

    #[test]
    fn no_near_policy_panics(cut in 0_usize..400, insert in "[(){};\"\\\\.!&|?@a-z0-9 ]{0,6}") {
        let mut text = RESEARCH.to_owned();
        let cut = cut.min(text.len());
        text.insert_str(cut, &insert);
        let _ = PolicySet::parse(&text);
        let _ = PolicySet::parse(&text[..cut]);
    }
}

#[test]
fn whether_the_entity_matters_is_known() {
    for (text, matters) in [
        ("permit (principal, action, resource);", false),
        (
            r#"permit (principal, action, resource) when { context.purpose == "resource" }; // resource"#,
            false,
        ),
        (
            r#"permit (principal == Organisation::"a", action, resource); forbid (principal, action, resource);"#,
            false,
        ),
        (
            r#"permit (principal, action, resource == Dataset::"dataset:a/b");"#,
            true,
        ),
        (
            r#"permit (principal, action, resource in Organisation::"a");"#,
            true,
        ),
        ("permit (principal, action, resource is Dataset);", true),
        (
            r#"permit (principal, action, resource) when { resource.jurisdiction == "DE" };"#,
            true,
        ),
        (
            r#"permit (principal, action, resource) unless { principal == resource.organisation };"#,
            true,
        ),
    ] {
        let policies = PolicySet::parse(text).unwrap();
        assert_eq!(policies.resource_matters(), matters, "{text}");
    }
    let text = OwnerPolicy::default().to_cedar().unwrap();
    assert!(!PolicySet::parse(&text).unwrap().resource_matters());
}

#[test]
fn either_may_permit_a_query_and_either_may_forbid_it() {
    let answer = |allowed: bool, id: &str| {
        Some(PolicyAnswer {
            allowed,
            determining: if id.is_empty() {
                vec![]
            } else {
                vec![id.to_owned()]
            },
            errors: vec![],
        })
    };
    let (silent, yes, no) = (answer(false, ""), answer(true, "yes"), answer(false, "no"));
    for (owner, domain, default, allowed, determining) in [
        (None, None, true, true, ""),
        (None, None, false, false, ""),
        (silent.clone(), silent.clone(), true, true, ""),
        (silent.clone(), yes.clone(), false, true, "domain:yes"),
        (yes.clone(), silent, false, true, "yes"),
        (yes.clone(), no.clone(), true, false, "domain:no"),
        (no.clone(), yes, true, false, "no"),
        (no, None, true, false, "no"),
    ] {
        let found = daitn_policy::permit_by_either(owner, domain, default);
        assert_eq!(
            (found.allowed, found.determining.concat().as_str()),
            (allowed, determining)
        );
    }
}

#[test]
fn a_rule_on_what_can_be_no_entity_is_refused_with_what_is_meant() {
    for (named, meant) in [
        (r#"Model::"lab/stay""#, r#"Model::"model:lab/stay""#),
        (
            r#"Dataset::"st-mary/digits""#,
            r#"Dataset::"dataset:st-mary/digits""#,
        ),
        (r#"ModelHost::"lab/one""#, r#"ModelHost::"model-host:lab/one""#),
        (
            r#"Dataset::"model:lab/stay""#,
            r#"Dataset::"dataset:ORGANISATION/NAME""#,
        ),
        (r#"Agent::"helper""#, r#"Agent::"agent:ORGANISATION/NAME""#),
    ] {
        for rule in [
            format!("@id(\"it\") forbid (principal, action, resource == {named});"),
            format!("@id(\"it\") forbid (principal, action, resource)\nwhen {{ resource == {named} }};"),
        ] {
            let error = PolicySet::parse(&rule).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert!(error.to_string().contains("rule `it`"), "{error}");
            assert!(error.remedy().contains(meant), "{}", error.remedy());
        }
    }
    let error =
        PolicySet::parse(r#"permit (principal == Organisation::"St Mary", action, resource);"#).unwrap_err();
    assert!(error.to_string().starts_with("line 1, column 22: "), "{error}");
    // What is written in full passes, wherever it stands.
    for named in [
        r#"Model::"model:lab/stay""#,
        r#"Dataset::"dataset:st-mary/digits""#,
    ] {
        PolicySet::parse(&format!("forbid (principal, action, resource == {named});")).unwrap();
    }
}
