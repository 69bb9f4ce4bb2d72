//! `daitn token`: what nodes join with.

use super::{App, confirmed, parsed};
use crate::{
    failure::{Ending, Exit},
    measure::Span,
    paint::Paint,
    render::{age, date_time},
    views::{Done, List, Row},
};
use clap::Subcommand;
use daitn_messages::{
    ids::{EntityKind, OrganisationId, TokenId},
    operation::{CreatedToken, NewToken, Operation, TokenView},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a join token; its text is shown once, on standard output
    Create {
        /// For which organisation
        #[arg(long, value_name = "NAME")]
        organisation: OrganisationId,
        /// Kinds of terminal that its nodes may attach: dataset, compute, model-host, verifier, aggregator, agent; all if
        /// none is given
        #[arg(long, value_delimiter = ',', value_name = "KIND", value_parser = kind)]
        terminals: Vec<EntityKind>,
        /// How many nodes may join with it
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// How long it is valid
        #[arg(long, default_value = "24h", value_name = "DURATION")]
        valid: Span,
    },
    /// List join tokens
    List,
    /// Revoke a join token
    Revoke {
        /// Its id, as listed
        token: String,
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
}

/// A kind of entity on the command line.
pub(crate) fn kind(text: &str) -> Result<EntityKind, String> {
    EntityKind::ALL
        .into_iter()
        .find(|k| k.as_str() == text)
        .ok_or_else(|| {
            let kinds: Vec<&str> = EntityKind::ALL.iter().map(|k| k.as_str()).collect();
            format!("expected one of {}", kinds.join(", "))
        })
}

/// Runs it.
pub(crate) async fn run(app: &App, command: Command) -> Ending {
    let client = app.client()?;
    match command {
        Command::Create {
            organisation,
            terminals,
            uses,
            valid,
        } => {
            let token = NewToken {
                organisation,
                terminals,
                uses,
                valid_ms: valid.ms(),
            };
            let created: CreatedToken = client.ask(&Operation::CreateToken(token)).await?;
            app.output.say(format!(
                "Token {} is valid until {}. On the new node's machine:\n  daitn node join TOKEN --dir DIRECTORY",
                created.token,
                date_time(created.expires_at)
            ));
            app.output.show(&Created(created))?;
        }
        Command::List => {
            let tokens: Vec<TokenView> = client.ask(&Operation::ListTokens).await?;
            app.output.show(&List(tokens))?;
        }
        Command::Revoke { token, yes } => {
            let token: TokenId = parsed(&token)?;
            confirmed(yes, &format!("revoking {token} cannot be undone"))?;
            let _: serde_json::Value = client.ask(&Operation::RevokeToken(token.clone())).await?;
            app.output.show(&Done::new("revoked", &token))?;
        }
    }
    Ok(Exit::Done)
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Created(CreatedToken);

impl crate::output::Shown for Created {
    fn human(&self, _: Paint, _: bool) -> String {
        self.0.text.clone()
    }
    fn names(&self) -> Vec<String> {
        vec![self.0.token.to_string()]
    }
}

impl Row for TokenView {
    const COLUMNS: &'static [&'static str] = &["TOKEN", "ORGANISATION", "TERMINALS", "USES LEFT", "STATE"];
    const EMPTY: &'static str = "No join tokens. Make one: daitn token create --organisation NAME";

    fn name(&self) -> String {
        self.token.to_string()
    }
    fn cells(&self, paint: Paint, _wide: bool) -> Vec<String> {
        let now = super::now();
        let terminals: Vec<&str> = self.terminals.iter().map(|k| k.as_str()).collect();
        let state = if self.revoked {
            paint.bad("revoked")
        } else if self.expires_at <= now {
            paint.dim("expired")
        } else if self.uses_left == 0 {
            paint.dim("spent")
        } else {
            paint.good(format!("valid for {}", age(now, self.expires_at)))
        };
        vec![
            paint.name(&self.token),
            self.organisation.to_string(),
            if terminals.is_empty() {
                "all".to_owned()
            } else {
                terminals.join(",")
            },
            self.uses_left.to_string(),
            state,
        ]
    }
}
