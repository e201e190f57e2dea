//! What an input may cost, and what happens when it costs more.
//!
//! A panic is caught and answered. What cannot be caught ends the process, with a word on stderr:
//! a stack overflow, no answer in time, more memory held than the limit. Its input was saved
//! before it ran: see [`current`].

use crate::targets::Target;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// More than this beyond what was held before is a blow-up: inputs have at most some 500 KB.
const MEMORY: usize = 256 << 20;
/// What a command's main thread has.
const STACK: usize = 8 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static PANIC: Mutex<Option<Fault>> = Mutex::new(None);

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Counts what the process holds, and ends it above the limit.
pub struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if held > LIMIT.load(Ordering::Relaxed) {
            too_much();
        }
        PEAK.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Without an allocation of its own.
#[cold]
fn too_much() -> ! {
    LIMIT.store(usize::MAX, Ordering::Relaxed);
    let text = b"more than 256 MiB are held: see target/fuzz/<target>.current\n";
    let _ = std::io::stderr().write_all(text);
    std::process::abort()
}

/// A panic: what it says, and where it is, by which panics are told apart.
#[derive(Clone)]
pub struct Fault {
    pub place: String,
    pub why: String,
}

pub enum Outcome {
    /// With a word for what happened, the same for inputs that are treated alike.
    Passed(String),
    Failed(Fault),
}

/// The most that was held at once, in bytes.
pub fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Panics of the code under test are collected, not printed.
pub fn silence_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if QUIET.get() {
            let place = info.location().map(ToString::to_string);
            *PANIC.lock().unwrap() = Some(Fault {
                place: place.unwrap_or_default(),
                why: info.to_string(),
            });
        } else {
            usual(info);
        }
    }));
}

/// Where inputs that fail are put.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz")
}

/// The input that runs, or the one that ended the process.
pub fn current(target: &Target) -> PathBuf {
    folder().join(format!("{}.current", target.name))
}

/// Runs inputs, each on a thread of its own.
pub struct Guard {
    /// How long one input may take.
    pub time: Duration,
}

impl Guard {
    pub fn attempt(&self, target: &'static Target, input: &[u8]) -> Outcome {
        std::fs::write(current(target), input).unwrap();
        let owned = input.to_vec();
        let (send, receive) = mpsc::channel();
        LIMIT.store(HELD.load(Ordering::Relaxed) + MEMORY, Ordering::Relaxed);
        let worker = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || {
                QUIET.set(true);
                let result = catch_unwind(AssertUnwindSafe(|| (target.run)(&owned)));
                let _ = send.send(result);
            })
            .unwrap();
        let result = receive.recv_timeout(self.time);
        if matches!(result, Err(RecvTimeoutError::Timeout)) {
            // A thread cannot be stopped: the process ends, and what it was at stays.
            let (seconds, path) = (self.time.as_secs(), current(target));
            eprintln!("no answer after {seconds} s: see {}", path.display());
            std::process::exit(1);
        }
        let _ = worker.join();
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        match result {
            Ok(Ok(behaviour)) => Outcome::Passed(behaviour),
            _ => Outcome::Failed(PANIC.lock().unwrap().take().expect("a panic has a fault")),
        }
    }

    /// The input without pieces that the panic at this place does not need.
    pub fn shrunk(&self, target: &'static Target, input: &[u8], place: &str) -> Vec<u8> {
        let fails = |bytes: &[u8]| {
            let outcome = self.attempt(target, bytes);
            matches!(outcome, Outcome::Failed(fault) if fault.place == place)
        };
        let mut best = input.to_vec();
        let mut piece = best.len() / 2;
        let mut tries = 0;
        while piece > 0 && tries < 1000 {
            let mut at = 0;
            while at < best.len() && tries < 1000 {
                let end = (at + piece).min(best.len());
                let shorter = [&best[..at], &best[end..]].concat();
                tries += 1;
                if fails(&shorter) {
                    best = shorter;
                } else {
                    at = end;
                }
            }
            piece /= 2;
        }
        best
    }
}
