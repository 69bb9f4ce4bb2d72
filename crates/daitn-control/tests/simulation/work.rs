//! What virtual terminals do with their orders, and what moves between them: a model of the data plane in which a
//! transfer succeeds exactly where both sides are up and the holder has what is asked for.

use crate::{
    node::{Journal, Manner, artifact, follow},
    world::{Happening, SECOND, World},
};
use daitn_control::core::Event;
use daitn_messages::{
    control::CenterMessage,
    ids::{ArtifactId, JobId, OrderId},
    order::{ConductOrder, Instruction, WorkOrder},
    receipt::{CycleReport, Outcome, Receipt, Trained, TrainingDone, TrainingFailed},
    rejection::{Code, Rejection},
    session::Peer,
    signed::Signed,
};

/// A conductor gives up on a cycle after so many tries.
const CYCLE_TRIES_MAX: u32 = 30;
/// A terminal gives up on fetching weights after so many tries.
const FETCH_TRIES_MAX: u32 = 5;

/// Why a conductor in this world ends a job.
pub(crate) const CONDUCTOR_GAVE_UP: &str = "too few sites answered, again and again";

impl World {
    /// A message of the center reaches its node.
    pub(crate) fn deliver(&mut self, index: usize, connection: u64, message: CenterMessage) {
        if !self.nodes[index].up || self.nodes[index].connection != Some(connection) {
            return;
        }
        let signed = match message {
            CenterMessage::Order(signed) => signed,
            CenterMessage::Revoked => {
                self.thrown_out(index);
                return;
            }
            _ => return,
        };
        let (center, now) = (self.center.config.key.id(), self.now);
        let received = signed.open(center).unwrap();
        let id = received.id.clone();
        let taken = self.nodes[index].take(&signed, center, now);
        self.truth.decided(&received, self.nodes[index].has_accepted(&id));
        match taken {
            Ok(Some(order)) => {
                self.truth.order_taken(&order);
                self.begin(index, &order);
            }
            Ok(None) => {}
            Err(rejection) => {
                let node = self.nodes[index].id;
                self.tell_core(Event::NotTaken {
                    node,
                    order: id,
                    rejection,
                });
            }
        }
        self.pump(index);
        self.maybe_die(index);
    }

    /// Begins, or begins again after a start, what an accepted order asks for.
    pub(crate) fn begin(&mut self, index: usize, order: &WorkOrder) {
        let life = self.nodes[index].life;
        let wait = self.chance.between(10, 500);
        let happening = match &order.instruction {
            Instruction::Conduct(_) => Happening::Conduct {
                node: index,
                life,
                job: order.job.clone().unwrap(),
                tries: 0,
            },
            Instruction::Verify(_) => Happening::Verify {
                node: index,
                life,
                order: order.id.clone(),
                tries: 0,
            },
            Instruction::Serve(_) => Happening::Serve {
                node: index,
                life,
                order: order.id.clone(),
                tries: 0,
            },
            Instruction::Train(_) | Instruction::Compute(_) | Instruction::Stop { .. } => return,
        };
        self.after(wait, happening);
    }

    fn lives(&self, index: usize, life: u64) -> bool {
        self.nodes[index].up && self.nodes[index].life == life
    }

    /// Fetches an artifact from any holder that is up.
    fn fetch(&mut self, index: usize, id: ArtifactId, holders: &[Peer]) -> bool {
        let has = |node: &Peer| {
            let holder = self.index.get(&node.node).map(|i| &self.nodes[*i]);
            holder.is_some_and(|holder| holder.up && holder.disk.artifacts.contains(&id))
        };
        let found = self.nodes[index].disk.artifacts.contains(&id) || holders.iter().any(has);
        if found {
            self.nodes[index].disk.artifacts.insert(id);
        }
        found
    }

    fn report(&mut self, index: usize, order: &WorkOrder, outcome: Outcome) {
        let receipt = self.nodes[index].receipt(order, self.now, outcome);
        self.nodes[index].disk.outbox.push_back(receipt);
        self.pump(index);
    }

    /// One look of a conductor at its job: begins it, closes a cycle, or ends it.
    pub(crate) fn conduct(&mut self, index: usize, life: u64, job: &JobId, tries: u32) {
        if !self.lives(index, life) {
            return;
        }
        let Some((order, conduct)) = self.nodes[index].conduct_order(job) else {
            return;
        };
        if !self.has_journal(index, &order, &conduct) {
            self.conduct_again(index, job, tries, &order);
            return;
        }
        let journal = self.nodes[index].disk.journals[job].clone();
        if journal.done {
            return;
        }
        if journal.cycles_done >= conduct.plan.rounds {
            let done = TrainingDone {
                cycles: journal.cycles_done,
                weights: artifact(journal.global),
            };
            self.nodes[index].disk.journals.get_mut(job).unwrap().done = true;
            self.report(index, &order, Outcome::TrainingDone(done));
            return;
        }
        let contributions = self.run_cycle(index, &order, &conduct, &journal);
        if contributions.len() < conduct.plan.quorum as usize {
            self.conduct_again(index, job, tries, &order);
            return;
        }
        self.close_cycle(index, &order, &conduct, &journal, contributions);
        let wait = self.chance.between(50, 2_000);
        self.after(
            wait,
            Happening::Conduct {
                node: index,
                life,
                job: job.clone(),
                tries: 0,
            },
        );
        self.maybe_die(index);
    }

