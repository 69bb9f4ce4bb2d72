//! From a field's text or number to what a model takes: shared by the formats.

use super::{DataError, ROWS_MAX, TABLE_BYTES_MAX};
use crate::{Table, Targets, nearest_f32};
use daitn_messages::learning::{ModelSpec, Task};
use std::collections::BTreeMap;

/// Which columns of a file a model uses, and how its cells become numbers.
pub(super) struct Selection<'a> {
    spec: &'a ModelSpec,
    /// Position in the file of each feature, in the model's order.
    pub(super) features: Vec<usize>,
    /// Position in the file of the target.
    pub(super) target: usize,
    classes: BTreeMap<&'a str, u32>,
}

impl<'a> Selection<'a> {
    /// Finds the model's columns among those of a file.
    pub(super) fn new(spec: &'a ModelSpec, columns: &[String]) -> Result<Self, DataError> {
        let positions = positions(columns)?;
        let find = |name: &str| {
            positions
                .get(name)
                .copied()
                .ok_or_else(|| DataError::missing_column(name, columns.iter()))
        };
        let features = spec
            .features
            .iter()
            .map(|name| find(name))
            .collect::<Result<_, _>>()?;
        let classes = match &spec.task {
            Task::Regression => BTreeMap::new(),
            Task::Classification { classes } => {
                (0_u32..).zip(classes).map(|(i, c)| (c.as_str(), i)).collect()
            }
        };
        Ok(Self {
            spec,
            features,
            target: find(&spec.target)?,
            classes,
        })
    }

    /// Whether the target is a label and not a number.
    pub(super) fn classifies(&self) -> bool {
        matches!(self.spec.task, Task::Classification { .. })
    }

    /// The input that a number of feature `index` becomes.
    pub(super) fn feature(&self, value: f64, row: u64, index: usize) -> Result<f32, DataError> {
        let input = (nearest_f32(value) - self.spec.offset) * self.spec.scale;
        if input.is_finite() {
            Ok(input)
        } else {
            Err(not_finite(row, &self.spec.features[index]))
        }
    }

    /// The input that a field of feature `index` becomes.
    pub(super) fn feature_text(&self, field: &[u8], row: u64, index: usize) -> Result<f32, DataError> {
        let value = number(field, row, &self.spec.features[index])?;
        self.feature(value, row, index)
    }

    /// The position of a label among the classes.
    pub(super) fn class(&self, label: &str, row: u64) -> Result<u32, DataError> {
        if label.is_empty() {
            return Err(missing(row, &self.spec.target));
        }
        self.classes
            .get(label)
            .copied()
            .ok_or_else(|| DataError::UnseenLabel {
                row,
                column: shortened(&self.spec.target),
                n_classes: self.classes.len(),
            })
    }

    /// The number to be predicted.
    pub(super) fn value(&self, value: f64, row: u64) -> Result<f32, DataError> {
        let value = nearest_f32(value);
        if value.is_finite() {
            Ok(value)
        } else {
            Err(not_finite(row, &self.spec.target))
        }
    }

    /// The label in a field.
    pub(super) fn class_text(&self, field: &[u8], row: u64) -> Result<u32, DataError> {
        let label = std::str::from_utf8(field)
            .map_err(|_| DataError::NotUtf8 {
                row,
                column: self.target + 1,
            })?
            .trim();
        self.class(label, row)
    }

    /// The number to be predicted in a field.
    pub(super) fn value_text(&self, field: &[u8], row: u64) -> Result<f32, DataError> {
        self.value(number(field, row, &self.spec.target)?, row)
    }

    /// No cell in a column that the model uses may be empty.
    pub(super) fn missing(&self, row: u64, column: &str) -> DataError {
        missing(row, column)
    }

    /// Refuses more rows than are read or fit into memory.
    pub(super) fn check_size(&self, n_rows: u64) -> Result<(), DataError> {
        if n_rows > ROWS_MAX {
            return Err(DataError::TooManyRows);
        }
        let row_bytes = 4 * (self.features.len() as u64 + 1);
        if n_rows * row_bytes > TABLE_BYTES_MAX {
            Err(DataError::TableTooLarge)
        } else {
            Ok(())
        }
    }

    /// The table of what was read.
    pub(super) fn table(&self, features: Vec<f32>, targets: Targets) -> Result<Table, DataError> {
        if targets.is_empty() {
            return Err(DataError::NoRows);
        }
        Table::new(self.features.len(), features, targets).map_err(|error| DataError::Structure {
            why: error.to_string(),
        })
    }

    /// Targets to which none is added yet.
    pub(super) fn no_targets(&self) -> Targets {
        match self.spec.task {
            Task::Regression => Targets::Values(Vec::new()),
            Task::Classification { ref classes } => Targets::Classes {
                labels: Vec::new(),
                n_classes: classes.len(),
            },
        }
    }
}

/// Where each name is; refuses names that are missing or there twice.
pub(super) fn positions(columns: &[String]) -> Result<BTreeMap<&str, usize>, DataError> {
    let mut positions = BTreeMap::new();
    for (position, name) in columns.iter().enumerate() {
        if name.is_empty() {
            return Err(DataError::UnnamedColumn { column: position + 1 });
        }
        if positions.insert(name.as_str(), position).is_some() {
            return Err(DataError::DuplicateColumn {
                name: shortened(name),
            });
        }
    }
    Ok(positions)
}

/// A finite number out of a field. Blanks around it are ignored.
pub(super) fn number(field: &[u8], row: u64, column: &str) -> Result<f64, DataError> {
    let refuse = || DataError::NotANumber {
        row,
        column: shortened(column),
    };
    let text = std::str::from_utf8(field).map_err(|_| refuse())?.trim();
    if text.is_empty() {
        return Err(missing(row, column));
    }
    let value: f64 = text.parse().map_err(|_| refuse())?;
    if value.is_finite() {
        Ok(value)
    } else {
        Err(not_finite(row, column))
    }
}

/// A name that is fit to stand in an error.
pub(super) fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn missing(row: u64, column: &str) -> DataError {
    DataError::MissingValue {
        row,
        column: shortened(column),
    }
}

fn not_finite(row: u64, column: &str) -> DataError {
    DataError::NotFinite {
        row,
        column: shortened(column),
    }
}
