//! Sessions: both directions, bounds, cancellation, panics, reconnecting.

use crate::lab::{PLENTY, Victim, bytes_of, endpoint, introduce, options};
use daitn_fabric::{
    CONTROL_ALPN, ConnectError, DATA_ALPN, Effort, Endpoint, EndpointLimits, IncomingSession, Refusal,
    Routes, SessionError,
};
use daitn_messages::{ids::NodeId, session::Peer};
use futures_util::{StreamExt, future::join_all};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, Semaphore, mpsc},
};

const HEADER_MAX: usize = 1024;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Greeting {
    text: String,
}

fn greeting(text: &str) -> Greeting {
    Greeting {
        text: text.to_owned(),
    }
}

/// Answers a greeting with itself and who sent it.
async fn greet(incoming: IncomingSession) {
    let asked: Greeting = incoming.header().unwrap();
    let remote = incoming.remote.short();
    let mut session = incoming.session;
    session
        .send_last(&greeting(&format!("{} from {remote}", asked.text)))
        .await
        .unwrap();
}

async fn ask(from: &Endpoint, to: NodeId, text: &str) -> Result<String, SessionError> {
    let connection = from.connection_to(to, DATA_ALPN, PLENTY).await.unwrap();
    connection
        .request(&greeting(text), HEADER_MAX, PLENTY)
        .await
        .map(|reply: Greeting| reply.text)
}

/// A server with one handler, and a client that knows it.
async fn pair<H, F>(limits: EndpointLimits, handler: H) -> (Endpoint, Endpoint)
where
    H: Fn(IncomingSession) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut server = options(1);
    server.limits = limits;
    let server = Endpoint::bind(server).await.unwrap();
    server.serve(Routes::new().on(DATA_ALPN, HEADER_MAX, handler));
    let client = endpoint(2).await;
    introduce(&server, &client);
    (server, client)
}

#[tokio::test]
async fn a_request_gets_its_reply_and_its_sender_is_proven() {
    let (server, client) = pair(EndpointLimits::default(), greet).await;
    let reply = ask(&client, server.node(), "hello").await.unwrap();
    assert_eq!(reply, format!("hello from {}", client.node().short()));
    // The key in the id is the Ed25519 public key of the secret.
    let key = ed25519_dalek::SigningKey::from_bytes(&[2; 32]).verifying_key();
    assert_eq!(client.node().0, key.to_bytes());
    ask(&client, server.node(), "again").await.unwrap();
    let (metrics, served) = (client.metrics(), server.metrics());
    assert_eq!(
        (metrics.connections_total, metrics.streams_opened_total),
        (1, 2),
        "the connection is used again"
    );
    assert_eq!(
        (served.connections_accepted_open, served.streams_accepted_total),
        (1, 2)
    );
    assert_eq!(served.bytes_received_total, metrics.bytes_sent_total);
    server.shutdown(PLENTY).await;
    client.shutdown(PLENTY).await;
}

#[tokio::test]
async fn a_node_that_only_dials_out_is_reached_on_its_own_connection() {
    let center = endpoint(1).await;
    center.serve(Routes::new().on(CONTROL_ALPN, HEADER_MAX, greet));
    let node = endpoint(2).await;
    node.serve(Routes::new().on(CONTROL_ALPN, HEADER_MAX, greet));
    introduce(&center, &node);
    let mut link = node.keep_connected(center.node(), CONTROL_ALPN);
    link.connected()
        .await
        .unwrap()
        .request::<_, Greeting>(&greeting("up"), HEADER_MAX, PLENTY)
        .await
        .unwrap();
    // The center knows no address of the node.
    let error = center
        .connect(node.node(), CONTROL_ALPN, PLENTY)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::UnknownPeer(_)), "{error}");
    let back = center
        .connection_to(node.node(), CONTROL_ALPN, PLENTY)
        .await
        .unwrap();
    assert!(!back.is_dialled());
    let reply: Greeting = back
        .request(&greeting("order"), HEADER_MAX, PLENTY)
        .await
        .unwrap();
    assert_eq!(reply.text, format!("order from {}", center.node().short()));
    assert_eq!(center.inbound_nodes(), [node.node()]);
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let (server, client) = pair(EndpointLimits::default(), greet).await;
    let texts: Vec<String> = (0..300).map(|n| format!("request {n}")).collect();
    let replies = join_all(texts.iter().map(|text| ask(&client, server.node(), text))).await;
    for (text, reply) in texts.iter().zip(replies) {
        assert!(reply.unwrap().starts_with(text));
    }
    assert_eq!(client.metrics().connections_total, 1);
}

