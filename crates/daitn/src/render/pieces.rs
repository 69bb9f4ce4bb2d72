//! Tables without lines, aligned facts, bars and sparklines.

use crate::paint::Paint;
use comfy_table::{Cell, ContentArrangement, presets};

/// A table: a header in capitals, a row for each thing.
pub(crate) struct Table {
    table: comfy_table::Table,
    n_rows: usize,
    empty: &'static str,
}

impl Table {
    /// With these columns; `empty` is said instead of a table without rows, with the command that makes the first.
    pub(crate) fn new(paint: Paint, columns: &[&str], empty: &'static str) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|name| Cell::new(paint.dim(name))));
        Self {
            table,
            n_rows: 0,
            empty,
        }
    }
    /// Adds a row.
    pub(crate) fn row<S: ToString>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.table
            .add_row(cells.into_iter().map(|cell| Cell::new(cell.to_string())));
        self.n_rows += 1;
    }
    /// The text, without spaces at the ends of lines.
    pub(crate) fn text(&self) -> String {
        if self.n_rows == 0 {
            return self.empty.to_owned();
        }
        self.table
            .to_string()
            .lines()
            .map(|line| line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Names and values, values aligned.
pub(crate) fn facts<N: AsRef<str>>(paint: Paint, pairs: &[(N, String)]) -> String {
    let width = pairs
        .iter()
        .map(|(name, _)| name.as_ref().chars().count())
        .max()
        .unwrap_or(0);
    let indent = format!("\n{}", " ".repeat(width + 2));
    pairs
        .iter()
        .map(|(name, value)| {
            let gap = " ".repeat(width - name.as_ref().chars().count() + 2);
            format!(
                "{}{gap}{}",
                paint.dim(name.as_ref()),
                value.replace('\n', &indent)
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// A title and what is under it, indented.
pub(crate) fn section(paint: Paint, title: &str, body: &str) -> String {
    let body: Vec<String> = body
        .lines()
        .map(|line| {
            if line.is_empty() {
                String::new()
            } else {
                format!("  {line}")
            }
        })
        .collect();
    format!("{}\n{}", paint.bold(title), body.join("\n"))
}

/// Prose in lines of at most this many characters; words are kept whole.
pub(crate) fn wrapped(text: &str, n_characters_max: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let n = line.chars().count() + word.chars().count() + 1;
            if !line.is_empty() && n > n_characters_max {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// Names that are listed unless all are asked for.
const LISTED_MAX: usize = 20;

/// The names, wrapped; only the first where they are many, unless all are asked for.
pub(crate) fn listed(names: &[String], wide: bool, n_characters_max: usize) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    if wide || more == 0 {
        return wrapped(&names.join(", "), n_characters_max);
    }
    let first = names[..LISTED_MAX].join(", ");
    let text = format!("{first} and {more} more: -o wide shows them");
    wrapped(&text, n_characters_max)
}

/// A bar for a share from 0 to 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a width of a few characters"
)]
pub(crate) fn bar(share: f64, width: usize) -> String {
    let filled = ((share.clamp(0.0, 1.0) * width as f64).round() as usize).min(width);
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

/// A curve in one line: at most `width` values, evenly from the first to the last.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a level from 0 to 7"
)]
pub(crate) fn sparkline(values: &[f64], width: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if finite.is_empty() || width == 0 {
        return String::new();
    }
    let n = finite.len().min(width);
    let last = finite.len() - 1;
    let sampled: Vec<f64> = (0..n).map(|i| finite[i * last / (n - 1).max(1)]).collect();
    let low = sampled.iter().copied().fold(f64::INFINITY, f64::min);
    let span = (sampled.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low).max(f64::MIN_POSITIVE);
    sampled
        .iter()
        .map(|v| LEVELS[(((v - low) / span * 7.0).round() as usize).min(7)])
        .collect()
}

/// At most this many characters, cut between words where that keeps at least half, the cut shown.
pub(crate) fn shortened(text: &str, n_characters_max: usize) -> String {
    if text.chars().count() <= n_characters_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(n_characters_max.saturating_sub(1)).collect();
    let in_a_word = !text
        .chars()
        .nth(kept.chars().count())
        .is_some_and(char::is_whitespace);
    let whole = kept
        .rfind(char::is_whitespace)
        .filter(|end| in_a_word && *end >= kept.len() / 2);
    format!("{}…", kept[..whole.unwrap_or(kept.len())].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_space() {
        let mut table = Table::new(Paint::plain(), &["NAME", "STATE"], "none");
        assert_eq!(table.text(), "none");
        table.row(["a", "online"]);
        table.row(["longer", "off"]);
        assert_eq!(table.text(), "NAME    STATE\na       online\nlonger  off");
    }

    #[test]
    fn a_cut_falls_between_words() {
        assert_eq!(shortened("takes 1234567 bytes", 19), "takes 1234567 bytes");
        assert_eq!(shortened("it takes 1234567 bytes", 13), "it takes…");
        assert_eq!(shortened("it takes 1234567 bytes", 17), "it takes 1234567…");
        // One long word is cut all the same.
        assert_eq!(shortened("a 1234567890123456", 10), "a 1234567…");
    }

    #[test]
    fn prose_keeps_its_words() {
        assert_eq!(wrapped("one two three\nfour", 7), "one two\nthree\nfour");
        assert_eq!(wrapped("", 7), "");
        assert_eq!(wrapped("unbreakable a", 4), "unbreakable\na");
    }

    #[test]
    fn a_falling_loss_falls() {
        assert_eq!(
            sparkline(&[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 8),
            "█▇▆▅▄▃▂▁"
        );
        assert_eq!(sparkline(&[], 8), "");
        // Most of it fell at once: the curve begins where the loss did.
        let mut long = vec![1.0; 1000];
        long[0] = 8.0;
        assert_eq!(sparkline(&long, 4), "█▁▁▁");
        assert_eq!(sparkline(&[2.0, 1.0], 1), "▁");
        assert_eq!(sparkline(&[1.0; 100], 10).chars().count(), 10);
        assert_eq!(bar(0.5, 4), "██░░");
    }
}
