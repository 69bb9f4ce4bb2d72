//! Moves one artifact between two processes, disk to disk, and the same bytes over one raw iroh stream, directly and
//! through a path with a delay; prints seconds, rates, ratios and the peak memory of either end.
//!
//! ```text
//! cargo run --release -p daitn-fabric --example transfer -- [MiB] [delay in ms, there and back] [runs]
//! ```
//!
//! The delay is a UDP proxy between an IPv6-only and an IPv4-only endpoint, so that neither can find a way around it.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program to be run by hand"
)]

use daitn_fabric::{
    Endpoint, EndpointOptions, Routes,
    artifact::{Durability, Fetch, Store},
};
use daitn_messages::{
    ids::{ArtifactId, NodeId},
    session::{ArtifactRef, Peer},
};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt;

const RAW_ALPN: &[u8] = b"raw";
const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["make", directory, mib] => println!("{:?}", make(Path::new(directory), mib.parse().unwrap())),
        ["serve-artifact", directory] => serve_artifact(Path::new(directory)).await,
        ["serve-raw", file] => serve_raw(Path::new(file)).await,
        [
            "get-artifact",
            directory,
            bind,
            node,
            address,
            id,
            bytes,
            durability,
        ] => {
            let artifact = ArtifactRef {
                id: id.parse().unwrap(),
                bytes: bytes.parse().unwrap(),
            };
            let transient = durability == "transient";
            get_artifact(Path::new(directory), bind, node, address, artifact, transient).await;
        }
        ["get-raw", file, bind, node, address] => get_raw(file, bind, node, address).await,
        _ => compare(&words).await,
    }
}

/// An artifact of random bytes in a new store.
fn make(directory: &Path, mib: u64) -> (ArtifactId, u64, PathBuf) {
    let store = Store::open(directory, u64::MAX).unwrap();
    let mut writer = store.writer(Durability::Transient).unwrap();
    let mut random = blake3::Hasher::new().finalize_xof();
    let mut part = vec![0; 1 << 20];
    for _ in 0..mib {
        random.fill(&mut part);
        writer.push(&part).unwrap();
    }
    let (id, bytes) = writer.finish().unwrap();
    (id, bytes, store.path_of(id).unwrap())
}

async fn compare(words: &[&str]) {
    let number = |n: usize, default: u64| words.get(n).map_or(default, |word| word.parse().unwrap());
    let (mib, delay_ms, runs) = (number(0, 1024), number(1, 100), number(2, 3));
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    let (id, bytes, path) = make(&source, mib);
    println!("{mib} MiB, {runs} runs each, seconds of each run");
    for (name, delay) in [("direct", 0), ("delayed", delay_ms)] {
        let bench = Bench {
            directory: directory.path(),
            delay,
        };
        type Run<'a> = &'a dyn Fn(u64) -> Outcome;
        let ways: [(&str, Run<'_>); 4] = [
            ("one raw stream, thrown away", &|n| {
                bench.raw(&path, n, "/dev/null")
            }),
            ("one raw stream, to disk", &|n| bench.raw(&path, n, "file")),
            ("artifact, verified, to disk", &|n| {
                bench.artifact(&source, id, bytes, n, "transient")
            }),
            ("artifact, verified, flushed to disk", &|n| {
                bench.artifact(&source, id, bytes, n, "durable")
            }),
        ];
        // One after the other in each run: what the machine does meanwhile slows all of them.
        let mut results: Vec<Outcome> = ways.iter().map(|_| Outcome::default()).collect();
        for n in 0..runs {
            for ((_, run), all) in ways.iter().zip(&mut results) {
                all.add(run(n), runs);
            }
        }
        let raw_disk = results[1].median();
        for ((what, _), result) in ways.iter().zip(&results) {
            let rate = f64::from(u32::try_from(mib).unwrap()) / result.median();
            println!(
                "{name} ({delay} ms) | {what:36} | {:7.0} MiB/s | {:5.2} x one raw stream | peak memory {} and {} MiB | {:.1} CPU s | {:.2?}",
                rate,
                raw_disk / result.median(),
                result.server_mib,
                result.client_mib,
                result.cpu_s,
                result.seconds,
            );
        }
    }
}

struct Bench<'a> {
    directory: &'a Path,
    delay: u64,
}

