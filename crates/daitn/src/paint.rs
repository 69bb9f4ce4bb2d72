//! Colours for a terminal, and none anywhere else: `NO_COLOR` and a missing terminal turn them off.

use std::{fmt::Display, io::IsTerminal};

/// Whether and how to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self::wanted(std::io::stdout().is_terminal())
    }
    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self::wanted(std::io::stderr().is_terminal())
    }
    /// Never.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { on: false }
    }
    fn wanted(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            on: terminal && !refused && !dumb,
        }
    }
    /// Whether colours are on.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }
    fn wrap(self, code: &str, text: impl Display) -> String {
        if self.on {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_string()
        }
    }
    /// What matters most.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.wrap("1", text)
    }
    /// What matters least.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.wrap("2", text)
    }
    /// Good.
    pub(crate) fn good(self, text: impl Display) -> String {
        self.wrap("32", text)
    }
    /// Bad.
    pub(crate) fn bad(self, text: impl Display) -> String {
        self.wrap("31", text)
    }
    /// To be looked at.
    pub(crate) fn warn(self, text: impl Display) -> String {
        self.wrap("33", text)
    }
    /// A name.
    pub(crate) fn name(self, text: impl Display) -> String {
        self.wrap("36", text)
    }
}
