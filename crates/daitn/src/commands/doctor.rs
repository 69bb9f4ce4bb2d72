//! `daitn doctor`: looks at everything between this machine and a domain, and names what fails, why, and the command
//! that mends it.

mod checks;
mod node;

use super::App;
use crate::{
    context::Contexts,
    failure::{Ending, Exit, Failure},
    files::read_secret,
    output::Shown,
    paint::Paint,
    render::Table,
};
use clap::Args;
use daitn_messages::{
    control::JOIN_TOKEN_PREFIX,
    rejection::{Code, Rejection},
};
use serde::Serialize;
use std::path::PathBuf;

/// Against what.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A join token (or `@FILE`, or `-`) to look at the way to its control center, or a gateway's URL; without it
    /// the gateway of the context
    #[arg(long, value_name = "TOKEN|URL")]
    against: Option<String>,
    /// Also look at this node's directory: its disk, its terminals and their data
    #[arg(long, value_name = "DIRECTORY")]
    node_dir: Option<PathBuf>,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Mark {
    /// As it should be.
    Pass,
    /// It works, but look.
    Warn,
    /// It does not work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: String,
    /// What was found.
    pub(crate) mark: Mark,
    /// In words: the cause, where it is not well.
    pub(crate) found: String,
    /// What mends it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) mend: String,
}

impl Finding {
    /// As it should be.
    pub(crate) fn pass(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            mark: Mark::Pass,
            found: found.into(),
            mend: String::new(),
        }
    }
    /// It works, but look.
    pub(crate) fn warn(check: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            mark: Mark::Warn,
            found: found.into(),
            mend: mend.into(),
        }
    }
    /// It does not work, for this reason, which knows its remedy.
    pub(crate) fn failed(check: impl Into<String>, cause: &Rejection) -> Self {
        Self::fail(check, cause.message.clone(), cause.hint_or_page())
    }
    /// It does not work.
    pub(crate) fn fail(check: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            mark: Mark::Fail,
            found: found.into(),
            mend: mend.into(),
        }
    }
}

/// The report.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    /// Whether something does not work.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.iter().any(|finding| finding.mark == Mark::Fail)
    }
}

impl Shown for Findings {
    fn human(&self, paint: Paint, _: bool) -> String {
        let mut table = Table::new(paint, &["", "CHECK", "FOUND"], "Nothing was looked at.");
        for finding in &self.0 {
            let mark = match finding.mark {
                Mark::Pass => paint.good("PASS"),
                Mark::Warn => paint.warn("WARN"),
                Mark::Fail => paint.bad("FAIL"),
            };
            let mut found = finding.found.clone();
            if !finding.mend.is_empty() {
                found.push_str(&format!("\n→ {}", finding.mend));
            }
            table.row([mark, finding.check.clone(), found]);
        }
        table.text()
    }
    fn names(&self) -> Vec<String> {
        self.0
            .iter()
            .filter(|f| f.mark == Mark::Fail)
            .map(|f| f.check.clone())
            .collect()
    }
}

/// Runs it.
pub(crate) async fn run(app: &App, arguments: Arguments) -> Ending {
    let mut findings = Vec::new();
    if let Some(directory) = &arguments.node_dir {
        findings.extend(node::look(directory).await);
    }
    match &arguments.against {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
            findings.extend(checks::gateway(url, None, app.global.timeout.0).await);
        }
        Some(given) => {
            let text = if given.starts_with(JOIN_TOKEN_PREFIX) {
                given.clone()
            } else {
                read_secret(given)?
            };
            findings.extend(checks::token(&text).await);
        }
        None => match (context(app), &arguments.node_dir) {
            (Ok((url, context)), _) => {
                findings.extend(checks::gateway(&url, Some(&context), app.global.timeout.0).await);
            }
            (Err(failure), None) => findings.push(Finding::failed("context", &failure.rejection)),
            // Only the node's directory was to be looked at.
            (Err(_), Some(_)) => {}
        },
    }
    let findings = Findings(findings);
    let failed = findings.has_failed();
    app.output.show(&findings)?;
    Ok(if failed { Exit::Refused } else { Exit::Done })
}

fn context(app: &App) -> Result<(String, crate::context::Context), Failure> {
    if let Some(url) = &app.global.url {
        return Ok((
            url.clone(),
            crate::context::Context {
                url: url.clone(),
                api_key: None,
                ca_file: None,
            },
        ));
    }
    let contexts = Contexts::load()?;
    let (_, context) = contexts.get(app.global.context.as_deref())?;
    Ok((context.url.clone(), context.clone()))
}

/// Looks at the way to a token's control center, after joining has failed, and adds what it finds to the failure.
pub(crate) async fn after_failed_join(app: &App, token: &str, failure: Failure) -> Failure {
    if failure.rejection.code == Code::TokenInvalid {
        return failure;
    }
    let findings = Findings(checks::token(token).await);
    if app.output.is_human() {
        app.output.say(format!(
            "What stands between this machine and the control center:\n{}",
            findings.human(Paint::stderr(), false)
        ));
    }
    match serde_json::to_value(&findings) {
        Ok(found) => failure.details(found),
        Err(_) => failure,
    }
}
