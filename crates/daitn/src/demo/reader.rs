//! The demo's agent: an A2A 1.0 agent made with the official crates, a process of its own that knows nothing of the
//! network but the gateway's address. Asked to read a digit, it asks the network's model, by the Open Inference Protocol.

use crate::{
    client::{Client, Endpoint, read},
    context::Context,
    failure::{Ending, Exit, Failure},
    inference::{Query, Rows},
    output::Output,
    shutdown::Stop,
};
use a2a::{A2AError, Message, Part, Role, StreamResponse};
use a2a_server::{AgentExecutor, DefaultRequestHandler, ExecutorContext, InMemoryTaskStore, StaticAgentCard};
use clap::Args;
use futures_util::{StreamExt, stream, stream::BoxStream};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// How long the agent waits for the network.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);

/// How to start it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The gateway's address; the API key is in DAITN_API_KEY
    #[arg(long)]
    gateway: String,
    /// The model that it asks
    #[arg(long)]
    model: String,
    /// Stop when standard input ends
    #[arg(long)]
    stop_with_stdin: bool,
}

/// Runs until it is stopped.
pub(crate) async fn run(arguments: &Arguments, output: Output) -> Ending {
    let context = Context {
        url: arguments.gateway.clone(),
        api_key: None,
        ca_file: None,
    };
    let client = Client::new(&context, ASK_TIMEOUT)?;
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| Failure::usage(format!("{}: {error}", arguments.listen)))?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::internal(error.to_string()))?;
    let url = format!("http://{address}");
    let reader = Reader {
        client,
        model: arguments.model.clone(),
    };
    let handler = Arc::new(DefaultRequestHandler::new(reader, InMemoryTaskStore::new()));
    let router = axum::Router::new()
        .merge(a2a_server::agent_card::agent_card_router(Arc::new(
            StaticAgentCard::new(card(&url)),
        )))
        .merge(a2a_server::jsonrpc::jsonrpc_router(handler));
    let stop = Stop::new(arguments.stop_with_stdin)?;
    output.ready(&serde_json::json!({ "event": "ready", "url": url }))?;
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.wait())
        .await
        .map_err(|error| Failure::internal(format!("the agent's server: {error}")))?;
    Ok(Exit::Done)
}

fn card(url: &str) -> a2a::AgentCard {
    a2a::AgentCard {
        name: "Digit reader".to_owned(),
        description: "Reads a handwritten digit of 8×8 pixels with the network's model.".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        supported_interfaces: vec![a2a::AgentInterface::new(url, "JSONRPC")],
        capabilities: a2a::AgentCapabilities {
            streaming: Some(true),
            push_notifications: Some(false),
            extensions: None,
            extended_agent_card: None,
        },
        default_input_modes: vec!["text/plain".to_owned()],
        default_output_modes: vec!["text/plain".to_owned()],
        skills: vec![a2a::AgentSkill {
            id: "read-digit".to_owned(),
            name: "Read a digit".to_owned(),
            description: "Takes 64 numbers from 0 to 16 and says which digit they show.".to_owned(),
            tags: vec!["digits".to_owned(), "classification".to_owned()],
            examples: None,
            input_modes: None,
            output_modes: None,
            security_requirements: None,
        }],
        provider: None,
        documentation_url: None,
        icon_url: None,
        security_schemes: None,
        security_requirements: None,
        signatures: None,
    }
}

#[derive(Clone)]
struct Reader {
    client: Client,
    model: String,
}

impl Reader {
    /// Finds 64 numbers in the text and asks the model.
    async fn answer(&self, text: &str) -> Result<String, Failure> {
        let numbers: Vec<String> = text
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .filter(|word| !word.is_empty())
            .map(ToOwned::to_owned)
            .collect();
        if numbers.len() != super::digits::N_FEATURES {
            return Ok(format!(
                "I read digits of 64 pixels, and found {} numbers in your message.",
                numbers.len()
            ));
        }
        let path = format!("/v2/models/{}", self.model);
        let metadata = self
            .client
            .call(&Endpoint::new(reqwest::Method::GET, path.as_str()))
            .await?;
        let query = Query::of(&read(&metadata.body)?)?;
        let rows = Rows::from_arguments(&[numbers.join(",")])?;
        let (answer, _) = self
            .client
            .post(&format!("{path}/infer"), &query.body(&rows)?)
            .await?;
        let answers = query.read(&answer, None)?;
        let one = answers
            .answers()
            .first()
            .ok_or_else(|| Failure::internal("the model gave no answer"))?;
        let sure = one.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let class = one.class.as_deref().unwrap_or("unknown");
        let article = article(class);
        Ok(format!(
            "This is {article} {class}. I am {:.0} % sure.",
            sure * 100.0
        ))
    }
}

/// The article before a digit as it is spoken.
pub(crate) fn article(class: &str) -> &'static str {
    if class.starts_with('8') { "an" } else { "a" }
}

impl AgentExecutor for Reader {
    fn execute(&self, context: ExecutorContext) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        let reader = self.clone();
        stream::once(async move {
            let text = context
                .message
                .as_ref()
                .and_then(Message::text)
                .unwrap_or_default()
                .to_owned();
            let said = reader.answer(&text).await.map_err(|failure| {
                A2AError::internal(format!("the model could not be asked: {}", failure.rejection))
            })?;
            let mut message = Message::new(Role::Agent, vec![Part::text(said)]);
            message.context_id = Some(context.context_id);
            Ok(StreamResponse::Message(message))
        })
        .boxed()
    }

    fn cancel(&self, _: ExecutorContext) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        stream::once(async {
            Err(A2AError::internal(
                "an answer takes a moment and cannot be cancelled",
            ))
        })
        .boxed()
    }
}
