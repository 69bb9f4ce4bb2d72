//! The checks between this machine and a gateway or a control center.

use super::Finding;
use crate::{
    client::{Client, Endpoint, innermost},
    context::Context,
    render::duration_ms,
    roles::member::{Member, relay_authorities},
};
use daitn_fabric::{CONTROL_ALPN, Endpoint as Fabric, EndpointOptions};
use daitn_messages::{
    BUILD, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
    control::{Enrolment, Hello, JoinToken, NodeReply},
    ids::OrganisationId,
    limits::{CLOCK_SKEW_MS_MAX, FRAME_BYTES_MAX},
    operation::{Operation, StatusView},
    rejection::Code,
    session::Peer,
    signed::NodeKey,
    units::UnixMillis,
};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};
use tokio::net::{TcpStream, lookup_host};

/// A connection that takes longer has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to a gateway: name, TCP, TLS and HTTP, key, version, clock.
pub(super) async fn gateway(url: &str, context: Option<&Context>, timeout: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some((host, port)) = host_and_port(url) else {
        return vec![Finding::fail(
            "address",
            format!("`{url}` has no host"),
            "Give it as https://host:port",
        )];
    };
    let Some(addresses) = resolve(&host, port, &mut findings).await else {
        return findings;
    };
    if !tcp(&addresses, &mut findings).await {
        return findings;
    }
    let none = Context {
        url: url.to_owned(),
        api_key: None,
        ca_file: None,
    };
    match Client::new(context.unwrap_or(&none), timeout) {
        Ok(client) => findings.extend(http(&client, url).await),
        Err(failure) => findings.push(Finding::failed("context", &failure.rejection)),
    }
    findings
}

