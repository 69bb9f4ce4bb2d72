//! What a file offers to models: its feature columns, its target, how many records and of which class. Shared by the
//! dataset terminal and the verification unit, which publish it, rounded.

use crate::{dataset::TaskKind, durable::blocking};
use daitn_engine::{
    Table,
    data::{self, ColumnInspection, DataError, Inspection, Kind},
};
use daitn_messages::{
    ids::ArtifactId,
    learning::{ModelSpec, Task},
    rejection::{Code, Rejection},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

/// Counts are told in steps of this many, and smaller cells not at all: nobody is found in them.
const STEP: u64 = 10;
/// Bytes that are hashed at a time.
const HASH_STEP_BYTES: usize = 256 * 1024;

/// What the configuration says of the columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared<'a> {
    /// Columns that may be used; empty: all that are fit, but the target.
    pub features: &'a [String],
    /// The column that is predicted.
    pub target: &'a str,
    /// What the target is.
    pub task: Option<TaskKind>,
    /// The labels.
    pub classes: &'a [String],
}

/// What a file offers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Columns {
    /// Columns that may be used, all of them numbers.
    pub features: Vec<String>,
    /// The column that is predicted.
    pub target: String,
    /// What it is.
    pub task: Task,
    /// Exact number of rows: never published.
    pub n_rows: u64,
    /// Exact number of rows of each class: never published. Empty for regression.
    pub class_counts: Vec<u64>,
}

impl Columns {
    /// Fits what is declared to what the file has.
    ///
    /// # Errors
    /// Which column is missing, or not what it is declared to be.
    pub(crate) fn of(declared: Declared<'_>, inspection: &Inspection) -> Result<Self, Rejection> {
        let unusable = |message: String| Rejection::new(Code::DataUnusable, message);
        let column = |name: &str| inspection.named(name).map_err(Rejection::from);
        let target = column(declared.target)?;
        let features = if declared.features.is_empty() {
            let fit = inspection
                .columns
                .iter()
                .filter(|c| c.unfit().is_none() && c.name != declared.target);
            fit.map(|column| column.name.clone()).collect()
        } else {
            for name in declared.features {
                if let Some(unfit) = column(name)?.unfit() {
                    let shown: String = name.chars().filter(|c| !c.is_control()).collect();
                    return Err(unusable(format!(
                        "the column `{shown}` cannot be a feature: {unfit}"
                    ))
                    .with_hint("Take it out of `features`, or mend the file: only finite numbers, one in each row, can be used."));
                }
            }
            declared.features.to_vec()
        };
        if target.missing.n > 0 {
            return Err(unusable(format!(
                "the column `{}`, which is to be predicted, has no value in {}",
                declared.target, target.missing
            ))
            .with_hint("Fill in the values or leave the rows out: what is missing is never guessed."));
        }
        let kind = declared.task.unwrap_or_else(|| guessed(target));
        let mut class_counts = Vec::new();
        let mut classes = Vec::new();
        if kind == TaskKind::Classification {
            let counts = target.distinct.as_ref().ok_or_else(|| {
                unusable(format!(
                    "the column `{}` has too many different values to be a class",
                    declared.target
                ))
            })?;
            classes = if declared.classes.is_empty() {
                may_be_told(target, counts)?;
                in_order(counts.keys().cloned().collect())
            } else {
                declared.classes.to_vec()
            };
            if let Some(label) = counts.keys().find(|label| !classes.contains(label)) {
                // Not the label itself: it is data.
                let place = counts.keys().position(|other| other == label).unwrap_or(0);
                return Err(unusable(format!(
                    "value {place} of `{}` is none of `classes`",
                    declared.target
                )));
            }
            class_counts = classes
                .iter()
                .map(|class| counts.get(class).copied().unwrap_or(0))
                .collect();
        } else if let Some(unfit) = target.unfit() {
            return Err(unusable(format!(
                "the column `{}` cannot be regressed on: {unfit}",
                declared.target
            )));
        }
        Ok(Self {
            features,
            target: declared.target.to_owned(),
            task: kind.with_classes(classes),
            n_rows: inspection.n_rows,
            class_counts,
        })
    }

    /// The number of records as it is published.
    #[must_use]
    pub(crate) fn records(&self) -> u64 {
        rounded(self.n_rows)
    }