#[derive(Default)]
struct Outcome {
    seconds: Vec<f64>,
    server_mib: u64,
    client_mib: u64,
    cpu_s: f64,
}

impl Outcome {
    /// One more of so many runs.
    fn add(&mut self, one: Self, runs: u64) {
        self.seconds.extend(one.seconds);
        self.server_mib = self.server_mib.max(one.server_mib);
        self.client_mib = self.client_mib.max(one.client_mib);
        self.cpu_s += one.cpu_s / f64::from(u32::try_from(runs).unwrap());
    }

    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

impl Bench<'_> {
    fn raw(&self, path: &Path, n: u64, to: &str) -> Outcome {
        let to = if to == "file" {
            self.directory.join(format!("raw-{n}"))
        } else {
            PathBuf::from(to)
        };
        let outcome = self.run(&["serve-raw", &text(path)], &["get-raw", &text(&to)], &[]);
        if to.starts_with(self.directory) {
            std::fs::remove_file(to).unwrap();
        }
        outcome
    }

    fn artifact(&self, source: &Path, id: ArtifactId, bytes: u64, n: u64, durability: &str) -> Outcome {
        let to = self.directory.join(format!("store-{n}"));
        let tail = [id.to_string(), bytes.to_string(), durability.to_owned()];
        let outcome = self.run(
            &["serve-artifact", &text(source)],
            &["get-artifact", &text(&to)],
            &tail,
        );
        std::fs::remove_dir_all(to).unwrap();
        outcome
    }

