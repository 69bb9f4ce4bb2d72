//! Relays one call: the gateway's bytes to the agent, the agent's bytes to the gateway, neither kept nor read.

use super::{Agent, card::describe, failed};
use crate::{
    limits::{AGENT_BODY_BYTES_MAX, AGENT_CALLS_MAX, AGENT_SILENCE_MAX},
    shared::Shared,
    terminal::Attached,
};
use bytes::Bytes;
use daitn_fabric::{Session, SessionError, SessionReceiver, SessionSender};
use daitn_messages::{
    rejection::{Code, Rejection},
    session::{AgentCall, SessionReply},
};
use futures_util::{Stream, stream};
use reqwest::{Method, Response, header};
use std::{sync::Arc, time::Instant};

/// Most headers of a call or an answer that are passed on.
const HEADERS_MAX: usize = 64;
/// Bytes of the body that are handed over at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Headers of one hop only (RFC 9110, 7.6.1), those that the other side sets itself, and credentials of whoever is not
/// this call's client.
const KEPT_BACK: [&str; 16] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Relays one call to its end. The refusal, if any, is the answer that is still to be sent.
pub(crate) async fn answer(
    attached: &Attached,
    agent: &Agent,
    shared: &Arc<Shared>,
    call: AgentCall,
    mut session: Session,
) -> Result<(), (Session, Rejection)> {
    let Some(busy) = attached.load.begin_within(AGENT_CALLS_MAX) else {
        let message = format!("{AGENT_CALLS_MAX} calls of this agent are in flight already");
        return Err((session, Rejection::new(Code::Overloaded, message)));
    };
    shared.changed.notify_one();
    if let Err(rejection) = check(&call) {
        return Err((session, rejection));
    }
    session.set_timeout(AGENT_SILENCE_MAX);
    let begun = Instant::now();
    let (mut sender, receiver) = session.split();
    let request = request(agent, &call, receiver);
    // A caller that goes away before the agent answers ends the call to the agent.
    let response = tokio::select! {
        response = request => response,
        () = sender.abandoned() => return Ok(()),
    };
    let relayed = match response {
        Ok(response) => relay(response, &mut sender).await,
        Err(rejection) => sender
            .send(&SessionReply::Refused(rejection))
            .await
            .and_then(|()| sender.finish()),
    };
    if let Err(error) = relayed {
        tracing::debug!(agent = %attached.entity, decision = %call.decision, "a call broke off: {error}");
    }
    attached.load.served(begun.elapsed().as_secs_f64());
    drop(busy);
    shared.changed.notify_one();
    Ok(())
}

fn check(call: &AgentCall) -> Result<(), Rejection> {
    if !matches!(call.method.as_str(), "GET" | "POST") {
        return Err(Rejection::malformed(
            "method",
            "an agent is called with GET or POST",
        ));
    }
    if call.body_bytes > AGENT_BODY_BYTES_MAX {
        return Err(Rejection::too_large(
            "body",
            call.body_bytes,
            AGENT_BODY_BYTES_MAX,
        ));
    }
    if call.headers.len() > HEADERS_MAX {
        return Err(Rejection::too_large(
            "headers",
            call.headers.len() as u64,
            HEADERS_MAX as u64,
        ));
    }
    Ok(())
}

async fn request(agent: &Agent, call: &AgentCall, receiver: SessionReceiver) -> Result<Response, Rejection> {
    let method = if call.method == "GET" {
        Method::GET
    } else {
        Method::POST
    };
    let mut request = agent.client.request(method, agent.endpoint.clone());
    for (name, value) in call
        .headers
        .iter()
        .filter(|(name, _)| !KEPT_BACK.contains(&name.as_str()))
    {
        request = request.header(name, value);
    }
    if call.body_bytes > 0 {
        let body = reqwest::Body::wrap_stream(body(receiver, call.body_bytes));
        request = request.header(header::CONTENT_LENGTH, call.body_bytes).body(body);
    }
    request.send().await.map_err(|error| failed(describe(&error)))
}

/// Exactly the bytes that the call announced, as they come.
fn body(receiver: SessionReceiver, n_bytes: u64) -> impl Stream<Item = Result<Bytes, SessionError>> + Send {
    stream::try_unfold((receiver, n_bytes), |(mut receiver, missing)| async move {
        if missing == 0 {
            return Ok(None);
        }
        let wanted = CHUNK_BYTES.min(usize::try_from(missing).unwrap_or(CHUNK_BYTES));
        match receiver.recv_bytes(wanted).await? {
            Some(bytes) => {
                let missing = missing - bytes.len() as u64;
                Ok(Some((bytes, (receiver, missing))))
            }
            None => Err(SessionError::EndedEarly),
        }
    })
}

/// Passes the answer on, chunk by chunk, until the agent ends or the caller goes away.
async fn relay(mut response: Response, sender: &mut SessionSender) -> Result<(), SessionError> {
    let headers = response
        .headers()
        .iter()
        .filter(|(name, _)| !KEPT_BACK.contains(&name.as_str()));
    let headers =
        headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    let reply = SessionReply::Agent {
        status: response.status().as_u16(),
        headers: headers.take(HEADERS_MAX).collect(),
    };
    sender.send(&reply).await?;
    loop {
        let chunk = tokio::select! {
            chunk = response.chunk() => chunk,
            () = sender.abandoned() => return Ok(()),
        };
        match chunk {
            Ok(Some(bytes)) => sender.send_bytes(bytes).await?,
            Ok(None) => return sender.finish(),
            Err(error) => {
                // Dropping the sender unfinished tells the caller that the answer is not whole.
                tracing::info!("an agent's answer broke off: {}", describe(&error));
                return Ok(());
            }
        }
    }
}
