//! Step 4: what the owners' policies say, for exactly the cohort and the recipients that a choice of sites means.

use super::{
    Permit,
    situation::{Conductors, Situation},
    ways::Way,
};
use crate::numbers;
use daitn_messages::{
    descriptor::Descriptor,
    ids::OrganisationId,
    learning::Strategy,
    plan::Plan,
    policy::{PolicyAnswer, UseContext, Verb},
    request::{PlanKind, TrainingRequest},
};
use std::collections::{BTreeMap, HashMap, hash_map::Entry};

/// A candidate whose owner's policy refuses.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) candidate: u32,
    pub(super) answer: PolicyAnswer,
    pub(super) algorithm: &'static str,
    pub(super) cohort: u32,
}

/// Sites that were chosen for a way, and who combines: what policies are asked about.
#[derive(Clone, Copy)]
pub(super) struct Choice<'s, 'a> {
    pub(super) situation: &'s Situation<'a>,
    pub(super) way: &'s Way,
    pub(super) conductors: &'s Conductors<'a>,
    /// Sorted; positions in the situation's candidates.
    pub(super) set: &'s [u32],
}

impl<'a> Choice<'_, 'a> {
    fn owner(&self, site: u32) -> &'a OrganisationId {
        self.situation.candidates[site as usize].descriptor.organisation()
    }

    /// The cohort where so many sites' work is combined at least.
    fn cohort(&self, n_combined: u32) -> u32 {
        let owners = self.set.iter().map(|site| self.owner(*site));
        cohort(
            self.way.kind,
            &self.situation.request.organisation,
            owners,
            n_combined,
        )
    }
}

/// The quorum that all owners agree to.
pub(super) struct AgreedQuorum {
    pub(super) n_sites: u32,
    /// The cohort that it means.
    pub(super) cohort: u32,
    /// Determining policies of each site of the set, for that cohort.
    pub(super) policies: Vec<Vec<String>>,
    /// Who refuses the quorum that the request asks for.
    pub(super) strict: Vec<Refusal>,
}

/// The name that policies see: wherever weights travel raw from site to site it is `itinerary`, in one chain or in many.
pub(super) fn algorithm(kind: PlanKind, strategy: &Strategy) -> &'static str {
    match kind {
        PlanKind::Rounds => strategy.as_str(),
        PlanKind::Itinerary | PlanKind::Hybrid => PlanKind::Itinerary.as_str(),
    }
}

/// How many organisations besides the requester's have work in whatever is combined of these sites, at least: the
/// requester's own sites and then those of the organisations with most sites are taken to be there first, since the
/// requester can subtract its own work, and copies of one organisation's data hide nobody. A model that travels holds
/// one site's work when it leaves it.
pub(super) fn cohort<'o>(
    kind: PlanKind,
    requester: &OrganisationId,
    owners: impl Iterator<Item = &'o OrganisationId>,
    n_combined: u32,
) -> u32 {
    if kind != PlanKind::Rounds {
        return 1;
    }
    let mut n_sites: HashMap<&OrganisationId, u32> = HashMap::new();
    owners.for_each(|owner| *n_sites.entry(owner).or_default() += 1);
    let mut n_left = n_combined.saturating_sub(n_sites.remove(requester).unwrap_or(0));
    let mut groups: Vec<u32> = n_sites.into_values().collect();
    groups.sort_unstable_by(|a, b| b.cmp(a));
    let mut n_organisations = 0;
    for group in groups {
        if n_left == 0 {
            break;
        }
        n_left = n_left.saturating_sub(group);
        n_organisations += 1;
    }
    n_organisations
}

/// The quorum that a request asks for: its own, or two thirds of the sites, rounded up.
#[must_use]
pub fn quorum_wanted(request: &TrainingRequest, n_sites: u32) -> u32 {
    request
        .training
        .quorum
        .unwrap_or_else(|| n_sites.saturating_mul(2).div_ceil(3))
}

/// Asks and remembers: the same question is asked once.
pub(super) struct Asker<'p, 'c> {
    permit: &'p mut Permit<'c>,
    /// The circumstances of what is not training.
    circumstances: UseContext,
    /// Contexts by what differs between them.
    contexts: HashMap<(&'static str, u32, Vec<OrganisationId>), u32>,
    uses: Vec<UseContext>,
    /// By candidate and context.
    answers: HashMap<(u32, u32), PolicyAnswer>,
}

impl<'p, 'c> Asker<'p, 'c> {
    pub(super) fn new(permit: &'p mut Permit<'c>, request: &TrainingRequest) -> Self {
        Self {
            permit,
            circumstances: evaluation_context(request),
            contexts: HashMap::new(),
            uses: Vec::new(),
            answers: HashMap::new(),
        }
    }

