//! The demo, as a newcomer runs it: to its end, kept up, and interrupted.

use crate::lab::{DAITN, ran, rows, until};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

#[test]
fn the_demo_does_what_it_promises() {
    let directory = tempfile::tempdir().unwrap();
    let scratch = directory.path().join("tmp");
    std::fs::create_dir(&scratch).unwrap();
    let found = ran(Command::new(DAITN)
        .args(["demo", "-o", "json"])
        .env("DAITN_CONFIG_DIR", directory.path().join("config"))
        .env("TMPDIR", &scratch)
        .env("NO_COLOR", "1"));
    let story = found.stderr.clone();
    let summary = found.data();
    let number = |name: &str| summary[name].as_f64().unwrap();
    assert!(number("nodes") >= 9.0);
    assert!(
        number("accuracy") >= 0.85 && number("accuracy") >= number("centralised_accuracy") - 0.10,
        "{summary}"
    );
    // The reference of docs: centralised SGD on digits reaches .969; another split and other hold-outs vary by a few hundredths.
    assert!((number("centralised_accuracy") - 0.969).abs() < 0.03, "{summary}");
    let queries = &summary["queries"];
    assert_eq!(
        (&queries["sent"], &queries["answered"], &queries["lost"]),
        (&200.into(), &200.into(), &0.into())
    );
    assert!(queries["right"].as_u64().unwrap() > 160, "{queries}");
    assert!(summary["killed"].as_str().unwrap().starts_with("host-"));
    let answers = summary["agent"].as_array().unwrap();
    assert_eq!(answers.len(), 3);
    for answer in answers {
        let (said, digit) = (answer["said"].as_str().unwrap(), &answer["digit"]);
        assert!(said.starts_with("This is a"), "{said}");
        let article = if digit == 8 { "an" } else { "a" };
        let right = said.starts_with(&format!("This is {article} {digit}."));
        assert_eq!(answer["right"], right, "{answer}");
        let mark = if right { "✓" } else { "✗" };
        let told = format!("{mark} agent:grid-works/reader says: “{said}” It is {article} {digit}");
        assert!(story.contains(&told), "{told}");
    }
    // The time in each phase is told, and the phases are the job's time.
    let phase = |name: &str| summary["phases"][name].as_u64().unwrap();
    let together: u64 = ["preparing_ms", "training_ms", "verifying_ms", "deploying_ms"]
        .map(phase)
        .iter()
        .sum();
    assert!(phase("training_ms") > 0, "{summary}");
    assert_eq!(summary["actual_ms"], together);
    assert!(number("actual_bytes") > 0.0 && number("predicted_bytes") > 0.0);
    assert_eq!(summary["look_further"].as_array().unwrap().len(), 3);
    for said in [
        "infeasible",
        "purpose-forbidden",
        "st-mary",
        "Feasible",
        "Why this way",
        "verify",
    ] {
        assert!(
            story.contains(said),
            "the story does not tell of `{said}`:\n{story}"
        );
    }
    assert!(
        !story.contains('\u{1b}'),
        "without a terminal there are no escape sequences"
    );
    let left: Vec<Value> = std::fs::read_dir(&scratch)
        .unwrap()
        .map(|e| e.unwrap().path().display().to_string().into())
        .collect();
    assert!(left.is_empty(), "everything is cleaned up: {left:?}");
}

/// A demo that goes on, in a directory of its own.
struct Demo {
    directory: tempfile::TempDir,
    child: Child,
}

impl Demo {
    fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scratch = directory.path().join("tmp");
        fs::create_dir(&scratch).unwrap();
        let child = Command::new(DAITN)
            .arg("demo")
            .args(more)
            .env("DAITN_CONFIG_DIR", directory.path().join("config"))
            .env("TMPDIR", &scratch)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { directory, child }
    }

    /// Sends a signal; the exit code.
    fn end(&mut self, signal: &str) -> i32 {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        self.child
            .wait()
            .unwrap()
            .code()
            .expect("it ends by itself, not by the signal")
    }

    fn command(&self, line: &str) -> Command {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("daitn"));
        let mut command = Command::new(DAITN);
        command
            .args(words)
            .env("DAITN_CONFIG_DIR", self.directory.path().join("config"))
            .env("NO_COLOR", "1");
        command
    }

    /// Processes that this demo has started, itself included: they all have its directory in their environment.
    fn n_processes(&self) -> usize {
        let ours = format!("DAITN_CONFIG_DIR={}", self.directory.path().display());
        let runs = |entry: &Path| {
            let environment = fs::read(entry.join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|v| v.starts_with(ours.as_bytes()))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| runs(&entry.path()))
            .count()
    }

    fn left_behind(&self) -> Vec<String> {
        let scratch = fs::read_dir(self.directory.path().join("tmp")).unwrap();
        scratch.map(|e| e.unwrap().path().display().to_string()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its children see that their parent is gone and end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn kept_up_it_answers_until_it_is_told_to_stop() {
    let mut demo = Demo::start(&["--keep", "-o", "jsonl", "-q"]);
    let mut lines = BufReader::new(demo.child.stdout.take().unwrap());
    // The job's events come first, then the summary.
    let mut summary = Value::Null;
    while summary["kept"] != true {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the demo ended");
        summary = serde_json::from_str(&line).unwrap();
    }
    // The three commands that it names work as they are printed, and show what they say.
    let look_further: Vec<String> = serde_json::from_value(summary["look_further"].clone()).unwrap();
    assert_eq!(look_further.len(), 3);
    for (line, shows) in look_further
        .iter()
        .zip(["succeeded", "verdict", "digits version 1"])
    {
        let shown = ran(&mut demo.command(line)).ok().stdout;
        assert!(shown.contains(shows), "{line}: {shown}");
    }
    // One replica was killed; the other answers.
    let image = rows(3..4);
    let row = image.lines().nth(1).unwrap().rsplit_once(',').unwrap().0;
    let answer = ran(&mut demo.command(&format!(
        "daitn --context demo model query digits -o json --row {row}"
    )));
    assert_eq!(answer.data()["answers"].as_array().unwrap().len(), 1);
    assert!(demo.n_processes() > 9, "a center and its nodes run");
    assert_eq!(demo.end("-INT"), 0, "to be told to stop is how it ends");
    assert_eq!(demo.n_processes(), 0, "no process is left");
    assert_eq!(demo.left_behind(), [""; 0]);
    let contexts = ran(&mut demo.command("daitn context list -o json")).data();
    assert_eq!(contexts, serde_json::json!([]), "its context is gone with it");
}

#[test]
fn interrupted_in_the_middle_it_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        let mut demo = Demo::start(&["-o", "json"]);
        let mut story = BufReader::new(demo.child.stderr.take().unwrap());
        let mut line = String::new();
        // In the middle of joining: children are being started.
        while !line.contains("nodes of six organisations join") {
            line.clear();
            assert!(
                story.read_line(&mut line).unwrap() > 0,
                "the demo ended before it was interrupted"
            );
        }
        let drained = std::thread::spawn(move || {
            let mut rest = String::new();
            story.read_to_string(&mut rest).map(|_| rest)
        });
        assert_eq!(demo.end(signal), 1, "{signal}");
        let mut told = String::new();
        demo.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["error"]["code"], "E0401", "{told}");
        // Children that were killed may take a moment to be gone.
        until("every process is gone", || demo.n_processes() == 0);
        assert_eq!(
            demo.left_behind(),
            [""; 0],
            "{}",
            drained.join().unwrap().unwrap()
        );
    }
}
