//! Where events end in a stream of server-sent events (WHATWG HTML, section 9.2.5): at a blank line, where a line ends with
//! LF, CR or both. Nothing else of them is read.

/// What a piece of a stream holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fed {
    /// Up to here the piece ends an event.
    pub(super) whole: usize,
    /// The event after that is over the bound.
    pub(super) too_long: bool,
}

/// Finds the ends of events over the pieces of a stream.
#[derive(Debug)]
pub(super) struct Splitter {
    bytes_max: usize,
    /// Of the event that has begun.
    n_bytes: usize,
    line_is_empty: bool,
    after_cr: bool,
}

impl Splitter {
    /// For events of at most this many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            n_bytes: 0,
            line_is_empty: true,
            after_cr: false,
        }
    }

    /// Looks at the next piece.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Fed {
        let mut whole = 0;
        for (i, byte) in piece.iter().enumerate() {
            self.n_bytes += 1;
            if self.n_bytes > self.bytes_max {
                return Fed {
                    whole,
                    too_long: true,
                };
            }
            let second_of_two = *byte == b'\n' && self.after_cr;
            self.after_cr = *byte == b'\r';
            let ends = match byte {
                // The line ended with the CR; what it ended reaches to here.
                b'\n' if second_of_two => self.n_bytes == 1,
                b'\n' | b'\r' => std::mem::replace(&mut self.line_is_empty, true),
                _ => {
                    self.line_is_empty = false;
                    false
                }
            };
            if ends {
                self.n_bytes = 0;
                whole = i + 1;
            }
        }
        Fed {
            whole,
            too_long: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream's events, however it is cut into pieces.
    fn check(stream: &str, expected: &[&str]) {
        for piece_bytes in 1..=stream.len() {
            let mut splitter = Splitter::new(100);
            let (mut out, mut begun) = (String::new(), String::new());
            for piece in stream.as_bytes().chunks(piece_bytes) {
                let fed = splitter.feed(piece);
                assert!(!fed.too_long);
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                if fed.whole > 0 {
                    out.push_str(&begun);
                    out.push_str(&text(&piece[..fed.whole]));
                    out.push('|');
                    begun.clear();
                }
                begun.push_str(&text(&piece[fed.whole..]));
            }
            // Pieces of one byte give each event alone; larger ones several at once.
            let joined: String = expected.concat();
            assert_eq!(out.replace('|', ""), joined, "{stream:?} by {piece_bytes}");
            assert_eq!(format!("{joined}{begun}"), stream);
        }
    }

    #[test]
    fn an_event_ends_with_a_blank_line_of_any_kind() {
        check("data: 1\n\ndata: 2\n\n", &["data: 1\n\n", "data: 2\n\n"]);
        check("data: 1\r\n\r\nda", &["data: 1\r\n\r\n"]);
        check("data: 1\r\rdata: 2\r\r", &["data: 1\r\r", "data: 2\r\r"]);
        check("data: 1\ndata: 2\n", &[]);
        check("data: 1\r\nid: 2\r\ndata", &[]);
        check(":\n\nda\n\r\n", &[":\n\n", "da\n\r\n"]);
        check("\n\n", &["\n", "\n"]);
    }

    #[test]
    fn an_event_over_the_bound_is_found_wherever_it_is_cut() {
        let mut splitter = Splitter::new(10);
        // Ten bytes are within the bound, however many events there are.
        assert_eq!(
            splitter.feed(b"data: 12\n\ndata: 34\n\n"),
            Fed {
                whole: 20,
                too_long: false
            }
        );
        assert_eq!(
            splitter.feed(b"data: 1\n\ndata: 3"),
            Fed {
                whole: 9,
                too_long: false
            }
        );
        assert_eq!(
            splitter.feed(b"4567"),
            Fed {
                whole: 0,
                too_long: true
            }
        );
    }
}