#[tokio::test]
async fn frames_over_their_bound_are_refused_on_both_sides() {
    let (server, client) = pair(EndpointLimits::default(), greet).await;
    let error = ask(&client, server.node(), &"x".repeat(HEADER_MAX))
        .await
        .unwrap_err();
    assert_eq!(error, SessionError::Refused(Refusal::TooLarge));
    let connection = client
        .connection_to(server.node(), DATA_ALPN, PLENTY)
        .await
        .unwrap();
    let error = connection
        .request::<_, Greeting>(&greeting("hello"), 8, PLENTY)
        .await
        .unwrap_err();
    assert!(matches!(error, SessionError::TooLarge { max: 8, .. }), "{error}");
    assert!(ask(&client, server.node(), "still there").await.is_ok());
}

#[tokio::test]
async fn a_stranger_gets_little_room_until_it_is_welcomed() {
    const STRANGER_MAX: usize = 64;
    let limits = EndpointLimits {
        strangers_max: 1,
        ..EndpointLimits::default()
    };
    let mut server = options(1);
    server.limits = limits;
    let server = Endpoint::bind(server).await.unwrap();
    let door = |incoming: IncomingSession| async move {
        if incoming
            .header::<Greeting>()
            .is_ok_and(|asked| asked.text == "let me in")
        {
            incoming.connection.welcome();
        }
        greet(incoming).await;
    };
    server.serve(
        Routes::new()
            .on(DATA_ALPN, HEADER_MAX, door)
            .strangers(DATA_ALPN, STRANGER_MAX),
    );
    let (first, second) = (endpoint(2).await, endpoint(3).await);
    introduce(&server, &first);
    introduce(&server, &second);
    let long = "x".repeat(STRANGER_MAX);
    let refused = |result: Result<String, SessionError>| match result {
        Err(SessionError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(ask(&first, server.node(), &long).await),
        Refusal::TooLarge
    );
    // The only place is taken, until its holder is a stranger no more.
    assert_eq!(
        refused(ask(&second, server.node(), "hello").await),
        Refusal::Overloaded
    );
    ask(&first, server.node(), "let me in").await.unwrap();
    assert!(ask(&first, server.node(), &long).await.is_ok());
    assert!(ask(&second, server.node(), "hello").await.is_ok());
    assert_eq!(
        refused(ask(&second, server.node(), &long).await),
        Refusal::TooLarge
    );
    // Now the second has the place. Who was welcomed once is let in all the same, also by another endpoint that was told
    // of it, and is a stranger again until it is welcomed.
    first.shutdown(PLENTY).await;
    let again = endpoint(2).await;
    introduce(&server, &again);
    assert!(ask(&again, server.node(), "hello").await.is_ok());
    assert_eq!(
        refused(ask(&again, server.node(), &long).await),
        Refusal::TooLarge
    );
    let third = endpoint(4).await;
    introduce(&server, &third);
    assert_eq!(
        refused(ask(&third, server.node(), "hello").await),
        Refusal::Overloaded
    );
    server.acquaint([third.node()]);
    assert!(ask(&third, server.node(), "hello").await.is_ok());
}

#[tokio::test]
async fn a_reply_of_another_form_is_malformed() {
    let (server, client) = pair(
        EndpointLimits::default(),
        |incoming: IncomingSession| async move {
            let mut session = incoming.session;
            session.sender().send_frame(b"\xff\xff").await.unwrap();
            session.sender().finish().unwrap();
        },
    )
    .await;
    let error = ask(&client, server.node(), "hello").await.unwrap_err();
    assert!(matches!(error, SessionError::Malformed(_)), "{error}");
}

#[tokio::test]
async fn sessions_over_the_bound_are_refused_as_overloaded() {
    let (entered, mut has_entered) = mpsc::channel(8);
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let limits = EndpointLimits {
        streams_max: 1,
        ..EndpointLimits::default()
    };
    let (server, client) = pair(limits, move |incoming| {
        let (entered, release) = (entered.clone(), release.clone());
        async move {
            entered.send(()).await.unwrap();
            release.notified().await;
            greet(incoming).await;
        }
    })
    .await;
    let node = server.node();
    let first = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, node, "first").await }
    });
    has_entered.recv().await.unwrap();
    assert_eq!(
        ask(&client, node, "second").await.unwrap_err(),
        SessionError::Refused(Refusal::Overloaded)
    );
    released.notify_one();
    first.await.unwrap().unwrap();
    assert_eq!(server.metrics().streams_refused_total, 1);
}

