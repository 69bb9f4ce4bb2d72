//! The tutorial of the book, block by block as it is printed, in a shell. What the reader is told to type works.

use crate::lab::DAITN;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TUTORIAL: &str = include_str!("../../../../docs/book/src/tutorial.md");

/// The blocks marked `sh`, in order.
fn blocks() -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in TUTORIAL.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (Some(block), "```") => {
                found.push(std::mem::take(block));
                open = None;
            }
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(
        found.len() > 10,
        "the tutorial has more blocks than {}",
        found.len()
    );
    found
}

#[test]
fn the_tutorial_runs_as_it_is_printed() {
    let directory = tempfile::Builder::new()
        .prefix("daitn-tutorial-")
        .tempdir()
        .unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::create_dir(directory.path().join("examples")).unwrap();
    std::os::unix::fs::symlink(
        fs::canonicalize(root.join("examples/digits")).unwrap(),
        directory.path().join("examples/digits"),
    )
    .unwrap();
    // Each block tells when it is done, so that a failure names its block. At the end, whatever happened, every process
    // that a block left in the background is stopped and waited for.
    let mut script = String::from("set -eu\nmkdir tutorial\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n");
    for (i, block) in blocks().iter().enumerate() {
        script.push_str(&format!("echo \"--- block {i}\" >&2\n{block}\n"));
    }
    let mut path = vec![PathBuf::from(DAITN).parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let done = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory.path())
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("DAITN_CONFIG_DIR", directory.path().join("config"))
        // The only difference to what the reader does: ports that the system gives.
        .env("DAITN_LISTEN", "127.0.0.1:0")
        .env("DAITN_FABRIC_LISTEN", "127.0.0.1:0")
        .env_remove("DAITN_API_KEY")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "stdout:\n{stdout}\nstderr:\n{stderr}");
    let answers: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(directory.path().join("tutorial/answers.json")).unwrap())
            .unwrap();
    // Checked against the labels, which the model was not given.
    let truth: Vec<&str> = crate::lab::DIGITS
        .lines()
        .skip(1400)
        .map(|line| line.rsplit(',').next().unwrap())
        .collect();
    let said = answers["data"]["answers"].as_array().unwrap();
    assert_eq!(said.len(), 398);
    let n_right = said
        .iter()
        .zip(&truth)
        .filter(|(answer, label)| answer["class"] == **label)
        .count();
    assert!(
        n_right * 100 >= truth.len() * 85,
        "{n_right} of {} right",
        truth.len()
    );
}
