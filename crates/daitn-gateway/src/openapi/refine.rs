//! What the types do not say of themselves in the OpenAPI document: the real bounds of their numbers, that requests are
//! closed to fields that do not exist, and a description for every response.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Completes the document.
pub(super) fn refine(document: &mut Value) {
    document["info"]["version"] = json!(daitn_messages::BUILD);
    bound_integers(document);
    let reached = request_schemas(document);
    for pointer in reached {
        if let Some(schema) = document.pointer_mut(&pointer) {
            close(schema);
        }
    }
    for responses in operations(document).filter_map(|operation| operation.get_mut("responses")) {
        for response in responses.as_object_mut().into_iter().flat_map(Map::values_mut) {
            let description = &mut response["description"];
            if description.as_str().is_none_or(str::is_empty) {
                *description = json!("What was asked for");
            }
        }
    }
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut);
    paths.filter_map(Value::as_object_mut).flat_map(Map::values_mut)
}

/// Unsigned integers are documented as signed ones of the same size, from zero. They reach twice as far.
fn bound_integers(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let unsigned = fields
                .get("minimum")
                .and_then(Value::as_f64)
                .is_some_and(|minimum| minimum >= 0.0);
            let maximum = match fields.get("format").and_then(Value::as_str) {
                Some("int32") if unsigned => Some(json!(u32::MAX)),
                Some("int64") if unsigned => Some(json!(u64::MAX)),
                _ => None,
            };
            if let Some(maximum) = maximum {
                fields.remove("format");
                fields.entry("maximum").or_insert(maximum);
            }
            fields.values_mut().for_each(bound_integers);
        }
        Value::Array(values) => values.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

/// Pointers to every schema that a request of the REST API can hold.
fn request_schemas(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let rest = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(path, _)| path.starts_with("/v1/"));
    for operation in rest
        .filter_map(|(_, item)| item.as_object())
        .flat_map(Map::values)
    {
        follow(&operation["requestBody"], document, &mut found);
    }
    found
}

fn follow(value: &Value, document: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let reference = fields
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|text| text.strip_prefix('#'));
            if let Some(pointer) = reference
                && found.insert(pointer.to_owned())
            {
                follow(document.pointer(pointer).unwrap_or(&Value::Null), document, found);
            }
            fields.values().for_each(|value| follow(value, document, found));
        }
        Value::Array(values) => values.iter().for_each(|value| follow(value, document, found)),
        _ => {}
    }
}

/// An object has the fields that are named and no others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("properties").is_some_and(Value::is_object) {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_completed() {
        let integer =
            |format: &str, minimum: i64| json!({ "type": "integer", "format": format, "minimum": minimum });
        let mut document = json!({
            "info": {},
            "paths": {
                "/v1/things": { "post": {
                    "requestBody": { "schema": { "$ref": "#/components/schemas/Thing" } },
                    "responses": { "200": {}, "404": { "description": "gone" } },
                } },
                "/v2/things": { "post": { "requestBody": { "schema": { "$ref": "#/components/schemas/Open" } } } },
            },
            "components": { "schemas": {
                "Thing": { "properties": { "part": { "$ref": "#/components/schemas/Part" }, "n": integer("int32", 0) } },
                "Part": { "oneOf": [{ "properties": { "big": integer("int64", 1) } }, { "type": "string" }] },
                "Open": { "properties": { "signed": integer("int64", -1) } },
            } },
        });
        refine(&mut document);
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["Thing"]["additionalProperties"], json!(false));
        assert_eq!(
            schemas["Thing"]["properties"]["n"],
            json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
        );
        let part = &schemas["Part"]["oneOf"][0];
        assert_eq!(part["additionalProperties"], json!(false));
        assert_eq!(part["properties"]["big"]["maximum"], json!(u64::MAX));
        assert_eq!(schemas["Open"].get("additionalProperties"), None);
        assert_eq!(schemas["Open"]["properties"]["signed"], integer("int64", -1));
        let responses = &document["paths"]["/v1/things"]["post"]["responses"];
        assert_eq!(responses["200"]["description"], json!("What was asked for"));
        assert_eq!(responses["404"]["description"], json!("gone"));
    }
}
