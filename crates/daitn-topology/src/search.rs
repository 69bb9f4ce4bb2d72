//! Discovery by structured filter. The shortest applicable index gives the candidates; packed facts decide the rest.
//! Full text is another index's business: it asks [`Matches::contains`] about its hits.

use crate::{knowledge::Knowledge, postings::Bits};
use daitn_messages::{
    descriptor::Descriptor,
    ids::{EntityId, EntityKind, OrganisationId},
    request::Search,
};

/// How many answers a search without a limit gives.
const LIMIT_DEFAULT: usize = 50;
/// Up to this many matches are sorted for a page; more are found by walking the ids in order.
const SORTED_MATCHES_MAX: usize = 4_096;

/// One page of answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// How many match in all.
    pub total: usize,
    /// The page, in the order of ids.
    pub ids: Vec<EntityId>,
}

/// Everything that matches a structured filter.
#[derive(Debug)]
pub struct Matches<'a> {
    knowledge: &'a Knowledge,
    numbers: Vec<u32>,
    set: Bits,
}

/// Whether an entity may be seen, and whether that holds for all of the same policy text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It holds for every entity with this policy text, and among those without one for every one.
    OfPolicy(bool),
    /// It holds for this one.
    OfEntity(bool),
}

impl Matches<'_> {
    /// Leaves what may be seen: all of the asker's own, and of others what `sight` lets through, which is asked once for
    /// each policy text as far as it says that the text alone decides.
    #[must_use]
    pub fn seen_by(self, own: &OrganisationId, sight: &mut dyn FnMut(&Descriptor) -> Sight) -> Self {
        let Self {
            knowledge,
            mut numbers,
            ..
        } = self;
        let own = knowledge.organisations.number(own.as_str());
        let mut of_policy: Vec<Option<bool>> = vec![None; knowledge.n_policies()];
        numbers.retain(|number| {
            let facts = knowledge.facts(*number);
            if Some(facts.organisation) == own {
                return true;
            }
            let known = &mut of_policy[facts.policy as usize];
            if let Some(seen) = *known {
                return seen;
            }
            match sight(knowledge.descriptor(*number)) {
                Sight::OfPolicy(seen) => *known.insert(seen),
                Sight::OfEntity(seen) => seen,
            }
        });
        let set = Bits::of(numbers.iter().copied());
        Self {
            knowledge,
            numbers,
            set,
        }
    }

    /// How many match.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether nothing matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Whether this entity is among them: for joining with another index's hits.
    #[must_use]
    pub fn contains(&self, id: &EntityId) -> bool {
        self.knowledge
            .number(id)
            .is_some_and(|number| self.set.contains(number))
    }

    /// Part of them, in the order of ids.
    #[must_use]
    pub fn page(&self, offset: usize, limit: usize) -> Vec<EntityId> {
        if self.numbers.len() <= SORTED_MATCHES_MAX {
            let mut ids: Vec<&EntityId> = self
                .numbers
                .iter()
                .map(|number| &self.knowledge.descriptor(*number).entity)
                .collect();
            ids.sort_unstable();
            ids.into_iter().skip(offset).take(limit).cloned().collect()
        } else {
            self.knowledge
                .iter()
                .filter(|(_, number)| self.set.contains(*number))
                .skip(offset)
                .take(limit)
                .map(|(id, _)| id.clone())
                .collect()
        }
    }
}

/// A filter with every name looked up.
struct Filter {
    kind: Option<EntityKind>,
    organisations: Option<Bits>,
    jurisdictions: Option<Bits>,
    shapes: Option<Bits>,
    records_min: u64,
}

pub(crate) fn matches<'a>(knowledge: &'a Knowledge, search: &Search) -> Matches<'a> {
    let numbers = numbers(knowledge, search);
    let set = Bits::of(numbers.iter().copied());
    Matches {
        knowledge,
        numbers,
        set,
    }
}

pub(crate) fn search(knowledge: &Knowledge, search: &Search) -> Found {
    let matches = matches(knowledge, search);
    let limit = match search.limit {
        0 => LIMIT_DEFAULT,
        limit => limit as usize,
    };
    Found {
        total: matches.len(),
        ids: matches.page(search.offset as usize, limit),
    }
}

fn numbers(knowledge: &Knowledge, search: &Search) -> Vec<u32> {
    let asks_shape = !search.features.is_empty() || search.target.is_some();
    let shapes = asks_shape.then(|| knowledge.shapes_with(&search.features, search.target.as_deref()));
    let Some(candidates) = candidates(knowledge, search, shapes.as_deref()) else {
        return Vec::new();
    };
    let filter = Filter {
        kind: search.kind,
        organisations: (!search.organisations.is_empty())
            .then(|| knowledge.organisation_bits(&search.organisations)),
        jurisdictions: (!search.jurisdictions.is_empty())
            .then(|| knowledge.jurisdiction_bits(&search.jurisdictions)),
        shapes: shapes.map(Bits::of),
        records_min: search.records_min,
    };
    let skilled = search.skill.as_deref().map(|skill| knowledge.skills.named(skill));
    candidates
        .into_iter()
        .filter(|number| {
            let facts = knowledge.facts(*number);
            filter.kind.is_none_or(|kind| kind == facts.kind)
                && facts.records >= filter.records_min
                && within(filter.organisations.as_ref(), Some(facts.organisation))
                && within(filter.jurisdictions.as_ref(), Some(facts.jurisdiction))
                && within(filter.shapes.as_ref(), facts.shape)
                && skilled.is_none_or(|list| list.is_some_and(|list| list.contains(*number)))
        })
        .collect()
}

fn within(set: Option<&Bits>, number: Option<u32>) -> bool {
    set.is_none_or(|set| number.is_some_and(|number| set.contains(number)))
}

/// The entries of the most selective condition; `None` if one condition can have no entry at all.
fn candidates(knowledge: &Knowledge, search: &Search, shapes: Option<&[u32]>) -> Option<Vec<u32>> {
    let mut groups: Vec<Vec<&[u32]>> = Vec::new();
    if let Some(kind) = search.kind {
        groups.push(vec![knowledge.kind(kind).as_slice()]);
    }
    if !search.organisations.is_empty() {
        let mut names: Vec<&str> = search.organisations.iter().map(|o| o.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let lists = names
            .iter()
            .filter_map(|name| knowledge.organisations.named(name));
        groups.push(lists.map(|list| list.as_slice()).collect());
    }
    if !search.jurisdictions.is_empty() {
        let mut names: Vec<&str> = search.jurisdictions.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let lists = names
            .iter()
            .filter_map(|name| knowledge.jurisdictions.named(name));
        groups.push(lists.map(|list| list.as_slice()).collect());
    }
    if let Some(shapes) = shapes {
        let lists = shapes.iter().map(|shape| &knowledge.shapes[*shape as usize]);
        groups.push(lists.map(|shape| shape.entries.as_slice()).collect());
    }
    if let Some(skill) = &search.skill {
        groups.push(vec![knowledge.skills.named(skill)?.as_slice()]);
    }
    let smallest = groups
        .into_iter()
        .min_by_key(|lists| lists.iter().map(|list| list.len()).sum::<usize>());
    Some(match smallest {
        // An entry has one organisation, one jurisdiction and one shape: the lists of a group have nothing in common.
        Some(lists) => lists.concat(),
        None => knowledge.numbers().collect(),
    })
}
