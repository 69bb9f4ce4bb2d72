//! Policies are asked of what is under way, and what may not be discovered is not shown.

use super::*;
use crate::core::orders::OrderKind;
use daitn_messages::{
    ids::EntityKind,
    job::DeploymentPhase,
    operation::{NewKey, Scope},
    plan::ConstraintName,
    policy::{PolicyQuestion, UseContext, Verb},
};

/// A dataset that others are not to see, and may train on if they know of it.
pub(super) const HIDDEN: &str = r#"permit (principal, action, resource);
    @id("unseen") forbid (principal, action == Action::"discover", resource);"#;

impl Fixture {
    fn forbid(&mut self, id: &str, action: &str, resource: &str) {
        let policy = format!("@id(\"{id}\") forbid (principal, action == Action::\"{action}\", {resource});");
        self.call(Operation::SetPolicy(policy)).unwrap();
    }

    /// A job that is verified: its model is registered.
    fn registered(&mut self) -> JobId {
        let job = self.train("fine").id;
        self.trained(&job);
        self.answer(&job, "verifier:a/v", found(0.9));
        assert_eq!(self.job(&job).phase, JobPhase::Succeeded);
        job
    }

    fn deploy(&mut self) -> Result<Answer, Rejection> {
        self.call(Operation::Deploy {
            model: "fine".parse().unwrap(),
            version: None,
            replicas: 1,
        })
    }
}

#[test]
fn a_domain_that_forbids_to_train_ends_the_jobs_that_it_concerns() {
    let mut fixture = Fixture::new();
    let training = fixture.train("fine").id;
    fixture.all_accept(&training);
    let preparing = fixture.train("other").id;
    let mut elsewhere = request("elsewhere");
    elsewhere.data.datasets = vec!["dataset:b/d".parse().unwrap()];
    let elsewhere = fixture.train_as(elsewhere).id;

    fixture.forbid(
        "not-in-force-here",
        "train",
        "resource == Dataset::\"dataset:z/other\"",
    );
    for (job, phase) in [(&training, JobPhase::Training), (&preparing, JobPhase::Preparing)] {
        assert_eq!(fixture.job(job).phase, phase);
    }
    fixture.forbid("no-training", "train", "resource == Dataset::\"dataset:a/d\"");
    for job in [training, preparing] {
        let view = fixture.job(&job);
        assert_eq!(view.phase, JobPhase::Failed);
        let cause = view.cause.unwrap();
        assert_eq!(cause.code, Code::PolicyForbids);
        assert_eq!(cause.policies, ["domain:no-training"]);
        assert!(cause.message.contains("dataset:a/d"), "{cause}");
        let owner = Process::Job(job);
        let orders = fixture
            .core
            .orders
            .by_id
            .values()
            .filter(|record| record.owner == owner);
        let kinds: Vec<_> = orders.map(|record| record.kind).collect();
        assert!(kinds.iter().all(|kind| *kind == OrderKind::Stop), "{kinds:?}");
        assert!(kinds.len() >= 2, "both sites are told: {kinds:?}");
    }
    assert_eq!(fixture.job(&elsewhere).phase, JobPhase::Preparing);
}

#[test]
fn a_model_is_not_served_where_the_domain_forbids_it() {
    let mut fixture = Fixture::new();
    fixture.registered();
    fixture.forbid("not-served", "serve", "resource");
    let refusal = fixture.deploy().unwrap_err();
    assert_eq!(refusal.code, Code::PolicyForbids);
    assert_eq!(refusal.policies, ["domain:not-served"]);
    let question = PolicyQuestion {
        who: "operator".parse().unwrap(),
        verb: Verb::Serve,
        what: "model:operator/fine".parse().unwrap(),
        context: UseContext {
            purpose: String::new(),
            algorithm: String::new(),
            protections: Vec::new(),
            cohort: 0,
            jurisdiction: String::new(),
            recipients: Vec::new(),
        },
    };
    let can = |fixture: &mut Fixture| match fixture.call(Operation::Can(question.clone())) {
        Ok(Answer::Policy(answer)) => answer.allowed,
        other => panic!("{other:?}"),
    };
    assert!(!can(&mut fixture));

    // A job that is to be deployed says so.
    let mut wanted = request("fine");
    wanted.deployment = Some(daitn_messages::request::Deployment {
        replicas: 1,
        policy: String::new(),
    });
    let job = fixture.train_as(wanted).id;
    fixture.trained(&job);
    fixture.answer(&job, "verifier:a/v", found(0.9));
    let view = fixture.job(&job);
    assert_eq!(view.phase, JobPhase::Failed);
    let cause = view.cause.unwrap();
    assert_eq!(cause.code, Code::PolicyForbids);
    assert_eq!(cause.policies, ["domain:not-served"]);

    fixture.call(Operation::SetPolicy(String::new())).unwrap();
    assert!(can(&mut fixture));
    let Ok(Answer::Deployment(deployment)) = fixture.deploy() else {
        panic!()
    };
    assert_eq!(deployment.hosts.len(), 1);
    // Nor any longer where it is served.
    fixture.forbid("no-longer", "serve", "resource");
    let Ok(Answer::Deployments(all)) = fixture.call(Operation::ListDeployments) else {
        panic!()
    };
    let ended = all.iter().find(|view| view.id == deployment.id).unwrap();
    assert_eq!(ended.phase, DeploymentPhase::Stopped);
    assert_eq!(ended.cause.as_ref().unwrap().policies, ["domain:no-longer"]);
}

