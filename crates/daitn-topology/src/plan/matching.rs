//! Whether a dataset is what a request looks for: the request's filter, and classes that fit.

use daitn_messages::{
    descriptor::{DatasetBody, Descriptor},
    ids::{EntityId, OrganisationId},
    learning::Task,
    request::TrainingRequest,
};
use std::collections::{HashMap, HashSet};

/// The request's filter with every name looked up.
pub(super) struct Filter<'a> {
    organisations: Option<HashSet<&'a OrganisationId>>,
    jurisdictions: Option<HashSet<&'a str>>,
    datasets: Option<HashSet<&'a EntityId>>,
    pub(super) records_min: u64,
}

impl<'a> Filter<'a> {
    pub(super) fn new(request: &'a TrainingRequest) -> Self {
        let data = &request.data;
        Self {
            organisations: (!data.organisations.is_empty()).then(|| data.organisations.iter().collect()),
            jurisdictions: (!data.jurisdictions.is_empty())
                .then(|| data.jurisdictions.iter().map(String::as_str).collect()),
            datasets: (!data.datasets.is_empty()).then(|| data.datasets.iter().collect()),
            records_min: data.records_min,
        }
    }

    pub(super) fn refuses(&self, descriptor: &Descriptor) -> Option<String> {
        let lacks = |set: Option<bool>| set == Some(false);
        if lacks(
            self.organisations
                .as_ref()
                .map(|s| s.contains(descriptor.organisation())),
        ) {
            Some(format!(
                "the request does not name its organisation {}",
                descriptor.organisation()
            ))
        } else if lacks(
            self.jurisdictions
                .as_ref()
                .map(|s| s.contains(descriptor.jurisdiction.as_str())),
        ) {
            Some(format!(
                "the request does not name its jurisdiction {}",
                descriptor.jurisdiction
            ))
        } else if lacks(self.datasets.as_ref().map(|s| s.contains(&descriptor.entity))) {
            Some("the request names other datasets".to_owned())
        } else {
            None
        }
    }
}

/// For each class of the request its place among the data's, where the data has it. `None` if the data has a class that
/// the request does not name, or the tasks are of different kinds: its rows could not be used.
pub(super) fn class_map(wanted: &Task, found: &Task) -> Option<Vec<Option<usize>>> {
    match (wanted, found) {
        (Task::Regression, Task::Regression) => Some(Vec::new()),
        (Task::Classification { classes: wanted }, Task::Classification { classes: found }) => {
            let places: HashMap<&str, usize> =
                found.iter().enumerate().map(|(i, c)| (c.as_str(), i)).collect();
            let map: Vec<Option<usize>> = wanted
                .iter()
                .map(|class| places.get(class.as_str()).copied())
                .collect();
            let n_found = map.iter().flatten().collect::<HashSet<_>>().len();
            (n_found == places.len()).then_some(map)
        }
        _ => None,
    }
}

pub(super) fn shares(body: &DatasetBody, map: &[Option<usize>]) -> Option<Vec<f32>> {
    let told = body.label_distribution.as_ref()?;
    let ordered: Vec<f32> = map
        .iter()
        .map(|place| place.and_then(|i| told.get(i)).copied().unwrap_or(0.0))
        .collect();
    (!ordered.is_empty()).then_some(ordered)
}
