//! What clients do: plan, apply with an idempotency key, ask again when no answer came, and sometimes stop a job.

use crate::{
    described,
    world::{Happening, SECOND, World},
};
use daitn_control::core::{Event, RequestId};
use daitn_messages::{
    learning::{Architecture, LocalTraining, Metric, Strategy},
    operation::{Answer, Operation},
    plan::Verdict,
    rejection::{Code, Rejection},
    request::{Deployment, Sla, TrainingParameters, TrainingRequest, Verification},
};

impl World {
    pub(crate) fn client(&mut self, job: usize) {
        let client = &self.clients[job];
        if client.job.is_some() || client.asked.is_some() || client.gave_up {
            return;
        }
        if self.center.core.is_none() {
            self.after(5 * SECOND, Happening::Client { job });
            return;
        }
        if client.tries > 200 {
            self.clients[job].gave_up = true;
            return;
        }
        let operation = match &client.plan {
            None => Operation::Plan(Box::new(self.request(job))),
            Some(plan) => Operation::Apply {
                plan: plan.clone(),
                idempotency_key: Some(format!("job-{job}")),
            },
        };
        let request = self.center.request();
        self.clients[job].asked = Some(request);
        self.clients[job].tries += 1;
        let principal = self.admin.clone();
        self.tell_core(Event::Operation {
            request,
            principal,
            operation: Box::new(operation),
        });
    }

    pub(crate) fn reply_to_client(&mut self, request: RequestId, result: Result<Answer, Rejection>) {
        if self.deed_done(request, &result) {
            return;
        }
        let Some(job) = self
            .clients
            .iter()
            .position(|client| client.asked == Some(request))
        else {
            return;
        };
        self.clients[job].asked = None;
        match result {
            Ok(Answer::Verdict(verdict)) => match *verdict {
                Verdict::Feasible { plan } => {
                    self.truth.planned(&plan);
                    self.clients[job].plan = Some(plan.id.clone());
                    let wait = self.chance.between(1, 10 * SECOND);
                    self.after(wait, Happening::Client { job });
                }
                Verdict::Infeasible { .. } => self.after(20 * SECOND, Happening::Client { job }),
            },
            Ok(Answer::Job(view)) => {
                self.truth.accepted(job, &view);
                self.clients[job].job = Some(view.id.clone());
            }
            Ok(other) => panic!("another answer was asked for: {other:?}"),
            Err(rejection) => {
                assert!(
                    matches!(rejection.code, Code::StalePlan | Code::NotFound | Code::Conflict),
                    "a client was refused: {rejection}"
                );
                self.clients[job].plan = None;
                self.after(5 * SECOND, Happening::Client { job });
            }
        }
    }

    pub(crate) fn client_stops(&mut self, job: usize) {
        let Some(id) = self.clients[job].job.clone() else {
            return;
        };
        if self.center.core.is_none() {
            self.after(5 * SECOND, Happening::ClientStops { job });
            return;
        }
        let request = self.center.request();
        let principal = self.admin.clone();
        self.tell_core(Event::Operation {
            request,
            principal,
            operation: Box::new(Operation::StopJob(id)),
        });
    }

    /// Where the operator rolls back, two jobs make versions of one model.
    pub(crate) fn model_of(&self, job: usize) -> String {
        let number = if self.scenario.faults.operator {
            job / 2
        } else {
            job
        };
        format!("model-{number}")
    }

    pub(crate) fn request(&self, job: usize) -> TrainingRequest {
        TrainingRequest {
            model: self.model_of(job).parse().unwrap(),
            organisation: "operator".parse().unwrap(),
            jurisdiction: "DE".to_owned(),
            purpose: "research".to_owned(),
            architecture: Architecture::Linear,
            features: described::features(),
            target: described::TARGET.to_owned(),
            task: described::task(),
            scale: 1.0,
            offset: 0.0,
            data: daitn_messages::request::DataFilter::default(),
            training: TrainingParameters {
                strategy: Some(Strategy::FedAvg),
                kind: self.scenario.kind,
                rounds: self.scenario.rounds,
                local: LocalTraining {
                    epochs: 1,
                    batch_size: 32,
                    learning_rate: 0.1,
                    seed: 7,
                },
                quorum: None,
                round_deadline_ms: Some(20 * SECOND),
                norm_clip: None,
            },
            protections: Vec::new(),
            sla: Sla::default(),
            verification: Verification {
                metric: Metric::Accuracy,
                target: 0.9,
                required: self.scenario.required,
                units: None,
            },
            deployment: (self.scenario.replicas > 0).then_some(Deployment {
                replicas: self.scenario.replicas,
                policy: String::new(),
            }),
        }
    }
}
