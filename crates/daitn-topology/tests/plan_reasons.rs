//! What plans and refusals say, and what they choose where nothing was measured.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use daitn_messages::{
    descriptor::{Body, VerifierBody},
    learning::{Metric, Strategy, Task},
    plan::{ConstraintName, Plan, Verdict},
    request::{Deployment, PlanKind, TrainingRequest},
};
use support::*;

const MOMENTUM: Strategy = Strategy::FedAvgM { beta: 0.9, eta: 1.0 };

/// `n` sites that tell no label shares, for a task.
fn sites(n: usize, records: u64, task: &Task) -> Net {
    let mut net = Net::default();
    net.aggregator("aggregator:agg/main");
    let body = Body::Verifier(VerifierBody {
        task: task.clone(),
        ..match verifier() {
            Body::Verifier(body) => body,
            _ => unreachable!("a verifier's body"),
        }
    });
    net.entity("verifier:judge/unit", body);
    for i in 0..n {
        let body = dataset_with(records, None, |body| body.task = task.clone());
        net.entity(&format!("dataset:org-{i:03}/data"), body);
    }
    net
}

fn request_for(task: &Task, rounds: u32) -> TrainingRequest {
    let mut request = request();
    request.task = task.clone();
    request.training.rounds = rounds;
    if *task == Task::Regression {
        request.verification.metric = Metric::Rmse;
    }
    request
}

fn strategies(plan: &Plan) -> Vec<Strategy> {
    let rounds = plan
        .alternatives
        .iter()
        .filter(|way| way.kind == PlanKind::Rounds);
    rounds.map(|way| way.strategy).collect()
}

/// What a regression is trained by, however few or many rounds, records and sites: with the same numbers
/// classes are learned with momentum, so that the table would tell.
#[test]
fn the_table_of_ways_for_a_regression_is_plain_averaging() {
    let classes = Task::Classification { classes: classes() };
    let mut n_with_momentum = 0;
    for rounds in [1, 5, 20, 100] {
        for records in [40, 500, 20_000] {
            for n_sites in [1, 2, 5, 40] {
                let net = sites(n_sites, records, &Task::Regression);
                let plan = feasible(verdict(&net, &request_for(&Task::Regression, rounds)));
                let case = format!("{rounds} rounds, {records} records, {n_sites} sites");
                assert_eq!(
                    (plan.kind, plan.strategy),
                    (PlanKind::Rounds, Strategy::FedAvg),
                    "{case}"
                );
                assert_eq!(strategies(&plan), [Strategy::FedAvg], "{case}");
                assert!(plan.prediction.skew.abs() < f64::EPSILON, "{case}");
                let net = sites(n_sites, records, &classes);
                let plan = feasible(verdict(&net, &request_for(&classes, rounds)));
                n_with_momentum += usize::from(strategies(&plan).contains(&MOMENTUM));
            }
        }
    }
    assert!(n_with_momentum > 4, "{n_with_momentum}");
}

#[test]
fn a_regressions_plan_promises_nothing_of_labels_or_quality() {
    let net = sites(5, 500, &Task::Regression);
    let mut request = request_for(&Task::Regression, 20);
    let plan = feasible(verdict(&net, &request));
    assert!(
        plan.why
            .contains("A regression has no label shares, so plain averaging is taken"),
        "{}",
        plan.why
    );
    assert!(
        !plan.why.contains("skew") && !plan.why.contains('%'),
        "{}",
        plan.why
    );
    let other = plan
        .alternatives
        .iter()
        .find(|way| !way.why_not.is_empty())
        .unwrap();
    assert!(
        other.why_not.starts_with("no better quality is expected"),
        "{}",
        other.why_not
    );
    // Momentum only for who asks for it, and then it is not called plain.
    request.training.strategy = Some(MOMENTUM);
    request.training.kind = Some(PlanKind::Rounds);
    let plan = feasible(verdict(&net, &request));
    assert_eq!(plan.strategy, MOMENTUM);
    assert!(!plan.why.contains("plain"), "{}", plan.why);
}

/// The swing of momentum 0.9 shrinks by sqrt(0.9) a round: after nine rounds 62 % of it are left.
#[test]
fn momentum_is_not_chosen_for_a_few_rounds() {
    let classes = Task::Classification { classes: classes() };
    let net = sites(5, 64, &classes);
    let of = |rounds| strategies(&feasible(verdict(&net, &request_for(&classes, rounds))));
    assert!(!of(9).contains(&MOMENTUM), "{:?}", of(9));
    assert!(of(10).contains(&MOMENTUM), "{:?}", of(10));
}

#[test]
fn a_refusal_names_the_algorithm_that_was_asked_for() {
    let net = sites(3, 2_000, &Task::Classification { classes: classes() });
    let mut request = request();
    request.training.strategy = Some(Strategy::FedAvg);
    request.sla.sites_min = 3;
    let answer = |descriptor: &daitn_messages::descriptor::Descriptor, _: &_| {
        if descriptor.organisation().as_str() == "org-001" {
            deny(&["never"])
        } else {
            allow(&["all"])
        }
    };
    let Verdict::Infeasible { excluded, .. } = verdict_with(&net, &request, answer) else {
        panic!("feasible");
    };
    assert_eq!(excluded.len(), 1);
    assert!(
        excluded[0].reason.contains("algorithm `fed-avg`, a cohort of 3"),
        "{}",
        excluded[0].reason
    );
}

#[test]
fn what_is_only_being_drained_is_called_so() {
    let classes = Task::Classification { classes: classes() };
    let mut net = sites(3, 2_000, &classes);
    net.host("model-host:hosting/one");
    for drained in [
        "aggregator:agg/main",
        "verifier:judge/unit",
        "model-host:hosting/one",
        "dataset:org-001/data",
    ] {
        net.draining(drained);
    }
    let mut request = request();
    request.sla.sites_min = 3;
    request.deployment = Some(Deployment {
        replicas: 1,
        policy: String::new(),
    });
    let (binding, _) = infeasible(verdict(&net, &request));
    let said = |name: ConstraintName| {
        let found = binding.iter().find(|constraint| constraint.name == name);
        found.map(|constraint| constraint.explanation.clone()).unwrap()
    };
    assert!(said(ConstraintName::Aggregator).starts_with("No aggregator takes new work"));
    for name in [
        ConstraintName::Aggregator,
        ConstraintName::Verifiers,
        ConstraintName::Hosts,
    ] {
        assert!(
            said(name).contains("1 more is on a node that is being drained"),
            "{}",
            said(name)
        );
    }
    assert!(
        said(ConstraintName::Hosts).contains("1 replica asked for"),
        "{}",
        said(ConstraintName::Hosts)
    );
    assert_eq!(
        said(ConstraintName::Reachability),
        "1 more dataset would fit but is on a node that is being drained and takes no new work; the exclusions name each \
         with its reason."
    );
    // And what is away is not called drained.
    let mut net = sites(3, 2_000, &classes);
    net.connected("aggregator:agg/main", false);
    let (binding, _) = infeasible(verdict(&net, &request));
    assert!(
        binding.iter().all(|c| !c.explanation.contains("drained")),
        "{binding:?}"
    );
}
