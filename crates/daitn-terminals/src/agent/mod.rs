//! The agent host: an unchanged A2A agent behind the node. Its card becomes the descriptor, byte for byte; calls are
//! relayed to it, bytes both ways as they come, and nowhere else.

mod act;

mod card;

mod descriptor;

mod options;

pub(crate) use act::answer;
pub use options::AgentOptions;

use crate::{
    limits::{AGENT_CONNECT_WITHIN, AGENT_SILENCE_MAX, CARD_WITHIN},
    options::Card,
};
use card::AgentCard;
use daitn_messages::rejection::{Code, Rejection};
use reqwest::{Client, Url};

/// Where the card of an origin lies (RFC 8615; A2A 1.0, section 8).
const CARD_PATH: &str = "/.well-known/agent-card.json";
/// The binding that is relayed.
const BINDING: &str = "JSONRPC";

/// An agent whose card was read.
#[derive(Debug)]
pub(crate) struct Agent {
    client: Client,
    card: AgentCard,
    /// Where its JSON-RPC interface is: at the origin that the owner named.
    endpoint: Url,
}

impl Agent {
    /// Reads the agent's card.
    ///
    /// # Errors
    /// Where the agent does not answer, or its card names no interface that can be relayed.
    pub(crate) async fn open(options: &AgentOptions) -> Result<Self, Rejection> {
        let url: Url = options
            .url
            .parse()
            .map_err(|error| Rejection::malformed("url", &format!("`{}` is none: {error}", options.url)))?;
        if !matches!(url.scheme(), "http" | "https") || url.has_authority() && !url.username().is_empty() {
            return Err(Rejection::malformed(
                "url",
                "an agent is at http:// or https://, without credentials in it",
            ));
        }
        let client = client()?;
        let text = card::fetch(
            &client,
            url.join(CARD_PATH)
                .map_err(|e| Rejection::malformed("url", &e.to_string()))?,
        );
        let text = tokio::time::timeout(CARD_WITHIN, text)
            .await
            .map_err(|_| failed(format!("its card did not come within {CARD_WITHIN:?}")))??;
        let card = AgentCard::read(text)?;
        let endpoint = card.interface(&url)?;
        Ok(Self {
            client,
            card,
            endpoint,
        })
    }

    pub(crate) fn people_see(&self, jurisdiction: String) -> Card {
        Card {
            title: self.card.name.clone(),
            description: self.card.description.clone(),
            jurisdiction,
        }
    }
}

/// Follows no redirect, uses no proxy, keeps no cookie: bytes go to the agent that the owner named.
fn client() -> Result<Client, Rejection> {
    // A provider that was installed before is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(AGENT_CONNECT_WITHIN)
        .read_timeout(AGENT_SILENCE_MAX)
        .build()
        .map_err(|error| Rejection::new(Code::Internal, format!("no HTTP client: {error}")))
}

fn failed(message: impl std::fmt::Display) -> Rejection {
    Rejection::new(Code::AgentFailed, format!("the agent: {message}"))
}
