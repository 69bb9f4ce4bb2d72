//! Deadlines that pass while the control center is away: others could not tell it what they did, nor hear what it wanted.

use super::*;
use daitn_messages::job::DeploymentPhase;

/// Longer than any wait of the center.
const AWAY_MS: u64 = 60 * 60 * 1000;

#[test]
fn hosts_have_their_time_to_serve_again() {
    let mut fixture = Fixture::new();
    let (job, id) = hosts::placing(&mut fixture);
    fixture.away(AWAY_MS);
    let view = hosts::view(&mut fixture, &id);
    assert_eq!((view.phase, view.hosts.len()), (DeploymentPhase::Placing, 1));
    assert_eq!(fixture.job(&job).phase, JobPhase::Deploying);
    fixture.come_back(hosts::HOST);
    // All but the last of the time that it has.
    fixture.now = fixture.now.plus(Timing::default().deploying_ms - 1);
    fixture.handle(Event::Timer(Timer::Deployment(id.clone())));
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    hosts::serve(&mut fixture);
    assert_eq!(hosts::view(&mut fixture, &id).phase, DeploymentPhase::Ready);
    assert_eq!(fixture.job(&job).phase, JobPhase::Succeeded);
}

#[test]
fn a_host_that_does_not_serve_in_that_time_either_ends_the_deployment() {
    let mut fixture = Fixture::new();
    let (job, id) = hosts::placing(&mut fixture);
    fixture.away(AWAY_MS);
    fixture.come_back(hosts::HOST);
    fixture.now = fixture.now.plus(Timing::default().deploying_ms + 1_000);
    fixture.handle(Event::Timer(Timer::Deployment(id.clone())));
    assert_eq!(hosts::view(&mut fixture, &id).phase, DeploymentPhase::Failed);
    assert_eq!(fixture.job(&job).phase, JobPhase::Failed);
}

#[test]
fn units_have_their_time_to_report_again() {
    let mut fixture = Fixture::new();
    let job = judged_by_one(&mut fixture, None);
    fixture.away(AWAY_MS);
    fixture.come_back(UNIT);
    fixture.now = fixture.now.plus(Timing::default().verifying_ms - 1);
    fixture.handle(Event::Timer(Timer::Job(job.clone())));
    fixture.answer(&job, "verifier:a/v", found(0.9));
    assert_eq!(fixture.job(&job).phase, JobPhase::Succeeded);
}

#[test]
fn a_job_that_waits_for_an_aggregator_goes_on_waiting() {
    let mut fixture = Fixture::new();
    fixture.join(31, &"aggregator:b/other".parse().unwrap());
    let job = fixture.train("fine").id;
    fixture.all_accept(&job);
    let conducts = fixture.job(&job).plan.aggregator.entity.to_string();
    let (other, conducts) = if conducts == "aggregator:b/other" {
        (AGGREGATOR, conducts)
    } else {
        (31, conducts)
    };
    fixture.leave(other);
    let refusal = Rejection::new(Code::Overloaded, "no room");
    fixture.answer(&job, &conducts, Outcome::Refused(refusal));
    assert!(fixture.job(&job).waiting.is_some(), "nobody is there to conduct");
    fixture.away(AWAY_MS);
    assert_eq!(fixture.job(&job).phase, JobPhase::Training);
    fixture.come_back(other);
    assert_eq!(fixture.job(&job).waiting, None);
    assert_eq!(fixture.job(&job).phase, JobPhase::Training);
}
