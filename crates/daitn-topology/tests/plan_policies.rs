//! What policies are asked when a plan is made: the company that data has, the algorithm, who may discover and evaluate.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use daitn_messages::{
    descriptor::Descriptor,
    plan::{ConstraintName, Placement},
    policy::{UseContext, Verb},
    request::{Deployment, PlanKind},
};
use daitn_topology::{site_context, spare_units};
use support::*;

#[test]
fn copies_of_a_dataset_at_the_requester_are_no_company() {
    // The requester's own node has two copies, one organisation has four datasets, two others have one.
    let mut net = Net::default();
    net.furnished();
    for id in [
        "dataset:university/copy-1",
        "dataset:university/copy-2",
        "dataset:many/a",
        "dataset:many/b",
        "dataset:many/c",
        "dataset:many/d",
        "dataset:one/data",
        "dataset:two/data",
    ] {
        net.dataset(id, 2_000, Some(vec![0.25; 4]));
    }
    let mut request = request();
    assert_eq!(request.organisation.as_str(), "university");
    request.training.kind = Some(PlanKind::Rounds);
    let asks = |needs: u32| {
        move |_: &Descriptor, context: &UseContext| {
            if context.cohort >= needs {
                allow(&["enough"])
            } else {
                deny(&["too-few"])
            }
        }
    };
    // Two of the requester's and four of one organisation's may be in a round of six; with seven another is, too.
    for (needs, quorum, cohort) in [(0, 6, 1), (1, 6, 1), (2, 7, 2), (3, 8, 3)] {
        let plan = feasible(verdict_with(&net, &request, asks(needs)));
        assert_eq!(
            (plan.sites.len(), plan.quorum, plan.cohort),
            (8, quorum, cohort),
            "{needs}"
        );
        assert!((0..8).all(|i| site_context(&plan, i).cohort == cohort));
    }
    // Eight sites, but three organisations.
    infeasible(verdict_with(&net, &request, asks(4)));
    // Where the model travels nobody has company.
    for kind in [PlanKind::Itinerary, PlanKind::Hybrid] {
        request.training.kind = Some(kind);
        assert_eq!(feasible(verdict_with(&net, &request, asks(1))).cohort, 1);
        infeasible(verdict_with(&net, &request, asks(2)));
    }
}

#[test]
fn who_forbids_itineraries_forbids_them_side_by_side_as_well() {
    let net = sites(8, 2_000, true);
    let no_itinerary = |_: &Descriptor, context: &UseContext| {
        if context.algorithm == "itinerary" {
            deny(&["no-itinerary"])
        } else {
            allow(&["rest"])
        }
    };
    let mut request = request();
    for kind in [PlanKind::Itinerary, PlanKind::Hybrid] {
        request.training.kind = Some(kind);
        let (binding, _) = infeasible(verdict_with(&net, &request, no_itinerary));
        assert!(names(&binding).contains(&ConstraintName::Policy), "{binding:?}");
    }
    request.training.kind = None;
    let plan = feasible(verdict_with(&net, &request, no_itinerary));
    assert_eq!(plan.kind, PlanKind::Rounds);
    assert!(plan.chains.iter().all(|chain| chain.len() == 1));
}

#[test]
fn a_dataset_that_the_requester_may_not_discover_is_neither_used_nor_named() {
    let net = sites(4, 2_000, false);
    let mut by = |verb, descriptor: &Descriptor, _: &_| {
        let hidden = verb == Verb::Discover && descriptor.organisation().as_str() == "org-002";
        if hidden { deny(&["hidden"]) } else { allow(&[]) }
    };
    let verdict = verdict_by(&net, &request(), &mut by);
    assert!(!format!("{verdict:?}").contains("org-002"), "{verdict:?}");
    assert_eq!(feasible(verdict).sites.len(), 3);
    // Nor where the request cannot be met.
    let mut wanting = request();
    wanting.sla.sites_min = 4;
    let verdict = verdict_by(&net, &wanting, &mut by);
    assert!(!format!("{verdict:?}").contains("org-002"), "{verdict:?}");
    infeasible(verdict);
}