    /// The share of each class as it is published: counts cut to tens, so that cells under ten are zero.
    #[must_use]
    pub(crate) fn label_distribution(&self) -> Option<Vec<f32>> {
        let total = self.records();
        if self.class_counts.is_empty() || total == 0 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a share needs no more digits")]
        let share = |count: &u64| ((count / STEP * STEP) as f64 / total as f64) as f32;
        Some(self.class_counts.iter().map(share).collect())
    }

    /// BLAKE3 over the column names and kinds: equal for data that fits together.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> ArtifactId {
        let mut names: Vec<&str> = self.features.iter().map(String::as_str).collect();
        names.sort_unstable();
        let kind = match self.task {
            Task::Classification { .. } => "class",
            Task::Regression => "number",
        };
        let mut text = String::new();
        for (name, kind) in names
            .into_iter()
            .map(|name| (name, "number"))
            .chain([(self.target.as_str(), kind)])
        {
            text.push_str(name);
            text.push('\0');
            text.push_str(kind);
            text.push('\n');
        }
        ArtifactId::of(text.as_bytes())
    }

    /// Whether a model can be fed from the file.
    ///
    /// # Errors
    /// What the model needs and the file has not.
    pub(crate) fn fit(&self, spec: &ModelSpec) -> Result<(), Rejection> {
        let unusable = |message: String| Err(Rejection::new(Code::DataUnusable, message));
        if let Some(name) = spec.features.iter().find(|name| !self.features.contains(name)) {
            return unusable(format!("`{name}` is not among the columns that may be used"));
        }
        if spec.target != self.target {
            return unusable(format!(
                "`{}` cannot be predicted here, only `{}`",
                spec.target, self.target
            ));
        }
        match (&spec.task, &self.task) {
            (Task::Regression, Task::Regression) => Ok(()),
            (Task::Classification { classes }, Task::Classification { classes: own }) => {
                match own.iter().find(|class| !classes.contains(class)) {
                    Some(class) => unusable(format!(
                        "the model has no class `{class}`, which is declared here"
                    )),
                    None => Ok(()),
                }
            }
            _ => unusable(format!("`{}` is of another task here", self.target)),
        }
    }
}

/// What a file offers where its owner says no more than what is predicted and, perhaps, its labels: what is predicted.
///
/// # Errors
/// Why nothing can be offered, with the row where one is to blame.
pub fn check_columns(target: &str, classes: &[String], inspection: &Inspection) -> Result<Task, Rejection> {
    let declared = Declared {
        features: &[],
        target,
        task: None,
        classes,
    };
    Columns::of(declared, inspection).map(|columns| columns.task)
}

fn guessed(target: &ColumnInspection) -> TaskKind {
    let few_values = target
        .distinct
        .as_ref()
        .is_some_and(|distinct| distinct.len() <= CLASSES_GUESSED_MAX);
    match target.kind {
        Kind::Text => TaskKind::Classification,
        Kind::Integer if few_values => TaskKind::Classification,
        Kind::Integer | Kind::Number => TaskKind::Regression,
    }
}

/// A whole-number target with at most this many values is taken for a class, unless the owner says otherwise.
const CLASSES_GUESSED_MAX: usize = 100;

/// Of ten different values this many are numbers where a column of numbers has some other text in it.
const NUMBERS_OF_TEN: usize = 9;

/// Whether the values of a target may be published as its classes although the owner has not named them: labels tell
/// nothing of anybody, measurements do.
fn may_be_told(target: &ColumnInspection, counts: &BTreeMap<String, u64>) -> Result<(), Rejection> {
    let n_values = counts.len();
    let is_number = |value: &&String| value.trim().parse::<f64>().is_ok_and(f64::is_finite);
    let n_numbers = counts.keys().filter(is_number).count();
    let why = if n_values > CLASSES_GUESSED_MAX {
        format!("has {n_values} different values, which as classes would be told to everybody")
    } else if n_numbers < n_values && n_numbers * 10 >= n_values * NUMBERS_OF_TEN {
        format!(
            "has {n_numbers} different numbers and {} other values: as classes all would be told to everybody",
            n_values - n_numbers
        )
    } else {
        return Ok(());
    };
    let first = match target.first_text {
        Some(row) => format!(", the first in row {row}"),
        None => String::new(),
    };
    let hint = format!(
        "If it is a number, mend or leave out the rows in which it is none (`NA` for instance{first}). If these are \
         labels, name them in `classes` (`daitn data init --classes`)."
    );
    Err(Rejection::new(Code::DataUnusable, format!("the column `{}` {why}", target.name)).with_hint(hint))
}

