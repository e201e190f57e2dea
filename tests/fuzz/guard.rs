//! What an input may cost, and what happens when it costs more.
//!
//! A panic is caught and answered. What cannot be caught ends the process, with a word on stderr:
//! a stack overflow, no answer in time, more memory held than the limit. Its input was saved
//! before it ran.

use crate::model::WEIGHTS;
use crate::targets::Target;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// More than this for one input is a blow-up: inputs have at most some 500 KB.
const MEMORY: usize = 256 << 20;
/// What a command's main thread has.
const STACK: usize = 8 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static PANIC: Mutex<Option<Fault>> = Mutex::new(None);
/// What is said when the limit is passed: then nothing can be allocated for it.
static TOO_MUCH: OnceLock<String> = OnceLock::new();

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Counts what the process holds, and ends it above the limit.
pub struct Counting;

impl Counting {
    fn more(size: usize) {
        let held = HELD.fetch_add(size, Relaxed).saturating_add(size);
        if held > LIMIT.load(Relaxed) {
            too_much();
        }
        PEAK.fetch_max(held, Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::more(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::more(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::more(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cold]
fn too_much() -> ! {
    LIMIT.store(usize::MAX, Relaxed);
    let text = TOO_MUCH
        .get()
        .map_or(&b"too much memory"[..], |text| text.as_bytes());
    let _ = std::io::stderr().write_all(text);
    // The limit is off now.
    eprintln!("{}", std::backtrace::Backtrace::force_capture());
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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzzed")
}

/// A folder of this process for files that readers want, with the weights of models in it.
pub fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let path = folder().join(format!("{}.files", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let (name, size) = WEIGHTS;
        // As f32 and as f16 these are ordinary numbers.
        std::fs::write(path.join(name), vec![0x3c; size]).unwrap();
        path
    })
}

/// The most that single inputs took.
#[derive(Clone, Default)]
pub struct Cost {
    memory: usize,
    time: Duration,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mib, ms) = (self.memory >> 20, self.time.as_millis());
        write!(f, "at most {mib} MiB and {ms} ms for one")
    }
}

/// Runs inputs, each on a thread of its own.
pub struct Guard {
    target: &'static Target,
    limit: Duration,
    /// The input that runs, or the one that ended the process.
    current: PathBuf,
    cost: Cost,
}

impl Guard {
    /// `limit` is how long one input may take.
    pub fn new(target: &'static Target, limit: Duration) -> Guard {
        let name = format!("{}.{}.current", target.name, std::process::id());
        let current = folder().join(name);
        let megabytes = MEMORY >> 20;
        TOO_MUCH.get_or_init(|| {
            format!(
                "more than {megabytes} MiB for one input: see {}\n",
                folder().display()
            )
        });
        Guard {
            target,
            limit,
            current,
            cost: Cost::default(),
        }
    }

    pub fn attempt(&mut self, input: &[u8]) -> Outcome {
        std::fs::write(&self.current, input).unwrap();
        let run = self.target.run;
        let owned = input.to_vec();
        let (send, receive) = mpsc::channel();
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        LIMIT.store(before + MEMORY, Relaxed);
        let start = Instant::now();
        let worker = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || {
                QUIET.set(true);
                let result = catch_unwind(AssertUnwindSafe(|| run(&owned)));
                let _ = send.send(result);
            })
            .unwrap();
        let result = receive.recv_timeout(self.limit);
        if matches!(result, Err(RecvTimeoutError::Timeout)) {
            // A thread cannot be stopped: the process ends, and what it was at stays.
            let (limit, path) = (self.limit, self.current.display());
            eprintln!("no answer after {limit:?}: see {path}");
            std::process::abort();
        }
        let time = start.elapsed();
        let _ = worker.join();
        LIMIT.store(usize::MAX, Relaxed);
        self.note(time, PEAK.load(Relaxed).saturating_sub(before), input);
        match result {
            Ok(Ok(behaviour)) => Outcome::Passed(behaviour),
            _ => Outcome::Failed(PANIC.lock().unwrap().take().expect("a panic has a fault")),
        }
    }

    /// The most expensive inputs are kept, too.
    fn note(&mut self, time: Duration, memory: usize, input: &[u8]) {
        if time > self.cost.time {
            self.cost.time = time;
            std::fs::write(self.current.with_extension("slowest"), input).unwrap();
        }
        if memory > self.cost.memory {
            self.cost.memory = memory;
            std::fs::write(self.current.with_extension("largest"), input).unwrap();
        }
    }

    pub fn cost(&self) -> Cost {
        self.cost.clone()
    }

    /// All inputs have been answered.
    pub fn finish(&self) {
        let _ = std::fs::remove_file(&self.current);
        for kind in ["slowest", "largest"] {
            let name = format!("{}.{kind}", self.target.name);
            let _ = std::fs::rename(self.current.with_extension(kind), folder().join(name));
        }
    }
}
