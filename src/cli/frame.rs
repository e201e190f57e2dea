//! The frame around every subcommand: its context, its outcome, and how both reach the user.

use super::format::{Format, Report};
use super::options::Global;
use super::terminal::{Terminal, print_stderr};
use super::{errors, exit, guard};
use crate::diag::{Diagnostic, Reported, Severity, Sink, SourceMap, counted, json, render};
use crate::files;
use crate::report::{self, Subject};
use crate::runtime::{self, Library, Network, Surroundings, Wanted};
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The version of the JSON outputs: it grows when a field changes or goes, not when one comes.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// What a subcommand works with.
pub(super) struct Context {
    pub sink: Sink,
    pub sources: SourceMap,
    /// Diagnostics of the sink that have been drawn on stderr already.
    pub shown: Vec<Diagnostic>,
    pub terminal: Terminal,
    pub network: Network,
}

/// What a subcommand gives back; `Err` proves that the sink holds an error. A payload together
/// with errors in the sink is shown too.
pub(super) type Outcome = Result<Payload, Reported>;

/// The data of a subcommand in its two forms.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// For stdout with `--format human`; ends in a line break unless empty.
    pub human: String,
    /// Fields of the JSON object beside those that every output has.
    pub json: Map<String, Value>,
    /// For `--format junit`, where test cases are more than diagnostics.
    pub junit: Option<String>,
}

impl Payload {
    /// Panics if `json` is no object: the caller writes it with `json!({…})`.
    pub fn new(human: impl Into<String>, json: Value) -> Payload {
        let Value::Object(json) = json else {
            unreachable!("a payload is an object")
        };
        Payload {
            human: human.into(),
            json,
            junit: None,
        }
    }
}

impl Context {
    fn new(global: &Global) -> Context {
        Context {
            sink: Sink::new(),
            sources: SourceMap::new(),
            shown: Vec::new(),
            terminal: Terminal::new(global),
            network: if global.offline {
                Network::Forbidden
            } else {
                Network::Allowed
            },
        }
    }

    /// Where ONNX Runtime may lie on this machine.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings::new(|name| std::env::var_os(name), std::env::current_exe().ok())
    }

    /// ONNX Runtime, installed now if there is none and the network may be used.
    pub fn onnx_runtime(&mut self, wanted: Wanted) -> Result<&'static Library, Reported> {
        let terminal = self.terminal.clone();
        let mut say = |line: &str| terminal.say(line);
        match runtime::ready(&self.surroundings(), wanted, self.network, &mut say) {
            Ok(library) => {
                self.terminal.detail(&format!(
                    "ONNX Runtime {} from {} ({})",
                    library.version,
                    library.path.display(),
                    library.rung.place()
                ));
                Ok(library)
            }
            Err(diagnostic) => Err(self.sink.emit(diagnostic)),
        }
    }
}

/// Runs a subcommand, shows what comes of it and returns the exit status.
pub(super) fn run(
    global: &Global,
    command: &'static str,
    work: impl FnOnce(&mut Context) -> Outcome,
) -> u8 {
    let mut cx = Context::new(global);
    let payload = match check_targets(&global.format) {
        Err(diagnostic) => Err(cx.sink.emit(diagnostic)),
        Ok(()) => caught(&mut cx, work),
    };
    finish(global, command, &mut cx, payload.unwrap_or_default())
}

/// A panic of the work is a diagnostic, too.
fn caught(cx: &mut Context, work: impl FnOnce(&mut Context) -> Outcome) -> Outcome {
    // The context is only read after a panic: the sink holds whole diagnostics.
    let result = catch_unwind(AssertUnwindSafe(|| work(cx)));
    // The hook has told the user already; this puts it into the other formats.
    result.unwrap_or_else(|_| Err(cx.sink.emit(guard::panic_diagnostic())))
}

/// One format at most may go to the terminal.
fn check_targets(reports: &[Report]) -> Result<(), Diagnostic> {
    let on_stdout = reports.iter().filter(|report| report.file.is_none());
    if on_stdout.count() > 1 {
        return Err(errors::several_on_stdout());
    }
    Ok(())
}

