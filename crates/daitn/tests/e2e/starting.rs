//! How processes start, and how a start that cannot succeed ends: ports, certificates, metrics.

use crate::{
    jobs::get,
    lab::{DAITN, Lab, Ran, Running, ran},
};
use serde_json::{Value, json};
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
};

/// A machine without a domain.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(DAITN);
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("DAITN_CONFIG_DIR", self.path("config"))
            .env_remove("DAITN_API_KEY")
            .env_remove("DAITN_URL")
            .env_remove("DAITN_CONTEXT")
            .env("NO_COLOR", "1");
        command
    }
    /// `daitn up` with free ports but for those given, which must fail.
    fn refused(&self, more: &[&str]) -> Ran {
        let mut arguments = vec!["up", "--dir", "center", "-o", "json"];
        for (flag, free) in [("--listen", "127.0.0.1:0"), ("--fabric-listen", "127.0.0.1:0")] {
            if !more.contains(&flag) {
                arguments.extend([flag, free]);
            }
        }
        arguments.extend(more);
        ran(&mut self.command(&arguments))
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_its_flag_and_nothing_is_left() {
    let machine = Machine::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp, udp) = (
        tcp.local_addr().map(|a| (a.to_string(), tcp)).unwrap(),
        udp.local_addr().map(|a| (a.to_string(), udp)).unwrap(),
    );
    for (flag, address) in [
        ("--listen", &tcp.0),
        ("--fabric-listen", &udp.0),
        ("--relay", &tcp.0),
        ("--metrics-listen", &tcp.0),
    ] {
        let refused = machine.refused(&[flag, address]);
        let error = refused.error();
        assert_eq!((refused.code, &error["code"]), (5, &json!("E0106")), "{error}");
        assert!(error["hint"].as_str().unwrap().contains(flag), "{error}");
        assert!(
            error["message"].as_str().unwrap().contains(address.as_str()),
            "{error}"
        );
    }
    assert_eq!(
        fs::read_dir(machine.0.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn metrics_are_where_they_are_told_to_be_and_for_this_machine_only() {
    let machine = Machine::new();
    let beyond = machine.refused(&["--metrics-listen", "0.0.0.0:0"]);
    assert_eq!(beyond.code, 2);
    let message = beyond.error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("without a key"), "{message}");
    assert!(!machine.path("center").exists());
    // Taken for a moment to learn of a free port.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for (given, expected) in [
        (address.as_str(), Value::from(format!("http://{address}/metrics"))),
        ("off", Value::Null),
    ] {
        let center = up(&machine, &["--metrics-listen", given]);
        assert_eq!(center.ready["metrics"], expected);
        if let Some(url) = expected.as_str() {
            assert_eq!(get(url).0, 200);
            let told = fs::read_to_string(machine.path("center.log")).unwrap();
            assert!(told.contains(url), "people are told where: {told}");
        }
        assert_eq!(center.stop(), 0);
    }
}

/// `daitn up` with free ports but for those given.
fn up(machine: &Machine, more: &[&str]) -> Running {
    let mut arguments = vec!["up", "--dir", "center", "--stop-with-stdin", "-o", "jsonl"];
    for flag in ["--listen", "--fabric-listen"] {
        if !more.contains(&flag) {
            arguments.extend([flag, "127.0.0.1:0"]);
        }
    }
    arguments.extend(more);
    Running::start(machine.command(&arguments), &machine.path("center.log"))
}

/// A certificate for this machine, and its key.
fn certificate(machine: &Machine) -> (String, String) {
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (machine.path("chain.pem"), machine.path("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate.display().to_string(), key.display().to_string())
}

#[test]
fn without_a_certificate_nobody_beyond_this_machine_is_served() {
    let machine = Machine::new();
    let refused = machine.refused(&["--listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.error()["message"]
            .as_str()
            .unwrap()
            .contains("certificate")
    );
    let (chain, key) = certificate(&machine);
    let missing = machine.refused(&["--tls-cert", "nowhere.pem", "--tls-key", &key]);
    assert_eq!(missing.code, 2);
    assert!(
        missing.error()["message"]
            .as_str()
            .unwrap()
            .contains("nowhere.pem")
    );
    // The key is not a certificate.
    assert_eq!(
        machine.refused(&["--tls-cert", &key, "--tls-key", &chain]).code,
        2
    );
    assert!(!machine.path("center").exists(), "nothing is left behind");
    let center = up(
        &machine,
        &["--listen", "0.0.0.0:0", "--tls-cert", &chain, "--tls-key", &key],
    );
    assert!(center.ready["url"].as_str().unwrap().starts_with("https://"));
    assert_eq!(center.stop(), 0);
}

#[test]
fn with_a_certificate_other_peoples_clients_speak_https() {
    let machine = Machine::new();
    let (chain, key) = certificate(&machine);
    let center = up(&machine, &["--tls-cert", &chain, "--tls-key", &key]);
    let port = center.ready["url"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let key_file = center.ready["key_file"].as_str().unwrap().to_owned();
    let url = format!("https://localhost:{port}");
    // The standard library's client: REST, the Open Inference Protocol, plain HTTP, and without the certificate.
    let python = std::env::var_os("DAITN_PYTHON").unwrap_or_else(|| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/https_client.py");
    let found = ran(Command::new(python).arg(script).args([&url, &chain, &key_file])).ok();
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(found["rest"]["data"]["domain"], "local", "{found}");
    assert_eq!(found["oip"]["name"], "daitn", "{found}");
    assert_eq!(found["untrusted"], "SSLCertVerificationError", "{found}");
    assert_eq!(found["plain"], "refused", "{found}");
    // And ours: the context that was written trusts the certificate, another one is told to.
    ran(&mut machine.command(&["--context", "local", "status"])).ok();
    let named = [
        "context",
        "add",
        "tls",
        "--url",
        &url,
        "--key",
        &format!("@{key_file}"),
        "--ca-file",
        "chain.pem",
    ];
    ran(&mut machine.command(&named)).ok();
    ran(&mut machine.command(&["status"])).ok();
    assert_eq!(center.stop(), 0);
}

#[test]
fn signals_end_processes_in_order() {
    let mut lab = Lab::start();
    lab.node("works").aggregator("combiner").run();
    for (process, signal) in [
        ("works", "-INT"),
        ("works", "-TERM"),
        ("center", "-INT"),
        ("center", "-TERM"),
    ] {
        let code = if process == "center" {
            let code = lab.signal_center(signal);
            lab.start_center();
            code
        } else {
            let code = lab.signal_node(process, signal);
            lab.run_node(process);
            code
        };
        assert_eq!(code, 0, "{process} {signal}");
    }
    lab.online();
}

/// What it has dialled does not answer, and is not waited for.
#[test]
fn a_node_whose_center_is_gone_ends_in_order() {
    let mut lab = Lab::start();
    lab.node("works").aggregator("combiner").run();
    lab.online();
    lab.kill_center();
    lab.kill_node("works");
    // It is ready all the same, and dials its center.
    lab.run_node("works");
    assert_eq!(lab.signal_node("works", "-TERM"), 0);
    let told = fs::read_to_string(lab.path("works.log")).unwrap();
    assert!(told.contains("the node shuts down"), "{told}");
    assert!(!told.contains("ERROR"), "{told}");
}

/// Two domains of one user, the second begun under the name that the first has.
#[test]
fn a_domain_keeps_its_name_and_takes_no_other_networks_context() {
    let machine = Machine::new();
    let context = |name: &str| {
        let file = fs::read_to_string(machine.path("config").join("contexts.toml")).unwrap();
        toml::from_str::<Value>(&file).unwrap()["contexts"][name].clone()
    };
    let north = up(&machine, &["--domain", "north"]);
    assert_eq!(
        (&north.ready["domain"], &north.ready["context"]),
        (&json!("north"), &json!("north"))
    );
    assert_eq!(north.stop(), 0);
    let first = context("north");
    // Another network of the same name.
    let other = |more: &[&str]| {
        let begin = [
            "up",
            "--dir",
            "other",
            "--listen",
            "127.0.0.1:0",
            "--fabric-listen",
            "127.0.0.1:0",
        ];
        let stop = ["--stop-with-stdin", "-o", "jsonl"];
        machine.command(&[&begin[..], more, &stop].concat())
    };
    let refused = ran(&mut other(&["--context-name", "north"]));
    assert_eq!(refused.code, 5, "{}{}", refused.stdout, refused.stderr);
    assert!(
        refused.stdout.contains("context remove north --yes"),
        "{}",
        refused.stdout
    );
    let second = Running::start(other(&["--domain", "north"]), &machine.path("other.log"));
    assert_eq!(second.ready["context"], "north-2", "{}", second.ready);
    assert_eq!(second.stop(), 0);
    assert_eq!(context("north"), first);
    // Begun again without its name, and with another one.
    let again = up(&machine, &[]);
    assert_eq!(
        (&again.ready["domain"], &again.ready["context"]),
        (&json!("north"), &json!("north"))
    );
    assert_eq!(again.stop(), 0);
    let renamed = machine.refused(&["--domain", "south"]);
    assert_eq!(renamed.code, 5, "{}", renamed.stdout);
    // Forgotten only when it is meant.
    let remove = ["context", "remove", "north-2"];
    let asked = ran(&mut machine.command(&remove));
    assert!(
        asked.code == 2 && asked.stderr.contains("needs --yes"),
        "{}",
        asked.stderr
    );
    ran(&mut machine.command(&[&remove[..], &["--yes"]].concat())).ok();
    assert_eq!(context("north-2"), Value::Null);
}

#[test]
fn a_key_is_looked_at_before_a_context_is_written() {
    let machine = Machine::new();
    let center = up(&machine, &["--no-context"]);
    let url = center.ready["url"].as_str().unwrap();
    let add = |name: &str, key: &str, more: &[&str]| {
        let add = ["context", "add", name, "--url", url, "--key", key, "-o", "json"];
        ran(&mut machine.command(&[&add[..], more].concat()))
    };
    assert_eq!(add("a", "foo", &["--no-check"]).code, 2, "no key looks like this");
    let unknown = format!("daitn_{}", "a".repeat(52));
    assert_eq!(add("a", &unknown, &[]).error()["code"], "E0701");
    assert!(!machine.path("config").exists(), "nothing is written");
    add("a", &unknown, &["--no-check"]).ok();
    let own = format!("@{}", center.ready["key_file"].as_str().unwrap());
    add("b", &own, &[]).ok();
    ran(&mut machine.command(&["--context", "b", "status"])).ok();
    assert_eq!(center.stop(), 0);
}

#[test]
fn a_damaged_database_or_key_is_named_with_what_to_do() {
    let machine = Machine::new();
    assert_eq!(up(&machine, &["--no-context"]).stop(), 0);
    for file in ["control.db", "center.key"] {
        let path = machine.path("center").join(file);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, "no longer what it was ".repeat(400)).unwrap();
        let refused = machine.refused(&["--no-context"]);
        let error = refused.error();
        assert_eq!((refused.code, &error["code"]), (70, &json!("E0902")), "{error}");
        assert!(error["message"].as_str().unwrap().contains(file), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("backup"), "{error}");
        fs::write(&path, kept).unwrap();
    }
    assert_eq!(up(&machine, &["--no-context"]).stop(), 0);
}
