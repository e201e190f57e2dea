//! Bars that show how far something has come, on a terminal alone.

use super::terminal::Terminal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// A bar on stderr. It is drawn when it first hears of something, and goes when all is done or the
/// work has failed; where stderr is no terminal, and with `--quiet`, it is never seen.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub fn new(what: &'static str, terminal: &Terminal) -> Bar {
        let target = match terminal.is_quiet() {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let ends = match terminal.style.unicode {
            true => "━╸ ",
            false => "=> ",
        };
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos} of {len}, {eta} left")
            .map_or_else(
                |_| ProgressStyle::default_bar(),
                |style| style.progress_chars(ends),
            );
        let bar = ProgressBar::with_draw_target(Some(0), target)
            .with_style(style)
            .with_message(what)
            .with_finish(ProgressFinish::AndClear);
        Bar(bar)
    }

    pub fn at(&self, done: usize, of: usize) {
        self.0.set_length(of as u64);
        self.0.set_position(done as u64);
        if done == of {
            self.0.finish_and_clear();
        }
    }
}