    fn conduct_again(&mut self, index: usize, job: &JobId, tries: u32, order: &WorkOrder) {
        if tries < CYCLE_TRIES_MAX {
            let life = self.nodes[index].life;
            self.after(
                3 * SECOND,
                Happening::Conduct {
                    node: index,
                    life,
                    job: job.clone(),
                    tries: tries + 1,
                },
            );
        } else {
            self.nodes[index].disk.accepted.remove(&order.id);
            let Instruction::Conduct(conduct) = &order.instruction else {
                unreachable!("only what conducts comes here")
            };
            let lost = |position: &u32| (*position, Rejection::new(Code::NodeLost, "no answer in time"));
            let failed = TrainingFailed {
                cycle: self.nodes[index]
                    .disk
                    .journals
                    .get(job)
                    .map_or(0, |journal| journal.cycles_done),
                reason: Rejection::new(Code::QuorumMissed, CONDUCTOR_GAVE_UP),
                left_out: conduct.accepted.iter().map(lost).collect(),
            };
            self.report(index, order, Outcome::TrainingFailed(Box::new(failed)));
        }
    }

    /// Whether the journal is there, at this order's epoch.
    fn has_journal(&mut self, index: usize, order: &WorkOrder, conduct: &ConductOrder) -> bool {
        let job = order.job.clone().unwrap();
        if self.nodes[index]
            .disk
            .journals
            .get(&job)
            .is_some_and(|journal| journal.epoch == order.epoch)
        {
            return true;
        }
        let (cycles_done, global) = match &conduct.resume {
            None => (0, follow(conduct.plan.hash(), "initial", &[])),
            Some(resume) => {
                if !self.fetch(index, resume.state.id, &resume.holders) {
                    return false;
                }
                let (cycles_done, global) = self.truth.states[&resume.state.id];
                assert_eq!(
                    cycles_done, resume.cycles_done,
                    "failure 6: the state is of another cycle"
                );
                (cycles_done, global)
            }
        };
        let node = &mut self.nodes[index];
        node.disk.artifacts.insert(global);
        node.disk.journals.insert(
            job,
            Journal {
                epoch: order.epoch,
                cycles_done,
                global,
                done: false,
            },
        );
        true
    }

    /// Asks the sites, chain by chain, each in its order.
    fn run_cycle(
        &mut self,
        index: usize,
        order: &WorkOrder,
        conduct: &ConductOrder,
        journal: &Journal,
    ) -> Vec<(u32, Signed<Receipt>)> {
        let mut contributions = Vec::new();
        for chain in &conduct.plan.chains {
            let mut weights = journal.global;
            for position in chain
                .iter()
                .filter(|position| conduct.accepted.contains(position))
            {
                if let Some((receipt, output)) =
                    self.train(index, order, conduct, (*position, journal.cycles_done, weights))
                {
                    contributions.push((*position, receipt));
                    weights = output;
                }
            }
        }
        contributions.sort_by_key(|(position, _)| *position);
        contributions
    }

    /// One training step at a site, if the site is there and works for this conductor.
    fn train(
        &mut self,
        conductor: usize,
        conducts: &WorkOrder,
        conduct: &ConductOrder,
        (position, cycle, input): (u32, u32, ArtifactId),
    ) -> Option<(Signed<Receipt>, ArtifactId)> {
        let job = conducts.job.clone().unwrap();
        let site = &conduct.plan.sites[position as usize];
        let index = self.index[&site.node];
        if !self.nodes[index].up {
            return None;
        }
        let (order, train) = self.nodes[index].train_order(&job, position)?;
        if train.conductor.node != self.nodes[conductor].id || conducts.epoch < order.epoch {
            return None;
        }
        if let Some(facility) = &site.compute {
            assert!(
                self.truth
                    .facilities
                    .contains(&(job.clone(), site.dataset.clone())),
                "failure 17: {} trains at {}",
                site.dataset,
                facility.entity
            );
            let facility = &self.nodes[self.index[&facility.node]];
            if !facility.up || !facility.computes_for(&job, &site.dataset) {
                return None;
            }
        }
        let key = (job, position, cycle, input);
        let output = follow(input, &format!("site {position} cycle {cycle}"), &[]);
        self.nodes[index].disk.answers.insert(key, output);
        self.nodes[index].disk.artifacts.insert(output);
        let receipt = Receipt {
            order: order.id.clone(),
            job: order.job.clone(),
            epoch: conducts.epoch,
            node: site.node,
            terminal: site.dataset.clone(),
            at: self.nodes[index].clock(self.now),
            outcome: Outcome::Trained(Trained {
                cycle,
                input,
                output: artifact(output),
                control: None,
                examples: 1_000,
                steps: 32,
                loss: 1.0 / f64::from(cycle + 1),
                train_ms: 5.0,
                policies: vec!["policy0".to_owned()],
            }),
        };
        let receipt = Signed::seal(&receipt, &self.nodes[index].key);
        self.maybe_die(index);
        Some((receipt, output))
    }

