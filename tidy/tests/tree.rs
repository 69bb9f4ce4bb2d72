//! The tree is as its documents and rules say. Each test names the rule that it checks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use tidy::{dependencies, files, root, text};

/// Longest file in lines: beyond it nobody reads it in one sitting.
const FILE_LINES_MAX: usize = 800;
/// Longest function in lines that is accepted; clippy asks for shorter ones.
const FUNCTION_LINES_MAX: usize = 120;

fn report(failures: &[String], rule: &str) {
    assert!(failures.is_empty(), "{rule}:\n  {}", failures.join("\n  "));
}

/// Texts in backticks and link targets of a document, outside of code blocks.
fn mentions(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        if in_block {
            continue;
        }
        found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        for part in line.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.is_empty() {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// Whether a mention names a path of this tree.
fn is_path(mention: &str) -> bool {
    let starts = [
        "crates/",
        "docs/",
        "bench/",
        "examples/",
        "scripts/",
        "fuzz/",
        "tidy/",
        ".ci/",
        "sdk/",
        "console/",
    ];
    let root_file = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "justfile",
        "deny.toml",
        "Cargo.toml",
    ];
    let plain = !mention.contains([' ', '*', '<', '{', '$', '…']);
    plain
        && (starts.iter().any(|s| mention.starts_with(s))
            || root_file.contains(&mention)
            || mention.ends_with(".md"))
}

#[test]
fn every_path_and_test_in_a_document_exists() {
    let mut failures = Vec::new();
    for document in files(Path::new(""), "md").unwrap() {
        let folder = document.parent().map(PathBuf::from).unwrap_or_default();
        for mention in mentions(&text(&document).unwrap())
            .into_iter()
            .filter(|m| is_path(m))
        {
            let path = mention.split(':').next().unwrap_or(&mention);
            if !root().join(path).exists() && !root().join(&folder).join(path).exists() {
                failures.push(format!("{}: `{mention}`", document.display()));
            } else if let Some((path, function)) = mention.split_once("::")
                && !text(Path::new(path))
                    .unwrap()
                    .contains(&format!("fn {function}("))
            {
                failures.push(format!("{}: `{mention}` names no function", document.display()));
            }
        }
    }
    report(&failures, "a document names a path that does not exist");
}

#[test]
fn every_crate_is_on_the_map_and_the_map_names_no_other() {
    let map = text(Path::new("ARCHITECTURE.md")).unwrap();
    let crates: BTreeSet<String> = dependencies().unwrap().into_keys().collect();
    let mapped: BTreeSet<String> = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|rest| rest.split('`').next())
        .filter(|name| name.starts_with("daitn"))
        .map(str::to_owned)
        .collect();
    assert_eq!(mapped, crates, "left: the map in ARCHITECTURE.md, right: crates/");
}

#[test]
fn every_source_opens_with_what_it_is_for() {
    let failures: Vec<String> = files(Path::new(""), "rs")
        .unwrap()
        .into_iter()
        .filter(|path| !text(path).unwrap().starts_with("//!") && !text(path).unwrap().starts_with("#!["))
        .map(|path| path.display().to_string())
        .collect();
    report(&failures, "a source does not open with `//!`");
}

#[test]
fn no_file_or_function_is_too_long() {
    let mut failures = Vec::new();
    for path in files(Path::new(""), "rs").unwrap() {
        let source = text(&path).unwrap();
        let n_lines = source.lines().count();
        if n_lines > FILE_LINES_MAX {
            failures.push(format!("{}: {n_lines} lines", path.display()));
        }
        for (line, length) in functions(&source) {
            if length > FUNCTION_LINES_MAX {
                failures.push(format!("{}:{line}: a function of {length} lines", path.display()));
            }
        }
    }
    report(&failures, "too long");
}

/// First line and length of each function, by indentation: the sources are formatted.
fn functions(source: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    for (number, line) in source.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim_start();
        let begins = [
            "fn ",
            "pub fn ",
            "pub(crate) fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) async fn ",
        ];
        if open.is_none()
            && begins.iter().any(|b| code.starts_with(b))
            && !code.ends_with(';')
            && !code.ends_with('}')
        {
            open = Some((number, indent));
        } else if let Some((first, depth)) = open
            && indent == depth
            && (code == "}" || code.ends_with(';'))
        {
            found.push((first + 1, number - first + 1));
            open = None;
        }
    }
    found
}

