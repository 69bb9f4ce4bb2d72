//! Requests and responses of the protocol: which tensor was sent, and in which form the answer goes back.

use super::{INPUT, numbers::Numbers};
use bytes::{BufMut, Bytes, BytesMut};
use daitn_messages::{
    ids::DecisionId,
    learning::{ModelSpec, ModelVersion, Task},
    limits::QUERY_BYTES_MAX,
    rejection::{Code, Rejection},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
};
use std::{fmt, marker::PhantomData};
use utoipa::ToSchema;

/// Most inputs or outputs that are named before a request is refused.
const TENSORS_MAX: usize = 16;
/// Longest id of a request, bytes; it comes back in the response.
const ID_BYTES_MAX: usize = 256;

/// A request's header. What the protocol allows beyond these fields is ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct InferRequest {
    /// Comes back in the response.
    #[serde(default)]
    #[schema(max_length = 256)]
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    /// One, named `input`.
    #[serde(deserialize_with = "few")]
    inputs: Vec<InferInput>,
    /// Which outputs; none: all.
    #[serde(default, deserialize_with = "few")]
    outputs: Vec<InferOutput>,
}

/// A tensor that is sent.
#[derive(Debug, Deserialize, ToSchema)]
struct InferInput {
    /// `input`.
    name: String,
    /// Rows and features.
    #[serde(deserialize_with = "few")]
    shape: Vec<u64>,
    /// `FP32`; in JSON also `FP64` and the integers, which are converted.
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    /// The numbers, flat or row by row; absent when they follow as bytes.
    #[serde(default)]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    data: Option<Numbers>,
}

/// A tensor that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
struct InferOutput {
    /// `probabilities` and `label`, or `value`.
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Parameters of the binary tensor extension; others are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct Parameters {
    /// So many bytes of the tensor follow the header.
    binary_data_size: Option<u64>,
    /// This output as bytes.
    binary_data: Option<bool>,
    /// All outputs as bytes, unless they say otherwise.
    binary_data_output: Option<bool>,
    /// Triton's classification extension, which is refused: `label` says it.
    /// Only whether it is there matters: what it holds is not kept.
    #[schema(value_type = Option<serde_json::Value>)]
    classification: Option<IgnoredAny>,
}

/// Reads a list of at most [`TENSORS_MAX`] and stops at the first beyond: a list is refused before it takes memory.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Few<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {TENSORS_MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut found = Vec::new();
            while let Some(next) = list.next_element()? {
                if found.len() == TENSORS_MAX {
                    return Err(A::Error::custom(format_args!("more than {TENSORS_MAX} entries")));
                }
                found.push(next);
            }
            Ok(found)
        }
    }

    deserializer.deserialize_seq(Few(PhantomData))
}

/// A checked query.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) n_rows: u32,
    /// Rows × features, little-endian f32.
    pub(super) input: Bytes,
    pub(super) form: Form,
}

/// In which form the answer goes back.
#[derive(Debug)]
pub(super) struct Form {
    id: Option<String>,
    /// Which outputs, and whether as bytes.
    outputs: Vec<(OutputName, bool)>,
}

/// What a model gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputName {
    Probabilities,
    Label,
    Value,
}

impl OutputName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Probabilities => "probabilities",
            Self::Label => "label",
            Self::Value => "value",
        }
    }

    fn of(task: &Task) -> &'static [Self] {
        match task {
            Task::Classification { .. } => &[Self::Probabilities, Self::Label],
            Task::Regression => &[Self::Value],
        }
    }
}

fn bad(message: impl Into<String>) -> Rejection {
    Rejection::new(Code::BadTensor, message)
}