fn finish(global: &Global, command: &'static str, cx: &mut Context, payload: Payload) -> u8 {
    for report in &global.format {
        let Some(file) = &report.file else { continue };
        let text = text(report.format, command, cx, global, &payload);
        // A failure is in the sink; the other formats are still due.
        let _ = files::write(file, &mut cx.sink, |out| out.write_all(text.as_bytes()));
    }
    show_diagnostics(cx);
    let first = global.format.iter().find(|report| report.file.is_none());
    let on_stdout = first.map_or(Format::Human, |report| report.format);
    let text = text(on_stdout, command, cx, global, &payload);
    let status = exit::status(&cx.sink, global);
    match print_stdout(&text) {
        Ok(()) => status,
        Err(error) => {
            let reason = files::reason(&error);
            print_stderr(&format!("error: stdout cannot be written: {reason}\n"));
            exit::TOOL
        }
    }
}

/// Diagnostics go to stderr for people, whatever the format of stdout is.
fn show_diagnostics(cx: &Context) {
    let mut first = true;
    for diagnostic in cx.sink.diagnostics() {
        let hidden = cx.terminal.is_quiet() && diagnostic.severity() == Severity::Warning;
        let was_shown = guard::was_shown(diagnostic) || cx.shown.contains(diagnostic);
        if !hidden && !was_shown {
            let drawn = render::render(diagnostic, &cx.sources, cx.terminal.style);
            let apart = if std::mem::take(&mut first) { "" } else { "\n" };
            print_stderr(&format!("{apart}{drawn}"));
        }
    }
    if cx.sink.left_out() > 0 {
        let more = counted(cx.sink.left_out(), "more diagnostic");
        print_stderr(&format!("\n{more} of the same codes\n"));
    }
}

/// The output in one format, whole.
fn text(
    format: Format,
    command: &'static str,
    cx: &Context,
    global: &Global,
    payload: &Payload,
) -> String {
    let subject = Subject {
        command,
        diagnostics: cx.sink.diagnostics(),
        sources: &cx.sources,
    };
    match format {
        Format::Human => payload.human.clone(),
        Format::Json => object(command, cx, global, payload),
        Format::Sarif => report::sarif(&subject),
        Format::Github => report::github(&subject),
        Format::Junit => match &payload.junit {
            Some(cases) => cases.clone(),
            None => report::junit(&subject),
        },
    }
}

/// `{schema_version, command, valid, error_count, warning_count, diagnostics, left_out, …payload}`.
fn object(command: &str, cx: &Context, global: &Global, payload: &Payload) -> String {
    let sink = &cx.sink;
    let diagnostics: Vec<Value> = sink
        .diagnostics()
        .iter()
        .map(|diagnostic| json::to_json(diagnostic, &cx.sources))
        .collect();
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("schema_version", SCHEMA_VERSION.into());
    put("command", command.into());
    put("valid", (sink.error_count() == 0).into());
    put("exit_status", exit::status(sink, global).into());
    put("error_count", sink.error_count().into());
    put("warning_count", sink.warning_count().into());
    put("diagnostics", diagnostics.into());
    // Counted above and not among the diagnostics.
    put("left_out", sink.left_out().into());
    for (name, value) in &payload.json {
        let before = object.insert(name.clone(), value.clone());
        debug_assert!(before.is_none(), "`{name}` is a field of every output");
    }
    let mut text = serde_json::to_string_pretty(&object).expect("values are JSON");
    text.push('\n');
    text
}

/// A reader that has closed the pipe has what it wants.
fn print_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Code;

    #[test]
    fn a_panic_is_a_bug_of_peftc_in_every_format() {
        let global = Global::default();
        let mut cx = Context::new(&global);
        assert!(caught(&mut cx, |_| panic!("on purpose")).is_err());
        assert_eq!(cx.sink.diagnostics()[0].code, Code::E9901);
        assert_eq!(exit::status(&cx.sink, &global), exit::TOOL);
        let text = object("check", &cx, &global, &Payload::default());
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["diagnostics"][0]["code"], "E9901");
        assert_eq!(value["exit_status"], exit::TOOL);
    }
}
