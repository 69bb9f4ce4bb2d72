//! Plans that wait to be applied: made apart, and made again when what they rest on has moved.

use super::*;
use crate::limits::PLANNING_MAX;
use daitn_messages::{
    encoding,
    ids::{OrganisationId, PlanId},
    plan::Plan,
};
use daitn_store::Family;
use serde::Serialize;

#[test]
fn plans_are_made_apart_and_so_many_at_once() {
    let mut fixture = Fixture::new();
    let inline = fixture.train("fine").plan;
    fixture.core.config.plans_apart = true;
    let ask = |fixture: &mut Fixture, number: u64| {
        let mut wanted = request("apart");
        wanted.training.local.seed = 7;
        let event = Event::Operation {
            request: RequestId(number),
            principal: fixture.admin.clone(),
            operation: Box::new(Operation::Plan(Box::new(wanted))),
        };
        fixture.handle(event)
    };
    let mut tasks = Vec::new();
    for number in 2_000..2_000 + PLANNING_MAX as u64 {
        let effects = ask(&mut fixture, number);
        let [Effect::Plan(task)] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        tasks.push(task.clone());
    }
    let refused = ask(&mut fixture, 3_000);
    assert!(
        matches!(refused.as_slice(), [Effect::Reply { result: Err(rejection), .. }] if rejection.code == Code::Overloaded),
        "{refused:?}"
    );
    // A dataset is withdrawn meanwhile: the task does not see it, and the plan is found stale when it is applied.
    let withdrawn = NodeMessage::Detach("dataset:b/d".parse().unwrap());
    fixture.handle(Event::Message {
        request: RequestId(903),
        node: NodeKey::from_bytes(&[2; 32]).id(),
        message: withdrawn,
    });
    let planned = tasks.remove(0).run();
    let effects = fixture.handle(Event::Planned(Box::new(planned)));
    let plan = effects.into_iter().find_map(|effect| match effect {
        Effect::Reply {
            request: RequestId(2_000),
            result: Ok(Answer::Verdict(verdict)),
        } => match *verdict {
            Verdict::Feasible { plan } => Some(plan),
            Verdict::Infeasible { .. } => None,
        },
        _ => None,
    });
    let plan = plan.unwrap();
    assert_eq!(plan.sites, inline.sites);
    let apply = Operation::Apply {
        plan: plan.id,
        idempotency_key: None,
    };
    let refusal = fixture.call(apply).unwrap_err();
    assert_eq!(refusal.code, Code::StalePlan);
    // One was answered: there is room for one again.
    assert!(matches!(ask(&mut fixture, 3_001).as_slice(), [Effect::Plan(_)]));
}

/// A plan's record as it was before it told by which rules it was made.
#[derive(Serialize)]
struct Older {
    plan: Plan,
    organisation: OrganisationId,
    domain_version: u64,
    job: Option<JobId>,
}

#[test]
fn a_plan_that_older_rules_made_is_to_be_made_again() {
    for is_older in [false, true] {
        let mut fixture = Fixture::new();
        let Ok(Answer::Verdict(verdict)) = fixture.call(Operation::Plan(Box::new(request("fine")))) else {
            panic!()
        };
        let Verdict::Feasible { plan } = *verdict else {
            panic!("{verdict:?}")
        };
        let id: PlanId = plan.id.clone();
        if is_older {
            let older = Older {
                organisation: plan.request.organisation.clone(),
                plan: *plan,
                domain_version: 0,
                job: None,
            };
            let records = fixture.records.by_family.get_mut(&Family::Plans).unwrap();
            records[0].value = encoding::encode(&older);
        }
        fixture.away(0);
        (1..=5).for_each(|number| drop(fixture.come_back(number)));
        let applied = fixture.call(Operation::Apply {
            plan: id,
            idempotency_key: None,
        });
        if is_older {
            let refusal = applied.unwrap_err();
            assert_eq!(refusal.code, Code::StalePlan);
            assert!(refusal.message.contains("another version"), "{refusal}");
        } else {
            applied.unwrap();
        }
    }
}
