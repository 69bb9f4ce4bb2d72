//! `daitn agent`: A2A agents behind nodes.

use super::{App, all, entity, jurisdiction};
use crate::{
    client::{Client, segment},
    failure::{Ending, Exit, Failure},
    output::Shown,
    paint::Paint,
    terminal,
    views::{Card, Hits},
};
use clap::{Args, Subcommand};
use daitn_messages::{
    ids::{EntityId, EntityKind, Slug},
    operation::Operation,
    rejection::Code,
    request::Hit,
};
use daitn_terminals::{AgentOptions, TerminalOptions};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Register an A2A agent with a node on this machine, by the agent's URL
    Register(RegisterArguments),
    /// List agents
    List,
    /// One agent, with its skills
    Get {
        /// `organisation/name`
        agent: String,
    },
    /// Send an agent a text by A2A and print what it answers
    Call {
        /// `organisation/name`
        agent: String,
        /// What to say
        text: String,
    },
}

/// Which agent, and where.
#[derive(Debug, Args)]
pub(crate) struct RegisterArguments {
    /// Its name within the organisation
    name: Slug,
    /// Where it is: its card lies at `/.well-known/agent-card.json`
    agent_url: String,
    /// The directory of the node that holds it; a running node takes it up at once
    #[arg(long, value_name = "DIRECTORY")]
    node_dir: PathBuf,
    /// ISO 3166-1 alpha-2 code of the law that it is under
    #[arg(long, value_name = "CODE", value_parser = jurisdiction)]
    jurisdiction: String,
}

async fn register(app: &App, arguments: RegisterArguments) -> Ending {
    let RegisterArguments {
        name,
        agent_url,
        node_dir,
        jurisdiction,
    } = arguments;
    let options = TerminalOptions::Agent(AgentOptions {
        name,
        url: agent_url,
        jurisdiction,
    });
    let published = terminal::publish(&node_dir, &options).await?;
    app.output.show(&published)?;
    Ok(Exit::Done)
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    match command {
        Command::Register(arguments) => return register(app, arguments).await,
        Command::List => app
            .output
            .show(&Hits(all(&app.client()?, EntityKind::Agent).await?))?,
        Command::Get { agent } => {
            let agent = entity(&agent, EntityKind::Agent)?;
            let hit: Hit = app.client()?.ask(&Operation::GetEntity(agent)).await?;
            app.output.show(&Card::new(hit.descriptor, Some(hit.online)))?;
        }
        Command::Call { agent, text } => {
            let agent = entity(&agent, EntityKind::Agent)?;
            app.output.show(&call(&app.client()?, &agent, &text).await?)?;
        }
    }
    Ok(Exit::Done)
}

/// What an agent answered.
#[derive(Debug, Serialize)]
pub(crate) struct Said {
    agent: EntityId,
    /// The texts of the answer, joined.
    pub(crate) text: String,
    /// The answer as A2A has it.
    result: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
}

impl Shown for Said {
    fn human(&self, _: Paint, _: bool) -> String {
        self.text.clone()
    }
    fn names(&self) -> Vec<String> {
        vec![self.agent.to_string()]
    }
}

/// Sends a text to an agent through the gateway: A2A 1.0, JSON-RPC binding, `SendMessage`.
pub(crate) async fn call(client: &Client, agent: &EntityId, text: &str) -> Result<Said, Failure> {
    let path = format!(
        "/a2a/{}/{}",
        segment(agent.organisation.as_str()),
        segment(agent.name.as_str())
    );
    let message = a2a::Message::new(a2a::Role::User, vec![a2a::Part::text(text)]);
    let message = serde_json::to_value(message).map_err(|error| Failure::internal(error.to_string()))?;
    let body =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": { "message": message } });
    let call = crate::client::Endpoint::new(reqwest::Method::POST, path)
        .body(body)
        .header("a2a-version", "1.0");
    let reply = client.call(&call).await?;
    let answer: Value = crate::client::read(&reply.body)?;
    if let Some(error) = answer.get("error") {
        let said = error["message"]
            .as_str()
            .unwrap_or("the agent refused without a reason");
        return Err(Failure::new(Code::AgentFailed, format!("{agent}: {said}")));
    }
    let result = answer["result"].clone();
    Ok(Said {
        agent: agent.clone(),
        text: texts(&result),
        result,
        decision: reply.decision,
    })
}

/// Every text of an answer: of its message, or of its task's artifacts, or of its task's status.
fn texts(result: &Value) -> String {
    fn parts(of: &Value) -> Vec<String> {
        let parts = of["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        parts
            .iter()
            .filter_map(|part| part["text"].as_str().map(ToOwned::to_owned))
            .collect()
    }
    let message = parts(&result["message"]);
    if !message.is_empty() {
        return message.join("\n");
    }
    let task = if result["task"].is_object() {
        &result["task"]
    } else {
        result
    };
    let artifacts = task["artifacts"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let found: Vec<String> = artifacts.iter().flat_map(parts).collect();
    if found.is_empty() {
        parts(&task["status"]["message"]).join("\n")
    } else {
        found.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shapes from the A2A 1.0 specification, section 9 (JSON-RPC binding).
    #[test]
    fn texts_are_found_in_messages_and_tasks() {
        let message =
            json!({ "message": { "role": "ROLE_AGENT", "parts": [{ "text": "a" }, { "text": "b" }] } });
        assert_eq!(texts(&message), "a\nb");
        let task = json!({ "task": { "id": "1", "status": { "state": "TASK_STATE_COMPLETED" },
            "artifacts": [{ "artifactId": "1", "parts": [{ "text": "seven" }] }] } });
        assert_eq!(texts(&task), "seven");
        let status = json!({ "task": { "status": { "message": { "parts": [{ "text": "no" }] } } } });
        assert_eq!(texts(&status), "no");
    }
}
