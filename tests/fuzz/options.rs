//! The command line of the fuzzer.

use crate::targets::{TARGETS, Target};
use crate::trap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Inputs for every target in `cargo test`; a count, not a time, so that every run is the same.
const SMOKE_INPUTS: u64 = 100;

/// When a run ends.
#[derive(Clone, Copy)]
pub enum End {
    Inputs(u64),
    Time(Duration),
}

impl End {
    pub fn is_reached(self, inputs: u64, start: Instant) -> bool {
        match self {
            End::Inputs(count) => inputs >= count,
            End::Time(limit) => start.elapsed() >= limit,
        }
    }

    /// How long one input may take: a run by time is for an optimized build.
    fn time_of_one(self) -> Duration {
        match self {
            End::Inputs(_) => Duration::from_secs(30),
            End::Time(_) => Duration::from_secs(5),
        }
    }
}

pub struct Options {
    pub targets: Vec<&'static Target>,
    /// One input in place of mutations.
    pub file: Option<PathBuf>,
    pub end: End,
    pub seed: u64,
    /// How long one input may take.
    pub limit: Duration,
    /// Whether the limits themselves are tested.
    pub traps: bool,
}

/// `None` if only the list of targets was wanted, as test runners do that ask first.
pub fn read(arguments: &[String]) -> Result<Option<Options>, String> {
    if arguments.iter().any(|a| a == "--list") {
        TARGETS.iter().for_each(|t| println!("{}: test", t.name));
        return Ok(None);
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1)
    };
    let number = |name: &str| {
        let text = value(name);
        text.map(|text| text.parse().map_err(|_| format!("{name} is a number")))
            .transpose()
    };
    let named = value("--target");
    let targets: Vec<&Target> = match named.map(String::as_str) {
        None => TARGETS.iter().filter(|t| filtered(t, arguments)).collect(),
        Some("trap") => vec![&trap::TARGET],
        Some(name) => TARGETS.iter().filter(|t| t.name == name).collect(),
    };
    if named.is_some() && targets.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        return Err(format!("targets are {}", names.join(", ")));
    }
    let end = match (number("--seconds")?, number("--inputs")?) {
        (Some(seconds), _) => End::Time(Duration::from_secs(seconds)),
        (None, inputs) => End::Inputs(inputs.unwrap_or(SMOKE_INPUTS)),
    };
    let limit = number("--limit-ms")?.map(Duration::from_millis);
    Ok(Some(Options {
        traps: named.is_none() && targets.len() == TARGETS.len(),
        targets,
        file: value("--file").map(PathBuf::from),
        end,
        seed: number("--seed")?.unwrap_or(1),
        limit: limit.unwrap_or(end.time_of_one()),
    }))
}

/// `cargo test model` runs what has `model` in its name.
fn filtered(target: &Target, arguments: &[String]) -> bool {
    match arguments.first() {
        Some(word) if !word.starts_with('-') => target.name.contains(word.as_str()),
        _ => true,
    }
}
