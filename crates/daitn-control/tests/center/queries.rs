//! Who may query, as policies say and as gateways are told.

use crate::{
    apply, follow, full_lab, key,
    lab::{code, request},
    snapshot,
};
use daitn_messages::{
    ids::EntityId,
    job::JobPhase,
    operation::{Answer, Operation, Scope},
    plan::Verdict,
    policy::{PolicyQuestion, Verb},
    rejection::Code,
    snapshot::Snapshot,
};
use daitn_topology::site_context;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_query_is_decided_by_policy_and_pushed_to_the_gateways() {
    let (lab, _nodes) = full_lab().await;
    let mut wanted = request(1, "research");
    wanted.deployment.as_mut().unwrap().policy =
        r#"@id("friends") permit (principal == Organisation::"friend",
        action == Action::"query", resource);"#
            .to_owned();
    let Answer::Verdict(verdict) = lab.call(Operation::Plan(Box::new(wanted.clone()))).await.unwrap() else {
        panic!()
    };
    let Verdict::Feasible { plan } = *verdict else {
        panic!("{verdict:?}")
    };
    let view = apply(&lab, &plan, None).await;
    assert_eq!(*follow(&lab, &view.id).await.last().unwrap(), JobPhase::Succeeded);
    let mut principals = Vec::new();
    for organisation in ["friend", "operator", "stranger"] {
        principals.push(key(&lab, organisation, &[Scope::Query]).await);
    }
    principals.push(lab.admin.clone());
    let principals = principals.as_slice();
    let who = |who: &str| match who {
        "admin" => &principals[3],
        other => principals
            .iter()
            .find(|p| p.organisation.as_str() == other)
            .unwrap(),
    };
    let model: EntityId = "model:operator/digits".parse().unwrap();
    let check = |snapshot: &Snapshot, name: &str| snapshot.models[0].access.check(who(name), &model);
    let served = snapshot(&lab.center, |snapshot| {
        !snapshot.models.is_empty() && snapshot.keys.len() == 4
    })
    .await;
    check(&served, "operator").unwrap();
    check(&served, "friend").unwrap();
    let refusal = check(&served, "stranger").unwrap_err();
    assert_eq!(refusal.code, Code::PolicyForbids);
    assert!(
        refusal.message.contains("no policy permits stranger"),
        "{refusal}"
    );
    // A key that acts for all organisations needs no permit.
    check(&served, "admin").unwrap();

    lab.call(Operation::SetPolicy(
        r#"@id("open") permit (principal, action == Action::"query", resource == Model::"model:operator/digits");
        @id("no-friends") forbid (principal == Organisation::"friend", action == Action::"query", resource);"#
            .to_owned(),
    ))
    .await
    .unwrap();
    let served = snapshot(&lab.center, |snapshot| check(snapshot, "stranger").is_ok()).await;
    check(&served, "operator").unwrap();
    assert_eq!(
        check(&served, "friend").unwrap_err().policies,
        ["domain:no-friends"]
    );
    // The same can be asked beforehand, whatever circumstances are given.
    for (who, allowed, determining) in [
        ("stranger", true, "domain:open"),
        ("friend", false, "domain:no-friends"),
    ] {
        let question = PolicyQuestion {
            who: who.parse().unwrap(),
            verb: Verb::Query,
            what: model.clone(),
            context: site_context(&plan, 0),
        };
        let Answer::Policy(answer) = lab.call(Operation::Can(question)).await.unwrap() else {
            panic!()
        };
        assert_eq!(
            (answer.allowed, answer.determining.concat().as_str()),
            (allowed, determining)
        );
    }
    // A policy that does not parse is refused before anything is planned.
    wanted.deployment.as_mut().unwrap().policy = "permit everything".to_owned();
    assert_eq!(
        code(lab.call(Operation::Plan(Box::new(wanted))).await),
        Code::PolicyInvalid
    );
    lab.center.shutdown().await;
}
