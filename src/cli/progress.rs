//! Bars that show how far something has come, on a terminal alone.

use super::terminal::Terminal;
use crate::diag::{Diagnostic, SourceMap, render};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// A bar on stderr. It is drawn when it first hears of something, and goes when all is done or the
/// work has failed; where stderr is no terminal, and with `--quiet`, it is never seen.
pub(super) struct Bar(ProgressBar);

/// A bar that is drawn as the template says.
fn bar(template: &str, terminal: &Terminal) -> ProgressBar {
    let target = match terminal.is_quiet() {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let ends = match terminal.style.unicode {
        true => "━╸ ",
        false => "=> ",
    };
    let style = ProgressStyle::with_template(template).map_or_else(
        |_| ProgressStyle::default_bar(),
        |style| style.progress_chars(ends),
    );
    ProgressBar::with_draw_target(Some(0), target)
        .with_style(style)
        .with_finish(ProgressFinish::AndClear)
}

impl Bar {
    pub fn new(what: &'static str, terminal: &Terminal) -> Bar {
        let bar = bar("{msg} {bar:30} {pos} of {len}, {eta} left", terminal);
        Bar(bar.with_message(what))
    }

    pub fn at(&self, done: usize, of: usize) {
        self.0.set_length(of as u64);
        self.0.set_position(done as u64);
        if done == of {
            self.0.finish_and_clear();
        }
    }
}

/// The steps of a run: a bar with the figures of the last one, under lines that stay. Where stderr is no
/// terminal there are lines alone.
pub(super) struct Steps {
    bar: ProgressBar,
    terminal: Terminal,
}

impl Steps {
    pub fn new(terminal: &Terminal) -> Steps {
        Steps {
            // Terminals may be narrow.
            bar: bar(
                "  {bar:20} {pos} of {len}  {prefix}\n  {wide_msg}",
                terminal,
            ),
            terminal: terminal.clone(),
        }
    }

    /// Whether there is a bar, so that lines about single steps are not needed.
    pub fn is_seen(&self) -> bool {
        !self.bar.is_hidden()
    }

    pub fn start(&self, done: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(done);
    }

    /// How fast it goes is said beside the bar, what was learned below.
    pub fn at(&self, step: u64, learned: &str, speed: &str) {
        self.bar.set_position(step);
        self.bar.set_prefix(speed.to_owned());
        self.bar.set_message(learned.to_owned());
    }

    /// A line that stays, above the bar.
    pub fn say(&self, line: &str) {
        self.above(|| self.terminal.say(line));
    }

    /// The same for `--verbose`.
    pub fn detail(&self, line: &str) {
        self.above(|| self.terminal.detail(line));
    }

    fn above(&self, say: impl FnOnce()) {
        // Before it starts it would be drawn without a length.
        match self.bar.length() {
            None | Some(0) => say(),
            Some(_) => self.bar.suspend(say),
        }
    }

    /// A warning that names no place in a file.
    pub fn warn(&self, warning: &Diagnostic) {
        let drawn = render::render(warning, &SourceMap::new(), self.terminal.style);
        self.say(drawn.trim_end());
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
