//! What the terminal can show, and talking on it.

use super::options::{ColorWhen, Global};
use crate::diag::render::Style;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

/// The way to stderr and stdout, decided once.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    /// How diagnostics are drawn on stderr.
    pub style: Style,
    quiet: bool,
    verbose: bool,
}

impl Terminal {
    pub fn new(global: &Global) -> Terminal {
        let variable = |name: &str| std::env::var_os(name);
        let stderr = io::stderr().is_terminal();
        Terminal {
            style: Style {
                color: wants_color(global.color, stderr, variable),
                unicode: !is_plain_locale(variable),
                width: width(stderr),
            },
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }

    /// A line about what happens, unless `--quiet`.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            print_stderr(&format!("{line}\n"));
        }
    }

    /// A line for `--verbose`.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            print_stderr(&format!("{line}\n"));
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }
}

/// Writes to stderr; if even that is closed there is nobody to tell.
pub(super) fn print_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn wants_color(
    when: ColorWhen,
    is_terminal: bool,
    variable: impl Fn(&str) -> Option<OsString>,
) -> bool {
    let set = |name| variable(name).is_some_and(|value| !value.is_empty());
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => {
            is_terminal && !set("NO_COLOR") && variable("TERM") != Some("dumb".into())
        }
    }
}

/// The locale says that text is ASCII; a locale that is not set says nothing.
fn is_plain_locale(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty());
    locale.is_some_and(|locale| locale == "C" || locale == "POSIX")
}

fn width(is_terminal: bool) -> usize {
    const FILE: usize = 100;
    if !is_terminal {
        return FILE;
    }
    terminal_size::terminal_size_of(io::stderr())
        .map_or(FILE, |(width, _)| usize::from(width.0).clamp(40, 140))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_files_are_respected_and_always_means_always() {
        let none = |_: &str| None;
        let no_color = |name: &str| (name == "NO_COLOR").then(|| OsString::from("1"));
        let dumb = |name: &str| (name == "TERM").then(|| OsString::from("dumb"));
        assert!(wants_color(ColorWhen::Auto, true, none));
        assert!(!wants_color(ColorWhen::Auto, false, none));
        assert!(!wants_color(ColorWhen::Auto, true, no_color));
        assert!(!wants_color(ColorWhen::Auto, true, dumb));
        assert!(wants_color(ColorWhen::Always, false, no_color));
        assert!(!wants_color(ColorWhen::Never, true, none));
    }
}
