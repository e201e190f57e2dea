//! A corpus-driven fuzzer for everything that reads bytes from strangers.
//!
//! Inputs are mutations of the repository's own specs, models, name maps, adapter tensors and
//! patterns. An input fails when the code under test panics, holds more memory than the limit, or
//! takes longer than the limit; `tests/README.md` says what is left of it.
//! In `cargo test` a fixed number of inputs runs from a fixed seed, after all inputs that have
//! failed before (`tests/fuzz/regressions`). A long run, one target a process:
//!
//! ```sh
//! cargo test --profile fuzz --test fuzz -- --target model --seconds 600 --seed 1
//! ```

// In a test, `unwrap` is an assertion.
#![allow(clippy::unwrap_used)]

#[path = "fuzz/corpus.rs"]
mod corpus;
#[path = "fuzz/guard.rs"]
mod guard;
#[path = "fuzz/patterns.rs"]
mod patterns;
#[path = "fuzz/random.rs"]
mod random;
#[path = "fuzz/targets.rs"]
mod targets;
#[path = "fuzz/tensors.rs"]
mod tensors;
#[path = "fuzz/text.rs"]
mod text;
#[path = "fuzz/wire.rs"]
mod wire;

use guard::{Fault, Guard, Outcome};
use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: guard::Counting = guard::Counting;

/// Inputs for every target in `cargo test`; a count, not a time, so that every run is the same.
const SMOKE_INPUTS: u64 = 150;

/// When a run ends.
#[derive(Clone, Copy)]
enum End {
    Inputs(u64),
    Time(Duration),
}

impl End {
    fn is_reached(self, inputs: u64, start: Instant) -> bool {
        match self {
            End::Inputs(count) => inputs >= count,
            End::Time(limit) => start.elapsed() >= limit,
        }
    }

    /// How long one input may take: a run by time is for an optimized build.
    fn time_of_one(self) -> Duration {
        match self {
            End::Inputs(_) => Duration::from_secs(20),
            End::Time(_) => Duration::from_secs(5),
        }
    }
}

struct Options {
    targets: Vec<&'static Target>,
    end: End,
    seed: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        // For test runners that ask first.
        for target in TARGETS {
            println!("{}: test", target.name);
        }
        return ExitCode::SUCCESS;
    }
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    guard::silence_panics();
    let (mut passed, mut failed) = (0, 0);
    for target in &options.targets {
        match run(target, options.end, options.seed) {
            Ok(report) => {
                passed += 1;
                println!("{}: {report}", target.name);
            }
            Err(failure) => {
                failed += 1;
                println!("{}: {failure}", target.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1)
    };
    let number = |name: &str| {
        value(name)
            .map(|text| {
                text.parse::<u64>()
                    .map_err(|_| format!("{name} is a number"))
            })
            .transpose()
    };
    let targets: Vec<&Target> = match value("--target") {
        None => TARGETS.iter().collect(),
        Some(name) => TARGETS.iter().filter(|t| t.name == *name).collect(),
    };
    if targets.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        return Err(format!("targets are {}", names.join(", ")));
    }
    let end = match (number("--seconds")?, number("--inputs")?) {
        (Some(seconds), _) => End::Time(Duration::from_secs(seconds)),
        (None, inputs) => End::Inputs(inputs.unwrap_or(SMOKE_INPUTS)),
    };
    Ok(Options {
        targets,
        end,
        seed: number("--seed")?.unwrap_or(1),
    })
}

/// Replays the regressions, then tries mutations until the end.
fn run(target: &'static Target, end: End, seed: u64) -> Result<String, String> {
    let guard = Guard {
        time: end.time_of_one(),
    };
    replay(target, &guard)?;
    let mut corpus = corpus::of(target);
    let mut random = Random::new(seed);
    let mut seen: BTreeSet<String> = BTreeSet::new();
    // By the places of the panics.
    let mut faults: BTreeMap<String, String> = BTreeMap::new();
    let (start, mut inputs, first) = (Instant::now(), 0, corpus.len());
    while !end.is_reached(inputs, start) {
        let input = (target.mutate)(&corpus, &mut random);
        inputs += 1;
        match guard.attempt(target, &input) {
            Outcome::Failed(fault) => {
                if !faults.contains_key(&fault.place) {
                    let path = keep(target, &guard, &input, &fault, faults.len() + 1);
                    let told = format!(
                        "input {inputs}: {}\n  kept as {}",
                        fault.why,
                        path.display()
                    );
                    println!("{}: {told}", target.name);
                    faults.insert(fault.place, told);
                }
            }
            // What behaves like nothing before is worth mutating further.
            Outcome::Passed(behaviour) => {
                if seen.insert(behaviour) && corpus.len() < 4096 && input.len() < 1 << 19 {
                    corpus.push(input);
                }
            }
        }
        if matches!(end, End::Inputs(_)) && !faults.is_empty() {
            break;
        }
    }
    let report = format!(
        "{inputs} inputs, {} behaviours, {first} inputs in the corpus and {} new, at most {} MiB held, {:.0} s",
        seen.len(),
        corpus.len() - first,
        guard::peak() >> 20,
        start.elapsed().as_secs_f64()
    );
    std::fs::remove_file(guard::current(target)).unwrap();
    match faults.len() {
        0 => Ok(report),
        count => Err(format!("{count} panics at different places; {report}")),
    }
}

/// Tries everything that has failed before.
fn replay(target: &'static Target, guard: &Guard) -> Result<(), String> {
    std::fs::create_dir_all(guard::folder()).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions");
    for (path, bytes) in corpus::files(&folder.join(target.name)) {
        if let Outcome::Failed(fault) = guard.attempt(target, &bytes) {
            return Err(format!("{} fails again: {}", path.display(), fault.why));
        }
    }
    Ok(())
}

/// Makes a failing input smaller and writes it where it can be looked at.
fn keep(
    target: &'static Target,
    guard: &Guard,
    input: &[u8],
    fault: &Fault,
    number: usize,
) -> PathBuf {
    let path = guard::folder().join(format!("{}-{number}.failed", target.name));
    std::fs::write(path.with_extension("why"), &fault.why).unwrap();
    std::fs::write(&path, input).unwrap();
    std::fs::write(&path, guard.shrunk(target, input, &fault.place)).unwrap();
    path
}
