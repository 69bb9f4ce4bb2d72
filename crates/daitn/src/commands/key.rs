//! `daitn key`: what clients of the API authenticate with.

use super::{App, confirmed, parsed};
use crate::{
    failure::{Ending, Exit},
    output::Shown,
    paint::Paint,
    views::{Done, List, Row},
};
use clap::Subcommand;
use daitn_messages::{
    ids::{ApiKeyId, OrganisationId},
    operation::{CreatedKey, KeyView, NewKey, Operation, Scope},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an API key; its secret is shown once, on standard output
    Create {
        /// For which organisation
        #[arg(long, value_name = "NAME")]
        organisation: OrganisationId,
        /// Rights: admin, read, train, deploy, query
        #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPE", value_parser = scope)]
        scopes: Vec<Scope>,
        /// What it is for, for people
        #[arg(long, default_value = "", value_name = "TEXT")]
        note: String,
    },
    /// List API keys
    List,
    /// Revoke an API key
    Revoke {
        /// Its id, as listed
        key: String,
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::ALL
        .into_iter()
        .find(|s| s.as_str() == text)
        .ok_or_else(|| {
            let scopes: Vec<&str> = Scope::ALL.iter().map(|s| s.as_str()).collect();
            format!("expected one of {}", scopes.join(", "))
        })
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    let client = app.client()?;
    match command {
        Command::Create {
            organisation,
            scopes,
            note,
        } => {
            let created: CreatedKey = client
                .ask(&Operation::CreateKey(NewKey {
                    organisation,
                    scopes,
                    note,
                }))
                .await?;
            app.output.say(format!(
                "Key {}. It is sent as `Authorization: Bearer KEY`.",
                created.key
            ));
            app.output.show(&Created(created))?;
        }
        Command::List => {
            let keys: Vec<KeyView> = client.ask(&Operation::ListKeys).await?;
            app.output.show(&List(keys))?;
        }
        Command::Revoke { key, yes } => {
            let key: ApiKeyId = parsed(&key)?;
            confirmed(
                yes,
                &format!("revoking {key} cannot be undone: whoever uses it is refused at once"),
            )?;
            let _: serde_json::Value = client.ask(&Operation::RevokeKey(key.clone())).await?;
            app.output.show(&Done::new("revoked", &key))?;
        }
    }
    Ok(Exit::Done)
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Created(CreatedKey);

impl Shown for Created {
    fn human(&self, _: Paint, _: bool) -> String {
        self.0.secret.clone()
    }
    fn names(&self) -> Vec<String> {
        vec![self.0.key.to_string()]
    }
}

impl Row for KeyView {
    const COLUMNS: &'static [&'static str] = &["KEY", "ORGANISATION", "SCOPES", "STATE", "NOTE"];
    const EMPTY: &'static str =
        "No API keys. Make one: daitn key create --organisation NAME --scopes read,query";

    fn name(&self) -> String {
        self.key.to_string()
    }
    fn cells(&self, paint: Paint, _wide: bool) -> Vec<String> {
        let scopes: Vec<&str> = self.scopes.iter().map(|s| s.as_str()).collect();
        vec![
            paint.name(&self.key),
            self.organisation.to_string(),
            scopes.join(","),
            if self.revoked {
                paint.bad("revoked")
            } else {
                paint.good("in force")
            },
            self.note.clone(),
        ]
    }
}
