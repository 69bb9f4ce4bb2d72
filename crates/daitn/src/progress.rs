//! A job as it goes: a bar with the live loss on a terminal, plain lines elsewhere. Always on standard error.

use crate::{
    output::Output,
    paint::Paint,
    render::{bytes, counted, loss, sparkline},
    views::{phase_word, waiting_line},
};
use daitn_messages::job::{CycleView, JobEvent, JobPhase, JobView, Waiting};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Width of the loss curve beside the bar.
const CURVE_WIDTH: usize = 12;
/// Without a terminal, about so many lines for the training of a job.
const N_LINES: u32 = 10;
/// Without a terminal, a line is also due when the cycles since the last one took so long, milliseconds.
const SILENCE_MS_MAX: f64 = 5_000.0;
/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(120);

/// Shows the progress of one job.
pub(crate) struct Progress {
    output: Output,
    paint: Paint,
    bar: Option<ProgressBar>,
    phase: Option<JobPhase>,
    cycles: u32,
    losses: Vec<f64>,
    n_bytes: u64,
    waiting: Option<Waiting>,
    lines: Lines,
    indent: &'static str,
}

/// Which cycles have a line where there is no bar: about ten of a short job, and of a long one one each few seconds, by
/// the time that the cycles themselves took.
#[derive(Debug, Default)]
struct Lines {
    silent_ms: f64,
}

impl Lines {
    fn is_due(&mut self, done: u64, of: u32, cycle_ms: f64) -> bool {
        self.silent_ms += cycle_ms;
        let every = u64::from(of.div_ceil(N_LINES).max(1));
        let is_due = done == 1
            || done.is_multiple_of(every)
            || done == u64::from(of)
            || self.silent_ms >= SILENCE_MS_MAX;
        if is_due {
            self.silent_ms = 0.0;
        }
        is_due
    }
}

impl Progress {
    /// For where the output goes; `indent` begins every line.
    pub(crate) fn new(output: Output, indent: &'static str) -> Self {
        let paint = Paint::stderr();
        let (bar, phase, losses) = (None, None, Vec::new());
        Self {
            output,
            paint,
            bar,
            phase,
            cycles: 0,
            losses,
            n_bytes: 0,
            waiting: None,
            lines: Lines::default(),
            indent,
        }
    }

    /// Takes the next event.
    pub(crate) fn take(&mut self, event: &JobEvent) {
        match event {
            JobEvent::View { job } => self.view(job),
            JobEvent::Phase { phase, .. } => self.enter(*phase),
            JobEvent::Cycle { cycle } => self.cycle(cycle),
            JobEvent::LeftOut { left_out } => {
                let when = left_out
                    .cycle
                    .map_or_else(String::new, |c| format!(" in cycle {}", c + 1));
                let site = &left_out.dataset;
                self.line(&format!(
                    "{} {site} is left out{when}: {}",
                    self.paint.warn("!"),
                    left_out.reason
                ));
            }
            JobEvent::Report { unit, report } => {
                let value = report.evaluation.metric(report.metric).unwrap_or(f64::NAN);
                let mark = if report.reached {
                    self.paint.good("✓")
                } else {
                    self.paint.bad("✗")
                };
                self.line(&format!(
                    "{mark} {unit} found {} {value:.4} on {}",
                    report.metric.as_str(),
                    counted(report.evaluation.n_examples, "record")
                ));
            }
            JobEvent::Waiting { waiting } => self.wait(waiting.as_ref()),
            // The first conductor is the plan's: only a replacement is worth a line.
            JobEvent::Conductor { epoch: 0 | 1, .. } => {}
            JobEvent::Conductor { node, epoch } => {
                let node = node.short();
                self.line(&format!(
                    "{} {node} takes over as conductor (epoch {epoch})",
                    self.paint.warn("!")
                ));
            }
        }
    }

    /// Says what the job waits for, and once that it goes on.
    fn wait(&mut self, waiting: Option<&Waiting>) {
        if self.waiting.as_ref() == waiting {
            return;
        }
        match waiting {
            Some(waiting) => self.line(&format!("{} {}", self.paint.warn("!"), waiting_line(waiting))),
            None => self.line(&format!("{} the wait is over", self.paint.good("✓"))),
        }
        self.waiting = waiting.cloned();
    }

