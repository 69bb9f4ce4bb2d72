//! The center's disk: what was committed, and the checks that belong to every commit.

use daitn_control::core::Records;
use daitn_messages::leaf::{Leaf, LeafKind};
use daitn_store::{Batch, Change, Family, Record};
use std::collections::{BTreeMap, BTreeSet};

type Tables = BTreeMap<Family, BTreeMap<String, Vec<u8>>>;

/// A disk that lies writes for true only once in so many commits.
const LIE: u64 = 16;

#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// A disk that says "written" before it is: the last commits are gone after a death. For the control that
    /// shows that the simulation would notice.
    pub(crate) lies: bool,
    before: Option<(Tables, usize)>,
    n_commits: u64,
    records: Tables,
    pub(crate) leaves: Vec<Leaf>,
}

impl Disk {
    /// Writes a batch; returns what is wrong with it.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Vec<String> {
        self.n_commits += 1;
        if self.lies && self.n_commits.is_multiple_of(LIE) {
            self.before = Some((self.records.clone(), self.leaves.len()));
        }
        let mut wrong = Vec::new();
        let subjects: BTreeSet<(String, &str)> = batch
            .leaves()
            .iter()
            .map(|leaf| (format!("{:?}", leaf.kind), leaf.subject.as_str()))
            .collect();
        let has = |kind: LeafKind, subject: &str| subjects.contains(&(format!("{kind:?}"), subject));
        for change in batch.changes() {
            match change {
                Change::Put { family, key, value } => {
                    let table = self.records.entry(*family).or_default();
                    let is_new = table.insert(key.clone(), value.clone()).is_none();
                    let witnessed = match family {
                        Family::Tokens | Family::Keys => !is_new || has(LeafKind::Key, key),
                        Family::Nodes => !is_new || has(LeafKind::Enrolment, key),
                        Family::Descriptors => {
                            has(LeafKind::Descriptor, key) || has(LeafKind::Registration, key)
                        }
                        Family::Orders => !is_new || has(LeafKind::WorkOrder, key),
                        Family::Deployments => !is_new || has(LeafKind::Deployment, key),
                        Family::Jobs if is_new => {
                            batch.leaves().iter().any(|leaf| leaf.kind == LeafKind::Plan)
                        }
                        Family::Receipts => {
                            let is_receipt =
                                |leaf: &Leaf| matches!(leaf.kind, LeafKind::Receipt | LeafKind::Report);
                            let hash = key.split('/').nth(1).unwrap();
                            batch
                                .leaves()
                                .iter()
                                .any(|leaf| is_receipt(leaf) && leaf.hash.to_string() == hash)
                        }
                        Family::Decisions
                        | Family::Jobs
                        | Family::Meta
                        | Family::Models
                        | Family::Plans
                        | Family::JobParts
                        | Family::Idempotency => true,
                    };
                    if !witnessed {
                        wrong.push(format!(
                            "record {key} of {} has no leaf in its transaction",
                            family.table()
                        ));
                    }
                }
                Change::Delete { family, key } => {
                    self.records.entry(*family).or_default().remove(key);
                }
            }
        }
        self.leaves.extend(batch.leaves().iter().cloned());
        wrong
    }

    /// The power is cut.
    pub(crate) fn cut(&mut self) {
        if let Some((records, n_leaves)) = self.before.take() {
            self.records = records;
            self.leaves.truncate(n_leaves);
        }
    }

    pub(crate) fn records(&self) -> Records {
        let mut records = Records {
            n_leaves: self.leaves.len() as u64,
            ..Records::default()
        };
        for (family, table) in &self.records {
            let of = |(key, value): (&String, &Vec<u8>)| Record {
                family: *family,
                key: key.clone(),
                value: value.clone(),
            };
            records.by_family.insert(*family, table.iter().map(of).collect());
        }
        records
    }

    pub(crate) fn has(&self, family: Family, key: &str) -> bool {
        self.records
            .get(&family)
            .is_some_and(|table| table.contains_key(key))
    }

    pub(crate) fn len(&self, family: Family) -> usize {
        self.records.get(&family).map_or(0, BTreeMap::len)
    }
}
