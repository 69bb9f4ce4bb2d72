//! How the demo tells its story: numbered steps on standard error, in colour on a terminal and plainly elsewhere, each
//! with the time that it took at its end.

use crate::{output::Output, paint::Paint, render::duration_ms};
use std::time::Instant;

/// Tells the story and keeps the time of each step.
pub(crate) struct Narrator {
    output: Output,
    paint: Paint,
    begun: Instant,
    n_steps: u32,
    step: Option<(&'static str, Instant)>,
    times: Vec<(&'static str, u64)>,
}

impl Narrator {
    /// Begins the story.
    pub(crate) fn new(output: Output) -> Self {
        let (paint, begun) = (Paint::stderr(), Instant::now());
        Self {
            output,
            paint,
            begun,
            n_steps: 0,
            step: None,
            times: Vec::new(),
        }
    }

    /// How to paint.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// The title.
    pub(crate) fn title(&self, title: &str, about: &str) {
        self.output
            .say(format!("\n{}\n{}", self.paint.bold(title), self.paint.dim(about)));
    }

    /// Begins a step: `name` for the table of times, `title` for the reader.
    pub(crate) fn step(&mut self, name: &'static str, title: &str) {
        self.end_step();
        self.n_steps += 1;
        self.step = Some((name, Instant::now()));
        let number = self.paint.name(format!("{:>2}", self.n_steps));
        self.output.say(format!("\n{number}  {}", self.paint.bold(title)));
    }

    /// A line of a step, or several.
    pub(crate) fn tell(&self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            self.output.say(if line.is_empty() {
                String::new()
            } else {
                format!("    {line}")
            });
        }
    }

    /// An empty line.
    pub(crate) fn gap(&self) {
        self.output.say("");
    }

    /// Something that went as it should.
    pub(crate) fn good(&self, text: impl AsRef<str>) {
        self.tell(format!("{} {}", self.paint.good("✓"), text.as_ref()));
    }

    /// Something that did not.
    pub(crate) fn refused(&self, text: impl AsRef<str>) {
        self.tell(format!("{} {}", self.paint.bad("✗"), text.as_ref()));
    }

    /// Ends the story; milliseconds of each step, by name.
    pub(crate) fn end(&mut self) -> Vec<(&'static str, u64)> {
        self.end_step();
        std::mem::take(&mut self.times)
    }

    /// Milliseconds since the beginning.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        ms_since(self.begun)
    }

    fn end_step(&mut self) {
        if let Some((name, begun)) = self.step.take() {
            let took = ms_since(begun);
            self.tell(self.paint.dim(format!("{name}: {}", duration_ms(took))));
            self.times.push((name, took));
        }
    }
}

/// Milliseconds since then.
pub(crate) fn ms_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
