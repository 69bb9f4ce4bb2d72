//! A network in a temporary directory, made of real processes. It reads like a sentence:
//!
//! ```text
//! let mut lab = Lab::start();
//! lab.node("st-mary").dataset(0..300).run();
//! lab.node("works").aggregator("combiner").verifier("judge", 1400..1700).host("host").run();
//! let job = lab.train(&lab.request());
//! ```

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};
use tempfile::TempDir;

/// The built binary.
pub(crate) const DAITN: &str = env!("CARGO_BIN_EXE_daitn");
/// The real digits.
pub(crate) const DIGITS: &str = include_str!("../../../../examples/digits/digits.csv");

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// It must have ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
    /// The data of the envelope.
    #[track_caller]
    pub(crate) fn data(self) -> Value {
        let mut envelope = self.ok().envelope();
        assert_eq!(
            (&envelope["schema_version"], &envelope["status"]),
            (&json!(1), &json!("ok"))
        );
        envelope["data"].take()
    }
    /// The error of the envelope.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        assert_ne!(self.code, 0, "{}", self.stdout);
        let mut envelope = self.envelope();
        assert_eq!(
            (&envelope["schema_version"], &envelope["status"]),
            (&json!(1), &json!("error"))
        );
        assert!(envelope.get("data").is_none());
        envelope["error"].take()
    }
    #[track_caller]
    fn envelope(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\nstdout: {}\nstderr: {}", self.stdout, self.stderr))
    }
}

/// A process that goes on until it is told to stop.
pub(crate) struct Running {
    child: Child,
    /// Kept open, so that the child can always write.
    _lines: BufReader<ChildStdout>,
    /// What it told when it was ready.
    pub(crate) ready: Value,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let envelope: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: the first line is `{line}`"));
        assert_eq!(envelope["status"], "ok", "{envelope}");
        Self {
            child,
            _lines: lines,
            ready: envelope["data"].clone(),
        }
    }
    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    /// Sends it a signal, and waits; its exit code.
    fn signal(mut self, signal: &str) -> i32 {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let ended = self.child.wait().unwrap();
        ended.code().expect("it ends by itself, not by the signal")
    }
    /// Lets it shut down; its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network.
pub(crate) struct Lab {
    directory: TempDir,
    center: Option<Running>,
    nodes: BTreeMap<String, Running>,
    /// The configuration of every process; empty: none.
    config: &'static str,
    others: Vec<Running>,
    /// The gateway's address.
    pub(crate) url: String,
    /// The network namespace of the center and of commands, and those of nodes; none: this process's.
    pub(crate) namespaces: BTreeMap<&'static str, String>,
    /// What the center is started with: where it listens, and more.
    pub(crate) up: Vec<String>,
    /// Where nodes listen.
    pub(crate) listen: &'static str,
}

/// In [`Lab::namespaces`]: where the center and the commands are.
pub(crate) const CENTER: &str = "center";

impl Lab {
    /// A domain without nodes.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// A domain without nodes, each of whose processes has this `daitn.toml`.
    pub(crate) fn start_with(config: &'static str) -> Self {
        let mut lab = Self::prepare();
        lab.config = config;
        lab.start_center();
        lab
    }

    /// A domain whose center is not started yet.
    pub(crate) fn prepare() -> Self {
        let directory = tempfile::Builder::new().prefix("daitn-lab-").tempdir().unwrap();
        Self {
            directory,
            center: None,
            nodes: BTreeMap::new(),
            others: Vec::new(),
            config: "",
            url: String::new(),
            namespaces: BTreeMap::new(),
            up: vec!["--fabric-listen".to_owned(), "127.0.0.1:0".to_owned()],
            listen: "127.0.0.1:0",
        }
    }