#[tokio::test]
async fn a_peer_waits_where_it_has_too_many_streams_open() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    let (most_seen, open_gate) = (most.clone(), gate.clone());
    let (entered, mut has_entered) = mpsc::channel(8);
    let limits = EndpointLimits {
        streams_per_connection_max: 2,
        ..EndpointLimits::default()
    };
    let (server, client) = pair(limits, move |incoming| {
        let (inside, most, gate, entered) = (inside.clone(), most.clone(), gate.clone(), entered.clone());
        async move {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            entered.send(()).await.unwrap();
            gate.acquire().await.unwrap().forget();
            inside.fetch_sub(1, Ordering::SeqCst);
            greet(incoming).await;
        }
    })
    .await;
    let node = server.node();
    let asking: Vec<_> = (0..6)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ask(&client, node, "hello").await })
        })
        .collect();
    has_entered.recv().await.unwrap();
    has_entered.recv().await.unwrap();
    open_gate.add_permits(6);
    for task in asking {
        task.await.unwrap().unwrap();
    }
    assert_eq!(most_seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_panic_ends_its_own_session_only() {
    let (server, client) = pair(
        EndpointLimits::default(),
        |incoming: IncomingSession| async move {
            let asked: Greeting = incoming.header().unwrap();
            assert_ne!(asked.text, "panic", "as asked for");
            greet(incoming).await;
        },
    )
    .await;
    let error = ask(&client, server.node(), "panic").await.unwrap_err();
    assert_eq!(error, SessionError::Refused(Refusal::Cancelled));
    assert!(ask(&client, server.node(), "hello").await.is_ok());
    let metrics = server.metrics();
    assert_eq!((metrics.handler_panics_total, metrics.connections_total), (1, 1));
}

#[tokio::test]
async fn a_handler_learns_that_the_asker_has_gone() {
    let (gone, mut has_gone) = mpsc::channel(1);
    let (server, client) = pair(EndpointLimits::default(), move |incoming: IncomingSession| {
        let gone = gone.clone();
        async move {
            let mut session = incoming.session;
            session.send(&greeting("working")).await.unwrap();
            session.sender().abandoned().await;
            gone.send(()).await.unwrap();
        }
    })
    .await;
    let connection = client.connect(server.node(), DATA_ALPN, PLENTY).await.unwrap();
    let mut session = connection.open(&greeting("work"), PLENTY).await.unwrap();
    let _: Greeting = session.recv(HEADER_MAX).await.unwrap();
    drop(session);
    tokio::time::timeout(PLENTY, has_gone.recv())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
    let (server, client) = pair(
        EndpointLimits::default(),
        |incoming: IncomingSession| async move {
            let mut session = incoming.session;
            session.sender().send_bytes(vec![7u8; 1000].into()).await.unwrap();
            // Dropped without finish.
        },
    )
    .await;
    let connection = client.connect(server.node(), DATA_ALPN, PLENTY).await.unwrap();
    let session = connection.open(&greeting("body"), PLENTY).await.unwrap();
    let (_sender, receiver) = session.split();
    let parts: Vec<_> = receiver.into_stream().collect().await;
    assert_eq!(
        parts.last().unwrap(),
        &Err(SessionError::Refused(Refusal::Cancelled))
    );
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let (server, client) = pair(
        EndpointLimits::default(),
        |incoming: IncomingSession| async move {
            let (mut sender, mut receiver) = incoming.session.split();
            tokio::io::copy(&mut receiver, &mut sender).await.unwrap();
            sender.shutdown().await.unwrap();
        },
    )
    .await;
    let connection = client.connect(server.node(), DATA_ALPN, PLENTY).await.unwrap();
    let (mut sender, mut receiver) = connection.open(&greeting("echo"), PLENTY).await.unwrap().split();
    let body = bytes_of(1, 5_000_000);
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        sender.write_all(&sent).await.unwrap();
        sender.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    receiver.read_to_end(&mut back).await.unwrap();
    sending.await.unwrap();
    assert!(back == body);
}

#[tokio::test]
async fn a_sender_waits_for_a_reader_that_does_not_read() {
    let release = Arc::new(Notify::new());
    let hold = release.clone();
    let (server, client) = pair(EndpointLimits::default(), move |incoming: IncomingSession| {
        let hold = hold.clone();
        async move {
            let _session = incoming.session;
            hold.notified().await;
        }
    })
    .await;
    let connection = client.connect(server.node(), DATA_ALPN, PLENTY).await.unwrap();
    let mut session = connection.open(&greeting("flood"), PLENTY).await.unwrap();
    session.set_timeout(Duration::from_millis(300));
    let error = session
        .sender()
        .send_bytes(vec![0u8; 64 << 20].into())
        .await
        .unwrap_err();
    assert!(matches!(error, SessionError::TimedOut(_)), "{error}");
    release.notify_one();
}

#[tokio::test]
async fn who_is_not_admitted_is_turned_away() {
    let mut guarded = options(1);
    let friend = endpoint(3).await;
    let admitted = friend.node();
    guarded.admit = Arc::new(move |node, _| node == admitted);
    let server = Endpoint::bind(guarded).await.unwrap();
    server.serve(Routes::new().on(DATA_ALPN, HEADER_MAX, greet));
    let stranger = endpoint(2).await;
    introduce(&server, &stranger);
    introduce(&server, &friend);
    let error = ask(&stranger, server.node(), "hello").await.unwrap_err();
    assert_eq!(error, SessionError::Refused(Refusal::Denied));
    assert!(ask(&friend, server.node(), "hello").await.is_ok());
    // Revoked while it is connected.
    server.disconnect(admitted);
    let connection = friend.connect(server.node(), DATA_ALPN, PLENTY).await.unwrap();
    assert_eq!(connection.closed().await, SessionError::Refused(Refusal::Denied));
}

#[tokio::test]
async fn connections_of_one_peer_are_bounded() {
    let mut server = options(1);
    server.limits.connections_per_peer_max = 1;
    let server = Endpoint::bind(server).await.unwrap();
    server.serve(
        Routes::new()
            .on(DATA_ALPN, HEADER_MAX, greet)
            .on(CONTROL_ALPN, HEADER_MAX, greet),
    );
    let client = endpoint(2).await;
    introduce(&server, &client);
    assert!(ask(&client, server.node(), "one").await.is_ok());
    let second = client.connect(server.node(), CONTROL_ALPN, PLENTY).await.unwrap();
    assert_eq!(second.closed().await, SessionError::Refused(Refusal::Overloaded));
    assert_eq!(server.metrics().connections_refused_total, 1);
}

#[tokio::test]
async fn an_idle_connection_makes_room_and_a_busy_one_does_not() {
    let mut small = options(2);
    small.limits.connections_max = 1;
    let client = Endpoint::bind(small).await.unwrap();
    let (one, two) = (endpoint(3).await, endpoint(4).await);
    for server in [&one, &two] {
        server.serve(Routes::new().on(DATA_ALPN, HEADER_MAX, greet));
        introduce(server, &client);
    }
    let held = client.connect(one.node(), DATA_ALPN, PLENTY).await.unwrap();
    let error = client.connect(two.node(), DATA_ALPN, PLENTY).await.unwrap_err();
    assert!(matches!(error, ConnectError::TooMany { max: 1 }), "{error}");
    drop(held);
    assert!(ask(&client, two.node(), "hello").await.is_ok());
}

#[tokio::test]
async fn a_protocol_that_is_not_served_is_not_spoken() {
    let (server, client) = pair(EndpointLimits::default(), greet).await;
    let error = client
        .connect(server.node(), CONTROL_ALPN, PLENTY)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Failed { .. }), "{error}");
    // The other way round there is a connection, but nobody answers on it.
    ask(&client, server.node(), "hello").await.unwrap();
    let back = server
        .connection_to(client.node(), DATA_ALPN, PLENTY)
        .await
        .unwrap();
    let error = back
        .request::<_, Greeting>(&greeting("hello"), HEADER_MAX, PLENTY)
        .await
        .unwrap_err();
    assert_eq!(error, SessionError::Refused(Refusal::Unsupported));
}