/// Reads a body: its first `header_bytes` are JSON, the rest is the tensor. None: all is JSON.
pub(super) fn read(body: &Bytes, header_bytes: Option<usize>, spec: &ModelSpec) -> Result<Tensor, Rejection> {
    let header_bytes = header_bytes.unwrap_or(body.len());
    if header_bytes > body.len() {
        let message = format!(
            "Inference-Header-Content-Length is {header_bytes}, but the body has {} bytes",
            body.len()
        );
        return Err(bad(message));
    }
    let (header, binary) = (body.slice(..header_bytes), body.slice(header_bytes..));
    let mut deserializer = serde_json::Deserializer::from_slice(&header);
    let request: InferRequest = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        Rejection::malformed(
            &format!("request, field `{}`", error.path()),
            &error.inner().to_string(),
        )
    })?;
    deserializer
        .end()
        .map_err(|error| Rejection::malformed("request", &error.to_string()))?;
    if request.id.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
        return Err(Rejection::malformed(
            "request",
            &format!("its id is longer than {ID_BYTES_MAX} bytes"),
        ));
    }
    let outputs = outputs(&request, &spec.task)?;
    let [input] = <[InferInput; 1]>::try_from(request.inputs).map_err(|inputs| {
        bad(format!(
            "the model takes one input, `{INPUT}`, and got {}",
            inputs.len()
        ))
    })?;
    let (n_rows, input) = tensor(input, binary, spec.features.len())?;
    Ok(Tensor {
        n_rows,
        input,
        form: Form {
            id: request.id,
            outputs,
        },
    })
}

fn tensor(input: InferInput, binary: Bytes, n_features: usize) -> Result<(u32, Bytes), Rejection> {
    if input.name != INPUT {
        let name: String = input.name.chars().take(80).collect();
        return Err(bad(format!("the model takes no input `{name}`, only `{INPUT}`")));
    }
    let n_rows = rows(&input.shape, n_features)?;
    let n_values = n_rows as usize * n_features;
    let datatype = Datatype::find(&input.datatype)?;
    match (input.data, input.parameters.binary_data_size) {
        (Some(_), Some(_)) => Err(bad("the tensor is given as JSON and as bytes")),
        (None, None) => Err(bad("the tensor has no data")),
        (Some(numbers), None) => {
            if !binary.is_empty() {
                return Err(bad(format!(
                    "{} bytes follow the header, but no tensor claims them",
                    binary.len()
                )));
            }
            datatype.check(&numbers)?;
            if numbers.values.len() != n_values {
                return Err(bad(format!(
                    "the shape wants {n_values} numbers, the data has {}",
                    numbers.values.len()
                )));
            }
            Ok((n_rows, to_bytes(&numbers.values)))
        }
        (None, Some(size)) => {
            if datatype.name != "FP32" {
                return Err(bad("a tensor that is sent as bytes must be FP32"));
            }
            let wanted = n_values * size_of::<f32>();
            if size != wanted as u64 || binary.len() != wanted {
                let found = binary.len();
                return Err(bad(format!(
                    "the shape wants {wanted} bytes, binary_data_size is {size}, {found} follow"
                )));
            }
            if floats(&binary).any(|value| !value.is_finite()) {
                return Err(bad("the tensor holds a number that is not finite"));
            }
            Ok((n_rows, binary))
        }
    }
}

/// The number of rows of a shape, if it is rows × features within the bounds.
fn rows(shape: &[u64], n_features: usize) -> Result<u32, Rejection> {
    let [n_rows, width] = shape else {
        return Err(bad(format!(
            "the input's shape has two dimensions, rows and {n_features} features"
        )));
    };
    if *width != n_features as u64 {
        return Err(bad(format!(
            "the model takes {n_features} features, the shape has {width}"
        )));
    }
    let n_bytes = n_rows
        .checked_mul(*width)
        .and_then(|n| n.checked_mul(size_of::<f32>() as u64));
    match (n_bytes, u32::try_from(*n_rows)) {
        (Some(1..), Ok(n_rows)) if n_bytes <= Some(QUERY_BYTES_MAX as u64) => Ok(n_rows),
        (Some(0), _) => Err(bad("the input has no rows")),
        _ => Err(Rejection::too_large(
            "input bytes",
            n_bytes.unwrap_or(u64::MAX),
            QUERY_BYTES_MAX as u64,
        )),
    }
}

/// A datatype of the protocol that numbers can have, with its range where it is one of the integers.
struct Datatype {
    name: &'static str,
    range: Option<(f64, f64)>,
}

