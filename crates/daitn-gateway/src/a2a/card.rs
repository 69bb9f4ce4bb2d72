//! An agent's card as the gateway's clients see it.
//!
//! The origin's addresses may not be reachable, or not known, where the client is, and the origin's credentials are
//! not the client's. So interfaces and security are the gateway's; everything else stays, also what this build does not
//! know. The origin's signature is void after that: it is taken out, and an extension says where the signed original is
//! and which hash it has.

use daitn_messages::{
    ids::ArtifactId,
    rejection::{Code, Rejection},
};
use serde_json::{Map, Value, json};

/// Names the extension that points to the origin's card.
const ORIGIN_CARD: &str = "urn:daitn:a2a:origin-card:1";
/// The name of the gateway's security scheme in a card.
const SCHEME: &str = "daitn";

/// The card for clients of the gateway, whose JSON-RPC address for this agent is `url`.
pub(super) fn rewritten(origin: &str, url: &str) -> Result<Vec<u8>, Rejection> {
    let mut card: Map<String, Value> =
        serde_json::from_str(origin).map_err(|error| broken(&error.to_string()))?;
    let signatures = card.remove("signatures");
    let mut card = named_here(card, url)?;
    let extensions = card
        .get_mut("capabilities")
        .and_then(Value::as_object_mut)
        .map(|capabilities| capabilities.entry("extensions").or_insert_with(|| json!([])));
    extensions
        .and_then(Value::as_array_mut)
        .ok_or_else(|| broken("its extensions are no list"))?
        .push(origin_extension(origin, url, signatures));
    Ok(Value::Object(card).to_string().into_bytes())
}

fn broken(why: &str) -> Rejection {
    Rejection::new(
        Code::AgentFailed,
        format!("the agent's card cannot be offered here: {why}"),
    )
    .with_hint("GET origin-card.json shows the card as the agent gave it.")
}

/// A card whose interface, security and capabilities are what the gateway offers at this address.
pub(super) fn named_here(mut card: Map<String, Value>, url: &str) -> Result<Map<String, Value>, Rejection> {
    let interface = interface(&card, url)
        .ok_or_else(|| broken("it offers no interface with the binding JSONRPC and protocol version 1.0"))?;
    card.insert("supportedInterfaces".to_owned(), json!([interface]));
    card.insert(
        "securitySchemes".to_owned(),
        json!({ SCHEME: { "httpAuthSecurityScheme": {
        "scheme": "Bearer",
        "bearerFormat": "daitn API key",
        "description": "An API key of the network with the scope `query`",
    } } }),
    );
    card.insert(
        "securityRequirements".to_owned(),
        json!([{ "schemes": { SCHEME: { "list": [] } } }]),
    );
    for skill in card
        .get_mut("skills")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        // The origin's requirements name schemes that are no longer there.
        skill
            .as_object_mut()
            .map(|skill| skill.remove("securityRequirements"));
    }
    // Void, now that the card is another one.
    card.remove("signatures");
    let capabilities = card.entry("capabilities").or_insert_with(|| json!({}));
    let capabilities = capabilities
        .as_object_mut()
        .ok_or_else(|| broken("its capabilities are no object"))?;
    // Refused here, whatever the agent itself could do: see `push`.
    capabilities.insert("pushNotifications".to_owned(), json!(false));
    Ok(card)
}

/// The origin's interface that the node relays to, at the gateway's address: what else it says (a tenant) stays.
fn interface(card: &Map<String, Value>, url: &str) -> Option<Value> {
    let text = |interface: &Value, name: &str| interface.get(name).and_then(Value::as_str).map(str::to_owned);
    let interfaces = card.get("supportedInterfaces")?.as_array()?;
    let fits = |interface: &&Value| {
        text(interface, "protocolBinding").is_some_and(|binding| binding.eq_ignore_ascii_case("JSONRPC"))
            && text(interface, "protocolVersion").is_none_or(|v| v == "1.0" || v.starts_with("1.0."))
    };
    let mut interface = interfaces.iter().find(fits)?.as_object()?.clone();
    interface.insert("url".to_owned(), Value::from(url));
    Some(Value::Object(interface))
}

