//! What clients ask of jobs: lists, views, news, and to stop one.

use crate::{
    core::{
        Core, Turn, Who,
        event::{Effect, RequestId},
        jobs::{JobEntry, summary},
    },
    job::Input,
};
use daitn_messages::{
    ids::JobId,
    job::{JobPhase, JobSummary},
    operation::{Answer, Principal, Scope},
    rejection::{Code, Rejection},
};

impl Core {
    /// A job in memory that this principal may see.
    pub(in crate::core) fn visible_job(&self, who: &Who, id: &JobId) -> Option<&JobEntry> {
        let entry = self.jobs.by_id.get(id);
        entry.filter(|entry| who.sees(&entry.job.organisation))
    }

    pub(in crate::core) fn list_jobs(&self, who: &Who) -> Answer {
        let here = self.jobs.by_id.values().map(|entry| summary(&entry.job));
        let mut all: Vec<JobSummary> = self.jobs.archived.values().cloned().chain(here).collect();
        all.retain(|job| who.sees(&job.organisation));
        all.sort_by(|a, b| b.id.cmp(&a.id));
        Answer::Jobs(all)
    }

    pub(in crate::core) fn get_job(&self, turn: &mut Turn<'_>, request: RequestId, who: &Who, id: &JobId) {
        match self.jobs.by_id.get(id) {
            Some(entry) if who.sees(&entry.job.organisation) => {
                turn.reply(request, Ok(Answer::Job(Box::new(entry.view()))));
            }
            Some(_) => turn.reply(request, Err(Rejection::not_found("job", id))),
            None => turn.effect(Effect::ReadJob {
                request,
                job: id.clone(),
                organisation: who.only(),
            }),
        }
    }

    pub(in crate::core) fn watch(
        &self,
        turn: &mut Turn<'_>,
        request: RequestId,
        principal: &Principal,
        id: &JobId,
    ) {
        let view = self.authorise(principal, Scope::Read).and_then(|who| {
            self.visible_job(&who, id)
                .map(|entry| Box::new(entry.view()))
                .ok_or_else(|| Rejection::not_found("job", id))
        });
        turn.effect(Effect::Watching { request, view });
    }

    pub(in crate::core) fn stop_job(
        &mut self,
        turn: &mut Turn<'_>,
        who: &Who,
        id: &JobId,
    ) -> Result<Answer, Rejection> {
        let Some(entry) = self.visible_job(who, id) else {
            let archived = self.jobs.archived.get(id);
            return match archived.filter(|job| who.sees(&job.organisation)) {
                Some(job) => Err(has_ended(id, job.phase)),
                None => Err(Rejection::not_found("job", id)),
            };
        };
        if entry.job.phase.is_terminal() {
            return Err(has_ended(id, entry.job.phase));
        }
        let deployment = entry.job.deployment.clone();
        self.step_job(
            turn,
            id,
            Input::Stop {
                by: who.organisation.as_str(),
            },
        )?;
        if let Some(deployment) = deployment {
            let cause = Rejection::new(Code::Stopped, format!("its job {id} was stopped"));
            self.end_deployment(turn, &deployment, cause);
        }
        let entry = self.jobs.by_id.get(id).expect("it was looked up above");
        Ok(Answer::Job(Box::new(entry.view())))
    }
}

/// The refusal to stop what is over.
fn has_ended(id: &JobId, phase: JobPhase) -> Rejection {
    let how = match phase {
        JobPhase::Succeeded => "succeeded",
        JobPhase::NotVerified => "ended without being verified",
        JobPhase::Stopped => "was stopped",
        _ => "failed",
    };
    Rejection::new(
        Code::Conflict,
        format!("job {id} {how} already; there is nothing to stop"),
    )
    .with_hint(format!("Look at it: daitn job get {id}"))
}
