//! The embedded relay: two endpoints without UDP that meet on it, and whom it turns away.

use crate::lab::{GIB, PLENTY, bytes_of, introduce, options, reference, store, to_anybody};
use daitn_fabric::{
    DATA_ALPN, Effort, Endpoint, EndpointOptions, Relay, RelayOptions, Routes,
    artifact::{Durability, Fetch},
};
use daitn_messages::ids::NodeId;
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

fn relay_only(key: u8, relay: &Relay) -> EndpointOptions {
    let mut options = options(key);
    options.bind.clear();
    options.direct = false;
    options.relays = vec![relay.url()];
    options
}

async fn relay(access: impl Fn(NodeId) -> bool + Send + Sync + 'static) -> Relay {
    Relay::bind(RelayOptions::new(
        (Ipv4Addr::LOCALHOST, 0).into(),
        Arc::new(access),
    ))
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_meet_on_the_relay_only() {
    let relay = relay(|_| true).await;
    let bytes = bytes_of(1, 1 << 20);
    let (_a, there) = store();
    let (_b, here) = store();
    there
        .put_bytes(bytes.clone(), Durability::Transient)
        .await
        .unwrap();
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
    let mut options = RelayOptions::new((Ipv4Addr::LOCALHOST, 0).into(), Arc::new(|_| true));
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