    /// Another situation numbers its candidates anew.
    pub(super) fn forget(&mut self) {
        self.answers.clear();
    }

    /// Whether the requester may know of an entity: with what it may not discover nothing is planned.
    pub(super) fn sees(&mut self, entity: &Descriptor) -> bool {
        (self.permit)(Verb::Discover, entity, &self.circumstances).allowed
    }

    /// Whether a verification unit may evaluate for the requester.
    pub(super) fn may_evaluate(&mut self, unit: &Descriptor) -> PolicyAnswer {
        (self.permit)(Verb::Evaluate, unit, &self.circumstances)
    }

    /// Who of this set refuses to take part in exactly this set.
    pub(super) fn refusals(
        &mut self,
        situation: &Situation<'_>,
        way: &Way,
        conductors: &Conductors<'_>,
        set: &[u32],
    ) -> Vec<Refusal> {
        let choice = Choice {
            situation,
            way,
            conductors,
            set,
        };
        self.refusals_at(&choice, set, numbers::index(set.len()))
    }

    /// How many sites' work every round must combine, so that every owner's policy permits each round, and the policies
    /// that permit it. Owners have agreed to the whole set; a round may close with fewer, and a policy that asks for a
    /// cohort must hold for that as well. Policies are asked for the smallest cohort that they permit by halving: who
    /// permits a cohort is taken to permit larger ones, and the answer that is found is asked of everybody again.
    pub(super) fn agreed_quorum(&mut self, choice: &Choice<'_, '_>) -> AgreedQuorum {
        let n_sites = numbers::index(choice.set.len());
        let wanted = quorum_wanted(choice.situation.request, n_sites);
        let strict = self.refusals_at(choice, choice.set, wanted);
        let mut quorum = wanted;
        if !strict.is_empty() {
            let asked: Vec<u32> = strict.iter().map(|refusal| refusal.candidate).collect();
            let mut too_few = wanted;
            quorum = n_sites;
            while quorum - too_few > 1 {
                let middle = too_few.midpoint(quorum);
                if self.refusals_at(choice, &asked, middle).is_empty() {
                    quorum = middle;
                } else {
                    too_few = middle;
                }
            }
            if !self.refusals_at(choice, choice.set, quorum).is_empty() {
                quorum = n_sites;
            }
        }
        let mut policies = Vec::with_capacity(choice.set.len());
        self.ask_all(choice, choice.set, choice.cohort(quorum), |_, answer| {
            policies.push(answer.determining.clone());
        });
        AgreedQuorum {
            n_sites: quorum,
            cohort: choice.cohort(quorum),
            policies,
            strict,
        }
    }

    fn refusals_at(&mut self, choice: &Choice<'_, '_>, asked: &[u32], n_combined: u32) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let cohort = choice.cohort(n_combined);
        self.ask_all(choice, asked, cohort, |candidate, answer| {
            if !answer.allowed {
                refusals.push(Refusal {
                    candidate,
                    answer: answer.clone(),
                    algorithm: choice.way.algorithm(),
                    cohort,
                });
            }
        });
        refusals
    }

    /// Asks these of the chosen sites.
    fn ask_all(
        &mut self,
        choice: &Choice<'_, '_>,
        asked: &[u32],
        cohort: u32,
        mut told: impl FnMut(u32, &PolicyAnswer),
    ) {
        let Choice {
            situation,
            way,
            conductors,
            set,
        } = *choice;
        let owner = |site: u32| choice.owner(site);
        let sites = || set.iter().map(|site| owner(*site));
        let recipients = Recipients::new(way.kind, &conductors.organisations, sites());
        let mut last = None;
        for site in asked {
            let facility = situation.candidates[*site as usize]
                .facility
                .map(|facility| facility.descriptor.organisation());
            let differs = (owner(*site), facility);
            // The set is in the order of ids, so sites of one organisation stand together.
            let context = match last {
                Some((same, context)) if same == differs => context,
                _ => {
                    let recipients = recipients.of(differs.0, differs.1);
                    self.context(situation.request, way.algorithm(), cohort, recipients)
                }
            };
            last = Some((differs, context));
            told(*site, self.ask(situation, *site, context));
        }
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
                new.insert((self.permit)(
                    Verb::Train,
                    descriptor,
                    &self.uses[context as usize],
                ))
            }
        }
    }
}

/// Who receives something of a site's: who combines and who may take over; where the model travels, the other sites'
/// organisations; and whose facility trains.
struct Recipients<'o> {
    conductors: &'o [OrganisationId],
    /// Where the model travels: each organisation with how many sites it has.
    sites: BTreeMap<&'o OrganisationId, u32>,
    /// Both, sorted.
    all: Vec<OrganisationId>,
}