fn rounded(n: u64) -> u64 {
    (n + STEP / 2) / STEP * STEP
}

/// Labels by number if all are whole numbers, else as text.
fn in_order(mut labels: Vec<String>) -> Vec<String> {
    match labels
        .iter()
        .map(|label| label.parse::<i64>())
        .collect::<Result<Vec<_>, _>>()
    {
        Ok(_) => labels.sort_by_key(|label| label.parse::<i64>().unwrap_or(i64::MAX)),
        Err(_) => labels.sort_unstable(),
    }
    labels
}

/// A data file as it was when it was described.
#[derive(Debug)]
pub(crate) struct DataFile {
    path: PathBuf,
    hash: blake3::Hash,
    /// Length and time of the last change when the hash was last found right.
    seen: Mutex<(u64, Option<SystemTime>)>,
    /// Tables that were read, the newest last.
    tables: Mutex<Vec<(ArtifactId, Arc<Table>)>>,
}

impl DataFile {
    /// Looks at a file. Blocks.
    ///
    /// # Errors
    /// What makes it unusable, with row and column; never a value.
    pub(crate) fn inspect(path: &Path, declared: Declared<'_>) -> Result<(Self, Columns), Rejection> {
        let inspection = data::inspect(path).map_err(Rejection::from)?;
        let columns = Columns::of(declared, &inspection)?;
        let unreadable =
            |error: io::Error| Rejection::new(Code::DataUnusable, format!("the data file: {error}"));
        let seen = stamp(path).map_err(unreadable)?;
        let hash = hash(path).map_err(unreadable)?;
        let file = Self {
            path: path.to_owned(),
            hash,
            seen: Mutex::new(seen),
            tables: Mutex::new(Vec::new()),
        };
        Ok((file, columns))
    }

    /// The file's rows for a model, read again unless they are in memory.
    ///
    /// # Errors
    /// That the file cannot be used, also that it has changed since it was described. The owner's log says why: whoever
    /// asked for the model is not told what stands in which row.
    pub(crate) async fn table(self: &Arc<Self>, spec: &ModelSpec) -> Result<Arc<Table>, Rejection> {
        let (file, spec) = (self.clone(), spec.clone());
        blocking(move || file.read(&spec)).await
    }

    /// Forgets the tables in memory.
    pub(crate) fn forget(&self) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn read(&self, spec: &ModelSpec) -> Result<Arc<Table>, Rejection> {
        self.check_unchanged()?;
        // The architecture does not matter for what is read.
        let key = (
            &spec.features,
            &spec.target,
            &spec.task,
            spec.scale.to_bits(),
            spec.offset.to_bits(),
        );
        let key = ArtifactId::of(&daitn_messages::encoding::encode(&key));
        let tables = || self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = tables().iter().find(|(known, _)| *known == key) {
            return Ok(table.clone());
        }
        let table = Arc::new(data::read(&self.path, spec).map_err(|error| withheld(&self.path, error))?);
        let mut tables = tables();
        if tables.len() >= crate::limits::TABLES_MAX {
            tables.remove(0);
        }
        tables.push((key, table.clone()));
        Ok(table)
    }

    fn check_unchanged(&self) -> Result<(), Rejection> {
        let unreadable =
            |error: io::Error| Rejection::new(Code::DataUnusable, format!("the data file: {error}"));
        let now = stamp(&self.path).map_err(unreadable)?;
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen() == now {
            return Ok(());
        }
        self.forget();
        if hash(&self.path).map_err(unreadable)? != self.hash {
            let message = "the data file has changed since it was described";
            return Err(Rejection::new(Code::DataUnusable, message).with_hint(
                "Attach the terminal again: it gets a new version, and plans are made with that.",
            ));
        }
        *seen() = now;
        Ok(())
    }
}