const DATATYPES: [Datatype; 10] = [
    Datatype {
        name: "FP32",
        range: None,
    },
    Datatype {
        name: "FP64",
        range: None,
    },
    Datatype {
        name: "INT8",
        range: Some((i8::MIN as f64, i8::MAX as f64)),
    },
    Datatype {
        name: "INT16",
        range: Some((i16::MIN as f64, i16::MAX as f64)),
    },
    Datatype {
        name: "INT32",
        range: Some((i32::MIN as f64, i32::MAX as f64)),
    },
    Datatype {
        name: "INT64",
        range: Some((i64::MIN as f64, i64::MAX as f64)),
    },
    Datatype {
        name: "UINT8",
        range: Some((0.0, u8::MAX as f64)),
    },
    Datatype {
        name: "UINT16",
        range: Some((0.0, u16::MAX as f64)),
    },
    Datatype {
        name: "UINT32",
        range: Some((0.0, u32::MAX as f64)),
    },
    Datatype {
        name: "UINT64",
        range: Some((0.0, u64::MAX as f64)),
    },
];

impl Datatype {
    fn find(name: &str) -> Result<&'static Self, Rejection> {
        DATATYPES
            .iter()
            .find(|datatype| datatype.name == name)
            .ok_or_else(|| {
                let name: String = name.chars().take(20).collect();
                bad(format!("datatype `{name}` is not taken; send FP32"))
            })
    }

    fn check(&self, numbers: &Numbers) -> Result<(), Rejection> {
        let Some((min, max)) = self.range else {
            return Ok(());
        };
        if numbers.whole && numbers.min >= min && numbers.max <= max {
            return Ok(());
        }
        Err(bad(format!(
            "the data holds a number that is not of the datatype {}",
            self.name
        )))
    }
}

/// Which outputs are wanted, and whether as bytes.
fn outputs(request: &InferRequest, task: &Task) -> Result<Vec<(OutputName, bool)>, Rejection> {
    let known = OutputName::of(task);
    let binary = request.parameters.binary_data_output.unwrap_or(false);
    if request.outputs.is_empty() {
        return Ok(known.iter().map(|name| (*name, binary)).collect());
    }
    let mut wanted: Vec<(OutputName, bool)> = Vec::with_capacity(request.outputs.len());
    for output in &request.outputs {
        let Some(name) = known.iter().find(|name| name.as_str() == output.name) else {
            let names: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
            let asked: String = output.name.chars().take(80).collect();
            return Err(bad(format!(
                "the model has no output `{asked}`, only {}",
                names.join(" and ")
            )));
        };
        if wanted.iter().any(|(other, _)| other == name) {
            return Err(bad(format!("output `{}` is asked for twice", output.name)));
        }
        if output.parameters.classification.is_some() {
            return Err(bad(
                "the classification extension is not offered; the output `label` names the class",
            ));
        }
        wanted.push((*name, output.parameters.binary_data.unwrap_or(binary)));
    }
    Ok(wanted)
}

/// A response's header.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InferResponse<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    id: Option<&'a str>,
    parameters: ResponseParameters<'a>,
    outputs: Vec<ResponseOutput<'a>>,
}

/// What goes with a response.
#[derive(Debug, Serialize, ToSchema)]
struct ResponseParameters<'a> {
    /// The decision that explains where the query went.
    daitn_decision: &'a str,
}

/// A tensor that comes back.
#[derive(Debug, Serialize, ToSchema)]
struct ResponseOutput<'a> {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    parameters: Option<BinarySize>,
    /// Absent when the tensor follows as bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<Vec<serde_json::Value>>)]
    data: Option<Data<'a>>,
}

/// How many bytes of the tensor follow the header.
#[derive(Debug, Serialize, ToSchema)]
struct BinarySize {
    binary_data_size: usize,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Numbers(Vec<f32>),
    Labels(&'a [&'a str]),
}

/// A response's body, and the length of its JSON header where bytes follow.
pub(super) struct Written {
    pub(super) body: Bytes,
    pub(super) header_bytes: Option<usize>,
}

