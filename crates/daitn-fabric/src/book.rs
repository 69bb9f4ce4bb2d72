//! The address book: by which ways each peer may be reached.
//!
//! Whoever restarts has another port, and who tells of it may tell late, twice, or after something older that was written
//! down before. So what is new goes before what is known and takes nothing away: a dial tries all ways at once, a way that
//! leads nowhere costs a packet, and a peer is known by its key wherever it answers.

use crate::{error::PeerError, limits::PEERS_MAX, options::address_of};
use daitn_messages::{ids::NodeId, limits::ADDRESSES_MAX, session::Peer};
use std::{collections::HashMap, net::SocketAddr};

/// How new what is told of a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// From the peer itself, or from who has just heard from it.
    Now,
    /// From somebody who was told some time ago.
    Earlier,
}

/// Peers and their ways.
#[derive(Debug, Default)]
pub(crate) struct Book(HashMap<NodeId, Peer>);

impl Book {
    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.0.get(&node)
    }

    /// Only these ways. Whether they are others than before.
    ///
    /// # Errors
    /// Where the peer's key or relay is malformed, or the book is full.
    pub(crate) fn set(&mut self, peer: Peer) -> Result<bool, PeerError> {
        // What cannot be dialled is refused here, where its source is still known.
        address_of(&peer)?;
        if self.0.len() >= PEERS_MAX && !self.0.contains_key(&peer.node) {
            return Err(PeerError::Full { max: PEERS_MAX });
        }
        let is_news = self.0.get(&peer.node) != Some(&peer);
        self.0.insert(peer.node, peer);
        Ok(is_news)
    }

    /// These ways too. Whether there is one that was not known.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub(crate) fn add(&mut self, peer: Peer, heard: Heard) -> Result<bool, PeerError> {
        let Some(known) = self.0.get(&peer.node) else {
            return self.set(peer);
        };
        address_of(&peer)?;
        let (first, second) = match heard {
            Heard::Now => (&peer, known),
            Heard::Earlier => (known, &peer),
        };
        let mut addresses: Vec<SocketAddr> = Vec::with_capacity(ADDRESSES_MAX);
        for address in first.addresses.iter().chain(&second.addresses) {
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        let relay = first.relay.as_ref().or(second.relay.as_ref()).cloned();
        let is_news =
            relay != known.relay || addresses.iter().any(|address| !known.addresses.contains(address));
        let node = peer.node;
        self.0.insert(
            node,
            Peer {
                node,
                addresses,
                relay,
            },
        );
        Ok(is_news)
    }

    /// A peer has been seen at this address. Nothing is noted of who is not in the book.
    pub(crate) fn seen(&mut self, node: NodeId, address: SocketAddr) {
        if self.0.contains_key(&node) {
            let peer = Peer {
                node,
                addresses: vec![address],
                relay: None,
            };
            // An address alone is never malformed.
            let _ = self.add(peer, Heard::Now);
        }
    }

    pub(crate) fn remove(&mut self, node: NodeId) {
        self.0.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ports: &[u16], relay: Option<&str>) -> Peer {
        let key = daitn_messages::signed::NodeKey::from_bytes(&[1; 32]);
        Peer {
            node: key.id(),
            addresses: ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect(),
            relay: relay.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn what_was_said_earlier_takes_no_newer_way_away_and_is_kept_behind_it() {
        let (home, moved) = (Some("https://home.example/"), Some("https://moved.example/"));
        // What is known, what is told and how new, what is known then, and whether it was news.
        let cases = [
            (
                peer(&[1], None),
                peer(&[2], None),
                Heard::Now,
                peer(&[2, 1], None),
                true,
            ),
            (
                peer(&[2, 1], None),
                peer(&[1], None),
                Heard::Earlier,
                peer(&[2, 1], None),
                false,
            ),
            (
                peer(&[2], None),
                peer(&[1], None),
                Heard::Earlier,
                peer(&[2, 1], None),
                true,
            ),
            (
                peer(&[2, 1], None),
                peer(&[1], None),
                Heard::Now,
                peer(&[1, 2], None),
                false,
            ),
            (
                peer(&[1], home),
                peer(&[], None),
                Heard::Now,
                peer(&[1], home),
                false,
            ),
            (
                peer(&[1], home),
                peer(&[2], moved),
                Heard::Now,
                peer(&[2, 1], moved),
                true,
            ),
            (
                peer(&[1], moved),
                peer(&[1], home),
                Heard::Earlier,
                peer(&[1], moved),
                false,
            ),
        ];
        for (known, told, heard, expected, is_news) in cases {
            let mut book = Book::default();
            book.set(known.clone()).unwrap();
            let said = format!("{known:?} and {heard:?} {told:?}");
            assert_eq!(book.add(told, heard).unwrap(), is_news, "{said}");
            assert_eq!(book.get(known.node), Some(&expected), "{said}");
        }
    }

    #[test]
    fn the_newest_ways_are_kept_where_there_are_too_many() {
        let mut book = Book::default();
        let n_ports = u16::try_from(ADDRESSES_MAX).unwrap() + 9;
        for port in 1..=n_ports {
            book.add(peer(&[port], None), Heard::Now).unwrap();
        }
        let node = peer(&[], None).node;
        let ports: Vec<u16> = (10..=n_ports).rev().collect();
        assert_eq!(book.get(node), Some(&peer(&ports, None)));
        book.add(peer(&[1], None), Heard::Earlier).unwrap();
        assert_eq!(
            book.get(node),
            Some(&peer(&ports, None)),
            "no room for what is old"
        );
        // Whoever is not in the book is not entered by being seen.
        book.remove(node);
        book.seen(node, ([127, 0, 0, 1], 1).into());
        assert_eq!(book.get(node), None);
    }
}