#[test]
fn a_unit_evaluates_for_whom_the_domain_lets_it() {
    let mut fixture = Fixture::new();
    let job = fixture.train("fine").id;
    fixture.trained(&job);
    fixture.forbid("not-for-them", "evaluate", "resource");
    let view = fixture.job(&job);
    assert_eq!(view.phase, JobPhase::Failed);
    assert_eq!(view.cause.unwrap().policies, ["domain:not-for-them"]);
    let Ok(Answer::Verdict(verdict)) = fixture.call(Operation::Plan(Box::new(request("fine")))) else {
        panic!()
    };
    let Verdict::Infeasible {
        binding, excluded, ..
    } = *verdict
    else {
        panic!("{verdict:?}")
    };
    assert!(
        binding.iter().any(|one| one.name == ConstraintName::Verifiers),
        "{binding:?}"
    );
    let unit = excluded
        .iter()
        .find(|out| out.entity.kind == EntityKind::Verifier)
        .unwrap();
    assert_eq!(unit.policies, ["domain:not-for-them"]);
}

#[test]
fn nothing_is_placed_on_a_host_that_the_owner_may_not_discover() {
    let mut fixture = Fixture::new();
    let mut wanted = request("fine");
    wanted.deployment = Some(daitn_messages::request::Deployment {
        replicas: 1,
        policy: String::new(),
    });
    let job = fixture.train_as(wanted).id;
    assert_eq!(fixture.job(&job).plan.hosts.len(), 1);
    fixture.trained(&job);
    // Hidden after the plan chose it.
    fixture.forbid("not-seen", "discover", "resource");
    fixture.answer(&job, "verifier:a/v", found(0.9));
    let id = fixture.job(&job).deployment.unwrap();
    let hidden = hosts::view(&mut fixture, &id);
    assert!(hidden.hosts.is_empty(), "{hidden:?}");
    assert!(!format!("{hidden:?}").contains("model-host:a/h"), "{hidden:?}");

    fixture.call(Operation::SetPolicy(String::new())).unwrap();
    assert_eq!(hosts::view(&mut fixture, &id).hosts.len(), 1);
    hosts::serve(&mut fixture);
    // One that serves already goes on to: nothing new is chosen.
    fixture.forbid("not-seen", "discover", "resource");
    assert_eq!(hosts::view(&mut fixture, &id).phase, DeploymentPhase::Ready);
}

#[test]
fn a_unit_that_the_requester_may_not_discover_takes_nobodys_place() {
    let mut fixture = Fixture::new();
    let other = r#"@id("not-seen") forbid (principal, action == Action::"discover",
        resource == Verifier::"verifier:b/w");"#;
    fixture.call(Operation::SetPolicy(other.to_owned())).unwrap();
    let job = judged_by_one(&mut fixture, Some(30));
    fixture.leave(UNIT);
    fixture.now = fixture.now.plus(Timing::default().verifying_ms + 1_000);
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    assert_eq!(fixture.job(&job).phase, JobPhase::NotVerified);
}

#[test]
fn what_an_owner_hides_is_seen_by_the_owner_and_the_administrator_alone() {
    let mut fixture = Fixture::new();
    fixture.join(20, &"dataset:c/hidden".parse().unwrap());
    let node = NodeKey::from_bytes(&[20; 32]).id();
    let admin = fixture.admin.clone();
    for (organisation, sees) in [("operator", true), ("c", true), ("b", false)] {
        if organisation != "operator" {
            let new = NewKey {
                organisation: organisation.parse().unwrap(),
                scopes: vec![Scope::Read],
                note: String::new(),
            };
            fixture.admin = admin.clone();
            fixture.call(Operation::CreateKey(new)).unwrap();
            let keys = fixture.core.snapshot(NOW).keys;
            let key = keys
                .iter()
                .find(|key| key.principal.organisation.as_str() == organisation);
            fixture.admin = key.unwrap().principal.clone();
        }
        let list = fixture.call(Operation::ListNodes).unwrap();
        let one = fixture.call(Operation::GetNode(node)).unwrap();
        assert_eq!(format!("{list:?}").contains("hidden"), sees, "{organisation}");
        assert_eq!(format!("{one:?}").contains("hidden"), sees, "{organisation}");
        // What is not hidden is there for everybody.
        assert!(format!("{list:?}").contains("aggregator"), "{organisation}");
    }
    fixture.admin = admin;
    // The plan is made for the operator, who may not see it.
    let Ok(Answer::Verdict(verdict)) = fixture.call(Operation::Plan(Box::new(request("fine")))) else {
        panic!()
    };
    assert!(!format!("{verdict:?}").contains("hidden"), "{verdict:?}");
    let Verdict::Feasible { plan } = *verdict else {
        panic!()
    };
    assert_eq!(plan.sites.len(), 2);
}

#[test]
fn a_unit_that_may_not_evaluate_any_more_replaces_no_other() {
    let mut fixture = Fixture::new();
    let job = judged_by_one(&mut fixture, Some(30));
    fixture.forbid("not-b", "evaluate", "resource == Verifier::\"verifier:b/w\"");
    assert_eq!(
        fixture.job(&job).phase,
        JobPhase::Verifying,
        "another unit judges"
    );
    fixture.leave(UNIT);
    fixture.now = fixture.now.plus(Timing::default().verifying_ms + 1_000);
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    assert_eq!(fixture.job(&job).phase, JobPhase::NotVerified);
    let entity: EntityId = "verifier:b/w".parse().unwrap();
    let mut orders = fixture.core.orders.by_id.values();
    assert!(orders.all(|record| record.terminal != entity), "it was asked");
}
