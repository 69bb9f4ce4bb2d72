//! Whether a process can have the ports that it is told to take. Asked before anything is written, so that a start which
//! cannot succeed leaves nothing behind and says which flag to change. The sockets are given back at once: what takes
//! them for good a moment later still reports its own failure.

use crate::{
    config::{Config, Metrics},
    failure::Failure,
    roles::bound::{Bound, again},
};
use daitn_messages::rejection::Code;
use daitn_oam::server::OamServer;
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
};

/// Everything that a control center and its gateway listen on.
pub(crate) fn center(config: &Config, directory: &Path) -> Result<(), Failure> {
    config
        .gateway
        .check()
        .map_err(|error| Failure::usage(error.to_string()))?;
    let bound = Bound::load(directory)?;
    udp(again(config.center.listen, bound.control), "--fabric-listen")?;
    let beside = SocketAddr::new(config.center.listen.ip(), bound.sessions);
    udp(beside, "--fabric-listen")?;
    tcp(again(config.gateway.listen, bound.api), "--listen")?;
    if let Some(relay) = config.center.relay {
        tcp(again(relay, bound.relay), "--relay")?;
    }
    metrics(&config.metrics)
}

/// Where metrics and health are served.
pub(crate) fn metrics(section: &Metrics) -> Result<(), Failure> {
    let Some(address) = section.listen else {
        return Ok(());
    };
    OamServer::check(address).map_err(|error| {
        Failure::usage(error.to_string()).hint(
            "Give an address of this machine with --metrics-listen, for instance 127.0.0.1:9464. Other machines read \
             the same from the gateway's /metrics, with a key.",
        )
    })?;
    tcp(address, "--metrics-listen")
}

/// A UDP address that this flag sets.
pub(crate) fn udp(address: SocketAddr, flag: &str) -> Result<(), Failure> {
    free("UDP", address, flag, UdpSocket::bind(address).map(drop))
}

fn tcp(address: SocketAddr, flag: &str) -> Result<(), Failure> {
    free("TCP", address, flag, TcpListener::bind(address).map(drop))
}

fn free(protocol: &str, address: SocketAddr, flag: &str, taken: io::Result<()>) -> Result<(), Failure> {
    taken.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(
            Code::Conflict,
            format!("{protocol} {address} is in use by another process"),
        )
        .hint(format!(
            "Give another address with {flag}, or stop the other process."
        )),
        _ => Failure::usage(format!("cannot listen on {protocol} {address}: {error}"))
            .hint(format!("Give another address with {flag}.")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_a_conflict_that_names_its_flag() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = tcp(held.local_addr().unwrap(), "--listen").unwrap_err();
        assert_eq!((refused.rejection.code, refused.exit as u8), (Code::Conflict, 5));
        assert!(refused.rejection.hint.contains("--listen"), "{refused:?}");
        let held = UdpSocket::bind("127.0.0.1:0").unwrap();
        let refused = udp(held.local_addr().unwrap(), "--fabric-listen").unwrap_err();
        assert_eq!(refused.exit as u8, 5);
        // An address that this machine does not have (RFC 5737) is wrong, not taken.
        let wrong = tcp("192.0.2.1:0".parse().unwrap(), "--listen").unwrap_err();
        assert_eq!(wrong.exit as u8, 2);
    }

    #[test]
    fn metrics_are_for_this_machine() {
        let beyond = Metrics {
            listen: Some("0.0.0.0:0".parse().unwrap()),
        };
        let refused = metrics(&beyond).unwrap_err();
        assert_eq!(refused.exit as u8, 2);
        assert!(refused.rejection.message.contains("without a key"), "{refused:?}");
        metrics(&Metrics { listen: None }).unwrap();
        metrics(&Metrics::default()).unwrap();
    }
}