impl<'o> Recipients<'o> {
    fn new(
        kind: PlanKind,
        conductors: &'o [OrganisationId],
        owners: impl Iterator<Item = &'o OrganisationId>,
    ) -> Self {
        let mut sites = BTreeMap::new();
        if kind != PlanKind::Rounds {
            owners.for_each(|owner| *sites.entry(owner).or_default() += 1);
        }
        let mut all: Vec<OrganisationId> = sites.keys().map(|owner| (*owner).clone()).collect();
        all.extend_from_slice(conductors);
        all.sort_unstable();
        all.dedup();
        Self {
            conductors,
            sites,
            all,
        }
    }

    /// Of a site of this owner: the owner itself only if another node of its own receives.
    fn of(&self, owner: &OrganisationId, facility: Option<&OrganisationId>) -> Vec<OrganisationId> {
        let receives_own = self.conductors.contains(owner) || self.sites.get(owner).is_some_and(|n| *n > 1);
        let mut recipients: Vec<OrganisationId> = self
            .all
            .iter()
            .filter(|recipient| receives_own || *recipient != owner)
            .chain(facility)
            .cloned()
            .collect();
        recipients.sort_unstable();
        recipients.dedup();
        recipients
    }
}

fn use_context(
    request: &TrainingRequest,
    algorithm: &str,
    cohort: u32,
    recipients: Vec<OrganisationId>,
) -> UseContext {
    let mut protections = request.protections.clone();
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

/// The circumstances in which a verification unit evaluates for a request: its purpose, jurisdiction and protections.
#[must_use]
pub fn evaluation_context(request: &TrainingRequest) -> UseContext {
    use_context(request, "", 0, Vec::new())
}

/// The circumstances in which a plan's site is used: what its owner's policy was asked with when the plan was made, and
/// what its work order must carry, so that its node asks the same again. The cohort is what every round holds at least,
/// whoever drops out.
///
/// # Panics
/// If the plan has no site at this position.
#[must_use]
pub fn site_context(plan: &Plan, position: usize) -> UseContext {
    let conductors: Vec<OrganisationId> = std::iter::once(&plan.aggregator)
        .chain(&plan.aggregator_spares)
        .map(|placement| placement.entity.organisation.clone())
        .collect();
    let owners = plan.sites.iter().map(|site| &site.organisation);
    let recipients = Recipients::new(plan.kind, &conductors, owners);
    let site = &plan.sites[position];
    let facility = site.compute.as_ref().map(|compute| &compute.entity.organisation);
    use_context(
        &plan.request,
        algorithm(plan.kind, &plan.strategy),
        plan.cohort,
        recipients.of(&site.organisation, facility),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least over every choice of `n_combined` of the sites, counted one by one.
    fn by_hand(owners: &[OrganisationId], requester: &OrganisationId, n_combined: u32) -> u32 {
        let chosen = (0_u32..1 << owners.len()).filter(|mask| mask.count_ones() == n_combined);
        let distinct = chosen.map(|mask| {
            let inside = owners.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0);
            let others: std::collections::BTreeSet<_> = inside
                .map(|(_, owner)| owner)
                .filter(|owner| *owner != requester)
                .collect();
            numbers::index(others.len())
        });
        distinct.min().unwrap_or(0)
    }

    #[test]
    fn a_cohort_counts_other_organisations_in_the_worst_round() {
        let id = |name: char| -> OrganisationId { name.to_string().parse().expect("a letter is a name") };
        let requester = id('r');
        for sites in [
            "a", "r", "abc", "abr", "rrab", "aaab", "aabbc", "rraabc", "abcdef", "rrr",
        ] {
            let owners: Vec<OrganisationId> = sites.chars().map(id).collect();
            for n_combined in 0..=numbers::index(owners.len()) {
                let found = cohort(PlanKind::Rounds, &requester, owners.iter(), n_combined);
                assert_eq!(
                    found,
                    by_hand(&owners, &requester, n_combined),
                    "{n_combined} of {sites}"
                );
            }
            for kind in [PlanKind::Itinerary, PlanKind::Hybrid] {
                assert_eq!(cohort(kind, &requester, owners.iter(), 1), 1);
            }
        }
        // One and its two copies at the requester: nobody beside the one.
        let owners = ['a', 'r', 'r'].map(id);
        assert_eq!(cohort(PlanKind::Rounds, &requester, owners.iter(), 3), 1);
        assert_eq!(cohort(PlanKind::Rounds, &requester, owners.iter(), 2), 0);
    }
}