fn origin_extension(origin: &str, url: &str, signatures: Option<Value>) -> Value {
    let mut params = json!({
        "url": format!("{url}/origin-card.json"),
        "blake3": ArtifactId::of(origin.as_bytes()).to_string(),
    });
    if let Some(signatures) = signatures {
        params["signatures"] = signatures;
    }
    json!({
        "uri": ORIGIN_CARD,
        "description": "Interfaces and security of this card are a gateway's. The agent's own card, with its \
                        signatures, is at this URL and has this hash.",
        "params": params,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://ai.example.org/a2a/acme/helper";

    fn origin() -> Value {
        json!({
            "name": "Helper", "description": "Helps", "version": "1", "x-unknown": { "kept": [1, 2] },
            "supportedInterfaces": [
                { "url": "grpc.internal:443", "protocolBinding": "GRPC", "protocolVersion": "1.0" },
                { "url": "http://10.0.0.7:9/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "0.3" },
                { "url": "http://10.0.0.7:9/v1", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t" },
                { "url": "http://10.0.0.7:9/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0" },
            ],
            "capabilities": { "streaming": true, "pushNotifications": true, "extendedAgentCard": true, "extensions": [{ "uri": "urn:x" }] },
            "securitySchemes": { "corp": { "mtlsSecurityScheme": {} } },
            "securityRequirements": [{ "schemes": { "corp": { "list": [] } } }],
            "skills": [{ "id": "s", "name": "S", "tags": [], "securityRequirements": [{ "schemes": { "corp": {} } }] }],
            "signatures": [{ "protected": "p", "signature": "s" }],
        })
    }

    #[test]
    fn no_address_of_the_origin_is_left() {
        let text = origin().to_string();
        let card = String::from_utf8(rewritten(&text, URL).unwrap()).unwrap();
        assert!(!card.contains("10.0.0.7") && !card.contains("internal"), "{card}");
        let card: Value = serde_json::from_str(&card).unwrap();
        assert_eq!(
            card["supportedInterfaces"],
            json!([{ "url": URL, "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t" }])
        );
        assert_eq!(card["x-unknown"], json!({ "kept": [1, 2] }));
        assert_eq!(card["capabilities"]["streaming"], json!(true));
        assert_eq!(card["capabilities"]["extendedAgentCard"], json!(true));
        assert_eq!(card["capabilities"]["pushNotifications"], json!(false));
        assert_eq!(card["skills"][0].get("securityRequirements"), None);
        assert_eq!(
            card["securitySchemes"]
                .as_object()
                .unwrap()
                .keys()
                .collect::<Vec<_>>(),
            [SCHEME]
        );
    }

    #[test]
    fn the_void_signature_is_out_and_the_signed_original_named() {
        let text = origin().to_string();
        let card: Value = serde_json::from_slice(&rewritten(&text, URL).unwrap()).unwrap();
        assert_eq!(card.get("signatures"), None);
        let extensions = card["capabilities"]["extensions"].as_array().unwrap();
        assert_eq!(extensions[0], json!({ "uri": "urn:x" }));
        let params = &extensions[1]["params"];
        assert_eq!(params["url"], json!(format!("{URL}/origin-card.json")));
        assert_eq!(
            params["blake3"],
            json!(ArtifactId::of(text.as_bytes()).to_string())
        );
        assert_eq!(params["signatures"], origin()["signatures"]);
    }

    fn without_extensions(extensions: Value) -> Value {
        let mut card = origin();
        card["capabilities"]["extensions"] = extensions;
        card
    }

    #[test]
    fn a_card_that_cannot_be_offered_is_refused() {
        let mut without = origin();
        without["supportedInterfaces"].as_array_mut().unwrap().remove(2);
        for card in [
            without,
            json!({}),
            json!([]),
            json!({ "supportedInterfaces": "x" }),
            without_extensions(json!("x")),
        ] {
            assert_eq!(
                rewritten(&card.to_string(), URL).unwrap_err().code,
                Code::AgentFailed,
                "{card}"
            );
        }
    }
}