    /// Starts the control center, for the first time or again.
    pub(crate) fn start_center(&mut self) {
        self.write("daitn.toml", self.config);
        let mut arguments = vec![
            "up",
            "--dir",
            "center",
            "--config",
            "daitn.toml",
            "--listen",
            "127.0.0.1:0",
            "--context-name",
            "lab",
            "--stop-with-stdin",
            "-o",
            "jsonl",
        ];
        arguments.extend(self.up.iter().map(String::as_str));
        let center = Running::start(self.command(&arguments), &self.path("center.log"));
        self.url = center.ready["url"].as_str().unwrap().to_owned();
        self.center = Some(center);
    }

    /// Kills the control center.
    pub(crate) fn kill_center(&mut self) {
        self.center.take().unwrap().kill();
    }

    /// Stops the control center; its exit code.
    pub(crate) fn stop_center(&mut self) -> i32 {
        self.center.take().unwrap().stop()
    }

    /// Sends the control center a signal; its exit code.
    pub(crate) fn signal_center(&mut self, signal: &str) -> i32 {
        self.center.take().unwrap().signal(signal)
    }

    /// Sends a node a signal; its exit code.
    pub(crate) fn signal_node(&mut self, name: &str, signal: &str) -> i32 {
        self.nodes.remove(name).unwrap().signal(signal)
    }

    /// What the control center told when it was ready.
    pub(crate) fn center_ready(&self) -> &Value {
        &self.center.as_ref().unwrap().ready
    }

    /// What a node told when it was ready.
    pub(crate) fn node_ready(&self, name: &str) -> &Value {
        &self.nodes[name].ready
    }

