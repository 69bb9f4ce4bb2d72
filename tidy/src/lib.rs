//! Reads the tree for the checks in `tests/`: which files there are, what they say, who depends on whom.
//!
//! It holds no rule itself.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Folders that are not ours to check.
const SKIPPED: [&str; 5] = ["target", ".git", "node_modules", ".venv", "__pycache__"];

/// The root of the tree.
#[must_use]
pub fn root() -> PathBuf {
    let tidy = Path::new(env!("CARGO_MANIFEST_DIR"));
    tidy.parent().unwrap_or(tidy).to_path_buf()
}

/// Every file with this extension below `folder`, relative to the root, sorted.
///
/// # Errors
/// If a folder cannot be read.
pub fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() && !SKIPPED.contains(&name) {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path.strip_prefix(&root).unwrap_or(&path).to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The text of a file, given relative to the root.
///
/// # Errors
/// If it cannot be read.
pub fn text(path: &Path) -> io::Result<String> {
    fs::read_to_string(root().join(path))
}

/// Direct dependencies of each crate under `crates/`, without those for tests and benchmarks only.
///
/// # Errors
/// If a manifest cannot be read or parsed.
pub fn dependencies() -> io::Result<BTreeMap<String, Vec<String>>> {
    let mut crates = BTreeMap::new();
    for entry in fs::read_dir(root().join("crates"))? {
        let manifest = entry?.path().join("Cargo.toml");
        let table: toml::Table = fs::read_to_string(manifest)?.parse().map_err(io::Error::other)?;
        let name = table
            .get("package")
            .and_then(|p| p.get("name"))
            .and_then(|n| n.as_str());
        let names = |section: &str| -> Vec<String> {
            table
                .get(section)
                .and_then(|d| d.as_table())
                .map(|d| d.keys().cloned().collect())
                .unwrap_or_default()
        };
        crates.insert(name.unwrap_or_default().to_owned(), names("dependencies"));
    }
    Ok(crates)
}
