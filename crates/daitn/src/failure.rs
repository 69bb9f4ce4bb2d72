//! How a command ends: exit codes, and failures with a code, a cause and what to do next.

use daitn_messages::rejection::{Code, Rejection};
use serde_json::Value;
use std::{fmt::Display, io, path::Path};

/// Exit codes of the command. They are a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Refused or failed by the network.
    Refused = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Cannot connect or authenticate.
    Connection = 3,
    /// A time-out.
    TimeOut = 4,
    /// A stale plan or a conflict.
    Stale = 5,
    /// A fault of the program or the machine.
    Internal = 70,
}

/// What a command returns: most end well or with a failure; a few, such as `policy can`, say no with a result.
pub(crate) type Ending = Result<Exit, Failure>;

/// Why a command did not do what it should.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// Code, cause, remedy.
    pub(crate) rejection: Rejection,
    /// What else a script may want, for instance an infeasible verdict.
    pub(crate) details: Option<Box<Value>>,
}

impl Failure {
    /// A failure whose exit code follows from its code.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self::from(Rejection::new(code, message))
    }
    /// The command was used wrongly, or a file of the user is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            rejection: Rejection::new(Code::Malformed, message),
            details: None,
        }
    }
    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, error: impl Display) -> Self {
        Self::usage(format!("{}: {error}", path.display()))
    }
    /// What the system says of a file of the user. One that is not there is `E0104`, whichever command looked for it.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        let mut failure = Self::file(path, error);
        if error.kind() == io::ErrorKind::NotFound {
            failure.rejection.code = Code::NotFound;
            failure = failure.hint("Check the path: it counts from the directory in which the command runs.");
        }
        failure
    }
    /// No connection.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Code::Unreachable, message)
    }
    /// Nothing came in time.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::TimeOut,
            ..Self::new(Code::DeadlinePassed, message)
        }
    }
    /// A fault of ours or of the machine.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }
    /// Says what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.rejection.hint = hint.into();
        self
    }
    /// Adds what a script may want to look into.
    pub(crate) fn details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }
    /// The same failure, found while reading what the user gave: a usage error.
    pub(crate) fn into_usage(mut self) -> Self {
        self.exit = Exit::Usage;
        self
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let exit = match rejection.code {
            Code::Unreachable
            | Code::TokenInvalid
            | Code::ClockSkew
            | Code::VersionMismatch
            | Code::NotEnrolled
            | Code::BadSignature
            | Code::Unauthenticated
            | Code::Unauthorised
            | Code::ControlUnavailable => Exit::Connection,
            Code::DeadlinePassed => Exit::TimeOut,
            Code::StalePlan | Code::Conflict => Exit::Stale,
            Code::Internal | Code::Storage => Exit::Internal,
            _ => Exit::Refused,
        };
        Self {
            exit,
            rejection,
            details: None,
        }
    }
}

/// A failure as people see it: made at the very edge.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Report {
    message: String,
    code: String,
    help: String,
}

impl miette::Diagnostic for Report {
    fn code<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        Some(Box::new(&self.code))
    }
    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as Box<dyn Display>)
    }
}

impl From<&Failure> for Report {
    fn from(failure: &Failure) -> Self {
        let rejection = &failure.rejection;
        // The page of a code that only says "wrong usage" would not help who has just read what is wrong.
        let general = failure.exit == Exit::Usage && rejection.hint.is_empty();
        let mut help = if general {
            String::new()
        } else {
            rejection.hint_or_page().to_owned()
        };
        if !rejection.policies.is_empty() {
            help.push_str(&format!(
                "\nDetermining policies: {}.",
                rejection.policies.join(", ")
            ));
        }
        if let Some(decision) = &rejection.decision {
            help.push_str(&format!("\nWhy: daitn explain {decision}"));
        }
        let code = rejection.code;
        if !general {
            help.push_str(&format!("\nMore: daitn help {}", code.as_str()));
        }
        Self {
            message: rejection.message.clone(),
            code: format!("{} {}", code.as_str(), code.title()),
            help: help.trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/book: what a script may rely on.
    #[test]
    fn each_code_ends_as_documented() {
        for (code, exit) in [
            (Code::PolicyForbids, 1),
            (Code::Infeasible, 1),
            (Code::NotVerified, 1),
            (Code::NotFound, 1),
            (Code::Unreachable, 3),
            (Code::Unauthenticated, 3),
            (Code::TokenInvalid, 3),
            (Code::DeadlinePassed, 4),
            (Code::StalePlan, 5),
            (Code::Conflict, 5),
            (Code::Internal, 70),
            (Code::Storage, 70),
        ] {
            assert_eq!(Failure::new(code, "x").exit as u8, exit, "{code:?}");
        }
        assert_eq!(Failure::usage("x").exit as u8, 2);
    }
}
