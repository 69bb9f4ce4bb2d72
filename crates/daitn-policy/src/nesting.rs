//! A look at a policy text before it is parsed: how deeply it nests and how many operators a rule has.
//!
//! Cedar's parser and its tree walk recursively, and not everywhere with a check of the stack. A hostile text of 64 KiB
//! could nest tens of thousands deep, so depth is bounded here, over tokens, without recursion.

use crate::error::{PolicyError, Position};

/// Deepest nesting of brackets in a rule. Hand-written policies stay under ten.
pub const STACK_DEPTH_MAX: usize = 48;
/// Most operators (`&&`, `||`, `.`, `!`, `if`, opening brackets, arithmetic, comparison) in one rule: each can make the tree one deeper.
pub const OPERATORS_MAX: usize = 512;

/// Refuses a text in which a rule nests too deeply or has too many operators.
pub(crate) fn check(text: &str) -> Result<(), PolicyError> {
    let bytes = text.as_bytes();
    let (mut depth, mut n_operators, mut i) = (0_usize, 0_usize, 0_usize);
    while i < bytes.len() {
        let start = i;
        i = match bytes[i] {
            b'"' => after_string(bytes, i),
            b'/' if bytes.get(i + 1) == Some(&b'/') => after_line(bytes, i),
            b'(' | b'[' | b'{' => {
                // An opening bracket may also be an index or a call: those can stand in a row, `a["b"]["c"]`.
                depth += 1;
                n_operators += 1;
                i + 1
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                i + 1
            }
            // A rule ends here: its tree does not hang on the next one's.
            b';' => {
                (depth, n_operators) = (0, 0);
                i + 1
            }
            b'!' | b'-' | b'+' | b'*' | b'.' | b'&' | b'|' | b'<' | b'>' | b'=' | b'/' | b'%' | b':' => {
                n_operators += 1;
                i + 1
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let end = after_word(bytes, i);
                if matches!(
                    &text[i..end],
                    "if" | "in" | "is" | "has" | "like" | "when" | "unless"
                ) {
                    n_operators += 1;
                }
                end
            }
            _ => i + 1,
        };
        let (problem, max) = if depth > STACK_DEPTH_MAX {
            ("nests too deeply", STACK_DEPTH_MAX)
        } else if n_operators > OPERATORS_MAX {
            ("has too many operators", OPERATORS_MAX)
        } else {
            continue;
        };
        let position = Position::of(text, start);
        return Err(PolicyError::TooComplex {
            position,
            problem,
            max,
        });
    }
    Ok(())
}

/// How often a word stands in a text, outside strings and comments.
pub(crate) fn n_words(text: &str, word: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut n, mut i) = (0, 0);
    while i < bytes.len() {
        let start = i;
        i = match bytes[i] {
            b'"' => after_string(bytes, i),
            b'/' if bytes.get(i + 1) == Some(&b'/') => after_line(bytes, i),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => after_word(bytes, i),
            _ => i + 1,
        };
        n += usize::from(bytes.get(start..i) == Some(word.as_bytes()));
    }
    n
}

fn after_string(bytes: &[u8], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < bytes.len() && bytes[i] != b'"' {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    i + 1
}

fn after_line(bytes: &[u8], start: usize) -> usize {
    bytes[start..]
        .iter()
        .position(|b| *b == b'\n')
        .map_or(bytes.len(), |n| start + n + 1)
}

fn after_word(bytes: &[u8], start: usize) -> usize {
    bytes[start..]
        .iter()
        .position(|b| !b.is_ascii_alphanumeric() && *b != b'_')
        .map_or(bytes.len(), |n| start + n)
}