#[test]
fn nothing_that_the_requester_may_not_discover_is_planned_with_or_named() {
    // Hidden ones are nearer, or come first by their names.
    let mut net = sites(3, 2_000, false);
    net.aggregator("aggregator:a-hidden/main")
        .verifier("verifier:a-hidden/unit")
        .host("model-host:a-hidden/one")
        .host("model-host:a-hidden/two")
        .entity("compute:a-hidden/farm", facility(1 << 40))
        .entity("compute:open/farm", facility(1 << 40));
    let hidden_only = ["compute:a-hidden/farm"];
    let both = ["compute:a-hidden/farm", "compute:open/farm"];
    for (id, facilities) in [
        ("dataset:shut-in/data", &hidden_only[..]),
        ("dataset:with-choice/data", &both[..]),
    ] {
        let body = dataset_with(2_000, Some(vec![0.25; 4]), |body| {
            body.compute_rate = 0;
            body.compute_allowed = facilities.iter().map(|id| entity(id)).collect();
        });
        net.entity(id, body);
    }
    let mut request = request();
    request.deployment = Some(Deployment {
        replicas: 1,
        policy: String::new(),
    });
    let mut by = |verb, descriptor: &Descriptor, _: &_| {
        let hidden = verb == Verb::Discover && descriptor.organisation().as_str() == "a-hidden";
        if hidden { deny(&["hidden"]) } else { allow(&[]) }
    };
    let shown = verdict_by(&net, &request, &mut by);
    assert!(!format!("{shown:?}").contains("a-hidden"), "{shown:?}");
    let plan = feasible(shown);
    assert!(plan.aggregator_spares.is_empty());
    assert_eq!(plan.sites.len(), 4, "the one with an open facility takes part");
    assert_eq!(
        plan.excluded
            .iter()
            .map(|out| out.entity.to_string())
            .collect::<Vec<_>>(),
        ["dataset:shut-in/data"]
    );
    // With everything in sight, they would have been taken.
    request.deployment.as_mut().unwrap().replicas = 2;
    let open = feasible(verdict(&net, &request));
    let is_hidden = |found: &&Placement| found.entity.organisation.as_str() == "a-hidden";
    for kind in [
        std::slice::from_ref(&open.aggregator),
        &open.verifiers,
        &open.hosts,
    ] {
        assert!(kind.iter().any(|found| is_hidden(&found)), "{open:?}");
    }
    let computes = open.sites.iter().filter_map(|site| site.compute.as_ref());
    assert_eq!(computes.filter(is_hidden).count(), 1);

    // Where only hidden ones would do, that is said as if they were not there, drained or not.
    for node in ["aggregator:agg/main", "verifier:judge/unit"] {
        net.connected(node, false);
    }
    net.draining("model-host:a-hidden/two");
    let verdict = verdict_by(&net, &request, &mut by);
    let said = format!("{verdict:?}");
    assert!(!said.contains("a-hidden") && !said.contains("drained"), "{said}");
    let (binding, _) = infeasible(verdict);
    for name in [
        ConstraintName::Aggregator,
        ConstraintName::Verifiers,
        ConstraintName::Hosts,
    ] {
        assert!(names(&binding).contains(&name), "{binding:?}");
    }
}

#[test]
fn units_that_may_not_evaluate_for_the_requester_are_not_asked_to() {
    let mut net = sites(3, 2_000, false);
    net.verifier("verifier:other/unit");
    let mut by = |verb, descriptor: &Descriptor, _: &_| {
        let refused = verb == Verb::Evaluate && descriptor.organisation().as_str() == "judge";
        if refused {
            deny(&["not-for-them"])
        } else {
            allow(&[])
        }
    };
    let plan = feasible(verdict_by(&net, &request(), &mut by));
    let units: Vec<_> = plan
        .verifiers
        .iter()
        .map(|unit| unit.entity.to_string())
        .collect();
    assert_eq!(units, ["verifier:other/unit"]);
    let excluded = plan
        .excluded
        .iter()
        .find(|out| out.entity == entity("verifier:judge/unit"));
    assert_eq!(excluded.unwrap().policies, ["not-for-them"]);
    let mut may = |unit: &Descriptor| unit.organisation().as_str() != "judge";
    assert!(spare_units(&net.0, &plan, 9, &mut may).is_empty());
    assert_eq!(spare_units(&net.0, &plan, 9, &mut |_| true).len(), 1);
}