#[test]
fn pure_modules_have_no_clock_no_randomness_and_no_async() {
    let pure = [
        "crates/daitn-messages/src",
        "crates/daitn-topology/src",
        "crates/daitn-learning/src",
        "crates/daitn-policy/src",
        "crates/daitn-control/src/core",
    ];
    let banned = [
        "SystemTime::now",
        "Instant::now",
        "getrandom",
        "thread_rng",
        "rand::rng",
        "async fn",
        ".await",
        "tokio::",
        "std::net::Tcp",
        "std::thread",
    ];
    let mut failures = Vec::new();
    for folder in pure {
        for path in files(Path::new(folder), "rs").unwrap() {
            for (number, line) in text(&path).unwrap().lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if let Some(word) = banned.iter().find(|word| code.contains(**word)) {
                    failures.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    report(&failures, "a pure module is not pure");
}

/// Who may depend on whom: the drawing in ARCHITECTURE.md as a table. Dependencies point down only.
const ARROWS: [(&str, &[&str]); 12] = [
    ("daitn-messages", &[]),
    ("daitn-topology", &["daitn-messages"]),
    ("daitn-learning", &["daitn-messages"]),
    ("daitn-policy", &["daitn-messages"]),
    ("daitn-engine", &["daitn-messages", "daitn-learning"]),
    ("daitn-fabric", &["daitn-messages"]),
    ("daitn-store", &["daitn-messages"]),
    ("daitn-oam", &["daitn-messages"]),
    (
        "daitn-control",
        &[
            "daitn-messages",
            "daitn-topology",
            "daitn-policy",
            "daitn-fabric",
            "daitn-store",
        ],
    ),
    (
        "daitn-terminals",
        &[
            "daitn-messages",
            "daitn-learning",
            "daitn-engine",
            "daitn-policy",
            "daitn-fabric",
        ],
    ),
    (
        "daitn-gateway",
        &["daitn-messages", "daitn-topology", "daitn-fabric"],
    ),
    (
        "daitn",
        &[
            "daitn-messages",
            "daitn-topology",
            "daitn-learning",
            "daitn-policy",
            "daitn-engine",
            "daitn-fabric",
            "daitn-store",
            "daitn-oam",
            "daitn-control",
            "daitn-terminals",
            "daitn-gateway",
        ],
    ),
];

#[test]
fn dependencies_point_down_only() {
    let crates = dependencies().unwrap();
    let mut failures = Vec::new();
    for (name, needs) in &crates {
        let allowed = ARROWS
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, a)| *a)
            .unwrap_or_default();
        for need in needs.iter().filter(|need| need.starts_with("daitn")) {
            if !allowed.contains(&need.as_str()) {
                failures.push(format!("{name} -> {need}"));
            }
        }
    }
    report(&failures, "an arrow that the map does not have");
}

/// Which crates may name an outside technology.
const OWNERS: [(&str, &[&str]); 15] = [
    ("iroh", &["daitn-fabric"]),
    ("iroh-relay", &["daitn-fabric"]),
    ("bao-tree", &["daitn-fabric"]),
    ("sqlx", &["daitn-store"]),
    ("cedar-policy", &["daitn-policy"]),
    ("tantivy", &["daitn-control"]),
    ("candle-core", &["daitn-engine"]),
    ("gemm", &["daitn-engine"]),
    ("parquet", &["daitn-engine"]),
    ("csv-core", &["daitn-engine"]),
    ("safetensors", &["daitn-engine"]),
    ("utoipa", &["daitn-gateway", "daitn-messages"]),
    ("prometheus-client", &["daitn-oam"]),
    ("ed25519-dalek", &["daitn-messages"]),
    ("clap", &["daitn"]),
];

#[test]
fn each_outside_technology_has_one_owner() {
    let crates = dependencies().unwrap();
    let mut failures = Vec::new();
    for (technology, owners) in OWNERS {
        for (name, needs) in &crates {
            if needs.iter().any(|need| need == technology) && !owners.contains(&name.as_str()) {
                failures.push(format!(
                    "{name} names {technology}, which belongs to {}",
                    owners.join(", ")
                ));
            }
        }
    }
    report(&failures, "an outside technology has a second owner");
}
