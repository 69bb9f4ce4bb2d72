//! What the operator does while jobs run: throws nodes out, changes the domain's policy, rolls models back and deploys
//! them again. What is not acknowledged is done again.

use crate::world::{Happening, SECOND, World};
use daitn_control::core::{Event, RequestId};
use daitn_messages::{
    operation::{Answer, Operation},
    rejection::{Code, Rejection},
};

/// One thing that the operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Throws this node out.
    Revoke(usize),
    /// Sets the domain's policy anew: it forbids what no request asks for.
    Policy(u64),
    RollBack,
    Redeploy,
}

impl World {
    /// Draws what will be done, and when.
    pub(crate) fn plan_deeds(&mut self) {
        if !self.scenario.faults.operator {
            return;
        }
        for number in 0..self.chance.between(1, 6) {
            let deed = match self.chance.between(0, 5) {
                0 | 1 => {
                    Deed::Revoke(usize::try_from(self.chance.between(0, self.nodes.len() as u64)).unwrap())
                }
                2 => Deed::Policy(number),
                3 => Deed::RollBack,
                _ => Deed::Redeploy,
            };
            let wait = self.chance.between(5 * SECOND, 120 * SECOND);
            self.after(wait, Happening::Deed(deed));
        }
    }

    pub(crate) fn deed(&mut self, deed: Deed) {
        if self.center.core.is_none() {
            self.after(5 * SECOND, Happening::Deed(deed));
            return;
        }
        let model = "model-0".parse().unwrap();
        let operation = match deed {
            Deed::Revoke(node) if !self.nodes[node].enrolled => {
                // Not there yet.
                self.after(10 * SECOND, Happening::Deed(deed));
                return;
            }
            Deed::Revoke(node) => {
                let id = self.nodes[node].id;
                self.truth.revoking.insert(id);
                Operation::RevokeNode(id)
            }
            Deed::Policy(number) => Operation::SetPolicy(format!(
                r#"@id("rule-{number}") forbid (principal, action, resource)
                when {{ context.purpose == "war {number}" }};"#
            )),
            Deed::RollBack => Operation::RollBack(model),
            Deed::Redeploy => Operation::Deploy {
                model,
                version: None,
                replicas: self.scenario.replicas.max(1),
            },
        };
        let request = self.center.request();
        self.deeds.insert(request, deed);
        let principal = self.admin.clone();
        self.tell_core(Event::Operation {
            request,
            principal,
            operation: Box::new(operation),
        });
    }

    /// Takes the center's answer to a deed; false where it is no answer to one.
    pub(crate) fn deed_done(&mut self, request: RequestId, result: &Result<Answer, Rejection>) -> bool {
        let Some(deed) = self.deeds.remove(&request) else {
            return false;
        };
        self.truth.deeds.insert(match deed {
            Deed::Revoke(_) => "node thrown out",
            Deed::Policy(_) => "policy changed",
            Deed::RollBack if result.is_ok() => "model rolled back",
            Deed::Redeploy if result.is_ok() => "model deployed again",
            Deed::RollBack | Deed::Redeploy => "nothing to deploy",
        });
        match (deed, result) {
            (Deed::Revoke(node), Ok(_)) => {
                let id = self.nodes[node].id;
                self.truth.revoked.entry(id).or_insert(self.now);
            }
            (Deed::Policy(_), Ok(_)) => self.truth.policies.push(self.now),
            (Deed::RollBack | Deed::Redeploy, Ok(_)) => {}
            (Deed::RollBack | Deed::Redeploy, Err(rejection)) => assert!(
                matches!(rejection.code, Code::NotFound | Code::ModelUnavailable),
                "the operator was refused: {rejection}"
            ),
            (deed, Err(rejection)) => panic!("the operator was refused {deed:?}: {rejection}"),
        }
        true
    }

    /// The center died: what it did not acknowledge is done again.
    pub(crate) fn repeat_deeds(&mut self) {
        for (_, deed) in std::mem::take(&mut self.deeds) {
            let wait = self.chance.between(SECOND, 10 * SECOND);
            self.after(wait, Happening::Deed(deed));
        }
    }

    /// A node learns that it was thrown out, and leaves.
    pub(crate) fn thrown_out(&mut self, index: usize) {
        let id = self.nodes[index].id;
        assert!(self.truth.revoking.contains(&id), "nobody threw {id} out");
        if self.nodes[index].connection.is_some() {
            self.break_off(index);
        }
        let node = &mut self.nodes[index];
        node.up = false;
        node.gone_for_good = true;
        node.life += 1;
    }
}
