//! What an input may cost, and what happens when it costs more.

use crate::targets::Target;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// More than this beyond what was held before is a blow-up: inputs have at most some 500 KB.
const MEMORY: usize = 256 << 20;
/// The slowest machine in a debug build stays far below this.
const TIME: Duration = Duration::from_secs(20);
/// What a command's main thread has.
const STACK: usize = 8 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static PANIC: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Counts what the process holds.
pub struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

pub enum Outcome {
    /// With a word for what happened, the same for inputs that are treated alike.
    Passed(String),
    Failed(String),
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
            *PANIC.lock().unwrap() = Some(info.to_string());
        } else {
            usual(info);
        }
    }));
}

/// Runs one input on a thread of its own.
pub fn attempt(target: &'static Target, input: &[u8]) -> Outcome {
    let before = HELD.load(Ordering::Relaxed);
    let most_before = PEAK.swap(before, Ordering::Relaxed);
    let (send, receive) = mpsc::channel();
    let owned = input.to_vec();
    let worker = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            QUIET.set(true);
            let result = catch_unwind(AssertUnwindSafe(|| (target.run)(&owned)));
            let _ = send.send(result);
        })
        .unwrap();
    let result = receive.recv_timeout(TIME);
    if matches!(result, Err(RecvTimeoutError::Timeout)) {
        // The thread cannot be stopped; the input is in the message, the process goes on.
        return Outcome::Failed(format!("no answer after {} s", TIME.as_secs()));
    }
    let _ = worker.join();
    let held = PEAK.fetch_max(most_before, Ordering::Relaxed);
    match result {
        Ok(Ok(_)) if held.saturating_sub(before) > MEMORY => {
            Outcome::Failed(format!("held {} MiB", (held - before) >> 20))
        }
        Ok(Ok(behaviour)) => Outcome::Passed(behaviour),
        _ => {
            let panic = PANIC.lock().unwrap().take();
            Outcome::Failed(panic.unwrap_or_else(|| "the thread died".to_owned()))
        }
    }
}

/// The input without pieces that the failure does not need.
pub fn shrunk(target: &'static Target, input: &[u8]) -> Vec<u8> {
    let fails = |bytes: &[u8]| matches!(attempt(target, bytes), Outcome::Failed(_));
    let mut best = input.to_vec();
    let mut piece = best.len() / 2;
    let mut tries = 0;
    while piece > 0 && tries < 2000 {
        let mut at = 0;
        while at < best.len() && tries < 2000 {
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
