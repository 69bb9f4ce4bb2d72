//! Step 4: what the owners' policies say, for exactly the cohort and the recipients that a choice of sites means.

use super::{
    Permit,
    situation::{Conductors, Situation},
    ways::Way,
};
use crate::numbers;
use daitn_messages::{
    ids::OrganisationId,
    plan::Plan,
    policy::{PolicyAnswer, UseContext},
    request::{PlanKind, TrainingRequest},
};
use std::collections::{HashMap, hash_map::Entry};

/// A protection that is in force whenever a request bounds the length of updates.
const NORM_CLIP: &str = "norm-clip";

/// A candidate whose owner's policy refuses.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) candidate: u32,
    pub(super) answer: PolicyAnswer,
    pub(super) algorithm: &'static str,
    pub(super) cohort: u32,
}

/// Asks and remembers: the same question is asked once.
pub(super) struct Asker<'p, 'c> {
    permit: &'p mut Permit<'c>,
    /// Contexts by what differs between them.
    contexts: HashMap<(&'static str, u32, Vec<OrganisationId>), u32>,
    uses: Vec<UseContext>,
    /// By candidate and context.
    answers: HashMap<(u32, u32), PolicyAnswer>,
}

impl<'p, 'c> Asker<'p, 'c> {
    pub(super) fn new(permit: &'p mut Permit<'c>) -> Self {
        Self {
            permit,
            contexts: HashMap::new(),
            uses: Vec::new(),
            answers: HashMap::new(),
        }
    }

    /// Another situation numbers its candidates anew.
    pub(super) fn forget(&mut self) {
        self.answers.clear();
    }

    /// Who of this set refuses to take part in exactly this set.
    pub(super) fn refusals(
        &mut self,
        situation: &Situation<'_>,
        way: &Way,
        conductors: &Conductors<'_>,
        set: &[u32],
    ) -> Vec<Refusal> {
        let cohort = numbers::index(set.len());
        let recipients = self.recipients(situation, way, conductors, set);
        let mut refusals = Vec::new();
        let mut last: Option<(&OrganisationId, u32)> = None;
        for site in set {
            let own = situation.candidates[*site as usize].descriptor.organisation();
            // The set is in the order of ids, so sites of one organisation stand together.
            let context = match last {
                Some((organisation, context)) if organisation == own => context,
                _ => self.context(
                    situation.request,
                    way.algorithm(),
                    cohort,
                    others(&recipients, own),
                ),
            };
            last = Some((own, context));
            let answer = self.ask(situation, *site, context);
            if !answer.allowed {
                refusals.push(Refusal {
                    candidate: *site,
                    answer: answer.clone(),
                    algorithm: way.algorithm(),
                    cohort,
                });
            }
        }
        refusals
    }

    /// The determining policies of a set that nobody refused.
    pub(super) fn determining(
        &mut self,
        situation: &Situation<'_>,
        way: &Way,
        conductors: &Conductors<'_>,
        set: &[u32],
    ) -> Vec<Vec<String>> {
        let recipients = self.recipients(situation, way, conductors, set);
        set.iter()
            .map(|site| {
                let own = situation.candidates[*site as usize].descriptor.organisation();
                let cohort = numbers::index(set.len());
                let context = self.context(
                    situation.request,
                    way.algorithm(),
                    cohort,
                    others(&recipients, own),
                );
                self.ask(situation, *site, context).determining.clone()
            })
            .collect()
    }

    fn recipients(
        &self,
        situation: &Situation<'_>,
        way: &Way,
        conductors: &Conductors<'_>,
        set: &[u32],
    ) -> Vec<OrganisationId> {
        let sites = set
            .iter()
            .map(|site| situation.candidates[*site as usize].descriptor.organisation());
        recipients(way.kind, &conductors.organisations, sites)
    }

    fn context(
        &mut self,
        request: &TrainingRequest,
        algorithm: &'static str,
        cohort: u32,
        recipients: Vec<OrganisationId>,
    ) -> u32 {
        match self.contexts.entry((algorithm, cohort, recipients)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let number = numbers::index(self.uses.len());
                let (_, _, recipients) = new.key().clone();
                self.uses
                    .push(use_context(request, algorithm, cohort, recipients));
                *new.insert(number)
            }
        }
    }

    fn ask(&mut self, situation: &Situation<'_>, site: u32, context: u32) -> &PolicyAnswer {
        match self.answers.entry((site, context)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let descriptor = situation.candidates[site as usize].descriptor;
                new.insert((self.permit)(descriptor, &self.uses[context as usize]))
            }
        }
    }
}

/// Everybody whose nodes receive something: who combines and who may take over; where the model travels, every site's
/// organisation too.
fn recipients<'o>(
    kind: PlanKind,
    conductors: &[OrganisationId],
    sites: impl Iterator<Item = &'o OrganisationId>,
) -> Vec<OrganisationId> {
    let mut all = conductors.to_vec();
    if kind != PlanKind::Rounds {
        all.extend(sites.cloned());
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// An owner is no recipient of its own update.
fn others(recipients: &[OrganisationId], own: &OrganisationId) -> Vec<OrganisationId> {
    recipients.iter().filter(|r| *r != own).cloned().collect()
}

fn use_context(
    request: &TrainingRequest,
    algorithm: &str,
    cohort: u32,
    recipients: Vec<OrganisationId>,
) -> UseContext {
    let mut protections = request.protections.clone();
    if request.training.norm_clip.is_some() {
        protections.push(NORM_CLIP.to_owned());
    }
    protections.sort_unstable();
    protections.dedup();
    UseContext {
        purpose: request.purpose.clone(),
        algorithm: algorithm.to_owned(),
        protections,
        cohort,
        jurisdiction: request.jurisdiction.clone(),
        recipients,
    }
}

/// The circumstances in which a plan's site is used: what its owner's policy was asked with when the plan was made, and
/// what its work order must carry, so that its node asks the same again.
///
/// # Panics
/// If the plan has no site at this position.
#[must_use]
pub fn site_context(plan: &Plan, position: usize) -> UseContext {
    let conductors: Vec<OrganisationId> = std::iter::once(&plan.aggregator)
        .chain(&plan.aggregator_spares)
        .map(|placement| placement.entity.organisation.clone())
        .collect();
    let all = recipients(
        plan.kind,
        &conductors,
        plan.sites.iter().map(|site| &site.organisation),
    );
    let algorithm = match plan.kind {
        PlanKind::Itinerary => PlanKind::Itinerary.as_str(),
        PlanKind::Rounds | PlanKind::Hybrid => plan.strategy.as_str(),
    };
    use_context(
        &plan.request,
        algorithm,
        numbers::index(plan.sites.len()),
        others(&all, &plan.sites[position].organisation),
    )
}