async fn http(client: &Client, url: &str) -> Vec<Finding> {
    let name = if url.starts_with("https://") {
        "TLS and HTTP"
    } else {
        "HTTP"
    };
    let begun = Instant::now();
    let reply = client.ask::<StatusView>(&Operation::Status).await;
    let took = duration_ms(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
    let mut findings = match reply {
        Ok(status) => {
            let same = status.build == BUILD;
            let builds = format!("domain {} runs {}, this is {BUILD}", status.domain, status.build);
            vec![
                Finding::pass(name, format!("answered in {took}")),
                Finding::pass("API key", "is in force"),
                if same {
                    Finding::pass("version", builds)
                } else {
                    Finding::warn(
                        "version",
                        builds,
                        "Use the same build on both sides if something looks odd.",
                    )
                },
            ]
        }
        Err(failure) if failure.rejection.code == Code::Unauthenticated => vec![
            Finding::pass(name, format!("answered in {took}")),
            Finding::fail(
                "API key",
                failure.rejection.message,
                "daitn context add NAME --url URL --key -",
            ),
        ],
        Err(failure) if failure.rejection.code == Code::Unauthorised => vec![
            Finding::pass(name, format!("answered in {took}")),
            Finding::warn(
                "API key",
                failure.rejection.message,
                "Ask the operator for a key with the scope `read`.",
            ),
        ],
        Err(failure) => vec![Finding::failed(name, &failure.rejection)],
    };
    if let Ok(Some(date)) = client
        .date(&Endpoint::new(reqwest::Method::GET, "/v2/health/live"))
        .await
    {
        findings.push(clock(date));
    }
    findings
}

/// The difference between the server's clock and ours. A `Date` header has whole seconds.
fn clock(theirs: UnixMillis) -> Finding {
    let ours = crate::commands::now();
    let offset_ms = ours.since(theirs).max(theirs.since(ours));
    let text = format!(
        "differs by {} at most",
        duration_ms(offset_ms.saturating_add(1_000))
    );
    if offset_ms > CLOCK_SKEW_MS_MAX {
        Finding::fail(
            "clock",
            text,
            "Set this machine's clock: timedatectl set-ntp true",
        )
    } else if offset_ms > CLOCK_SKEW_MS_MAX / 10 {
        Finding::warn(
            "clock",
            text,
            "Set this machine's clock: timedatectl set-ntp true",
        )
    } else {
        Finding::pass("clock", text)
    }
}

/// The way to a token's control center: the token, UDP with the pinned key, the relay, versions and clock.
pub(super) async fn token(text: &str) -> Vec<Finding> {
    let token = match JoinToken::from_text(text) {
        Ok(token) => token,
        Err(rejection) => {
            return vec![Finding::failed("token", &rejection)];
        }
    };
    let mut findings = vec![token_is(&token.organisation, &token.center)];
    if let Some(relay) = &token.center.relay {
        match host_and_port(relay) {
            Some((host, port)) => {
                if let Some(addresses) = resolve(&host, port, &mut findings).await {
                    tcp(&addresses, &mut findings).await;
                }
            }
            None => findings.push(Finding::fail(
                "relay",
                format!("`{relay}` has no host"),
                "Ask for a new token.",
            )),
        }
    }
    let pass = token.relay_pass();
    let enrolment = Enrolment {
        token: token.token,
        secret: token.secret,
        name: String::new(),
    };
    let mut secret = [0; 32];
    if let Err(error) = getrandom::fill(&mut secret) {
        let mend = "Try again in a moment.";
        findings.push(Finding::fail("key", format!("no random numbers: {error}"), mend));
        return findings;
    }
    let asking = Asking {
        secret,
        relay_pass: Some(pass),
        enrolment: Some(enrolment),
        relay_authorities: Vec::new(),
    };
    findings.extend(control(token.center, asking).await);
    findings
}

/// The way to the control center of a node that does not run, and whether that still knows it.
pub(super) async fn member(directory: &Path, member: &Member, key: &NodeKey) -> Vec<Finding> {
    let relay_authorities = match relay_authorities(directory) {
        Ok(authorities) => authorities,
        Err(failure) => return vec![Finding::failed("relay certificates", &failure.rejection)],
    };
    let mut center = member.center.clone();
    center.relay = center.relay.or_else(|| member.relay.clone());
    let asking = Asking {
        secret: *key.to_bytes(),
        relay_pass: None,
        enrolment: None,
        relay_authorities,
    };
    control(center, asking).await
}

/// Who asks a control center whether it would be welcome.
struct Asking {
    /// The key that is dialled with.
    secret: [u8; 32],
    relay_pass: Option<String>,
    /// With which token; none: as a member.
    enrolment: Option<Enrolment>,
    /// Certificates (DER) that the relay is believed by, besides those of the well-known authorities.
    relay_authorities: Vec<Vec<u8>>,
}

fn token_is(organisation: &OrganisationId, center: &Peer) -> Finding {
    let addresses: Vec<String> = center.addresses.iter().map(ToString::to_string).collect();
    let found = format!(
        "joins {organisation} at {} ({})",
        center.node.short(),
        addresses.join(", ")
    );
    let local_only = !addresses.is_empty() && center.addresses.iter().all(|a| a.ip().is_loopback());
    if local_only && center.relay.is_none() {
        let mend = "On another machine it cannot be used: start the center with --announce ADDRESS.";
        Finding::warn("token", found, mend)
    } else {
        Finding::pass("token", found)
    }
}

/// Dials the control center and asks whether it would welcome who asks, which changes nothing there.
async fn control(center: Peer, asking: Asking) -> Vec<Finding> {
    let node = center.node;
    let failed = |cause: String| {
        let mend = "Let UDP out to these addresses, or have the operator start the center with --relay. \
                    Is the control center running?";
        vec![Finding::fail("UDP and pinned key", cause, mend)]
    };
    let mut options = EndpointOptions::new(asking.secret);
    options.relays = center.relay.iter().cloned().collect();
    options.relay_pass = asking.relay_pass;
    options.relay_authorities = asking.relay_authorities;
    let fabric = match Fabric::bind(options).await {
        Ok(fabric) => fabric,
        Err(error) => return failed(error.to_string()),
    };
    if let Err(error) = fabric.set_peer(center) {
        return failed(error.to_string());
    }
    let begun = Instant::now();
    let findings = match fabric.connect(node, CONTROL_ALPN, CONNECT_TIMEOUT).await {
        Ok(connection) => {
            let took = duration_ms(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
            let way = if connection.is_relayed() == Some(true) {
                "by the relay"
            } else {
                "directly"
            };
            let mut findings = vec![Finding::pass(
                "UDP and pinned key",
                format!("{} proved its key in {took}, {way}", node.short()),
            )];
            findings.extend(greet(&connection, asking.enrolment).await);
            findings
        }
        Err(error) => failed(innermost(&error)),
    };
    fabric.shutdown(Duration::ZERO).await;
    findings
}

async fn greet(connection: &daitn_fabric::Connection, enrolment: Option<Enrolment>) -> Vec<Finding> {
    let would = if enrolment.is_some() {
        "the control center would take the token"
    } else {
        "the control center knows the node"
    };
    let hello = Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        build: BUILD.to_owned(),
        now: crate::commands::now(),
        addresses: Vec::new(),
        enrolment,
        asks_only: true,
    };
    let reply: Result<NodeReply, _> = connection.request(&hello, FRAME_BYTES_MAX, CONNECT_TIMEOUT).await;
    let versions = format!("protocol {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION} is understood");
    match reply {
        Ok(Err(rejection)) if matches!(rejection.code, Code::NotEnrolled | Code::TokenInvalid) => vec![
            Finding::pass("version", versions),
            Finding::failed("admission", &rejection),
        ],
        Ok(Err(rejection)) if rejection.code == Code::ClockSkew => vec![
            Finding::pass("version", versions),
            Finding::fail(
                "clock",
                rejection.message,
                "Set this machine's clock: timedatectl set-ntp true",
            ),
        ],
        Ok(Err(rejection)) if rejection.code == Code::VersionMismatch => {
            vec![Finding::fail(
                "version",
                rejection.message,
                "Upgrade the older side.",
            )]
        }
        Ok(Err(rejection)) => vec![Finding::warn(
            "admission",
            rejection.to_string(),
            rejection.hint_or_page(),
        )],
        Ok(Ok(_)) => vec![
            Finding::pass("version", versions),
            Finding::pass("admission", would),
        ],
        Err(error) => vec![Finding::warn(
            "admission",
            innermost(&error),
            "Try again in a moment.",
        )],
    }
}

async fn resolve(host: &str, port: u16, findings: &mut Vec<Finding>) -> Option<Vec<SocketAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(vec![SocketAddr::new(address, port)]);
    }
    match tokio::time::timeout(CONNECT_TIMEOUT, lookup_host((bare, port))).await {
        Ok(Ok(found)) => {
            let addresses: Vec<SocketAddr> = found.collect();
            let text: Vec<String> = addresses.iter().map(|a| a.ip().to_string()).collect();
            findings.push(Finding::pass("name", format!("{bare} is {}", text.join(", "))));
            Some(addresses)
        }
        Ok(Err(error)) => {
            findings.push(Finding::fail(
                "name",
                format!("{bare}: {error}"),
                "Check the name and this machine's DNS.",
            ));
            None
        }
        Err(_) => {
            findings.push(Finding::fail(
                "name",
                format!("{bare}: no answer"),
                "Check this machine's DNS servers.",
            ));
            None
        }
    }
}

