//! `daitn help`: the page of an error code, or the help of a command.

use super::App;
use crate::{
    failure::{Ending, Exit, Failure},
    output::Shown,
    paint::Paint,
    views::{List, Row},
};
use clap::Args;
use daitn_messages::rejection::Code;
use serde::Serialize;

/// About what.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// An error code such as E0302, or a command such as `job plan`; nothing lists the codes
    topic: Vec<String>,
}

/// Runs it.
pub(crate) fn run(app: &App, arguments: &Arguments) -> Ending {
    match arguments.topic.as_slice() {
        [] => {
            app.output
                .show(&List(Code::ALL.iter().copied().map(Page::of).collect()))?;
            app.output
                .say("daitn help CODE shows a page, daitn --help the commands.");
        }
        [code] if is_code(code) => {
            let wanted = code.to_ascii_uppercase();
            let known = Code::ALL
                .iter()
                .copied()
                .find(|c| c.as_str() == wanted)
                .ok_or_else(|| {
                    Failure::usage(format!("there is no code {wanted}")).hint("`daitn help` lists them.")
                })?;
            app.output.show(&Page::of(known))?;
        }
        words => app.output.show(&CommandHelp {
            help: command_help(words)?,
        })?,
    }
    Ok(Exit::Done)
}

fn is_code(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.eq_ignore_ascii_case(&b'e'))
        && text.len() > 1
        && bytes.all(|b| b.is_ascii_digit())
}

fn command_help(words: &[String]) -> Result<String, Failure> {
    let mut root = crate::cli::command();
    root.build();
    let mut command = &mut root;
    for word in words {
        command = command.find_subcommand_mut(word).ok_or_else(|| {
            Failure::usage(format!("there is no command `{word}`")).hint("See `daitn --help`.")
        })?;
    }
    Ok(command.render_long_help().to_string().trim_end().to_owned())
}

/// An error code's page.
#[derive(Serialize)]
struct Page {
    code: &'static str,
    title: &'static str,
    page: &'static str,
}

impl Page {
    fn of(code: Code) -> Self {
        Self {
            code: code.as_str(),
            title: code.title(),
            page: code.page(),
        }
    }
}

impl Shown for Page {
    fn human(&self, paint: Paint, _: bool) -> String {
        format!(
            "{} {}\n\n{}",
            paint.name(self.code),
            paint.bold(self.title),
            self.page
        )
    }
    fn names(&self) -> Vec<String> {
        vec![self.code.to_owned()]
    }
}

impl Row for Page {
    const COLUMNS: &'static [&'static str] = &["CODE", "MEANS"];
    const EMPTY: &'static str = "";

    fn name(&self) -> String {
        self.code.to_owned()
    }
    fn cells(&self, paint: Paint, _wide: bool) -> Vec<String> {
        vec![paint.name(self.code), self.title.to_owned()]
    }
}

#[derive(Serialize)]
struct CommandHelp {
    help: String,
}

impl Shown for CommandHelp {
    fn human(&self, _: Paint, _: bool) -> String {
        self.help.clone()
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}