    fn close_cycle(
        &mut self,
        index: usize,
        order: &WorkOrder,
        conduct: &ConductOrder,
        journal: &Journal,
        contributions: Vec<(u32, Signed<Receipt>)>,
    ) {
        let job = order.job.clone().unwrap();
        let cycle = journal.cycles_done;
        let outputs: Vec<ArtifactId> = contributions.iter().map(|(_, receipt)| receipt.hash()).collect();
        let global = follow(journal.global, &format!("cycle {cycle}"), &outputs);
        let state = follow(global, "state", &[]);
        self.truth.states.insert(state, (cycle + 1, global));
        self.truth.parents.insert(global, (cycle, journal.global));
        let mut holders = vec![self.nodes[index].id];
        for spare in &conduct.spares {
            let spare = self.index[&spare.node];
            if self.nodes[spare].up {
                self.nodes[spare].disk.artifacts.insert(state);
                holders.push(self.nodes[spare].id);
            }
        }
        let left_out: Vec<(u32, Rejection)> = conduct
            .accepted
            .iter()
            .filter(|position| contributions.iter().all(|(there, _)| there != *position))
            .map(|position| (*position, Rejection::new(Code::NodeLost, "no answer in time")))
            .collect();
        let mut receipts: Vec<Signed<Receipt>> =
            contributions.into_iter().map(|(_, receipt)| receipt).collect();
        if self.nodes[index].manner == Manner::Cheats {
            receipts.push(receipts[0].clone());
        }
        let node = &mut self.nodes[index];
        node.disk.artifacts.extend([global, state]);
        let journal = node.disk.journals.get_mut(&job).unwrap();
        journal.cycles_done = cycle + 1;
        journal.global = global;
        let report = CycleReport {
            cycle,
            contributions: receipts,
            left_out,
            global: artifact(global),
            state: artifact(state),
            holders,
            loss: 1.0 / f64::from(cycle + 1),
            cycle_ms: 10.0,
            train_ms: 5.0,
            bytes: 20_000,
        };
        self.report(index, order, Outcome::Cycle(Box::new(report)));
    }

    pub(crate) fn verify(&mut self, index: usize, life: u64, id: &OrderId, tries: u32) {
        if !self.lives(index, life) {
            return;
        }
        let Some(order) = self.nodes[index].disk.accepted.get(id).cloned() else {
            return;
        };
        let Instruction::Verify(verify) = &order.instruction else {
            return;
        };
        if !self.fetch(index, verify.weights.id, &verify.holders) {
            if tries < FETCH_TRIES_MAX {
                self.after(
                    2 * SECOND,
                    Happening::Verify {
                        node: index,
                        life,
                        order: id.clone(),
                        tries: tries + 1,
                    },
                );
            } else {
                self.nodes[index].disk.accepted.remove(id);
                let rejection =
                    Rejection::new(Code::Unreachable, "nobody who has the weights can be reached");
                self.report(index, &order, Outcome::Refused(rejection));
            }
            return;
        }
        let outcome = self.nodes[index].verification(&order, 0.97);
        self.truth.reported(self.nodes[index].id, &outcome);
        self.nodes[index].disk.accepted.remove(id);
        self.report(index, &order, outcome);
        self.maybe_die(index);
    }

    pub(crate) fn serve(&mut self, index: usize, life: u64, id: &OrderId, tries: u32) {
        if !self.lives(index, life) {
            return;
        }
        let Some(order) = self.nodes[index].disk.accepted.get(id).cloned() else {
            return;
        };
        let Instruction::Serve(serve) = &order.instruction else {
            return;
        };
        if self.fetch(index, serve.weights.id, &serve.holders) {
            self.report(index, &order, Outcome::Serving);
            self.maybe_die(index);
        } else if tries < FETCH_TRIES_MAX {
            self.after(
                2 * SECOND,
                Happening::Serve {
                    node: index,
                    life,
                    order: id.clone(),
                    tries: tries + 1,
                },
            );
        } else {
            self.nodes[index].disk.accepted.remove(id);
            let rejection = Rejection::new(Code::Unreachable, "nobody who has the weights can be reached");
            self.report(index, &order, Outcome::Refused(rejection));
        }
    }
}