#[tokio::test]
async fn whom_nobody_knows_or_who_is_dead_is_told_apart() {
    let client = endpoint(2).await;
    let nobody = endpoint(3).await;
    let error = client
        .connect(nobody.node(), DATA_ALPN, PLENTY)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::UnknownPeer(_)), "{error}");
    let error = client
        .connect(client.node(), DATA_ALPN, PLENTY)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::ToSelf(_)), "{error}");
    let dead = nobody.peer();
    nobody.shutdown(PLENTY).await;
    client.set_peer(dead).unwrap();
    let error = client
        .connect(nobody.node(), DATA_ALPN, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::TimedOut { .. } | ConnectError::Failed { .. }),
        "{error}"
    );
    let off_the_curve = (0..)
        .find(|n| ed25519_dalek::VerifyingKey::from_bytes(&[*n; 32]).is_err())
        .unwrap();
    let not_a_key = Peer {
        node: NodeId([off_the_curve; 32]),
        addresses: Vec::new(),
        relay: None,
    };
    assert!(client.set_peer(not_a_key).is_err());
    let bad_relay = Peer {
        relay: Some("not a url".to_owned()),
        ..client.peer()
    };
    assert!(client.set_peer(bad_relay).is_err());
}

#[tokio::test]
async fn shutting_down_lets_a_session_end() {
    let (entered, mut has_entered) = mpsc::channel(1);
    let release = Arc::new(Notify::new());
    let hold = release.clone();
    let (server, client) = pair(EndpointLimits::default(), move |incoming| {
        let (entered, hold) = (entered.clone(), hold.clone());
        async move {
            entered.send(()).await.unwrap();
            hold.notified().await;
            greet(incoming).await;
        }
    })
    .await;
    let node = server.node();
    let asking = tokio::spawn(async move { ask(&client, node, "last").await });
    has_entered.recv().await.unwrap();
    let closing = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown(PLENTY).await }
    });
    release.notify_one();
    assert!(asking.await.unwrap().unwrap().starts_with("last"));
    closing.await.unwrap();
}

