//! The Open Inference Protocol v2 as a client speaks it: rows in, classes or numbers out.

use crate::{failure::Failure, output::Shown, paint::Paint, render::Table};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// Most rows of one query.
const ROWS_MAX: usize = 65_536;
/// Most columns that a hint names.
const N_COLUMNS_TOLD_MAX: usize = 20;

/// How a model is queried, from its metadata (`GET /v2/models/NAME`).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    /// The model's name.
    model: String,
    input: String,
    datatype: String,
    n_features: Option<usize>,
    /// Names of the columns, where the server tells them.
    columns: Vec<String>,
}

/// Rows of feature values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    values: Vec<f32>,
    n_rows: usize,
}

/// What a model answered: one entry for each row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Answers {
    /// The model.
    model: String,
    /// Its version.
    version: String,
    /// The decision that chose the replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
    /// For each row.
    answers: Vec<OneAnswer>,
}

/// The answer to one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct OneAnswer {
    /// The likeliest class, of a classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<String>,
    /// A probability for each class, or the predicted number.
    pub(crate) values: Vec<f64>,
}

impl Query {
    /// From a model's metadata.
    pub(crate) fn of(metadata: &Value) -> Result<Self, Failure> {
        let odd = || Failure::internal("the model's metadata names no input");
        let input = metadata["inputs"]
            .as_array()
            .and_then(|inputs| inputs.first())
            .ok_or_else(odd)?;
        let text = |field: &str| input[field].as_str().map(ToOwned::to_owned).ok_or_else(odd);
        let n_features = input["shape"]
            .as_array()
            .and_then(|shape| shape.last()?.as_i64())
            .and_then(|size| usize::try_from(size).ok());
        let columns = input["parameters"]["columns"].as_array().into_iter().flatten();
        Ok(Self {
            model: metadata["name"].as_str().unwrap_or_default().to_owned(),
            input: text("name")?,
            datatype: text("datatype")?,
            n_features,
            columns: columns.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        })
    }

    /// The columns that the model takes, in its order.
    pub(crate) fn columns(&self) -> Result<&[String], Failure> {
        if self.columns.is_empty() {
            return Err(Failure::usage(
                "the model's metadata names no columns, so that a file cannot be read for it",
            )
            .hint("Give the values in the model's order: --row VALUES."));
        }
        Ok(&self.columns)
    }

    /// What a row holds, in words; none where the server does not tell.
    fn in_order(&self) -> Option<String> {
        let n = self.columns.len().min(N_COLUMNS_TOLD_MAX);
        let named = self.columns[..n].join(", ");
        let more = self.columns.len() - n;
        match (n, more) {
            (0, _) => None,
            (_, 0) => Some(format!("The values of a row, in this order: {named}")),
            _ => Some(format!(
                "The values of a row, in this order: {named}, … and {more} more: daitn model get {} -o wide",
                self.model
            )),
        }
    }

    /// The body of an inference request.
    pub(crate) fn body(&self, rows: &Rows) -> Result<Value, Failure> {
        let n_features = rows.values.len() / rows.n_rows.max(1);
        if let Some(expected) = self.n_features.filter(|n| *n != n_features) {
            let wrong = Failure::usage(format!(
                "a row has {n_features} values, the model takes {expected}"
            ));
            return Err(match self.in_order() {
                Some(columns) => wrong.hint(columns),
                None => wrong,
            });
        }
        Ok(json!({ "inputs": [{
            "name": self.input,
            "datatype": self.datatype,
            "shape": [rows.n_rows, n_features],
            "data": rows.values,
        }] }))
    }

    /// Reads an answer.
    pub(crate) fn read(&self, answer: &Value, decision: Option<String>) -> Result<Answers, Failure> {
        let outputs = answer["outputs"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let numbers = outputs
            .iter()
            .find(|o| o["datatype"].as_str().is_some_and(|d| d.starts_with("FP")));
        let classes = outputs.iter().find(|o| o["datatype"] == "BYTES");
        let odd = || Failure::internal("the answer holds no output that this build can read");
        let values = numbers.map(flat_numbers).unwrap_or_default();
        let classes: Vec<String> = classes
            .and_then(|o| o["data"].as_array())
            .map(|data| {
                data.iter()
                    .filter_map(|c| c.as_str().map(ToOwned::to_owned))
                    .collect()
            })
            .unwrap_or_default();
        let n_rows = numbers
            .and_then(|o| o["shape"].as_array()?.first()?.as_u64())
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0 && values.len().is_multiple_of(*n))
            .ok_or_else(odd)?;
        let answers = values
            .chunks(values.len() / n_rows)
            .enumerate()
            .map(|(row, values)| OneAnswer {
                class: classes.get(row).cloned(),
                values: values.to_vec(),
            })
            .collect();
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        Ok(Answers {
            model: text("model_name"),
            version: text("model_version"),
            decision,
            answers,
        })
    }
}

