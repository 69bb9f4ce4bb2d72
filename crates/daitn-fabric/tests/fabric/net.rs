//! Two machines, each behind a NAT of its own that lets nothing in, and one outside that both reach: network namespaces
//! with real addresses, routes and translation.
//!
//! ```text
//!      node-a ── nat-a ──┐                    ┌── nat-b ── node-b
//!   192.168.71.2       10.71.1.2   10.71.2.2       192.168.72.2
//!                        └── center 10.71.1.1 ─┘
//! ```
//!
//! Needs root, `ip` and `nft`; without them it says so and the test is passed over.

use std::process::Command;

/// Where the center is reached.
pub(crate) const ADDRESS: &str = "10.71.1.1";

/// Which port outside stands for one inside.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "each test binary uses what it tests")]
pub(crate) enum Ports {
    /// The same for every destination: whoever is told of it and is sent to can answer there.
    Kept,
    /// Another for each destination: behind such a NAT nobody is found by guessing, and the relay alone helps.
    Drawn,
}

/// Namespaces that are gone when this is dropped.
pub(crate) struct Net {
    names: Vec<String>,
}

impl Net {
    #[allow(clippy::print_stderr, reason = "a test that is passed over says why")]
    /// Nothing where there are no namespaces; then it says why.
    pub(crate) fn new(ports: Ports) -> Option<Self> {
        let has = |program: &str, argument: &str| {
            Command::new(program)
                .arg(argument)
                .output()
                .is_ok_and(|output| output.status.success())
        };
        if !has("ip", "-V") || !has("nft", "-v") {
            eprintln!("passed over: `ip` (iproute2) or `nft` (nftables) is missing");
            return None;
        }
        let mut net = Self { names: Vec::new() };
        for place in ["center", "nat-a", "nat-b", "node-a", "node-b"] {
            let name = format!("daitn-{}-{place}", std::process::id());
            let made = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
            if !made.status.success() {
                eprintln!(
                    "passed over: no network namespace: {}",
                    String::from_utf8_lossy(&made.stderr)
                );
                return None;
            }
            net.names.push(name);
        }
        net.lay(ports);
        Some(net)
    }

    pub(crate) fn name(&self, place: &str) -> &str {
        self.names.iter().find(|name| name.ends_with(place)).unwrap()
    }

    #[track_caller]
    /// Runs a script in a namespace.
    pub(crate) fn sh(&self, place: &str, script: &str) {
        let output = Command::new("ip")
            .args(["netns", "exec", self.name(place), "sh", "-ec", script])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Cables, addresses, routes, and translation.
    fn lay(&self, ports: Ports) {
        let masquerade = match ports {
            Ports::Kept => "masquerade",
            Ports::Drawn => "masquerade fully-random",
        };
        for place in ["center", "nat-a", "nat-b", "node-a", "node-b"] {
            self.sh(place, "ip link set lo up");
        }
        for (side, number) in [("a", 1), ("b", 2)] {
            let (nat, node) = (
                self.name(&format!("nat-{side}")),
                self.name(&format!("node-{side}")),
            );
            self.sh(
                "center",
                &format!(
                    "ip link add side-{side} type veth peer name wan netns {nat}; ip link set side-{side} up
                 ip addr add 10.71.{number}.1/24 dev side-{side}; echo 1 > /proc/sys/net/ipv4/ip_forward"
                ),
            );
            self.sh(
                &format!("nat-{side}"),
                &format!(
                "ip link add lan type veth peer name eth0 netns {node}; ip link set lan up; ip link set wan up
                 ip addr add 10.71.{number}.2/24 dev wan; ip addr add 192.168.7{number}.1/24 dev lan
                 ip route add default via 10.71.{number}.1; echo 1 > /proc/sys/net/ipv4/ip_forward
                 nft add table ip nat
                 nft 'add chain ip nat out {{ type nat hook postrouting priority 100; }}'
                 nft add rule ip nat out oifname wan {masquerade}
                 nft add table ip guard
                 nft 'add chain ip guard through {{ type filter hook forward priority 0; policy drop; }}'
                 nft add rule ip guard through ct state established,related accept
                 nft add rule ip guard through iifname lan accept
                 nft 'add chain ip guard inward {{ type filter hook input priority 0; policy drop; }}'
                 nft add rule ip guard inward ct state established,related accept
                 nft add rule ip guard inward iifname lan accept"
            ),
            );
            self.sh(
                &format!("node-{side}"),
                &format!(
                    "ip addr add 192.168.7{number}.2/24 dev eth0; ip link set eth0 up
                 ip route add default via 192.168.7{number}.1"
                ),
            );
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            // What is left behind is empty.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}
