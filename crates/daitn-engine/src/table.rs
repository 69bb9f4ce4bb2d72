//! Rows of numbers ready for a model: features row by row, already shifted and scaled, and what is to be predicted.

/// Why columns make no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The lengths do not fit together.
    #[error("{n_features} features and {n_numbers} numbers do not make {n_targets} rows")]
    Lengths {
        /// Features in a row.
        n_features: usize,
        /// Numbers in all.
        n_numbers: usize,
        /// Targets.
        n_targets: usize,
    },
    /// A class beyond the last one.
    #[error("row {row} has class {class} of {n_classes}")]
    Class {
        /// Counted from 0.
        row: usize,
        /// What was found.
        class: u32,
        /// How many there are.
        n_classes: usize,
    },
    /// Not a finite number.
    #[error("row {row} has a number that is not finite")]
    NotFinite {
        /// Counted from 0.
        row: usize,
    },
}

/// What is to be predicted, one for each row.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Positions in the list of classes.
    Classes {
        /// One for each row.
        labels: Vec<u32>,
        /// How many classes there are.
        n_classes: usize,
    },
    /// Numbers.
    Values(Vec<f32>),
}

impl Targets {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Classes { labels, .. } => labels.len(),
            Self::Values(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Rows of features and their targets. Every number in it is finite and every class exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    n_features: usize,
    features: Vec<f32>,
    targets: Targets,
}

impl Table {
    /// A table of these features (row by row) and targets.
    ///
    /// # Errors
    /// If lengths do not fit, a number is not finite or a class does not exist.
    pub fn new(n_features: usize, features: Vec<f32>, targets: Targets) -> Result<Self, TableError> {
        if n_features == 0 || targets.len().checked_mul(n_features) != Some(features.len()) {
            return Err(TableError::Lengths {
                n_features,
                n_numbers: features.len(),
                n_targets: targets.len(),
            });
        }
        if let Some(position) = features.iter().position(|x| !x.is_finite()) {
            return Err(TableError::NotFinite {
                row: position / n_features,
            });
        }
        match &targets {
            Targets::Classes { labels, n_classes } => {
                if let Some(row) = labels.iter().position(|class| *class as usize >= *n_classes) {
                    return Err(TableError::Class {
                        row,
                        class: labels[row],
                        n_classes: *n_classes,
                    });
                }
            }
            Targets::Values(values) => {
                if let Some(row) = values.iter().position(|x| !x.is_finite()) {
                    return Err(TableError::NotFinite { row });
                }
            }
        }
        Ok(Self {
            n_features,
            features,
            targets,
        })
    }

    /// How many rows there are.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.targets.len()
    }

    /// How many features a row has.
    #[must_use]
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// All features, row by row.
    #[must_use]
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// The features of one row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.features[row * self.n_features..(row + 1) * self.n_features]
    }

    /// What is to be predicted.
    #[must_use]
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// How many rows each class has; empty for regression.
    #[must_use]
    pub fn class_counts(&self) -> Vec<u64> {
        match &self.targets {
            Targets::Values(_) => Vec::new(),
            Targets::Classes { labels, n_classes } => {
                let mut counts = vec![0; *n_classes];
                for class in labels {
                    counts[*class as usize] += 1;
                }
                counts
            }
        }
    }

    /// The table of these rows, in this order. A row may be named more than once.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut features = Vec::with_capacity(rows.len() * self.n_features);
        for row in rows {
            features.extend_from_slice(self.row(*row));
        }
        let targets = match &self.targets {
            Targets::Classes { labels, n_classes } => Targets::Classes {
                labels: rows.iter().map(|row| labels[*row]).collect(),
                n_classes: *n_classes,
            },
            Targets::Values(values) => Targets::Values(rows.iter().map(|row| values[*row]).collect()),
        };
        Self {
            n_features: self.n_features,
            features,
            targets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_whole_and_finite_or_refused() {
        let classes = |labels: &[u32]| Targets::Classes {
            labels: labels.to_vec(),
            n_classes: 2,
        };
        assert!(Table::new(2, vec![1.0, 2.0, 3.0, 4.0], classes(&[0, 1])).is_ok());
        assert!(matches!(
            Table::new(2, vec![1.0; 3], classes(&[0, 1])),
            Err(TableError::Lengths { .. })
        ));
        assert!(matches!(
            Table::new(0, vec![], classes(&[])),
            Err(TableError::Lengths { .. })
        ));
        assert!(matches!(
            Table::new(1, vec![1.0; 2], classes(&[0, 2])),
            Err(TableError::Class { row: 1, .. })
        ));
        let refused = Table::new(1, vec![1.0, f32::NAN], classes(&[0, 1]));
        assert_eq!(refused, Err(TableError::NotFinite { row: 1 }));
        let refused = Table::new(1, vec![1.0], Targets::Values(vec![f32::INFINITY]));
        assert_eq!(refused, Err(TableError::NotFinite { row: 0 }));
    }

    #[test]
    fn rows_are_selected_in_the_order_asked_for() {
        let table = Table::new(
            2,
            vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            Targets::Values(vec![10.0, 20.0, 30.0]),
        );
        let picked = table.unwrap().select(&[2, 0]);
        assert_eq!(picked.features(), [5.0, 6.0, 1.0, 2.0]);
        assert_eq!(picked.targets(), &Targets::Values(vec![30.0, 10.0]));
    }
}