/// Writes the answer in the form that was asked for. `output` is rows × outputs of the model.
pub(super) fn write(
    form: &Form,
    model: &ModelVersion,
    task: &Task,
    output: &Bytes,
    decision: &DecisionId,
) -> Result<Written, Rejection> {
    let n_outputs = task.n_outputs();
    let n_rows = output.len() / (n_outputs * size_of::<f32>());
    let labels = labels(task, output);
    let mut binary: Vec<Bytes> = Vec::new();
    let mut outputs = Vec::with_capacity(form.outputs.len());
    for (name, as_bytes) in &form.outputs {
        let (datatype, shape) = match name {
            OutputName::Probabilities => ("FP32", vec![n_rows, n_outputs]),
            OutputName::Value => ("FP32", vec![n_rows]),
            OutputName::Label => ("BYTES", vec![n_rows]),
        };
        let (parameters, data) = if *as_bytes {
            let bytes = if *name == OutputName::Label {
                label_bytes(&labels)
            } else {
                output.clone()
            };
            binary.push(bytes.clone());
            (
                Some(BinarySize {
                    binary_data_size: bytes.len(),
                }),
                None,
            )
        } else if *name == OutputName::Label {
            (None, Some(Data::Labels(&labels)))
        } else {
            (None, Some(Data::Numbers(json_numbers(output)?)))
        };
        outputs.push(ResponseOutput {
            name: name.as_str(),
            datatype,
            shape,
            parameters,
            data,
        });
    }
    let response = InferResponse {
        model_name: model.name.as_str(),
        model_version: model.version.to_string(),
        id: form.id.as_deref(),
        parameters: ResponseParameters {
            daitn_decision: decision.as_str(),
        },
        outputs,
    };
    let header = serde_json::to_vec(&response)
        .map_err(|error| Rejection::new(Code::Internal, format!("the answer does not encode: {error}")))?;
    if binary.is_empty() {
        return Ok(Written {
            body: header.into(),
            header_bytes: None,
        });
    }
    let n_bytes = binary.iter().map(Bytes::len).sum::<usize>();
    let mut body = BytesMut::with_capacity(header.len() + n_bytes);
    body.put_slice(&header);
    binary.into_iter().for_each(|bytes| body.put(bytes));
    Ok(Written {
        body: body.freeze(),
        header_bytes: Some(header.len()),
    })
}

/// JSON knows no infinity and no NaN.
fn json_numbers(output: &Bytes) -> Result<Vec<f32>, Rejection> {
    let values: Vec<f32> = floats(output).collect();
    if values.iter().all(|value| value.is_finite()) {
        return Ok(values);
    }
    Err(Rejection::new(
        Code::Internal,
        "the model answered with a number that is not finite",
    )
    .with_hint("The model has diverged. Ask for binary output to see its numbers, and train it anew."))
}

/// The most probable class of each row; of equal ones the first. Empty for a regression.
fn labels<'a>(task: &'a Task, output: &Bytes) -> Vec<&'a str> {
    let Task::Classification { classes } = task else {
        return Vec::new();
    };
    let rows = output.chunks_exact(classes.len().max(1) * size_of::<f32>());
    let best = |row: &[u8]| {
        let mut best = (0, f32::NEG_INFINITY);
        for (class, value) in floats(row).enumerate() {
            if value > best.1 {
                best = (class, value);
            }
        }
        best.0
    };
    rows.map(|row| classes.get(best(row)).map_or("", String::as_str))
        .collect()
}

/// Each label as its length, four bytes, least significant first, and its bytes.
fn label_bytes(labels: &[&str]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(labels.iter().map(|label| label.len() + 4).sum());
    for label in labels {
        bytes.put_u32_le(u32::try_from(label.len()).unwrap_or(u32::MAX));
        bytes.put_slice(label.as_bytes());
    }
    bytes.freeze()
}

fn to_bytes(values: &[f32]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(size_of_val(values));
    values.iter().for_each(|value| bytes.put_f32_le(*value));
    bytes.freeze()
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|four| f32::from_le_bytes(*four))
}

#[cfg(test)]
mod tests;
