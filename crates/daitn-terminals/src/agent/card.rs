//! The agent's card: fetched with bounds, kept byte for byte, read for what the network needs of it (A2A 1.0, 4.4.1).
//! A card is data of a stranger: nothing in its texts decides anything.

use super::{BINDING, failed};
use crate::limits::CARD_DEPTH_MAX;
use daitn_messages::{
    descriptor::AgentSkill,
    limits::{DESCRIPTOR_BYTES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX},
    rejection::Rejection,
};
use reqwest::{Client, StatusCode, Url, header};
use serde::Deserialize;

/// Longest card, bytes: half of a descriptor, so that it fits there.
const CARD_BYTES_MAX: usize = DESCRIPTOR_BYTES_MAX / 2;
/// Most skills that are listed.
const SKILLS_MAX: usize = 256;

/// A card with what the network needs of it.
#[derive(Debug, Clone)]
pub(super) struct AgentCard {
    pub(super) text: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) streaming: bool,
    pub(super) skills: Vec<AgentSkill>,
    interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    capabilities: Capabilities,
    #[serde(default)]
    skills: Vec<RawSkill>,
    #[serde(default)]
    supported_interfaces: Vec<Interface>,
}

#[derive(Deserialize, Default)]
struct Capabilities {
    #[serde(default)]
    streaming: bool,
}

#[derive(Deserialize)]
struct RawSkill {
    id: String,
    name: String,
    #[serde(default)]
    tags: Vec<String>,
}

/// One way to call the agent.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Interface {
    url: String,
    protocol_binding: String,
    protocol_version: String,
}

