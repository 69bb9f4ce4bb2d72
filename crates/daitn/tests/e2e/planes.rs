//! What must never happen, looked for in what whole processes leave behind: no payload byte with the control center, no
//! secret in a log, no packet to anybody outside of the network.

use crate::lab::{DAITN, Lab, attach, ran, rows};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Everything is logged.
const TRACE: &str = "[log]\nfilter = \"trace\"\n";
/// Feature values that stand nowhere else: their bytes as the data plane carries them, and as text.
const MARKERS: [f32; 4] = [1_234.567_8, 8_765.432, 2_345.679, 9_876.543];
/// So many bytes of weights that are found somewhere are no accident.
const WINDOW: usize = 24;

/// Files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            found.push(entry.path());
        }
    }
    found
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// A network that has trained and answered, while every process logged all it can.
fn worked() -> (Lab, Value) {
    let lab = Lab::start_with(TRACE).with_sites(2);
    let mut request = lab.request(6);
    request["verification"]["target"] = serde_json::json!(0.5);
    let ended = lab.ended(&lab.apply(&request));
    assert_eq!(ended["phase"], "succeeded", "{ended}");
    let values: Vec<String> = MARKERS.iter().cycle().take(64).map(ToString::to_string).collect();
    lab.run(&["model", "query", "digits", "--row", &values.join(",")])
        .ok();
    (lab, ended)
}

/// What every log and every file of the center is searched for.
fn payloads(lab: &Lab, ended: &Value) -> Vec<(String, Vec<u8>)> {
    let mut payloads = Vec::new();
    // The trained weights, as the host keeps them: several places of the file, its header left out.
    let host = files(&lab.path("works-host/artifacts"));
    let weights = host
        .iter()
        .map(|path| fs::read(path).unwrap())
        .max_by_key(Vec::len)
        .unwrap();
    assert!(weights.len() > 20_000, "a model of 7,000 parameters");
    for tenth in 2..10 {
        let at = weights.len() / 10 * tenth;
        payloads.push((format!("weights at {at}"), weights[at..at + WINDOW].to_vec()));
    }
    let bytes: Vec<u8> = MARKERS.iter().flat_map(|v| v.to_le_bytes()).collect();
    payloads.push(("a query's tensor".to_owned(), bytes));
    payloads.push(("a query's text".to_owned(), MARKERS[0].to_string().into_bytes()));
    // A row of the data, as its owner's file has it.
    let row = rows(5..6).lines().nth(1).unwrap().to_owned();
    payloads.push(("a row of data".to_owned(), row.into_bytes()));
    // Something that the center does hold shows that the search finds what is there.
    let job = ended["id"].as_str().unwrap().as_bytes().to_vec();
    payloads.push(("the job's id".to_owned(), job));
    payloads
}

#[test]
fn no_payload_byte_stays_with_the_control_center_or_in_any_log() {
    let (mut lab, ended) = worked();
    let payloads = payloads(&lab, &ended);
    let received = center_received(&lab);
    assert_eq!(lab.stop_center(), 0);
    let mut searched = files(&lab.path("center"));
    assert!(searched.iter().any(|path| path.ends_with("control.db")));
    searched.extend(logs(&lab));
    let mut found = BTreeSet::new();
    for path in &searched {
        let bytes = fs::read(path).unwrap();
        for (what, needle) in &payloads {
            if contains(&bytes, needle) {
                found.insert(format!(
                    "{what} in {}",
                    path.file_name().unwrap().to_string_lossy()
                ));
            }
        }
    }
    let honest: Vec<&String> = found.iter().filter(|f| !f.starts_with("the job's id")).collect();
    assert!(honest.is_empty(), "{honest:?}");
    assert!(
        found.contains("the job's id in control.db"),
        "the search finds what is there: {found:?}"
    );
    // What went past the center unseen would show in what its endpoint received: each update alone has as many bytes as
    // the weights, and there were twelve.
    let n_updates = 12.0;
    let weights = 4.0 * 7_000.0;
    assert!(
        received < n_updates * weights,
        "the control plane received {received} bytes"
    );
}