    /// Ends the display and leaves its last state.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            if !self.losses.is_empty() {
                self.output.say(self.trained());
            }
        }
    }

    fn view(&mut self, job: &JobView) {
        self.cycles = job.plan.rounds;
        let n_known = self.losses.len();
        self.losses = job.cycles.iter().map(|c| c.loss).collect();
        self.n_bytes = job.cycles.iter().map(|c| c.bytes).sum();
        self.enter(job.phase);
        if !job.phase.is_terminal() {
            self.wait(job.waiting.as_ref());
        }
        if let Some(last) = job.cycles.last().filter(|_| self.losses.len() > n_known) {
            self.draw(last);
        }
    }

    fn enter(&mut self, phase: JobPhase) {
        if self.phase == Some(phase) {
            return;
        }
        self.phase = Some(phase);
        if phase != JobPhase::Training {
            self.finish();
        }
        match phase {
            JobPhase::Training if self.output.is_animated() => self.begin_bar(),
            phase if phase.is_terminal() => {
                let word = phase_word(phase);
                let good = phase == JobPhase::Succeeded;
                self.line(&if good {
                    self.paint.good(word)
                } else {
                    self.paint.bad(word)
                });
            }
            phase => self.line(&format!("{} …", phase_word(phase))),
        }
    }

    fn begin_bar(&mut self) {
        let bar = ProgressBar::with_draw_target(Some(u64::from(self.cycles)), ProgressDrawTarget::stderr());
        let template = format!(
            "{}{{spinner}} training {{bar:28.cyan}} {{pos}}/{{len}}  {{msg}}",
            self.indent
        );
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        bar.enable_steady_tick(TICK);
        self.bar = Some(bar);
    }

    fn cycle(&mut self, cycle: &CycleView) {
        self.losses.push(cycle.loss);
        self.n_bytes += cycle.bytes;
        self.draw(cycle);
    }

    fn draw(&mut self, cycle: &CycleView) {
        let done = u64::try_from(self.losses.len()).unwrap_or(u64::MAX);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(format!(
                "loss {} {}  {}  {:.0} ms a cycle",
                loss(cycle.loss),
                sparkline(&self.losses, CURVE_WIDTH),
                counted(cycle.n_sites, "site"),
                cycle.cycle_ms
            ));
            return;
        }
        if self.lines.is_due(done, self.cycles, cycle.cycle_ms) {
            self.line(&format!(
                "cycle {done}/{}  loss {}  {}  {:.0} ms",
                self.cycles,
                loss(cycle.loss),
                counted(cycle.n_sites, "site"),
                cycle.cycle_ms
            ));
        }
    }

    fn trained(&self) -> String {
        let (first, last) = (
            self.losses.first().unwrap_or(&0.0),
            self.losses.last().unwrap_or(&0.0),
        );
        format!(
            "{}{} {}  loss {} → {} {}  {} moved",
            self.indent,
            self.paint.good("✓"),
            counted(self.losses.len(), "cycle"),
            loss(*first),
            loss(*last),
            sparkline(&self.losses, CURVE_WIDTH),
            bytes(self.n_bytes)
        )
    }

    fn line(&self, text: &str) {
        let line = format!("{}{text}", self.indent);
        match &self.bar {
            Some(bar) => bar.println(line),
            None => self.output.say(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cycles, from 1, that have a line.
    fn told(n: u32, cycle_ms: f64) -> Vec<u32> {
        let mut lines = Lines::default();
        let due = |done: &u32| lines.is_due(u64::from(*done), n, cycle_ms);
        (1..=n).filter(due).collect()
    }

    #[test]
    fn a_long_job_is_not_silent_for_long() {
        assert_eq!(told(20, 10.0), [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
        // A tenth would be 60 s: at 2 s a cycle every third is the first after 5 s.
        assert_eq!(told(300, 2_000.0)[..5], [1, 4, 7, 10, 13]);
        assert_eq!(told(30, 9_000.0), (1..=30).collect::<Vec<u32>>());
    }
}
