//! Tensors in and out, against bytes and JSON written by hand from the protocol's text.

use super::*;
use daitn_messages::learning::Architecture;
use serde_json::{Value, json};

fn spec(task: Task) -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Linear,
        features: vec!["a".to_owned(), "b".to_owned()],
        target: "y".to_owned(),
        task,
        scale: 1.0,
        offset: 0.0,
    }
}

fn classes() -> Task {
    Task::Classification {
        classes: ["no", "yes", "maybe"].map(str::to_owned).to_vec(),
    }
}

fn input(shape: Value, datatype: &str, data: Value) -> Value {
    let mut tensor = json!({ "name": "input", "datatype": datatype });
    tensor["shape"] = shape;
    tensor["data"] = data;
    json!({ "inputs": [tensor] })
}

fn read_json(request: &Value) -> Result<Tensor, Rejection> {
    read(&request.to_string().into(), None, &spec(classes()))
}

fn refused(request: &Value, why: &str) {
    let rejection = read_json(request).unwrap_err();
    assert!(rejection.message.contains(why), "{request}: {rejection}");
}

#[test]
fn json_tensors_become_little_endian_rows() {
    let expected = [1f32, 2.0, 3.0, 4.5].map(f32::to_le_bytes).concat();
    for (datatype, data) in [
        ("FP32", json!([1, 2, 3, 4.5])),
        ("FP64", json!([[1.0, 2.0], [3.0, 4.5]])),
    ] {
        let tensor = read_json(&input(json!([2, 2]), datatype, data)).unwrap();
        assert_eq!((tensor.n_rows, tensor.input.as_ref()), (2, expected.as_slice()));
    }
    let tensor = read_json(&input(json!([1, 2]), "UINT8", json!([0, 255]))).unwrap();
    assert_eq!(
        tensor.input.as_ref(),
        [0f32, 255.0].map(f32::to_le_bytes).concat()
    );
}

#[test]
fn binary_tensors_go_through_as_they_are() {
    let tensor = [1f32, -2.5].map(f32::to_le_bytes).concat();
    let header = json!({ "inputs": [{ "name": "input", "shape": [1, 2], "datatype": "FP32",
        "parameters": { "binary_data_size": 8 } }] })
    .to_string();
    let body: Bytes = [header.as_bytes(), &tensor].concat().into();
    let read_binary = |body: &Bytes, header_bytes| read(body, Some(header_bytes), &spec(classes()));
    let found = read_binary(&body, header.len()).unwrap();
    assert_eq!(found.input, tensor);
    assert_eq!(
        found.input.as_ptr(),
        body[header.len()..].as_ptr(),
        "the bytes were copied"
    );
    for (body, header_bytes, why) in [
        (body.slice(..body.len() - 1), header.len(), "7 follow"),
        (body.clone(), body.len() + 1, "but the body has"),
        (body.clone(), header.len() - 1, "EOF"),
        (body, 0, "EOF"),
        (
            header.replace('8', "12").into(),
            header.len() + 1,
            "binary_data_size is 12",
        ),
    ] {
        let rejection = read_binary(&body, header_bytes).unwrap_err();
        assert!(rejection.message.contains(why), "{rejection}");
    }
    let nan: Bytes = [header.as_bytes(), &f32::NAN.to_le_bytes(), &[0; 4]]
        .concat()
        .into();
    assert!(
        read_binary(&nan, header.len())
            .unwrap_err()
            .message
            .contains("not finite")
    );
}

#[test]
fn tensors_that_do_not_fit_are_refused_with_the_reason() {
    refused(
        &input(json!([2, 3]), "FP32", json!([1, 2, 3, 4, 5, 6])),
        "takes 2 features, the shape has 3",
    );
    refused(&input(json!([2]), "FP32", json!([1, 2])), "two dimensions");
    refused(&input(json!([1, 1, 2]), "FP32", json!([1, 2])), "two dimensions");
    refused(
        &input(json!([2, 2]), "FP32", json!([1, 2, 3])),
        "wants 4 numbers, the data has 3",
    );
    refused(&input(json!([0, 2]), "FP32", json!([])), "no rows");
    refused(
        &input(json!([-1, 2]), "FP32", json!([1, 2])),
        "inputs[0].shape[0]",
    );
    refused(
        &input(json!([1.5, 2]), "FP32", json!([1, 2])),
        "inputs[0].shape[0]",
    );
    refused(
        &input(json!([u64::MAX, 2]), "FP32", json!([1, 2])),
        "over the bound",
    );
    refused(
        &input(json!([8_388_609, 2]), "FP32", json!([1, 2])),
        "over the bound",
    );
    refused(
        &input(json!([1, 2]), "BYTES", json!(["a", "b"])),
        "expected numbers",
    );
    refused(
        &input(json!([1, 2]), "FP16", json!([1, 2])),
        "`FP16` is not taken",
    );
    refused(
        &input(json!([1, 2]), "INT8", json!([1, 128])),
        "not of the datatype INT8",
    );
    refused(
        &input(json!([1, 2]), "UINT32", json!([1, -1])),
        "not of the datatype UINT32",
    );
    refused(
        &input(json!([1, 2]), "INT64", json!([1, 2.5])),
        "not of the datatype INT64",
    );
    refused(&json!({ "inputs": [] }), "takes one input");
    refused(&json!({}), "missing field `inputs`");
    refused(
        &json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2] }] }),
        "no input `x`",
    );
    refused(
        &json!({ "inputs": [{ "name": "input", "shape": [1, 2], "datatype": "FP32" }] }),
        "has no data",
    );
}