fn flat_numbers(output: &Value) -> Vec<f64> {
    fn push(value: &Value, flat: &mut Vec<f64>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| push(item, flat)),
            number => flat.extend(number.as_f64()),
        }
    }
    let mut flat = Vec::new();
    push(&output["data"], &mut flat);
    flat
}

impl Rows {
    /// Rows that are at hand; all of the same length.
    pub(crate) fn new(rows: &[Vec<f32>]) -> Result<Self, Failure> {
        let width = rows.first().map_or(0, Vec::len);
        if width == 0 || rows.len() > ROWS_MAX {
            return Err(Failure::usage(format!(
                "expected 1 to {ROWS_MAX} rows with at least one value"
            )));
        }
        if let Some(odd) = rows.iter().position(|row| row.len() != width) {
            let found = rows[odd].len();
            return Err(Failure::usage(format!(
                "row {} has {found} values, the first has {width}",
                odd + 1
            )));
        }
        Ok(Self {
            values: rows.concat(),
            n_rows: rows.len(),
        })
    }

    /// Rows from the command line: values separated by commas.
    pub(crate) fn from_arguments(rows: &[String]) -> Result<Self, Failure> {
        let parsed: Result<Vec<Vec<f32>>, Failure> =
            rows.iter().map(|row| numbers(row.split(','), "--row")).collect();
        Self::new(&parsed?)
    }

    /// Rows from a CSV file: the model's feature columns, wherever they stand.
    pub(crate) fn from_csv(path: &Path, features: &[String]) -> Result<Self, Failure> {
        let failed = |error: csv::Error| Failure::file(path, error);
        let file = std::fs::File::open(path).map_err(|error| Failure::io(path, &error))?;
        let mut reader = csv::Reader::from_reader(file);
        let header = reader.headers().map_err(failed)?.clone();
        let positions: Result<Vec<usize>, Failure> = features
            .iter()
            .map(|feature| {
                header.iter().position(|column| column == feature).ok_or_else(|| {
                    Failure::file(path, format!("has no column `{feature}`, which the model takes"))
                })
            })
            .collect();
        let positions = positions?;
        let mut rows = Vec::new();
        for (i, record) in reader.records().enumerate() {
            let record = record.map_err(failed)?;
            let fields = positions.iter().map(|at| record.get(*at).unwrap_or_default());
            rows.push(numbers(fields, &format!("{} row {}", path.display(), i + 2))?);
            if rows.len() > ROWS_MAX {
                return Err(Failure::file(
                    path,
                    format!("has more than {ROWS_MAX} rows: split it"),
                ));
            }
        }
        Self::new(&rows)
    }
}

fn numbers<'a>(fields: impl Iterator<Item = &'a str>, place: &str) -> Result<Vec<f32>, Failure> {
    fields
        .map(|field| {
            field
                .trim()
                .parse::<f32>()
                .ok()
                .filter(|v| v.is_finite())
                .ok_or_else(|| {
                    Failure::usage(format!(
                        "{place}: `{}` is not a number",
                        crate::render::shortened(field, 40)
                    ))
                })
        })
        .collect()
}

impl Answers {
    /// One entry for each row.
    pub(crate) fn answers(&self) -> &[OneAnswer] {
        &self.answers
    }
}

