//! `daitn context`: which domain the commands talk to.

use super::{App, confirmed};
use crate::{
    client::Client,
    context::{ApiKey, Context, Contexts},
    failure::{Ending, Exit, Failure},
    files::{absolute, read_secret},
    paint::Paint,
    views::{Done, List, Row},
};
use clap::Subcommand;
use daitn_messages::{
    operation::{Operation, StatusView},
    rejection::Code,
};
use std::path::{Path, PathBuf};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add the context of the gateway at --url, and use it
    Add {
        /// What to call it
        name: String,
        /// The API key: `-` for standard input, `@FILE`, or the key itself, which others on this machine can then see
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// A PEM file with the authority that signed the gateway's certificate
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// Do not ask the gateway whether the key is in force
        #[arg(long)]
        no_check: bool,
    },
    /// Use a context from now on
    Use {
        /// Which
        name: String,
    },
    /// Forget a context and its key
    Remove {
        /// Which
        name: String,
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
    /// List contexts
    List,
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    let mut contexts = Contexts::load()?;
    match command {
        Command::Add {
            name,
            key,
            ca_file,
            no_check,
        } => {
            let context = described(app, key.as_deref(), ca_file.as_deref())?;
            if contexts
                .contexts
                .get(&name)
                .is_some_and(|known| known.url != context.url || known.api_key.is_some())
            {
                let message =
                    format!("there is a context `{name}` already, and adding it again would lose its key");
                return Err(Failure::new(Code::Conflict, message).hint(format!(
                    "Take another name, use it (daitn context use {name}), or remove it (daitn context remove {name} --yes)."
                )));
            }
            if !no_check && context.api_key.is_some() {
                check(app, &context).await?;
            }
            contexts.contexts.insert(name.clone(), context);
            contexts.current = Some(name.clone());
            contexts.save()?;
            app.output.show(&Done::new("in use", &name))?;
        }
        Command::Remove { name, yes } => {
            contexts.get(Some(&name))?;
            confirmed(
                yes,
                &format!("removing the context {name} loses the API key in it"),
            )?;
            contexts.contexts.remove(&name);
            contexts.current = contexts.current.filter(|current| *current != name);
            contexts.save()?;
            app.output.show(&Done::new("removed", &name))?;
        }
        Command::Use { name } => {
            contexts.get(Some(&name))?;
            contexts.current = Some(name.clone());
            contexts.save()?;
            app.output.show(&Done::new("in use", &name))?;
        }
        Command::List => {
            let rows = contexts
                .contexts
                .iter()
                .map(|(name, context)| Listed {
                    name: name.clone(),
                    url: context.url.clone(),
                    current: contexts.current.as_ref() == Some(name),
                    has_key: context.api_key.is_some(),
                })
                .collect();
            app.output.show(&List(rows))?;
        }
    }
    Ok(Exit::Done)
}

/// The context that the arguments describe.
fn described(app: &App, key: Option<&str>, ca_file: Option<&Path>) -> Result<Context, Failure> {
    let url = app
        .global
        .url
        .clone()
        .ok_or_else(|| Failure::usage("a context needs the gateway's address: --url URL"))?;
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(Failure::usage(format!(
            "`{url}` is not an address: expected http://… or https://…"
        )));
    }
    let ca_file = ca_file.map(absolute).transpose()?;
    let api_key = key.map(read_secret).transpose()?;
    if api_key.as_ref().is_some_and(|key| !is_key(key)) {
        return Err(Failure::usage(
            "this is no API key: one begins with `daitn_`, and letters and digits follow",
        )
        .hint("Make one with `daitn key create`. A file is written @FILE."));
    }
    Ok(Context {
        url,
        api_key: api_key.map(ApiKey::new),
        ca_file,
    })
}

/// Whether a text has the form of an API key.
fn is_key(text: &str) -> bool {
    text.strip_prefix("daitn_")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Asks the gateway whether the key is in force. One that may not read is in force too.
async fn check(app: &App, context: &Context) -> Result<(), Failure> {
    let client = Client::with_key(context, context.api_key.clone(), app.global.timeout.0)?;
    match client.ask::<StatusView>(&Operation::Status).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.rejection.code == Code::Unauthorised => Ok(()),
        Err(failure) if failure.rejection.code == Code::Unauthenticated => {
            Err(failure.hint("Check the key and the address. Nothing was written; --no-check does not ask."))
        }
        Err(failure) => {
            Err(failure.hint("Start the gateway, correct --url, or add it without asking: --no-check."))
        }
    }
}

/// A context as listed: without its key.
#[derive(serde::Serialize)]
struct Listed {
    name: String,
    url: String,
    current: bool,
    has_key: bool,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["IN USE", "NAME", "URL", "KEY"];
    const EMPTY: &'static str =
        "No contexts. `daitn up` writes one; so does `daitn context add NAME --url URL --key -`.";

    fn name(&self) -> String {
        self.name.clone()
    }
    fn cells(&self, paint: Paint, _wide: bool) -> Vec<String> {
        vec![
            if self.current {
                paint.good("*")
            } else {
                String::new()
            },
            paint.name(&self.name),
            self.url.clone(),
            if self.has_key { "yes" } else { "no" }.to_owned(),
        ]
    }
}
