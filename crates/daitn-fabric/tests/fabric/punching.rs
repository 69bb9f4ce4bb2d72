//! Two nodes behind NATs that keep their ports: they meet on the relay, learn there how they are seen from outside, and
//! go on without it. Each is a process in a network namespace of its own, as the relay is.

use crate::{
    lab::PLENTY,
    net::{ADDRESS, Net, Ports},
};
use daitn_fabric::{DATA_ALPN, Effort, Endpoint, EndpointOptions, Relay, RelayOptions, Routes};
use daitn_messages::{ids::NodeId, session::Peer};
use futures_util::FutureExt;
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

const SERVER_KEY: u8 = 1;

/// A process of this test in a namespace; gone when dropped.
struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(net: &Net, place: &str, role: &str, given: &[(&str, &str)]) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", net.name(place)])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "punching::process_behind_nat",
                "--ignored",
                "--nocapture",
            ])
            .env("PUNCHING_ROLE", role)
            .envs(given.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Waits until it says something that begins like this; the rest of it.
    #[track_caller]
    fn says(&mut self, begin: &str) -> String {
        loop {
            let mut line = String::new();
            let n_bytes = self.lines.read_line(&mut line).unwrap();
            assert!(n_bytes > 0, "it ended without saying `{begin}`");
            // The harness writes the name of the test before the first line.
            if let Some((_, rest)) = line.split_once(begin) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_nodes_behind_nats_that_keep_their_ports_end_with_a_direct_path() {
    let Some(net) = Net::new(Ports::Kept) else {
        return;
    };
    let made = rcgen::generate_simple_self_signed([ADDRESS.to_owned()]).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let authority = hex(made.cert.der());
    let key = hex(&made.signing_key.serialize_der());
    let mut relay = Process::start(
        &net,
        "center",
        "relay",
        &[("PUNCHING_AUTHORITY", &authority), ("PUNCHING_KEY", &key)],
    );
    let url = relay.says("RELAY ");
    let known = [
        ("PUNCHING_AUTHORITY", authority.as_str()),
        ("PUNCHING_RELAY", &url),
    ];
    let mut server = Process::start(&net, "node-a", "server", &known);
    let node = server.says("SERVER ");
    let known = [&known[..], &[("PUNCHING_SERVER", node.as_str())]].concat();
    let mut client = Process::start(&net, "node-b", "client", &known);
    client.says("CONNECTED");
    client.says("DIRECT");
}

fn given(name: &str) -> String {
    std::env::var(name).unwrap()
}

fn bytes(name: &str) -> Vec<u8> {
    let text = given(name);
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

/// Not a test: the processes of the test above.
#[test]
#[ignore = "run as processes of its own by the test above"]
fn process_behind_nat() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match given("PUNCHING_ROLE").as_str() {
            "relay" => {
                let relay = relay().await;
                say(&format!("RELAY {}", relay.url()));
                until_stdin_ends();
            }
            "server" => {
                let server = node(SERVER_KEY).await;
                server.serve(Routes::new().on(DATA_ALPN, 10, |_| async {}));
                say(&format!("SERVER {}", server.node()));
                until_stdin_ends();
            }
            _ => client().await,
        }
    });
}

#[expect(clippy::print_stdout, reason = "the test reads it")]
fn say(line: &str) {
    println!("{line}");
}

fn until_stdin_ends() {
    // Whatever comes is of no interest.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

async fn relay() -> Relay {
    let key = rustls::pki_types::PrivateKeyDer::try_from(bytes("PUNCHING_KEY")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![bytes("PUNCHING_AUTHORITY").into()], key)
        .unwrap();
    let everybody = |_, _| std::future::ready(true).boxed();
    let address = format!("{ADDRESS}:0").parse().unwrap();
    let mut options = RelayOptions::new(address, Arc::new(everybody));
    options.tls = Some(Arc::new(tls));
    Relay::bind(options).await.unwrap()
}

async fn node(key: u8) -> Endpoint {
    let mut options = EndpointOptions::new([key; 32]);
    options.bind = vec!["0.0.0.0:0".parse().unwrap()];
    options.relays = vec![given("PUNCHING_RELAY")];
    options.relay_authorities = vec![bytes("PUNCHING_AUTHORITY")];
    let node = Endpoint::bind(options).await.unwrap();
    assert!(node.relay_connected(PLENTY).await);
    node
}

/// Dials the server, of which it knows the relay only, and works on that connection until it is direct.
async fn client() {
    let client = node(2).await;
    let server: NodeId = given("PUNCHING_SERVER").parse().unwrap();
    let peer = Peer {
        node: server,
        addresses: Vec::new(),
        relay: Some(given("PUNCHING_RELAY")),
    };
    client.set_peer(peer).unwrap();
    let connection = client.connect(server, DATA_ALPN, PLENTY).await.unwrap();
    say("CONNECTED");
    let becomes_direct = async { while connection.probe(Effort::default()).await.unwrap().relayed {} };
    tokio::time::timeout(PLENTY, becomes_direct).await.unwrap();
    say("DIRECT");
}