    fn run(&self, serve: &[&str], get: &[&str], tail: &[String]) -> Outcome {
        let mut server = child(serve.iter().map(|s| (*s).to_owned()).collect());
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let up = lines.next().unwrap().unwrap();
        let (node, address) = up.split_once(' ').unwrap();
        let address = match self.delay {
            0 => address.to_owned(),
            ms => delay(address.parse().unwrap(), Duration::from_millis(ms) / 2).to_string(),
        };
        let bind = if self.delay == 0 { V4 } else { V6 };
        let mut args: Vec<String> = get.iter().map(|s| (*s).to_owned()).collect();
        args.extend([bind.to_owned(), node.to_owned(), address]);
        args.extend_from_slice(tail);
        let client = child(args).wait_with_output().unwrap();
        let told = String::from_utf8(client.stdout).unwrap();
        let mut told = told.split_whitespace();
        let seconds = told.next().expect("the client told its time").parse().unwrap();
        let client_mib = told.next().unwrap().parse().unwrap();
        let client_cpu_s: f64 = told.next().unwrap().parse().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        let server_mib = peak_mib(&status);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
        let cpu_s = client_cpu_s + cpu_s(&stat);
        server.kill().unwrap();
        server.wait().unwrap();
        Outcome {
            seconds: vec![seconds],
            server_mib,
            client_mib,
            cpu_s,
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn child(args: Vec<String>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn peak_mib(status: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// User and system time, from hundredths of a second after the parenthesised name.
fn cpu_s(stat: &str) -> f64 {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn tell(since: Instant) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    println!(
        "{} {} {}",
        since.elapsed().as_secs_f64(),
        peak_mib(&status),
        cpu_s(&stat)
    );
}

fn endpoint_options(key: u8, bind: &str) -> EndpointOptions {
    EndpointOptions::new([key; 32]).bound_to(bind.parse().unwrap())
}

async fn serve_artifact(directory: &Path) {
    let store = Store::open(directory, u64::MAX).unwrap();
    let endpoint = Endpoint::bind(endpoint_options(1, V4)).await.unwrap();
    endpoint.serve(Routes::new().artifacts(store, Arc::new(|_, _| true)));
    println!("{} {}", endpoint.node(), endpoint.peer().addresses[0]);
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}

async fn get_artifact(
    directory: &Path,
    bind: &str,
    node: &str,
    address: &str,
    artifact: ArtifactRef,
    transient: bool,
) {
    let store = Store::open(directory, u64::MAX).unwrap();
    let endpoint = Endpoint::bind(endpoint_options(2, bind)).await.unwrap();
    let node: NodeId = node.parse().unwrap();
    let peer = Peer {
        node,
        addresses: vec![address.parse().unwrap()],
        relay: None,
    };
    endpoint.set_peer(peer).unwrap();
    let fetch = Fetch::new(artifact, vec![node]);
    let fetch = if transient { fetch.transient() } else { fetch };
    let since = Instant::now();
    let report = endpoint.fetch(&store, fetch, |_| {}).await.unwrap();
    tell(since);
    assert_eq!((report.bytes_fetched, report.failures.len()), (artifact.bytes, 0));
    endpoint.shutdown(Duration::ZERO).await;
}

async fn raw_endpoint(key: u8, bind: &str) -> iroh::Endpoint {
    iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&[key; 32]))
        .relay_mode(iroh::RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(bind)
        .unwrap()
        .alpns(vec![RAW_ALPN.to_vec()])
        .bind()
        .await
        .unwrap()
}

async fn serve_raw(path: &Path) {
    let endpoint = raw_endpoint(1, V4).await;
    println!(
        "{} {}",
        NodeId(*endpoint.id().as_bytes()),
        endpoint.bound_sockets()[0]
    );
    std::io::stdout().flush().unwrap();
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (mut send, _receive) = connection.accept_bi().await.unwrap();
    let mut file = tokio::fs::File::open(path).await.unwrap();
    file.set_max_buf_size(1 << 20);
    tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(1 << 20, file), &mut send)
        .await
        .unwrap();
    send.finish().unwrap();
    std::future::pending::<()>().await;
}

async fn get_raw(path: &str, bind: &str, node: &str, address: &str) {
    let endpoint = raw_endpoint(2, bind).await;
    let node: NodeId = node.parse().unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let address =
        iroh::EndpointAddr::new(iroh::PublicKey::from_bytes(&node.0).unwrap()).with_ip_addr(address);
    let since = Instant::now();
    let connection = endpoint.connect(address, RAW_ALPN).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"get").await.unwrap();
    let mut file = tokio::fs::File::create(path).await.unwrap();
    file.set_max_buf_size(1 << 20);
    let mut writer = tokio::io::BufWriter::with_capacity(1 << 20, file);
    tokio::io::copy(&mut receive, &mut writer).await.unwrap();
    writer.flush().await.unwrap();
    tell(since);
    endpoint.close().await;
}

/// A path to `server` that takes so long each way. Threads and their queue end with this process.
fn delay(server: SocketAddr, one_way: Duration) -> SocketAddr {
    let near = Arc::new(UdpSocket::bind(V6).unwrap());
    let far = Arc::new(UdpSocket::bind(V4).unwrap());
    for socket in [&near, &far] {
        // Or the emulated path would lose packets whenever this process is not scheduled for a few milliseconds.
        socket2::SockRef::from(socket.as_ref())
            .set_recv_buffer_size(4 << 20)
            .unwrap();
    }
    let address = near.local_addr().unwrap();
    let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    let learn = client.clone();
    carry(near.clone(), far.clone(), one_way, move |from| {
        learn.lock().unwrap().get_or_insert(from);
        Some(server)
    });
    carry(far, near, one_way, move |_| *client.lock().unwrap());
    address
}

type Queue = Arc<(Mutex<VecDeque<(Instant, SocketAddr, Vec<u8>)>>, Condvar)>;

/// Packets of half a second at 2 Gbit/s: more are dropped, as a router would.
const QUEUE_MAX: usize = 100_000;

fn carry(
    from: Arc<UdpSocket>,
    to: Arc<UdpSocket>,
    one_way: Duration,
    whither: impl Fn(SocketAddr) -> Option<SocketAddr> + Send + 'static,
) {
    let queue: Queue = Arc::default();
    let filled = queue.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((n_bytes, source)) = from.recv_from(&mut buffer) {
            let Some(target) = whither(source) else { continue };
            let mut waiting = filled.0.lock().unwrap();
            if waiting.len() < QUEUE_MAX {
                waiting.push_back((Instant::now() + one_way, target, buffer[..n_bytes].to_vec()));
            }
            drop(waiting);
            filled.1.notify_one();
        }
    });
    std::thread::spawn(move || {
        loop {
            let mut waiting = queue.0.lock().unwrap();
            while waiting.is_empty() {
                waiting = queue.1.wait(waiting).unwrap();
            }
            let (due, target, packet) = waiting.pop_front().unwrap();
            drop(waiting);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // A packet that cannot be sent is a packet lost.
            let _ = to.send_to(&packet, target);
        }
    });
}
