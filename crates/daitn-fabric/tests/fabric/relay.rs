//! The embedded relay: two endpoints without UDP that meet on it, and whom it turns away.

use crate::lab::{GIB, PLENTY, bytes_of, introduce, options, reference, store, store_with, to_anybody};
use daitn_fabric::{
    DATA_ALPN, Effort, Endpoint, EndpointOptions, Relay, RelayOptions, Routes, artifact::Fetch,
};
use daitn_messages::ids::NodeId;
use futures_util::FutureExt;
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

fn relay_only(key: u8, relay: &Relay) -> EndpointOptions {
    let mut options = options(key);
    options.bind.clear();
    options.direct = false;
    options.relays = vec![relay.url()];
    options
}

async fn relay(access: impl Fn(NodeId) -> bool + Send + Sync + 'static) -> Relay {
    Relay::bind(at(Ipv4Addr::LOCALHOST, access)).await.unwrap()
}

fn at(address: Ipv4Addr, access: impl Fn(NodeId) -> bool + Send + Sync + 'static) -> RelayOptions {
    let access = move |node, _| std::future::ready(access(node)).boxed();
    RelayOptions::new((address, 0).into(), Arc::new(access))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_meet_on_the_relay_only() {
    let relay = relay(|_| true).await;
    let bytes = bytes_of(1, 1 << 20);
    let (_a, there) = store_with(&bytes).await;
    let (_b, here) = store();
    let server = Endpoint::bind(relay_only(1, &relay)).await.unwrap();
    let client = Endpoint::bind(relay_only(2, &relay)).await.unwrap();
    server.serve(Routes::new().artifacts(there, to_anybody()));
    assert!(server.relay_connected(PLENTY).await && client.relay_connected(PLENTY).await);
    let peer = server.peer();
    assert_eq!((peer.addresses.len(), peer.relay.is_some()), (0, true));
    introduce(&server, &client);
    let fetch = Fetch::new(reference(&bytes), vec![server.node()]);
    client.fetch(&here, fetch, |_| {}).await.unwrap();
    assert!(here.read(reference(&bytes).id, GIB).await.unwrap() == bytes);
    let connection = client.connect(server.node(), DATA_ALPN, PLENTY).await.unwrap();
    let probe = connection.probe(Effort::default()).await.unwrap();
    assert!(probe.relayed && probe.rtt_micros > 0, "{probe:?}");
    assert!(
        relay.bytes_relayed() > bytes.len() as u64,
        "{} bytes",
        relay.bytes_relayed()
    );
    client.shutdown(PLENTY).await;
    server.shutdown(PLENTY).await;
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_turns_away_whom_it_does_not_serve() {
    let allowed = NodeId(
        ed25519_dalek::SigningKey::from_bytes(&[1; 32])
            .verifying_key()
            .to_bytes(),
    );
    let relay = relay(move |node| node == allowed).await;
    let friend = Endpoint::bind(relay_only(1, &relay)).await.unwrap();
    let stranger = Endpoint::bind(relay_only(2, &relay)).await.unwrap();
    assert!(friend.relay_connected(PLENTY).await);
    assert!(!stranger.relay_connected(Duration::from_secs(2)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_serves_so_many_and_no_more() {
    let mut options = at(Ipv4Addr::LOCALHOST, |_| true);
    options.clients_max = 1;
    let relay = Relay::bind(options).await.unwrap();
    let first = Endpoint::bind(relay_only(1, &relay)).await.unwrap();
    assert!(first.relay_connected(PLENTY).await);
    let second = Endpoint::bind(relay_only(2, &relay)).await.unwrap();
    assert!(!second.relay_connected(Duration::from_secs(2)).await);
    // Who leaves makes room.
    first.shutdown(PLENTY).await;
    assert!(second.relay_connected(PLENTY).await);
}

/// A certificate for loopback that signs itself, and a server's configuration with it.
fn certificate() -> (Vec<u8>, Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let der = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .unwrap();
    (der.to_vec(), Arc::new(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_tls_tells_a_node_its_address_and_is_not_believed_without_a_certificate() {
    let (authority, tls) = certificate();
    let mut options = at(Ipv4Addr::LOCALHOST, |_| true);
    options.tls = Some(tls);
    let relay = Relay::bind(options).await.unwrap();
    assert!(relay.url().starts_with("https://127.0.0.1:"));
    let mut trusting = EndpointOptions::new([1; 32]);
    trusting.bind = vec![(Ipv4Addr::UNSPECIFIED, 0).into()];
    trusting.relays = vec![relay.url()];
    let mut doubting = trusting.clone();
    trusting.relay_authorities = vec![authority];
    let trusting = Endpoint::bind(trusting).await.unwrap();
    assert!(trusting.relay_connected(PLENTY).await);
    // Bound to all interfaces it does not know by itself that it is seen from loopback.
    let learns = async {
        while !trusting
            .peer()
            .addresses
            .iter()
            .any(|address| address.ip().is_loopback())
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PLENTY, learns).await.unwrap();
    doubting.bind = vec![(Ipv4Addr::LOCALHOST, 0).into()];
    let doubting = Endpoint::bind(doubting).await.unwrap();
    assert!(!doubting.relay_connected(Duration::from_secs(2)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bound_to_all_interfaces_a_node_says_where_it_is_found() {
    let mut everywhere = EndpointOptions::new([1; 32]);
    everywhere.bind = vec![(Ipv4Addr::UNSPECIFIED, 0).into()];
    let server = Endpoint::bind(everywhere).await.unwrap();
    server.serve(Routes::new().on(DATA_ALPN, 10, |_| async {}));
    let client = Endpoint::bind(EndpointOptions::new([2; 32])).await.unwrap();
    let addresses = server.peer().addresses;
    assert!(
        !addresses.is_empty() && addresses.iter().all(|a| !a.ip().is_unspecified()),
        "{addresses:?}"
    );
    introduce(&server, &client);
    client.connect(server.node(), DATA_ALPN, PLENTY).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_up_a_relay_and_changes_it_while_it_runs() {
    let (first, second) = (relay(|_| true).await, relay(|_| true).await);
    let mut plain = relay_only(1, &first);
    plain.relays.clear();
    let node = Endpoint::bind(plain).await.unwrap();
    assert_eq!(node.peer().relay, None);
    for relay in [&first, &second] {
        node.set_relay(Some(&relay.url())).await.unwrap();
        // It says so at once, and is found there: by somebody who has been told of that relay alone.
        let peer = node.peer();
        assert_eq!(
            peer.relay
                .as_deref()
                .map(|url| url.trim_end_matches('/').to_owned()),
            Some(relay.url())
        );
        node.serve(Routes::new().on(DATA_ALPN, 10, |_| async {}));
        let other = Endpoint::bind(relay_only(2, relay)).await.unwrap();
        other.set_peer(peer).unwrap();
        other.connect(node.node(), DATA_ALPN, PLENTY).await.unwrap();
        other.shutdown(PLENTY).await;
    }
    assert!(node.set_relay(Some("no url")).await.is_err());
    node.set_relay(None).await.unwrap();
    assert_eq!(node.peer().relay, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_is_told_the_pass_and_breaks_off_whom_it_is_told_to() {
    let (asked, mut asks) = tokio::sync::mpsc::channel(8);
    let access = move |_, pass: Option<String>| {
        let asked = asked.clone();
        let admitted = pass.as_deref() == Some("open sesame");
        async move {
            let _ = asked.send(pass).await;
            admitted
        }
        .boxed()
    };
    let relay = Relay::bind(RelayOptions::new(
        (Ipv4Addr::LOCALHOST, 0).into(),
        Arc::new(access),
    ))
    .await
    .unwrap();
    let mut with_pass = relay_only(1, &relay);
    with_pass.relay_pass = Some("open sesame".to_owned());
    let guest = Endpoint::bind(with_pass).await.unwrap();
    assert!(guest.relay_connected(PLENTY).await);
    assert_eq!(asks.recv().await.unwrap().as_deref(), Some("open sesame"));
    relay.door().disconnect(guest.node());
    // Broken off it comes back by itself, and is asked about again.
    let again = tokio::time::timeout(PLENTY, asks.recv()).await.unwrap();
    assert_eq!(again.unwrap().as_deref(), Some("open sesame"));
}
