//! `daitn context`: which domain the commands talk to.

use super::App;
use crate::{
    context::{ApiKey, Context, Contexts},
    failure::{Ending, Exit, Failure},
    files::{absolute, read_secret},
    paint::Paint,
    views::{Done, List, Row},
};
use clap::Subcommand;
use daitn_messages::rejection::Code;
use std::path::PathBuf;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add the context of the gateway at --url, and use it
    Add {
        /// What to call it
        name: String,
        /// The API key: `-` for standard input, `@FILE`, or the key itself
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// A PEM file with the authority that signed the gateway's certificate
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
    /// Use a context from now on
    Use {
        /// Which
        name: String,
    },
    /// List contexts
    List,
}

/// Runs it.
pub(crate) fn run(app: &App, command: Command) -> Ending {
    let mut contexts = Contexts::load()?;
    match command {
        Command::Add { name, key, ca_file } => {
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
            if contexts
                .contexts
                .get(&name)
                .is_some_and(|known| known.url != url || known.api_key.is_some())
            {
                let message =
                    format!("there is a context `{name}` already, and adding it again would lose its key");
                return Err(Failure::new(Code::Conflict, message)
                    .hint(format!("Take another name, or use it: daitn context use {name}")));
            }
            let ca_file = ca_file.as_deref().map(absolute).transpose()?;
            let api_key = key.as_deref().map(read_secret).transpose()?.map(ApiKey::new);
            contexts.contexts.insert(
                name.clone(),
                Context {
                    url,
                    api_key,
                    ca_file,
                },
            );
            contexts.current = Some(name.clone());
            contexts.save()?;
            app.output.show(&Done::new("in use", &name))?;
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