/// Bytes that the control plane's endpoint has received.
fn center_received(lab: &Lab) -> f64 {
    let url = lab.center_ready()["metrics"].as_str().unwrap().to_owned();
    let page = crate::jobs::get(&url).1;
    let line = page
        .lines()
        .find(|line| line.starts_with("daitn_fabric_received_bytes_total{role=\"center\"}"))
        .unwrap_or_else(|| panic!("{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn logs(lab: &Lab) -> Vec<PathBuf> {
    let root = fs::read_dir(lab.path("")).unwrap().flatten();
    let logs: Vec<PathBuf> = root
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    assert!(logs.len() > 3, "a center and its nodes: {logs:?}");
    logs
}

#[test]
fn no_secret_is_in_any_log_or_in_the_database() {
    let (mut lab, _) = worked();
    let mut secrets: Vec<(String, String)> = Vec::new();
    for path in files(&lab.path("")) {
        let name = path.strip_prefix(lab.path("")).unwrap().display().to_string();
        if name.ends_with(".key") || name.ends_with(".token") {
            secrets.push((name, fs::read_to_string(&path).unwrap().trim().to_owned()));
        }
    }
    let key = lab
        .run(&["key", "create", "--organisation", "works", "--scopes", "query"])
        .ok()
        .stdout;
    let queried = ran(lab
        .command(&["model", "query", "digits", "--row", crate::jobs::ROW])
        .env("DAITN_API_KEY", key.trim()));
    queried.ok();
    secrets.push(("a key for queries".to_owned(), key.trim().to_owned()));
    assert!(secrets.len() >= 3 + 2 * 5, "{} secrets", secrets.len());
    assert_eq!(lab.stop_center(), 0);
    let mut searched = logs(&lab);
    searched.extend(
        files(&lab.path("center"))
            .into_iter()
            .filter(|path| path.extension().is_none_or(|e| e != "key")),
    );
    for path in searched {
        let bytes = fs::read(&path).unwrap();
        for (name, secret) in &secrets {
            assert!(secret.len() >= 32, "{name} is no secret");
            // Also a part of it would be too much: its last half holds nothing that is public.
            let half = &secret.as_bytes()[secret.len() / 2..];
            assert!(!contains(&bytes, half), "{name} is in {}", path.display());
        }
    }
}

/// Addresses that the kernel's trace of a process shows as destinations.
fn destinations(trace: &str) -> BTreeSet<IpAddr> {
    let after = |line: &str, mark: &str| -> Vec<IpAddr> {
        line.split(mark)
            .skip(1)
            .filter_map(|rest| rest.split('"').next()?.parse().ok())
            .collect()
    };
    trace
        .lines()
        // To learn which interface leads outside, the transport connects a UDP socket to port 1 of an address that is
        // nobody's: the kernel looks its route up and sends nothing.
        .filter(|line| !(line.contains("connect(") && line.contains("htons(1)")))
        .flat_map(|line| [after(line, "inet_addr(\""), after(line, "inet_pton(AF_INET6, \"")].concat())
        .collect()
}

/// This machine's own addresses.
fn own() -> BTreeSet<IpAddr> {
    let v4 = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = v4.lines().collect();
    let local = lines.windows(2).filter(|pair| pair[1].contains("/32 host LOCAL"));
    let mut own: BTreeSet<IpAddr> = local
        .filter_map(|pair| pair[0].rsplit(' ').next()?.parse().ok())
        .collect();
    let v6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    own.extend(v6.lines().filter_map(|line| {
        let bits = u128::from_str_radix(line.split(' ').next()?, 16).ok()?;
        Some(IpAddr::from(std::net::Ipv6Addr::from_bits(bits)))
    }));
    own
}

/// A center and a node with nothing configured speak to each other and to nobody else: no relay, no lookup, no
/// telemetry, no port mapping of anybody's.
#[test]
fn by_default_nothing_is_sent_to_anybody_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let traced = |name: &str, arguments: &[&str]| {
        let mut command = Command::new("strace");
        command
            .args([
                "-f",
                "-qq",
                "-s",
                "0",
                "-e",
                "trace=connect,sendto,sendmsg,sendmmsg",
                "-o",
            ])
            .arg(path(name))
            .arg(DAITN)
            .args(arguments)
            .args(["--stop-with-stdin", "-o", "jsonl"])
            .current_dir(directory.path())
            .env("DAITN_CONFIG_DIR", path("config"))
            .env("NO_COLOR", "1");
        command
    };
    let may_trace = Command::new("strace")
        .args(["-qq", "true"])
        .stderr(Stdio::null())
        .status();
    if !may_trace.is_ok_and(|status| status.success()) {
        println!("strace is not installed or may not trace here: this was not checked");
        return;
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(DAITN);
        command
            .args(arguments)
            .current_dir(directory.path())
            .env("DAITN_CONFIG_DIR", path("config"));
        ran(&mut command)
    };
    let center = traced(
        "center.trace",
        &[
            "up",
            "--dir",
            "center",
            "--listen",
            "127.0.0.1:0",
            "--fabric-listen",
            "0.0.0.0:0",
        ],
    );
    let center = crate::lab::Running::start(center, &path("center.log"));
    let token = run(&["token", "create", "--organisation", "works"]).ok().stdout;
    fs::write(path("works.token"), token).unwrap();
    run(&["node", "join", "@works.token", "--dir", "works"]).ok();
    run(&attach("aggregator", "combiner", "works")).ok();
    let node = traced("node.trace", &["node", "run", "--dir", "works"]);
    let node = crate::lab::Running::start(node, &path("node.log"));
    run(&["status", "--wait", "30s", "--nodes", "1", "--descriptors", "1"]).ok();
    assert_eq!((node.stop(), center.stop()), (0, 0));
    let own = own();
    for name in ["center.trace", "node.trace"] {
        let told = destinations(&fs::read_to_string(path(name)).unwrap());
        assert!(!told.is_empty(), "the trace shows who was spoken to");
        let others: Vec<&IpAddr> = told
            .iter()
            .filter(|to| !to.is_loopback() && !to.to_canonical().is_loopback() && !to.is_unspecified())
            .filter(|to| !own.contains(&to.to_canonical()))
            .collect();
        assert!(others.is_empty(), "{name}: {others:?}");
    }
}