/// Gets the text of a card.
pub(super) async fn fetch(client: &Client, url: Url) -> Result<String, Rejection> {
    let mut response = client
        .get(url.clone())
        .header(header::ACCEPT, "application/json")
        .send()
        .await
        .map_err(|error| failed(describe(&error)))?;
    if response.status() != StatusCode::OK {
        return Err(failed(format!("{url} answered {}", response.status())));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(describe(&error)))? {
        if bytes.len() + chunk.len() > CARD_BYTES_MAX {
            return Err(Rejection::too_large(
                "agent card",
                (bytes.len() + chunk.len()) as u64,
                CARD_BYTES_MAX as u64,
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| Rejection::malformed("agent card", "not UTF-8"))
}

/// An HTTP error with its cause, without the URL twice.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl AgentCard {
    /// Reads a card.
    pub(super) fn read(text: String) -> Result<Self, Rejection> {
        check_depth(&text)?;
        let raw: Raw =
            serde_json::from_str(&text).map_err(|e| Rejection::malformed("agent card", &e.to_string()))?;
        let skills = raw.skills.into_iter().take(SKILLS_MAX).map(|skill| AgentSkill {
            id: shortened(&skill.id, NAME_BYTES_MAX),
            name: shortened(&skill.name, NAME_BYTES_MAX),
            tags: skill
                .tags
                .iter()
                .take(64)
                .map(|tag| shortened(tag, NAME_BYTES_MAX))
                .collect(),
        });
        Ok(Self {
            name: shortened(&raw.name, NAME_BYTES_MAX),
            description: shortened(&raw.description, TEXT_BYTES_MAX),
            streaming: raw.capabilities.streaming,
            skills: skills.collect(),
            interfaces: raw.supported_interfaces,
            text,
        })
    }

    /// Where JSON-RPC is spoken: at the origin that the owner named, or nowhere. A card that sends callers elsewhere
    /// could make the node call what its owner never meant to offer.
    pub(super) fn interface(&self, named: &Url) -> Result<Url, Rejection> {
        let spoken: Vec<Url> = self
            .interfaces
            .iter()
            .filter(|interface| interface.protocol_binding.eq_ignore_ascii_case(BINDING))
            .filter_map(|interface| interface.url.parse().ok())
            .collect();
        let wrong = |why: String| Rejection::malformed("agent card", &why);
        if spoken.is_empty() {
            return Err(wrong(format!("it names no interface with the binding {BINDING}")));
        }
        let same = |url: &&Url| url.origin() == named.origin() && url.username().is_empty();
        spoken.iter().find(same).cloned().ok_or_else(|| {
            let (found, expected) = (
                spoken[0].origin().ascii_serialization(),
                named.origin().ascii_serialization(),
            );
            wrong(format!(
                "its interface is at {found}, not at {expected}, which the owner named"
            ))
        })
    }

    /// The protocol version of the interface that is relayed.
    pub(super) fn protocol_version(&self) -> String {
        let interface = self
            .interfaces
            .iter()
            .find(|i| i.protocol_binding.eq_ignore_ascii_case(BINDING));
        interface.map_or_else(String::new, |interface| {
            shortened(&interface.protocol_version, 16)
        })
    }
}

/// At most so many bytes, without control characters, cut at a character.
fn shortened(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    for c in text
        .chars()
        .filter(|c| !c.is_control() || *c == '\n' || *c == '\t')
    {
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

/// Looks at the nesting before a parser descends.
fn check_depth(text: &str) -> Result<(), Rejection> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > CARD_DEPTH_MAX {
            return Err(Rejection::too_large(
                "nesting of the agent card",
                depth as u64,
                CARD_DEPTH_MAX as u64,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::rejection::Code;

    fn card(interfaces: &str) -> String {
        format!(
            r#"{{"name":"digits","description":"reads \"digits\"","version":"1","capabilities":{{"streaming":true}},
               "skills":[{{"id":"read","name":"Read","description":"x","tags":["digit"]}}],
               "supportedInterfaces":[{interfaces}],"unknown":{{"a":[1]}}}}"#
        )
    }

    #[test]
    fn only_an_interface_at_the_named_origin_is_used() {
        let named: Url = "http://127.0.0.1:8000/agent".parse().unwrap();
        let find = |interfaces: &str| AgentCard::read(card(interfaces)).unwrap().interface(&named);
        let at = |url: &str, binding: &str| {
            format!(r#"{{"url":"{url}","protocolBinding":"{binding}","protocolVersion":"1.0"}}"#)
        };
        assert_eq!(
            find(&at("http://127.0.0.1:8000/rpc", "JSONRPC")).unwrap().path(),
            "/rpc"
        );
        let both = [
            at("http://evil.example/rpc", "JSONRPC"),
            at("http://127.0.0.1:8000/x", "JSONRPC"),
        ]
        .join(",");
        assert_eq!(find(&both).unwrap().path(), "/x");
        for url in [
            "http://evil.example/rpc",
            "https://127.0.0.1:8000/rpc",
            "http://127.0.0.1:8001/rpc",
            "http://127.0.0.1:8000@evil.example/rpc",
            "http://user@127.0.0.1:8000/rpc",
            "file:///etc/passwd",
            "not a url",
        ] {
            assert!(find(&at(url, "JSONRPC")).is_err(), "{url}");
        }
        assert!(find(&at("http://127.0.0.1:8000/rpc", "GRPC")).is_err());
    }

    #[test]
    fn a_hostile_card_is_refused_before_it_is_parsed() {
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(AgentCard::read(nested).unwrap_err().code, Code::TooLarge);
        let in_text = format!(r#"{{"name":"{}"}}"#, "[".repeat(200));
        assert!(
            AgentCard::read(in_text).is_ok(),
            "brackets in a text nest nothing"
        );
        assert_eq!(
            AgentCard::read("{}".to_owned()).unwrap_err().code,
            Code::Malformed
        );
        let read = AgentCard::read(card("").replace("digits\",\"desc", "di\\u0007gits\",\"desc")).unwrap();
        assert_eq!((read.name.as_str(), read.skills.len()), ("digits", 1));
    }
}