/// What others are told of a file that cannot be read for a model: neither row nor column nor value.
fn withheld(path: &Path, error: DataError) -> Rejection {
    let told = Rejection::from(error);
    tracing::error!(path = %path.display(), "the data cannot be used for a model: {told}. {}", told.hint);
    Rejection::new(told.code, "the owner's data cannot be read as the model needs it").with_hint(
        "What is wrong stands in the log of the owner's node, and `daitn data validate` shows it to the owner. A \
         request's `scale` and `offset` may also take values out of range.",
    )
}

fn stamp(path: &Path) -> io::Result<(u64, Option<SystemTime>)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.len(), metadata.modified().ok()))
}

fn hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_STEP_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            n_bytes => hasher.update(&buffer[..n_bytes]),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(csv: &str, declared: Declared<'_>) -> Result<Columns, Rejection> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.csv");
        std::fs::write(&path, csv).unwrap();
        DataFile::inspect(&path, declared).map(|(_, columns)| columns)
    }

    const OF_LABEL: Declared<'_> = Declared {
        features: &[],
        target: "label",
        task: None,
        classes: &[],
    };

    #[test]
    fn counts_are_rounded_and_small_cells_suppressed() {
        let mut csv = "x,label\n".to_owned();
        for (label, n) in [("2", 27), ("10", 9), ("1", 10)] {
            (0..n).for_each(|i| csv.push_str(&format!("{i},{label}\n")));
        }
        let columns = columns(&csv, OF_LABEL).unwrap();
        assert_eq!(
            columns.task,
            Task::Classification {
                classes: ["1", "2", "10"].map(String::from).to_vec()
            }
        );
        assert_eq!((columns.n_rows, columns.records()), (46, 50));
        // 10, 27 and 9 cut to tens, of 50.
        assert_eq!(columns.label_distribution(), Some(vec![0.2, 0.4, 0.0]));
    }

    /// A number with one `NA` in it would be taken for text, and so each patient's value for a class.
    #[test]
    fn measurements_are_not_published_as_classes() {
        let file = |values: &mut dyn Iterator<Item = String>| {
            let rows: String = values.map(|value| format!("1,{value}\n")).collect();
            format!("x,label\n{rows}")
        };
        let refused = |csv: &str| {
            let refusal = columns(csv, OF_LABEL).unwrap_err();
            assert_eq!(refusal.code, Code::DataUnusable);
            assert!(refusal.hint.contains("--classes"), "{}", refusal.hint);
            assert!(
                !refusal.hint.contains("patient"),
                "a value is told: {}",
                refusal.hint
            );
            refusal.message
        };
        let with_na = |n: u32| (0..n).map(|i| format!("{i}.5")).chain(["NA".to_owned()]);
        let hint = columns(&file(&mut with_na(20)), OF_LABEL).unwrap_err().hint;
        assert!(hint.contains("the first in row 22"), "{hint}");
        let message = refused(&file(&mut with_na(20)));
        assert!(message.contains("20 different numbers and 1 other"), "{message}");
        assert!(!message.contains("NA"), "a value is told: {message}");
        let message = refused(&file(&mut with_na(400)));
        assert!(message.contains("401 different values"), "{message}");
        refused(&file(&mut (0..101).map(|i| format!("patient-{i}"))));
        // Labels, and what the owner names.
        assert!(columns(&file(&mut (0..100).map(|i| format!("word-{i}"))), OF_LABEL).is_ok());
        let classes: Vec<String> = with_na(20).collect();
        let named = Declared {
            classes: &classes,
            ..OF_LABEL
        };
        assert!(columns(&file(&mut with_na(20)), named).is_ok());
    }

    #[test]
    fn features_are_the_numbers_that_the_owner_allows() {
        let csv = "a,note,label\n1,x,u\n2,y,v\n";
        assert_eq!(columns(csv, OF_LABEL).unwrap().features, ["a"]);
        let note = ["note".to_owned()];
        assert_eq!(
            columns(
                csv,
                Declared {
                    features: &note,
                    ..OF_LABEL
                }
            )
            .unwrap_err()
            .code,
            Code::DataUnusable
        );
        let missing = ["b".to_owned()];
        assert!(
            columns(
                csv,
                Declared {
                    features: &missing,
                    ..OF_LABEL
                }
            )
            .is_err()
        );
        let classes = ["u".to_owned()];
        let error = columns(
            csv,
            Declared {
                classes: &classes,
                ..OF_LABEL
            },
        )
        .unwrap_err();
        assert!(
            !error.message.contains('v') || !error.message.contains("`v`"),
            "a label is data: {error}"
        );
    }

    #[test]
    fn what_no_model_can_be_fed_from_is_no_feature() {
        let csv = "a,half,odd,wide,\"b\u{7}\",label\n1,,nan,1e300,1,u\n2,4,1,1,2,v\n";
        assert_eq!(columns(csv, OF_LABEL).unwrap().features, ["a"]);
        for (name, why) in [
            ("half", "no value in row"),
            ("odd", "NaN or infinite in row 2"),
            ("wide", "3.4e38"),
            ("b\u{7}", "control"),
        ] {
            let features = [name.to_owned()];
            let declared = Declared {
                features: &features,
                ..OF_LABEL
            };
            let error = columns(csv, declared).unwrap_err();
            assert!(
                error.message.contains(why) && !error.message.contains('\u{7}'),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_to_be_predicted_has_a_value_in_each_row() {
        let of = |task| Declared {
            target: "y",
            task,
            ..OF_LABEL
        };
        for (csv, task, why) in [
            ("x,y\n1,2.5\n2,\n", None, "no value in row"),
            (
                "x,y\n1,u\n2,\n",
                Some(TaskKind::Classification),
                "no value in row",
            ),
            ("x,y\n1,2.5\n2,nan\n", Some(TaskKind::Regression), "NaN"),
            ("x,y\n1,2.5\n2,1e300\n", Some(TaskKind::Regression), "3.4e38"),
            (
                "x,y\n1,2.5\n2,much\n",
                Some(TaskKind::Regression),
                "row 3 has a value that is no number",
            ),
        ] {
            let error = columns(csv, of(task)).unwrap_err();
            assert!(error.message.contains(why), "{csv}: {error}");
        }
    }

    /// The requester of a job reads this.
    #[tokio::test]
    async fn what_stands_in_which_row_is_not_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.csv");
        std::fs::write(&path, "income,label\n1,u\n3e38,v\n").unwrap();
        let (file, columns) = DataFile::inspect(&path, OF_LABEL).unwrap();
        let spec = ModelSpec {
            architecture: daitn_messages::learning::Architecture::Linear,
            features: columns.features.clone(),
            target: columns.target.clone(),
            task: columns.task.clone(),
            // Takes the second row out of range.
            scale: 1e10,
            offset: 0.0,
        };
        let error = Arc::new(file).table(&spec).await.unwrap_err();
        assert_eq!(error.code, Code::DataUnusable);
        let told = format!("{} {}", error.message, error.hint);
        assert!(
            !told.contains("row 3") && !told.contains("income") && !told.contains("3e38"),
            "{told}"
        );
    }

    #[test]
    fn data_fits_together_whatever_the_order_of_its_columns() {
        let one = columns("a,b,label\n1,2,u\n1,2,v\n", OF_LABEL).unwrap();
        let other = columns("label,b,a\nw,2.5,1\nz,3,2\n", OF_LABEL).unwrap();
        let third = columns("label,b,c\nw,2.5,1\nz,3,2\n", OF_LABEL).unwrap();
        assert_eq!(one.fingerprint(), other.fingerprint());
        assert_ne!(one.fingerprint(), third.fingerprint());
    }

    #[tokio::test]
    async fn a_changed_file_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.csv");
        std::fs::write(&path, "x,label\n1,u\n2,v\n").unwrap();
        let (file, columns) = DataFile::inspect(&path, OF_LABEL).unwrap();
        let file = Arc::new(file);
        let spec = ModelSpec {
            architecture: daitn_messages::learning::Architecture::Linear,
            features: columns.features.clone(),
            target: columns.target.clone(),
            task: columns.task.clone(),
            scale: 1.0,
            offset: 0.0,
        };
        assert_eq!(file.table(&spec).await.unwrap().n_rows(), 2);
        // The same bytes written again are the same data.
        std::fs::write(&path, "x,label\n1,u\n2,v\n").unwrap();
        assert_eq!(file.table(&spec).await.unwrap().n_rows(), 2);
        std::fs::write(&path, "x,label\n1,u\n2,v\n3,v\n").unwrap();
        assert_eq!(file.table(&spec).await.unwrap_err().code, Code::DataUnusable);
    }
}