    /// A file or directory of the lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A command of the binary, in the lab's directory and with its contexts.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_at(CENTER, arguments)
    }

    /// The same where the center, or the node of this name, is.
    pub(crate) fn command_at(&self, place: &str, arguments: &[&str]) -> Command {
        let mut command = match self.namespaces.get(place) {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, DAITN]);
                command
            }
            None => Command::new(DAITN),
        };
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("DAITN_API_KEY")
            .env_remove("DAITN_URL")
            .env_remove("DAITN_CONTEXT")
            .env("DAITN_CONFIG_DIR", self.path("config"))
            .env("NO_COLOR", "1");
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }

    /// Runs a command to its end, for JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Ran {
        let all: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        self.run(&all)
    }

    /// Starts a command that prints JSON lines, and reads them as they come.
    pub(crate) fn stream(&self, arguments: &[&str]) -> Stream {
        let all: Vec<&str> = arguments.iter().copied().chain(["-o", "jsonl"]).collect();
        let mut command = self.command(&all);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Stream { child, lines }
    }

    /// A join token for an organisation, in a file: `@FILE`.
    pub(crate) fn token(&self, organisation: &str, more: &[&str]) -> String {
        let mut arguments = vec!["token", "create", "--organisation", organisation];
        arguments.extend(more);
        let text = self.run(&arguments).ok().stdout;
        let file = self.path(&format!(
            "{organisation}-{}.token",
            fs::read_dir(self.directory.path()).unwrap().count()
        ));
        fs::write(&file, text).unwrap();
        format!("@{}", file.display())
    }

    /// A node that has joined for the organisation of its name, without terminals; `works` has several nodes.
    pub(crate) fn node(&mut self, name: &str) -> Building<'_> {
        let organisation = name
            .split_once('.')
            .map_or(name, |(organisation, _)| organisation)
            .to_owned();
        let name = name.replace('.', "-");
        let token = self.token(&organisation, &[]);
        let ca = self.path("relay-ca.pem");
        let mut arguments = vec!["node", "join", &token, "--dir", &name, "--listen", self.listen];
        if ca.exists() {
            arguments.extend(["--relay-ca", ca.to_str().unwrap()]);
        }
        ran(&mut self.command_at(&name, &arguments)).ok();
        Building { lab: self, name }
    }

    /// Runs a node that has joined.
    pub(crate) fn run_node(&mut self, name: &str) {
        let command = self.command_at(
            name,
            &[
                "node",
                "run",
                "--dir",
                name,
                "--config",
                "daitn.toml",
                "--listen",
                self.listen,
                "--threads",
                "1",
                "--stop-with-stdin",
                "-o",
                "jsonl",
            ],
        );
        let running = Running::start(command, &self.path(&format!("{name}.log")));
        self.nodes.insert(name.to_owned(), running);
    }

    /// Runs something else beside, an agent for instance.
    pub(crate) fn beside(&mut self, name: &str, command: Command) {
        let running = Running::start(command, &self.path(&format!("{name}.log")));
        self.others.push(running);
    }

    /// Kills a node.
    pub(crate) fn kill_node(&mut self, name: &str) {
        self.nodes.remove(name).unwrap().kill();
    }

    /// Stops a node.
    pub(crate) fn stop_node(&mut self, name: &str) -> i32 {
        self.nodes.remove(name).unwrap().stop()
    }

    /// Waits until a node has ended by itself; its exit code.
    pub(crate) fn wait_node(&mut self, name: &str) -> i32 {
        let mut running = self.nodes.remove(name).unwrap();
        running.child.wait().unwrap().code().unwrap()
    }

    /// Waits until every node is online.
    pub(crate) fn online(&self) {
        let n = self.nodes.len().to_string();
        self.run(&["status", "--wait", "30s", "--nodes", &n]).ok();
    }

    /// Five sites, an aggregator with a spare, two judges and two hosts: enough for every test.
    pub(crate) fn with_sites(mut self, n_sites: usize) -> Self {
        let share = 1400 / n_sites;
        for site in 0..n_sites {
            self.node(&format!("site-{site}"))
                .dataset(site * share..(site + 1) * share, &[])
                .run();
        }
        self.node("works.combiner").aggregator("combiner").run();
        self.node("works.judge").verifier("judge", 1400..1797).run();
        self.node("works.host").host("host").run();
        self.online();
        self
    }

    /// A request that these nodes can fulfil: FedAvg in rounds, so that every run does the same.
    pub(crate) fn request(&self, rounds: u32) -> Value {
        json!({
            "model": "digits", "organisation": "works", "jurisdiction": "DE", "purpose": "research",
            "architecture": { "kind": "mlp", "hidden": [64, 32] },
            "features": (0..64).map(|i| format!("p{i}")).collect::<Vec<_>>(),
            "target": "label",
            "task": { "kind": "classification", "classes": (0..10).map(|c| c.to_string()).collect::<Vec<_>>() },
            "scale": 0.0625,
            "training": {
                "strategy": { "kind": "fed-avg" }, "kind": "rounds", "rounds": rounds, "round_deadline_ms": 4000,
                "local": { "epochs": 2, "batch_size": 32, "learning_rate": 0.1, "seed": 1 },
            },
            "verification": { "metric": "accuracy", "target": 0.85, "required": 1 },
            "deployment": { "replicas": 1 },
        })
    }

    /// Plans and applies; the job's id.
    pub(crate) fn apply(&self, request: &Value) -> String {
        let file = self.write("request.json", &request.to_string());
        let verdict = self.json(&["job", "plan", file.to_str().unwrap()]).data();
        let plan = verdict["plan"]["id"].as_str().unwrap().to_owned();
        self.json(&["job", "apply", &plan]).data()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits for the job's end; its last view.
    pub(crate) fn ended(&self, job: &str) -> Value {
        self.run(&["job", "watch", job, "-q", "-o", "name"]);
        self.json(&["job", "get", job]).data()
    }
}

/// The accuracy that a job's verification units found.
#[track_caller]
pub(crate) fn accuracy(job: &Value) -> f64 {
    let report = &job["reports"][0][1];
    let metrics = report["evaluation"]["metrics"]
        .as_array()
        .unwrap_or_else(|| panic!("no report: {job}"));
    metrics.iter().find(|m| m[0] == "accuracy").unwrap()[1]
        .as_f64()
        .unwrap()
}