async fn tcp(addresses: &[SocketAddr], findings: &mut Vec<Finding>) -> bool {
    let mut causes = Vec::new();
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                findings.push(Finding::pass("TCP", format!("{address} is open")));
                return true;
            }
            Ok(Err(error)) => causes.push(format!("{address}: {error}")),
            Err(_) => causes.push(format!("{address}: no answer, as behind a firewall")),
        }
    }
    findings.push(Finding::fail(
        "TCP",
        causes.join("; "),
        "Is it running there? Does a firewall let TCP out to it?",
    ));
    false
}

/// Host and port of a URL.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let url = reqwest::Url::parse(url).ok()?;
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Mark;

    #[tokio::test]
    async fn a_closed_port_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let findings = gateway(&format!("http://{address}"), None, Duration::from_secs(1)).await;
        let last = findings.last().unwrap();
        assert_eq!((last.check.as_str(), last.mark), ("TCP", Mark::Fail));
        assert!(last.found.contains(&address.to_string()) && !last.mend.is_empty());
    }

    #[test]
    fn a_wrong_clock_is_named() {
        let now = crate::commands::now();
        assert_eq!(clock(now).mark, Mark::Pass);
        assert_eq!(clock(now.plus(CLOCK_SKEW_MS_MAX + 60_000)).mark, Mark::Fail);
        assert_eq!(clock(UnixMillis(now.0 - CLOCK_SKEW_MS_MAX / 2)).mark, Mark::Warn);
    }

    #[tokio::test]
    async fn a_cut_token_is_named() {
        let findings = token("daitn1-abc").await;
        assert_eq!(
            (findings[0].check.as_str(), findings[0].mark),
            ("token", Mark::Fail)
        );
    }
}