#[tokio::test]
async fn a_link_comes_back_when_the_peer_restarts() {
    let routes = || Routes::new().on(DATA_ALPN, HEADER_MAX, greet);
    let victim = Victim::start(options(1), routes()).await;
    let (peer, node) = (victim.peer.clone(), victim.node);
    let client = endpoint(2).await;
    client.set_peer(peer.clone()).unwrap();
    let mut link = client.keep_connected(node, DATA_ALPN);
    let before = link.connected().await.unwrap();
    before
        .request::<_, Greeting>(&greeting("before"), HEADER_MAX, PLENTY)
        .await
        .unwrap();
    victim.kill();
    let why = before.closed().await;
    assert!(why.is_transient(), "{why}");
    // The same key at the same address, as after a restart.
    let again = Victim::start(options(1).bound_to(peer.addresses[0]), routes()).await;
    let after = tokio::time::timeout(PLENTY, link.connected())
        .await
        .unwrap()
        .unwrap();
    after
        .request::<_, Greeting>(&greeting("after"), HEADER_MAX, PLENTY)
        .await
        .unwrap();
    again.kill();
}

#[tokio::test]
async fn a_probe_measures_a_direct_path() {
    let (server, client) = pair(EndpointLimits::default(), greet).await;
    let connection = client.connect(server.node(), DATA_ALPN, PLENTY).await.unwrap();
    let probe = connection.probe(Effort::default()).await.unwrap();
    assert!(
        probe.rtt_micros > 0 && probe.throughput_bytes_per_s > 0 && !probe.relayed,
        "{probe:?}"
    );
    let moved = client.metrics().bytes_received_total;
    assert!(moved <= 256 * 1024, "a probe of {moved} bytes");
    let light = connection
        .probe(Effort {
            bytes_max: 0,
            ..Effort::default()
        })
        .await
        .unwrap();
    assert_eq!(light.throughput_bytes_per_s, 0);
    assert_eq!(client.metrics().bytes_received_total, moved);
}
