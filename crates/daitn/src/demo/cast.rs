//! Who plays in the demo: six organisations, ten nodes. The names are made up; the data and everything that happens
//! to it are real.

use daitn_messages::ids::EntityKind;

/// The organisation that offers aggregation, hosts and verification, and asks for the model.
pub(crate) const FACILITATOR: &str = "grid-works";
/// The model that comes out.
pub(crate) const MODEL: &str = "digits";
/// The name of every dataset, within its organisation.
pub(crate) const DATASET: &str = "digits";
/// The agent's name.
pub(crate) const AGENT: &str = "reader";

/// A data provider.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provider {
    /// The organisation.
    pub(crate) organisation: &'static str,
    /// The title of its dataset.
    pub(crate) title: &'static str,
    /// The law that it is under.
    pub(crate) jurisdiction: &'static str,
    /// Whether its policy forbids commercial purposes.
    pub(crate) forbids_commercial: bool,
}

/// Five organisations that have data.
pub(crate) const PROVIDERS: [Provider; 5] = [
    Provider {
        organisation: "city-post",
        title: "Digits from addressed letters",
        jurisdiction: "DE",
        forbids_commercial: false,
    },
    Provider {
        organisation: "north-bank",
        title: "Digits from paper cheques",
        jurisdiction: "DK",
        forbids_commercial: false,
    },
    Provider {
        organisation: "old-archive",
        title: "Digits from parish registers",
        jurisdiction: "AT",
        forbids_commercial: false,
    },
    Provider {
        organisation: "st-mary",
        title: "Digits from laboratory forms",
        jurisdiction: "DE",
        forbids_commercial: true,
    },
    Provider {
        organisation: "uni-lake",
        title: "Digits from examination sheets",
        jurisdiction: "CH",
        forbids_commercial: false,
    },
];

/// A node that is not a data provider's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facility {
    /// The organisation.
    pub(crate) organisation: &'static str,
    /// The node's name, and its terminal's.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) kind: EntityKind,
}

/// The nodes that judge, combine and serve. One of the judges belongs to another organisation than the rest.
pub(crate) const FACILITIES: [Facility; 5] = [
    Facility {
        organisation: FACILITATOR,
        name: "combiner",
        kind: EntityKind::Aggregator,
    },
    Facility {
        organisation: FACILITATOR,
        name: "judge-works",
        kind: EntityKind::Verifier,
    },
    Facility {
        organisation: "uni-lake",
        name: "judge-lake",
        kind: EntityKind::Verifier,
    },
    Facility {
        organisation: FACILITATOR,
        name: "host-east",
        kind: EntityKind::ModelHost,
    },
    Facility {
        organisation: FACILITATOR,
        name: "host-west",
        kind: EntityKind::ModelHost,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What the demo promises to show.
    #[test]
    fn at_least_nine_nodes_of_six_organisations() {
        let owners: BTreeSet<&str> = PROVIDERS
            .iter()
            .map(|p| p.organisation)
            .chain(FACILITIES.iter().map(|f| f.organisation))
            .collect();
        assert_eq!(owners.len(), 6);
        assert!(PROVIDERS.len() + FACILITIES.len() >= 9);
        let of = |kind| FACILITIES.iter().filter(|f| f.kind == kind).count();
        assert_eq!(
            (
                of(EntityKind::Aggregator),
                of(EntityKind::Verifier),
                of(EntityKind::ModelHost)
            ),
            (1, 2, 2)
        );
        assert_eq!(PROVIDERS.iter().filter(|p| p.forbids_commercial).count(), 1);
    }
}
