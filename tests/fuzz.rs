//! A corpus-driven fuzzer for everything that reads bytes from strangers.
//!
//! Inputs are mutations of the repository's own specs, models and name maps. An input fails when
//! the code under test panics, holds more memory than the limit, or takes longer than the limit.
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
#[path = "fuzz/random.rs"]
mod random;
#[path = "fuzz/targets.rs"]
mod targets;
#[path = "fuzz/text.rs"]
mod text;
#[path = "fuzz/wire.rs"]
mod wire;

use guard::Outcome;
use random::Random;
use std::collections::BTreeSet;
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions");
    for (path, bytes) in corpus::files(&folder.join(target.name)) {
        if let Outcome::Failed(why) = guard::attempt(target, &bytes) {
            return Err(format!("{} fails again: {why}", path.display()));
        }
    }
    let mut corpus = corpus::of(target);
    let mut random = Random::new(seed);
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let (start, mut inputs, first) = (Instant::now(), 0, corpus.len());
    loop {
        let done = match end {
            End::Inputs(count) => inputs >= count,
            End::Time(limit) => start.elapsed() >= limit,
        };
        if done {
            break;
        }
        let input = (target.mutate)(&corpus, &mut random);
        inputs += 1;
        match guard::attempt(target, &input) {
            Outcome::Failed(why) => {
                let path = keep(target, &input, &why);
                return Err(format!(
                    "input {inputs}: {why}\n  kept as {}",
                    path.display()
                ));
            }
            // What behaves like nothing before is worth mutating further.
            Outcome::Passed(behaviour) => {
                if seen.insert(behaviour) && corpus.len() < 4096 && input.len() < 1 << 19 {
                    corpus.push(input);
                }
            }
        }
    }
    Ok(format!(
        "{inputs} inputs, {} behaviours, {} of {first} inputs in the corpus are new, at most {} MiB held, {:.0} s",
        seen.len(),
        corpus.len() - first,
        guard::peak() >> 20,
        start.elapsed().as_secs_f64()
    ))
}

/// Makes a failing input smaller and writes it where it can be looked at.
fn keep(target: &'static Target, input: &[u8], why: &str) -> PathBuf {
    let smaller = guard::shrunk(target, input);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.failed", target.name));
    std::fs::write(&path, smaller).unwrap();
    std::fs::write(path.with_extension("why"), why).unwrap();
    path
}