#[test]
fn outputs_are_checked() {
    let with = |outputs: Value| {
        let mut request = input(json!([1, 2]), "FP32", json!([1, 2]));
        request["outputs"] = outputs;
        request
    };
    let form = read_json(&with(json!([{ "name": "label" }]))).unwrap().form;
    assert_eq!(form.outputs, [(OutputName::Label, false)]);
    refused(
        &with(json!([{ "name": "value" }])),
        "only probabilities and label",
    );
    refused(
        &with(json!([{ "name": "label" }, { "name": "label" }])),
        "asked for twice",
    );
    refused(
        &with(json!([{ "name": "label", "parameters": { "classification": 2 } }])),
        "not offered",
    );
    let mut request = with(
        json!([{ "name": "label", "parameters": { "binary_data": false } }, { "name": "probabilities" }]),
    );
    request["parameters"] = json!({ "binary_data_output": true, "sequence_id": 3 });
    let form = read_json(&request).unwrap().form;
    assert_eq!(
        form.outputs,
        [(OutputName::Label, false), (OutputName::Probabilities, true)]
    );
}

fn written(form: &Form, task: &Task, values: &[f32]) -> (Value, Vec<u8>) {
    let model = ModelVersion {
        name: "digits".parse().unwrap(),
        version: 3,
    };
    let written = write(
        form,
        &model,
        task,
        &to_bytes(values),
        &DecisionId::new(0, [0; 10]),
    )
    .unwrap();
    let header = written.header_bytes.unwrap_or(written.body.len());
    (
        serde_json::from_slice(&written.body[..header]).unwrap(),
        written.body[header..].to_vec(),
    )
}

#[test]
fn answers_in_json() {
    let form = Form {
        id: Some("q7".to_owned()),
        outputs: vec![(OutputName::Probabilities, false), (OutputName::Label, false)],
    };
    let (answer, rest) = written(&form, &classes(), &[0.25, 0.5, 0.25, 0.5, 0.5, 0.0]);
    assert!(rest.is_empty());
    assert_eq!(
        answer,
        json!({
            "model_name": "digits", "model_version": "3", "id": "q7",
            "parameters": { "daitn_decision": DecisionId::new(0, [0; 10]) },
            "outputs": [
                { "name": "probabilities", "datatype": "FP32", "shape": [2, 3], "data": [0.25, 0.5, 0.25, 0.5, 0.5, 0.0] },
                // Of equally probable classes the first.
                { "name": "label", "datatype": "BYTES", "shape": [2], "data": ["yes", "no"] },
            ],
        })
    );
}

#[test]
fn answers_in_bytes() {
    let form = Form {
        id: None,
        outputs: vec![(OutputName::Label, true), (OutputName::Probabilities, true)],
    };
    let values = [0.0f32, 0.25, 0.75];
    let (answer, rest) = written(&form, &classes(), &values);
    let sizes: Vec<u64> = answer["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["parameters"]["binary_data_size"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [9, 12]);
    assert_eq!(answer["outputs"][0].get("data"), None);
    assert_eq!(
        rest,
        [
            b"\x05\0\0\0maybe".as_slice(),
            &values.map(f32::to_le_bytes).concat()
        ]
        .concat()
    );
}

#[test]
fn a_regression_gives_values() {
    let form = Form {
        id: None,
        outputs: vec![(OutputName::Value, false)],
    };
    let (answer, _) = written(&form, &Task::Regression, &[1.5, -2.0]);
    assert_eq!(
        answer["outputs"],
        json!([{ "name": "value", "datatype": "FP32", "shape": [2], "data": [1.5, -2.0] }])
    );
}

#[test]
fn json_never_carries_a_number_that_is_not_finite() {
    let form = Form {
        id: None,
        outputs: vec![(OutputName::Value, false)],
    };
    let model = ModelVersion {
        name: "digits".parse().unwrap(),
        version: 3,
    };
    let output = to_bytes(&[f32::NAN]);
    let result = write(
        &form,
        &model,
        &Task::Regression,
        &output,
        &DecisionId::new(0, [0; 10]),
    );
    assert_eq!(result.map(|_| ()).unwrap_err().code, Code::Internal);
}

/// Lists are refused at the first entry too many, and what is ignored takes no memory: a body of 64 MiB would
/// otherwise become gigabytes of tree.
#[test]
fn long_lists_are_refused_where_they_get_too_long() {
    for (before, field, entry) in [
        (
            "",
            "inputs",
            r#"{"name":"input","shape":[1,1],"datatype":"FP32"}"#,
        ),
        (r#""inputs":[],"#, "outputs", r#"{"name":"label"}"#),
    ] {
        let list = vec![entry; TENSORS_MAX + 1].join(",");
        let refused = serde_json::from_str::<InferRequest>(&format!(r#"{{{before}"{field}":[{list}]}}"#))
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("more than 16 entries"), "{field}: {refused}");
    }
    let shape = vec!["1"; TENSORS_MAX + 1].join(",");
    let input = format!(r#"{{"name":"input","datatype":"FP32","shape":[{shape}]}}"#);
    let refused = serde_json::from_str::<InferInput>(&input)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("more than 16 entries"), "{refused}");
    let ignored: Parameters = serde_json::from_str(r#"{"classification":[{"":0},{"":0}]}"#).unwrap();
    assert!(ignored.classification.is_some());
}
