//! Knowledge: descriptors, with an index for every property that a structured filter can ask for.
//!
//! Entries are numbered; an index is a sorted list of numbers. Columns, target and task are shared by many datasets, so
//! each distinct combination (a *shape*) is kept once and is what a request is matched with.

use crate::{
    numbers,
    postings::{Bits, Postings},
};
use daitn_messages::{
    descriptor::{Body, Descriptor},
    ids::{ArtifactId, EntityId, EntityKind, OrganisationId},
    learning::Task,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What datasets and verification units with the same columns, target and task have in common.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) task: Task,
    /// Which entries have it.
    pub(crate) entries: Postings,
}

type ShapeKey = (Vec<String>, String, Option<Vec<String>>);

/// What a filter looks at, packed apart from the descriptors, so that scanning many entries touches little memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) kind: EntityKind,
    pub(crate) organisation: u32,
    pub(crate) jurisdiction: u32,
    pub(crate) shape: Option<u32>,
    pub(crate) records: u64,
    /// Which text the owner's policy is; entries without one share a number.
    pub(crate) policy: u32,
}

/// Texts of policies, numbered; a number is used again when nothing has the text any more.
#[derive(Debug, Clone, Default)]
struct PolicyTexts {
    numbers: HashMap<ArtifactId, u32>,
    /// By number: the text's hash and how many entries have it.
    texts: Vec<(ArtifactId, usize)>,
    free: Vec<u32>,
}

impl PolicyTexts {
    fn add(&mut self, text: &str) -> u32 {
        let hash = ArtifactId::of(text.as_bytes());
        let number = *self.numbers.entry(hash).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.texts.push((hash, 0));
                numbers::index(self.texts.len() - 1)
            })
        });
        let place = &mut self.texts[number as usize];
        *place = (hash, place.1 + 1);
        number
    }

    fn remove(&mut self, number: u32) {
        let (hash, n_entries) = &mut self.texts[number as usize];
        *n_entries -= 1;
        if *n_entries == 0 {
            self.numbers.remove(hash);
            self.free.push(number);
        }
    }
}

fn policy_text(body: &Body) -> &str {
    match body {
        Body::Dataset(body) => &body.policy,
        _ => "",
    }
}

/// Texts that many entries share, numbered, each with its entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    numbers: HashMap<String, u32>,
    entries: Vec<Postings>,
}

