//! Why a text is not a policy that can be used: where, what, and what to do.

use cedar_policy::ffi::DetailedError;
use daitn_messages::rejection::{Code, Rejection};
use std::fmt;

/// A place in a policy text, counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character within the line.
    pub column: usize,
}

impl Position {
    /// The place of a byte of the text.
    pub(crate) fn of(text: &str, byte: usize) -> Self {
        let mut end = byte.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a text is not a policy that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nothing in it but space and comments.
    #[error("the policy holds no rule: nobody could do anything")]
    Empty,
    /// Longer than a policy may be.
    #[error("the policy has {bytes} bytes, over the bound of {bytes_max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// More rules than a policy may have.
    #[error("the policy has {found} rules, over the bound of {max}")]
    TooMany {
        /// How many.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// A rule that nests too deeply or has too many operators.
    #[error("{position}: the rule {problem}, over the bound of {max}")]
    TooComplex {
        /// Where the bound was passed.
        position: Position,
        /// Of what there is too much.
        problem: &'static str,
        /// The bound.
        max: usize,
    },
    /// It does not parse.
    #[error("{}{message}", at(*.position))]
    Syntax {
        /// Where, if Cedar says so.
        position: Option<Position>,
        /// What Cedar says.
        message: String,
        /// What Cedar advises; may be empty.
        advice: String,
    },
    /// It parses, but speaks of something that the schema does not have, or mixes up types.
    #[error("{}rule `{policy}` does not fit the schema: {message}", at(*.position))]
    Schema {
        /// Which rule.
        policy: String,
        /// Where, if Cedar says so.
        position: Option<Position>,
        /// What Cedar says.
        message: String,
        /// What Cedar advises; may be empty.
        advice: String,
    },
    /// A template slot: a policy of ours stands for itself.
    #[error("rule `{policy}` has a slot (`?principal` or `?resource`)")]
    Slot {
        /// Which rule.
        policy: String,
    },
    /// Two rules with the same id.
    #[error("two rules have the id `{id}`")]
    SameId {
        /// The id.
        id: String,
    },
    /// An id that cannot be shown.
    #[error("a rule's id must have 1 to {bytes_max} bytes and no control character, found `{id}`")]
    BadId {
        /// The id, shortened and escaped.
        id: String,
        /// The bound.
        bytes_max: usize,
    },
    /// It names what can be no entity, so that the rule would never match.
    #[error("{}rule `{policy}` names {literal}, which no entity is called: it would never match", at(*.position))]
    NoEntity {
        /// Which rule.
        policy: String,
        /// Where.
        position: Option<Position>,
        /// What is named, shortened.
        literal: String,
        /// What may be meant.
        meant: String,
    },
    /// It reads otherwise than it acts: characters that change the direction of text.
    #[error("rule `{policy}` holds characters that change the direction of text")]
    Disguised {
        /// Which rule.
        policy: String,
    },
}

fn at(position: Option<Position>) -> String {
    position.map_or_else(String::new, |p| format!("{p}: "))
}

impl PolicyError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Empty => "Write at least one `permit (principal, action, resource) when { ... };`, or let \
                            `daitn data init` write a policy."
                .into(),
            Self::TooLong { .. } | Self::TooMany { .. } => {
                "Shorten it: put lists of values into one rule with `[...].contains(...)`.".into()
            }
            Self::TooComplex { .. } => "Split the rule into several: every `permit` is an `or`.".into(),
            Self::Syntax { advice, .. } => advised(
                advice,
                "A rule is `permit (principal, action, resource) when { ... };` or begins with `forbid`.",
            ),
            Self::Schema { advice, .. } => advised(
                advice,
                "An action is train, evaluate, discover, serve or query. A policy can speak of principal, action, resource.{organisation, jurisdiction, kind, labels} and \
                 context.{purpose, algorithm, protections, cohort, jurisdiction, recipients}.",
            ),
            Self::Slot { .. } => "Write the organisation or entity itself in place of the slot.".into(),
            Self::SameId { .. } => "Give each rule its own @id(\"...\").".into(),
            Self::BadId { .. } => "Give the rule a short readable @id(\"...\").".into(),
            Self::NoEntity { meant, .. } => format!("Write the whole id: {meant}."),
            Self::Disguised { .. } => {
                "Remove them; write such values with \\u{...} escapes if they are meant.".into()
            }
        }
    }

    /// From an error of Cedar's parser.
    pub(crate) fn syntax(text: &str, error: &DetailedError) -> Self {
        Self::Syntax {
            position: position(text, error),
            message: shortened(&error.message),
            advice: error.help.as_deref().map(shortened).unwrap_or_default(),
        }
    }

    /// From an error of Cedar's validator.
    pub(crate) fn schema(text: &str, policy: &str, error: &DetailedError) -> Self {
        Self::Schema {
            policy: policy.to_owned(),
            position: position(text, error),
            message: shortened(&error.message),
            advice: error.help.as_deref().map(shortened).unwrap_or_default(),
        }
    }
}

fn position(text: &str, error: &DetailedError) -> Option<Position> {
    error
        .source_locations
        .first()
        .map(|label| Position::of(text, label.loc.start))
}

fn advised(advice: &str, general: &str) -> String {
    if advice.is_empty() {
        general.to_owned()
    } else {
        format!("{advice}. {general}")
    }
}

/// Longest part of a message of Cedar's that is passed on, characters: it may quote the text.
const MESSAGE_CHARS_MAX: usize = 400;

fn shortened(message: &str) -> String {
    message
        .chars()
        .take(MESSAGE_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl From<PolicyError> for Rejection {
    fn from(error: PolicyError) -> Self {
        let hint = error.remedy();
        Self::new(Code::PolicyInvalid, error.to_string()).with_hint(hint)
    }
}