impl Shown for Answers {
    fn human(&self, paint: Paint, wide: bool) -> String {
        // How sure a model is, only a classifier tells.
        let classifies = self.answers.iter().any(|answer| answer.class.is_some());
        let columns: &[&str] = if classifies {
            &["ROW", "ANSWER", "SURE"]
        } else {
            &["ROW", "ANSWER"]
        };
        let mut table = Table::new(paint, columns, "");
        for (row, answer) in self.answers.iter().enumerate() {
            let best = answer.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (said, sure) = match &answer.class {
                Some(class) => (class.clone(), crate::render::percent(best)),
                None => (
                    answer
                        .values
                        .iter()
                        .map(|v| format!("{v:.4}"))
                        .collect::<Vec<_>>()
                        .join(", "),
                    String::new(),
                ),
            };
            let sure = classifies.then_some(sure);
            table.row([(row + 1).to_string(), paint.bold(said)].into_iter().chain(sure));
        }
        let mut text = table.text();
        if wide {
            text.push_str(&format!("\n\n{} version {}", self.model, self.version));
        }
        if let Some(decision) = &self.decision {
            text.push_str(&format!(
                "\n\n{}",
                paint.dim(format!("why this replica: daitn explain {decision}"))
            ));
        }
        text
    }
    fn names(&self) -> Vec<String> {
        self.answers
            .iter()
            .map(|a| {
                a.class
                    .clone()
                    .unwrap_or_else(|| a.values.first().map_or_else(String::new, f64::to_string))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shapes and names from the Open Inference Protocol v2 document (kserve/open-inference-protocol).
    #[test]
    fn an_answer_is_read() {
        let metadata = json!({ "name": "digits", "inputs": [{ "name": "input", "datatype": "FP32", "shape": [-1, 2] }] });
        let query = Query::of(&metadata).unwrap();
        let rows = Rows::from_arguments(&["1,2".into(), "3, -4.5".into()]).unwrap();
        let body = query.body(&rows).unwrap();
        assert_eq!(body["inputs"][0]["shape"], json!([2, 2]));
        assert_eq!(body["inputs"][0]["data"], json!([1.0, 2.0, 3.0, -4.5]));
        let answer = json!({ "model_name": "digits", "model_version": "1", "outputs": [
            { "name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.7, 0.3] },
            { "name": "class", "datatype": "BYTES", "shape": [2], "data": ["b", "a"] },
        ] });
        let answers = query.read(&answer, None).unwrap();
        assert_eq!(answers.names(), ["b", "a"]);
        assert_eq!(answers.answers()[1].values, [0.7, 0.3]);
    }

    /// How sure a model is, only a classifier tells: a column of nothing would say that a regression is not.
    #[test]
    fn only_classes_are_told_with_how_sure_the_model_is() {
        let shown = |outputs: serde_json::Value| {
            let metadata =
                json!({ "name": "m", "inputs": [{ "name": "input", "datatype": "FP32", "shape": [-1, 1] }] });
            let answer = json!({ "model_name": "m", "model_version": "1", "outputs": outputs });
            let query = Query::of(&metadata).unwrap();
            query.read(&answer, None).unwrap().human(Paint::plain(), false)
        };
        assert_eq!(
            shown(json!([{ "name": "value", "datatype": "FP32", "shape": [2, 1], "data": [1.5, -2.0] }])),
            "ROW  ANSWER\n1    1.5000\n2    -2.0000"
        );
        let probabilities = json!({ "name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.7, 0.3] });
        let labels = json!({ "name": "label", "datatype": "BYTES", "shape": [2], "data": ["b", "a"] });
        assert_eq!(
            shown(json!([probabilities, labels])),
            "ROW  ANSWER  SURE\n1    b       90.0 %\n2    a       70.0 %"
        );
    }

    #[test]
    fn who_gives_too_few_values_is_told_the_columns() {
        let hint = |n: usize| {
            let columns: Vec<String> = (0..n).map(|i| format!("c{i}")).collect();
            let metadata = json!({ "name": "los", "inputs": [{ "name": "x", "datatype": "FP32", "shape": [-1, n],
                "parameters": { "columns": columns } }] });
            let rows = Rows::from_arguments(&["1,2".to_owned()]).unwrap();
            Query::of(&metadata)
                .unwrap()
                .body(&rows)
                .unwrap_err()
                .rejection
                .hint
        };
        assert_eq!(hint(3), "The values of a row, in this order: c0, c1, c2");
        assert!(
            hint(22).ends_with(", c19, … and 2 more: daitn model get los -o wide"),
            "{}",
            hint(22)
        );
    }

    #[test]
    fn wrong_rows_are_named() {
        let metadata = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [-1, 3] }] });
        let query = Query::of(&metadata).unwrap();
        let told = |rows: &[&str]| {
            let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
            Rows::from_arguments(&rows)
                .and_then(|rows| query.body(&rows))
                .unwrap_err()
                .rejection
                .message
        };
        assert!(told(&["1,2"]).contains("takes 3"));
        assert!(told(&["1,2,x"]).contains("`x`"));
        assert!(told(&["1,2,3", "1,2"]).contains("row 2"));
        assert!(told(&["1,2,inf"]).contains("`inf`"));
    }
}