impl Names {
    fn add(&mut self, name: &str, entry: u32) -> u32 {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = numbers::index(self.entries.len());
                self.numbers.insert(name.to_owned(), number);
                self.entries.push(Postings::default());
                number
            }
        };
        self.entries[number as usize].insert(entry);
        number
    }

    fn remove(&mut self, number: u32, entry: u32) {
        self.entries[number as usize].remove(entry);
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn entries(&self, number: u32) -> &Postings {
        &self.entries[number as usize]
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Postings> {
        self.number(name).map(|number| self.entries(number))
    }
}

/// All descriptors in force.
#[derive(Debug, Clone, Default)]
pub(crate) struct Knowledge {
    descriptors: Vec<Option<Arc<Descriptor>>>,
    /// By the same numbers; those of withdrawn entries are named by no index.
    facts: Vec<Option<Facts>>,
    free: Vec<u32>,
    by_id: BTreeMap<EntityId, u32>,
    kinds: [Postings; EntityKind::ALL.len()],
    pub(crate) organisations: Names,
    pub(crate) jurisdictions: Names,
    policies: PolicyTexts,
    /// Skill ids and tags of agents.
    pub(crate) skills: Names,
    pub(crate) shapes: Vec<Shape>,
    shape_numbers: HashMap<ShapeKey, u32>,
    /// Which shapes have a feature column.
    columns: HashMap<String, Postings>,
    /// Which shapes predict a column.
    targets: HashMap<String, Postings>,
}

fn shape_key(features: &[String], target: &str, task: &Task) -> ShapeKey {
    let mut sorted = features.to_vec();
    sorted.sort_unstable();
    let classes = match task {
        Task::Classification { classes } => Some(classes.clone()),
        Task::Regression => None,
    };
    (sorted, target.to_owned(), classes)
}

fn skill_words(body: &Body) -> Vec<&str> {
    let Body::Agent(agent) = body else {
        return Vec::new();
    };
    let ids = agent.skills.iter().map(|skill| skill.id.as_str());
    let tags = agent.skills.iter().flat_map(|skill| &skill.tags);
    let mut words: Vec<&str> = ids.chain(tags.map(String::as_str)).collect();
    words.sort_unstable();
    words.dedup();
    words
}

impl Knowledge {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: &EntityId) -> Option<&Arc<Descriptor>> {
        self.by_id.get(id).map(|number| self.descriptor(*number))
    }

    pub(crate) fn number(&self, id: &EntityId) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// In the order of ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&EntityId, u32)> {
        self.by_id.iter().map(|(id, number)| (id, *number))
    }

    pub(crate) fn descriptor(&self, number: u32) -> &Arc<Descriptor> {
        self.descriptors[number as usize]
            .as_ref()
            .expect("indexes name only entries that are in force")
    }

    pub(crate) fn facts(&self, number: u32) -> Facts {
        self.facts[number as usize].expect("indexes name only entries that are in force")
    }

    /// The numbers of all entries, ascending.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        let known = self.facts.iter().enumerate();
        known.filter_map(|(number, facts)| facts.map(|_| numbers::index(number)))
    }

    pub(crate) fn kind(&self, kind: EntityKind) -> &Postings {
        &self.kinds[kind as usize]
    }

    /// Descriptors of a kind, in the order of ids.
    pub(crate) fn of_kind(&self, kind: EntityKind) -> Vec<&Arc<Descriptor>> {
        let numbers = self.kind(kind).as_slice();
        let mut descriptors: Vec<_> = numbers.iter().map(|n| self.descriptor(*n)).collect();
        descriptors.sort_unstable_by(|a, b| a.entity.cmp(&b.entity));
        descriptors
    }

    pub(crate) fn insert(&mut self, descriptor: Descriptor) {
        self.remove(&descriptor.entity);
        let number = self.free.pop().unwrap_or_else(|| {
            self.descriptors.push(None);
            self.facts.push(None);
            numbers::index(self.descriptors.len() - 1)
        });
        let (shape, records) = match &descriptor.body {
            Body::Dataset(body) => (
                Some(self.shape(&body.features, &body.target, &body.task, number)),
                body.records,
            ),
            Body::Verifier(body) => (
                Some(self.shape(&body.features, &body.target, &body.task, number)),
                body.records,
            ),
            _ => (None, 0),
        };
        for word in skill_words(&descriptor.body) {
            self.skills.add(word, number);
        }
        let kind = descriptor.entity.kind;
        self.kinds[kind as usize].insert(number);
        let facts = Facts {
            kind,
            organisation: self
                .organisations
                .add(descriptor.entity.organisation.as_str(), number),
            jurisdiction: self.jurisdictions.add(&descriptor.jurisdiction, number),
            shape,
            records,
            policy: self.policies.add(policy_text(&descriptor.body)),
        };
        self.by_id.insert(descriptor.entity.clone(), number);
        self.descriptors[number as usize] = Some(Arc::new(descriptor));
        self.facts[number as usize] = Some(facts);
    }

    pub(crate) fn remove(&mut self, id: &EntityId) -> bool {
        let Some(number) = self.by_id.remove(id) else {
            return false;
        };
        let facts = self.facts(number);
        self.facts[number as usize] = None;
        let descriptor = self.descriptors[number as usize]
            .take()
            .expect("indexes name only entries that are in force");
        self.kinds[facts.kind as usize].remove(number);
        self.organisations.remove(facts.organisation, number);
        self.jurisdictions.remove(facts.jurisdiction, number);
        self.policies.remove(facts.policy);
        for word in skill_words(&descriptor.body) {
            let skill = self.skills.number(word).expect("added with the entry");
            self.skills.remove(skill, number);
        }
        if let Some(shape) = facts.shape {
            self.shapes[shape as usize].entries.remove(number);
        }
        self.free.push(number);
        true
    }

    fn shape(&mut self, features: &[String], target: &str, task: &Task, entry: u32) -> u32 {
        let key = shape_key(features, target, task);
        if let Some(number) = self.shape_numbers.get(&key) {
            self.shapes[*number as usize].entries.insert(entry);
            return *number;
        }
        let number = numbers::index(self.shapes.len());
        for feature in &key.0 {
            self.columns.entry(feature.clone()).or_default().insert(number);
        }
        self.targets.entry(target.to_owned()).or_default().insert(number);
        let mut entries = Postings::default();
        entries.insert(entry);
        self.shapes.push(Shape {
            task: task.clone(),
            entries,
        });
        self.shape_numbers.insert(key, number);
        number
    }

    /// Shapes that have all these feature columns and, where one is named, predict this column.
    pub(crate) fn shapes_with(&self, features: &[String], target: Option<&str>) -> Vec<u32> {
        let mut lists = Vec::with_capacity(features.len() + 1);
        for feature in features {
            match self.columns.get(feature) {
                Some(list) => lists.push(list),
                None => return Vec::new(),
            }
        }
        if let Some(target) = target {
            match self.targets.get(target) {
                Some(list) => lists.push(list),
                None => return Vec::new(),
            }
        }
        lists.sort_by_key(|list| list.len());
        let Some((rarest, others)) = lists.split_first() else {
            return (0..numbers::index(self.shapes.len())).collect();
        };
        rarest
            .as_slice()
            .iter()
            .copied()
            .filter(|shape| others.iter().all(|list| list.contains(*shape)))
            .filter(|shape| !self.shapes[*shape as usize].entries.is_empty())
            .collect()
    }

    /// How many numbers of policy texts there are.
    pub(crate) fn n_policies(&self) -> usize {
        self.policies.texts.len()
    }

    /// The numbers of these organisations, as a set; names that nobody has are left out.
    pub(crate) fn organisation_bits(&self, organisations: &[OrganisationId]) -> Bits {
        Bits::of(
            organisations
                .iter()
                .filter_map(|organisation| self.organisations.number(organisation.as_str())),
        )
    }

    /// The numbers of these jurisdictions, as a set; codes that nobody has are left out.
    pub(crate) fn jurisdiction_bits(&self, jurisdictions: &[String]) -> Bits {
        Bits::of(
            jurisdictions
                .iter()
                .filter_map(|jurisdiction| self.jurisdictions.number(jurisdiction)),
        )
    }
}
