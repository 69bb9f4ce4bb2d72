//! Server-Sent Events (WHATWG HTML, section 9.2) as far as the API uses them: `data:` lines that hold one JSON value.

use crate::{client::innermost, failure::Failure};
use daitn_messages::job::JobEvent;

/// Longest event that is read, bytes: the view of a job with 10,000 rounds fits.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The events of one job, as they come.
pub(crate) struct Events {
    response: reqwest::Response,
    lines: Lines,
}

impl Events {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            lines: Lines::default(),
        }
    }

    /// The next event; none when the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<JobEvent>, Failure> {
        loop {
            if let Some(data) = self.lines.next_event() {
                return super::read(data.as_bytes()).map(Some);
            }
            let chunk = self.response.chunk().await.map_err(|error| {
                Failure::unreachable(format!("the event stream broke off: {}", innermost(&error)))
            })?;
            match chunk {
                Some(chunk) => self.lines.push(&chunk)?,
                None => return Ok(None),
            }
        }
    }
}

/// Bytes become lines, lines become events.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    data: String,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        if self.buffer.len() + self.data.len() + chunk.len() > EVENT_BYTES_MAX {
            return Err(Failure::internal("an event is longer than 64 MiB"));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    fn next_event(&mut self) -> Option<String> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                if !self.data.is_empty() {
                    return Some(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream is cut at every byte: where chunks end must not matter.
    #[test]
    fn events_do_not_depend_on_chunks() {
        let stream = b": hello\n\nevent: cycle\r\nid: 3\ndata: {\"a\":\ndata: 1}\n\ndata:{\"b\":2}\n\n";
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                lines.push(part).unwrap();
                while let Some(event) = lines.next_event() {
                    found.push(event);
                }
            }
            assert_eq!(found, ["{\"a\":\n1}", "{\"b\":2}"]);
        }
    }
}