/// Looks again and again until it is so. Each look takes as long as the command or the files behind it; the number of
/// looks is a bound against hanging, not a measurement.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    const LOOKS_MAX: u32 = 2_000;
    for _ in 0..LOOKS_MAX {
        if is_so() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("waited in vain until {what}");
}

/// Rows of the digits as a CSV file; row 0 is the first image.
pub(crate) fn rows(range: Range<usize>) -> String {
    let mut lines = DIGITS.lines();
    let header = lines.next().unwrap();
    let images: Vec<&str> = lines.skip(range.start).take(range.len()).collect();
    assert_eq!(images.len(), range.len(), "there are 1,797 images");
    format!("{header}\n{}\n", images.join("\n"))
}

/// A command that prints JSON lines.
pub(crate) struct Stream {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Stream {
    /// The next line; none at the end.
    pub(crate) fn next_line(&mut self) -> Option<Value> {
        let mut line = String::new();
        (self.lines.read_line(&mut line).unwrap() > 0).then(|| serde_json::from_str(&line).unwrap())
    }
    /// Reads on until a line fits; panics at the end.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        while let Some(line) = self.next_line() {
            if fits(&line) {
                return line;
            }
        }
        panic!("the stream ended before {what}");
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node that has joined and is given terminals.
pub(crate) struct Building<'a> {
    lab: &'a mut Lab,
    name: String,
}

impl Building<'_> {
    /// A dataset `digits` of these rows, with what `data init` is told beside.
    pub(crate) fn dataset(self, range: Range<usize>, more: &[&str]) -> Self {
        let data = self.lab.write(&format!("{}.csv", self.name), &rows(range));
        let file = self.lab.path(&format!("{}-data.toml", self.name));
        let mut arguments = vec![
            "data",
            "init",
            data.to_str().unwrap(),
            "--file",
            file.to_str().unwrap(),
            "--name",
            "digits",
            "--target",
            "label",
            "--classes",
            "0,1,2,3,4,5,6,7,8,9",
            "--jurisdiction",
            "DE",
            "--creator",
            &self.name,
        ];
        arguments.extend(more);
        self.lab.run(&arguments).ok();
        self.lab
            .run(&[
                "data",
                "publish",
                file.to_str().unwrap(),
                "--node-dir",
                &self.name,
            ])
            .ok();
        self
    }
    /// An aggregator.
    pub(crate) fn aggregator(self, name: &str) -> Self {
        self.attach("aggregator", name, &[])
    }
    /// A verification unit with these rows.
    pub(crate) fn verifier(self, name: &str, range: Range<usize>) -> Self {
        let data = self.lab.write(&format!("{}.csv", self.name), &rows(range));
        self.attach(
            "verifier",
            name,
            &["--path", data.to_str().unwrap(), "--target", "label"],
        )
    }
    /// A model host.
    pub(crate) fn host(self, name: &str) -> Self {
        self.attach("model-host", name, &[])
    }
    fn attach(self, kind: &str, name: &str, more: &[&str]) -> Self {
        let arguments = attach(kind, name, &self.name);
        self.lab.run(&[&arguments[..], more].concat()).ok();
        self
    }
    /// An A2A agent at this URL.
    pub(crate) fn agent(self, name: &str, url: &str) -> Self {
        let arguments = [
            "agent",
            "register",
            name,
            url,
            "--node-dir",
            &self.name,
            "--jurisdiction",
            "DE",
        ];
        self.lab.run(&arguments).ok();
        self
    }
    /// Runs it.
    pub(crate) fn run(self) {
        self.lab.run_node(&self.name);
    }
}

/// The words that attach a terminal to a node.
pub(crate) fn attach<'a>(kind: &'a str, name: &'a str, node: &'a str) -> [&'a str; 8] {
    [
        "node",
        "attach",
        kind,
        name,
        "--jurisdiction",
        "DE",
        "--node-dir",
        node,
    ]
}

/// Runs a command to its end.
pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().expect("the binary starts");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
