//! A dataset's descriptor as MLCommons Croissant 1.1 (JSON-LD) with our extension block, for catalogues and tools.
//!
//! Only the catalogue face: no file name, no example row, no hash of a small file. `isLiveDataset` is true, so that no
//! file hash is demanded.

use crate::{
    descriptor::{Body, DatasetBody, Descriptor},
    learning::Task,
};
use serde_json::{Value, json};

/// The JSON-LD document, or `None` if the descriptor is not of a dataset.
#[must_use]
pub fn croissant(descriptor: &Descriptor) -> Option<Value> {
    let Body::Dataset(dataset) = &descriptor.body else {
        return None;
    };
    Some(json!({
        "@context": context(),
        "@type": "sc:Dataset",
        "dct:conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": descriptor.title,
        "description": descriptor.description,
        "license": dataset.license,
        "url": dataset.url,
        "creator": { "@type": "sc:Organization", "name": dataset.creator },
        "datePublished": dataset.date_published,
        "version": dataset.data_version,
        "isLiveDataset": true,
        "usageInfo": dataset.usage,
        "distribution": [distribution(descriptor)],
        "recordSet": [record_set(dataset)],
        "daitn:entity": descriptor.entity.to_string(),
        "daitn:descriptorVersion": descriptor.version,
        "daitn:jurisdiction": descriptor.jurisdiction,
        "daitn:records": dataset.records,
        "daitn:labelDistribution": dataset.label_distribution,
        "daitn:schemaFingerprint": dataset.schema_fingerprint.to_string(),
        "daitn:policy": dataset.policy,
        "daitn:priceMicrosPerThousandRecords": dataset.price_micros_per_thousand,
        "daitn:reachability": "node-only",
    }))
}

fn distribution(descriptor: &Descriptor) -> Value {
    json!({
        "@type": "cr:FileObject",
        "@id": "node",
        "name": "node",
        "description": "The data stays at its node; it is used by training where it is.",
        "contentUrl": format!("daitn:{}", descriptor.entity),
        "encodingFormat": "text/csv",
    })
}

fn record_set(dataset: &DatasetBody) -> Value {
    let target_type = match dataset.task {
        Task::Classification { .. } => "sc:Text",
        Task::Regression => "sc:Float",
    };
    let field = |name: &str, kind: &str| {
        json!({
            "@type": "cr:Field",
            "@id": format!("records/{name}"),
            "name": name,
            "dataType": kind,
            "source": { "fileObject": { "@id": "node" }, "extract": { "column": name } },
        })
    };
    let mut fields: Vec<Value> = dataset
        .features
        .iter()
        .map(|name| field(name, "sc:Float"))
        .collect();
    fields.push(field(&dataset.target, target_type));
    json!({ "@type": "cr:RecordSet", "@id": "records", "name": "records", "field": fields })
}

/// The context that Croissant 1.1 prescribes, and our prefix.
fn context() -> Value {
    json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "arrayShape": "cr:arrayShape",
        "citeAs": "cr:citeAs",
        "column": "cr:column",
        "conformsTo": "dct:conformsTo",
        "containedIn": "cr:containedIn",
        "cr": "http://mlcommons.org/croissant/",
        "daitn": "urn:daitn:croissant:1:",
        "data": { "@id": "cr:data", "@type": "@json" },
        "dataType": { "@id": "cr:dataType", "@type": "@vocab" },
        "dct": "http://purl.org/dc/terms/",
        "equivalentProperty": "cr:equivalentProperty",
        "examples": { "@id": "cr:examples", "@type": "@json" },
        "extract": "cr:extract",
        "field": "cr:field",
        "fileObject": "cr:fileObject",
        "fileProperty": "cr:fileProperty",
        "fileSet": "cr:fileSet",
        "format": "cr:format",
        "includes": "cr:includes",
        "isArray": "cr:isArray",
        "isLiveDataset": "cr:isLiveDataset",
        "jsonPath": "cr:jsonPath",
        "key": "cr:key",
        "md5": "cr:md5",
        "parentField": "cr:parentField",
        "path": "cr:path",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "recordSet": "cr:recordSet",
        "references": "cr:references",
        "regex": "cr:regex",
        "repeated": "cr:repeated",
        "replace": "cr:replace",
        "samplingRate": "cr:samplingRate",
        "sc": "https://schema.org/",
        "separator": "cr:separator",
        "source": "cr:source",
        "subField": "cr:subField",
        "transform": "cr:transform",
    })
}
