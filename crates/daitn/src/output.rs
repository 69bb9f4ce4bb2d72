//! What goes where: standard output carries results only, in the format that was asked for; progress and warnings go
//! to standard error. JSON is one envelope, JSON lines end with a line that has `terminal: true`.

use crate::{
    failure::{Exit, Failure, Report},
    paint::Paint,
};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

/// Version of the envelope: raised when a reader of the old one could misread the new one.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people with wide screens: nothing is shortened.
    Wide,
    /// One envelope: schema_version, status, and data or error.
    Json,
    /// One JSON object a line; the last has `terminal: true`.
    Jsonl,
    /// The envelope as YAML.
    Yaml,
    /// Only names, one a line, for scripts.
    Name,
}

/// A result that can be printed in every format.
pub(crate) trait Shown: Serialize {
    /// For people, without the last line end.
    fn human(&self, paint: Paint, wide: bool) -> String;
    /// Names, for scripts.
    fn names(&self) -> Vec<String>;
}

/// Where a command writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

impl Output {
    /// In this format; quietly: without progress.
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }
    /// Whether people read it.
    pub(crate) fn is_human(self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }
    /// Whether results come line by line.
    pub(crate) fn is_lines(self) -> bool {
        self.format == Format::Jsonl
    }
    /// Whether progress may move the cursor.
    pub(crate) fn is_animated(self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Prints a result.
    pub(crate) fn show<T: Shown + ?Sized>(self, result: &T) -> Result<(), Failure> {
        let text = match self.format {
            Format::Table => result.human(Paint::stdout(), false),
            Format::Wide => result.human(Paint::stdout(), true),
            Format::Name => result.names().join("\n"),
            Format::Json => pretty(&envelope(&value(result)?)),
            Format::Yaml => yaml(&envelope(&value(result)?))?,
            Format::Jsonl => lines(&value(result)?, "ok"),
        };
        print(&text)
    }

    /// Prints text as it is in the human formats, and as a result in the others.
    pub(crate) fn show_text<T: Shown>(self, result: &T, text: &str) -> Result<(), Failure> {
        if self.is_human() {
            print(text)
        } else {
            self.show(result)
        }
    }

    /// Prints a JSON document as it is, without an envelope: for tools that read the document's own format.
    pub(crate) fn print_document(self, document: &Value) -> Result<(), Failure> {
        print(&pretty(document))
    }

    /// One event of something that goes on, as a line; only with `-o jsonl`.
    pub(crate) fn event<T: Serialize>(self, event: &T) -> Result<(), Failure> {
        if self.is_lines() {
            print(&value(event)?.to_string())
        } else {
            Ok(())
        }
    }

    /// One machine-readable line in every JSON format: how a process that goes on tells that it is ready.
    pub(crate) fn ready<T: Serialize>(self, ready: &T) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Jsonl => print(&envelope(&value(ready)?).to_string()),
            _ => Ok(()),
        }
    }

    /// Progress, for people, on standard error.
    pub(crate) fn say(self, line: impl Display) {
        if !self.quiet {
            complain(&line.to_string());
        }
    }

    /// A warning, on standard error, also when quiet.
    pub(crate) fn warn(self, line: impl Display) {
        complain(&format!("{} {line}", Paint::stderr().warn("warning:")));
    }

    /// How a failed command ends.
    pub(crate) fn fail(self, failure: &Failure) -> Exit {
        let printed = match self.format {
            Format::Json => print(&pretty(&failed(failure))),
            Format::Yaml => yaml(&failed(failure)).and_then(|text| print(&text)),
            Format::Jsonl => {
                let mut line = failed(failure);
                line["terminal"] = Value::Bool(true);
                print(&line.to_string())
            }
            Format::Table | Format::Wide | Format::Name => {
                complain(&report(failure));
                Ok(())
            }
        };
        // Where not even the failure can be printed, the exit code alone speaks.
        printed.map_or(Exit::Internal, |()| failure.exit)
    }
}

fn report(failure: &Failure) -> String {
    let theme = if Paint::stderr().is_on() {
        miette::GraphicalTheme::unicode()
    } else {
        miette::GraphicalTheme::unicode_nocolor()
    };
    let mut text = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(100);
    match handler.render_report(&mut text, &Report::from(failure)) {
        Ok(()) => text.trim_end().to_owned(),
        Err(_) => failure.rejection.to_string(),
    }
}

fn value<T: Serialize + ?Sized>(result: &T) -> Result<Value, Failure> {
    serde_json::to_value(result)
        .map_err(|error| Failure::internal(format!("a result cannot be printed: {error}")))
}

fn envelope(data: &Value) -> Value {
    json!({ "schema_version": SCHEMA_VERSION, "status": "ok", "data": data })
}

/// The envelope of a failure.
pub(crate) fn failed(failure: &Failure) -> Value {
    let rejection = &failure.rejection;
    let mut error = json!({
        "code": rejection.code.as_str(),
        "message": rejection.message,
        "hint": rejection.hint_or_page(),
        "decision": rejection.decision,
        "policies": rejection.policies,
        "docs": format!("daitn help {}", rejection.code.as_str()),
    });
    if let Some(details) = &failure.details {
        error["details"] = (**details).clone();
    }
    json!({ "schema_version": SCHEMA_VERSION, "status": "error", "error": error })
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value)
        .map(|text| text.trim_end().to_owned())
        .map_err(|error| Failure::internal(format!("a result cannot be written as YAML: {error}")))
}

fn lines(value: &Value, status: &str) -> String {
    let mut text = String::new();
    match value {
        Value::Array(items) => items.iter().for_each(|item| text.push_str(&format!("{item}\n"))),
        single => text.push_str(&format!("{single}\n")),
    }
    text.push_str(
        &json!({ "schema_version": SCHEMA_VERSION, "status": status, "terminal": true }).to_string(),
    );
    text
}

/// Prints on standard output; a reader that has seen enough is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let outcome = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::internal(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a line on standard error; where that is gone there is nobody to tell.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::rejection::Code;

    #[test]
    fn json_lines_end_with_a_terminal_line() {
        let text = lines(&json!([{"a": 1}, {"a": 2}]), "ok");
        let read: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read[0], json!({"a": 1}));
        assert_eq!(read[1], json!({"a": 2}));
        assert_eq!(read[2]["terminal"], Value::Bool(true));
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn a_failure_names_code_hint_and_page() {
        let failure = Failure::new(Code::StalePlan, "the plan is of version 7, the registry at 9");
        let told = failed(&failure);
        assert_eq!(told["status"], "error");
        assert_eq!(told["error"]["code"], "E0303");
        assert_eq!(told["error"]["docs"], "daitn help E0303");
        assert!(told["error"]["hint"].as_str().unwrap().contains("Plan again"));
        assert!(told.get("data").is_none());
    }
}
