//! What happens when peftc itself fails or is told to stop.

use super::terminal::print_stderr;
use crate::diag::render::{self, Style};
use crate::diag::{Code, Diagnostic, SourceMap};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The last panic, already shown on stderr.
static PANIC: Mutex<Option<Diagnostic>> = Mutex::new(None);

/// Sets the panic hook and the signal handler; once, before any work.
pub(super) fn install() {
    std::panic::set_hook(Box::new(on_panic));
    on_signals();
}

fn on_panic(info: &PanicHookInfo<'_>) {
    // Of a library that reads a damaged file; what it says becomes an error.
    if crate::data::shielded() {
        return;
    }
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    let place = info
        .location()
        .map(|place| format!("{}:{}", place.file(), place.line()))
        .unwrap_or_default();
    let diagnostic = bug(&message, &place);
    print_stderr(&render::render(
        &diagnostic,
        &SourceMap::new(),
        Style::PLAIN,
    ));
    *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(diagnostic);
}

fn bug(message: &str, place: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E9901,
        format!("peftc stopped on a bug of its own: {message}"),
    )
    .note(format!("version {}, at {place}", env!("CARGO_PKG_VERSION")))
    .help("please report this with the command line and, if you may share it, the input")
}

/// The diagnostic of the panic that was just caught.
pub(super) fn panic_diagnostic() -> Diagnostic {
    let panic = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
    panic.clone().unwrap_or_else(|| bug("no message", ""))
}

/// Whether the hook has drawn it on stderr already.
pub(super) fn was_shown(diagnostic: &Diagnostic) -> bool {
    let panic = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
    panic.as_ref() == Some(diagnostic)
}

/// Whether the first signal is left to the work that runs.
static GRACEFUL: AtomicBool = AtomicBool::new(false);
/// Whether it has come.
static STOP: AtomicBool = AtomicBool::new(false);

/// From now on the first signal sets the answered flag, for work that ends well by itself; the second
/// ends the process.
pub(super) fn graceful() -> &'static AtomicBool {
    GRACEFUL.store(true, Ordering::SeqCst);
    &STOP
}

/// Signals end the process again.
pub(super) fn ungraceful() {
    GRACEFUL.store(false, Ordering::SeqCst);
}

/// Ctrl-C and SIGTERM end the process with 128 + the signal's number, as shells do; what was being
/// written is removed first.
#[cfg(unix)]
fn on_signals() {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else {
        // Without a handler the system's own applies, which also ends the process.
        return;
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if GRACEFUL.load(Ordering::SeqCst) && !STOP.swap(true, Ordering::SeqCst) {
                print_stderr("stopping behind this step; once more to stop now\n");
                continue;
            }
            crate::files::discard_unfinished();
            // Without the exit handlers of C libraries: ONNX Runtime may be computing.
            signal_hook::low_level::exit(128 + signal);
        }
    });
}

#[cfg(not(unix))]
fn on_signals() {}

/// Ends the process when everything is written.
pub(super) fn end(status: u8) -> ExitCode {
    let _ = io::stdout().flush();
    // Without exit handlers: the allocator's looks through all memory once more.
    #[cfg(unix)]
    signal_hook::low_level::exit(status.into());
    #[cfg(not(unix))]
    ExitCode::from(status)
}
