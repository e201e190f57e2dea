//! Steps on a GPU that are recorded once a shape, as a CUDA graph, and launched as a whole from then on.
//!
//! A recorded step reads and writes the addresses that it was recorded with. So all that goes into a
//! session and comes out of it lies in places of its own, outside of the session's arena, which every
//! replay overwrites. What a step feeds to the next one lies there twice: a step reads one place and
//! writes the other, and either direction is recorded by itself. A step that is recorded runs several
//! times on the same operands, which changes nothing as none of them is overwritten.
//!
//! A shape is recorded when it comes a second time. The first replay is held against a step that runs
//! plainly: an operator that reads a number on the host, where ONNX Runtime records none of it, would
//! go on with that of the recording.

use super::errors;
use super::session::{Session, host_tensor, value};
use super::tensor::{HostTensor, NamedTensors};
use crate::diag::Diagnostic;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions};
use ort::value::{DynTensor, DynTensorValueType, DynValue};
use std::collections::BTreeMap;
use std::fmt;

/// More shapes than these run plainly.
const MOST_SHAPES: usize = 64;
/// The key of ONNX Runtime's run options for the number of a graph.
const GRAPH: &str = "gpu_graph_id";
/// The number of a run that neither records nor replays.
const PLAIN: &str = "-1";

/// The first version in which what a recorded step copies from the host stays there for its replays.
pub(super) const LOWEST_VERSION: &str = "1.31";

/// Whether replays of that version compute what was recorded.
pub(super) fn is_sound(version: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        let parts = version.split('.');
        parts.map_while(|part| part.parse().ok()).collect()
    };
    numbers(version) >= numbers(LOWEST_VERSION)
}

/// What a session is given and gives, and the steps of it that are recorded.
#[derive(Debug)]
pub(super) struct Replays {
    device: AllocationDevice<'static>,
    number: i32,
    /// Inputs that outputs feed: what the next step reads, and where it writes, in turns.
    fed: BTreeMap<String, [DynTensor; 2]>,
    /// Which of the two the next step reads.
    current: usize,
    /// Inputs that keep their values, and that no output feeds.
    kept: BTreeMap<String, DynTensor>,
    /// By the shapes of what a run is given.
    steps: BTreeMap<Vec<Vec<i64>>, Steps>,
    /// How many steps are recorded.
    recorded: usize,
    /// Whether a replay is still to be held against a plain run.
    unchecked: bool,
}

/// Recorded steps of one shape.
#[derive(Debug)]
struct Steps {
    inputs: BTreeMap<String, DynTensor>,
    /// Results that feed no input.
    results: Vec<(String, DynTensor)>,
    /// By which of two places they read.
    directions: [Option<Step>; 2],
}

struct Step {
    binding: IoBinding,
    options: RunOptions,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Step").field(&self.binding).finish()
    }
}

/// The results of a run that no input takes, and those that one takes, by the output.
type Results = (NamedTensors, NamedTensors);

impl Replays {
    /// For what lies on a device. `fed` and `kept` are values on the host, by input. `checks` holds
    /// the first replay against a plain run, which asks for results that are equal from run to run.
    pub fn new(
        (device, number): (AllocationDevice<'static>, i32),
        fed: Vec<(&str, &DynValue)>,
        kept: Vec<(&str, &DynValue)>,
        checks: bool,
    ) -> Result<Replays, Diagnostic> {
        let mut replays = Replays {
            device,
            number,
            fed: BTreeMap::new(),
            current: 0,
            kept: BTreeMap::new(),
            steps: BTreeMap::new(),
            recorded: 0,
            unchecked: checks,
        };
        for (name, value) in fed {
            let both = [replays.placed(value)?, replays.placed(value)?];
            replays.fed.insert(name.to_owned(), both);
        }
        for (name, value) in kept {
            let placed = replays.placed(value)?;
            replays.kept.insert(name.to_owned(), placed);
        }
        Ok(replays)
    }

    /// A copy on the device, outside of the session's arena.
    fn placed(&self, value: &DynValue) -> Result<DynTensor, Diagnostic> {
        let placed = value
            .view()
            .downcast::<DynTensorValueType>()
            .and_then(|tensor| tensor.to(self.device.clone(), self.number));
        placed.map_err(|error| errors::run_failed(error.message()))
    }

    /// Gives an input its value for the next run.
    pub fn set(&mut self, input: &str, tensor: &HostTensor) -> Result<(), Diagnostic> {
        let target = match self.fed.get_mut(input) {
            Some(both) => Some(&mut both[self.current]),
            None => self.kept.get_mut(input),
        };
        match target {
            Some(target) => fill(target, tensor),
            None => {
                let placed = self.placed(&value(tensor)?.into_dyn())?;
                self.kept.insert(input.to_owned(), placed);
                Ok(())
            }
        }
    }

    /// What an input reads in the next run.
    pub fn get(&self, input: &str) -> Option<HostTensor> {
        let both = self.fed.get(input).map(|both| &both[self.current]);
        let tensor = both.or_else(|| self.kept.get(input))?;
        host_tensor(&tensor.view().into_dyn())
    }

    /// Whether an input has a value for the next run.
    pub fn has(&self, input: &str) -> bool {
        self.fed.contains_key(input) || self.kept.contains_key(input)
    }

    /// Runs a step; `feeds` are inputs by the outputs that feed them. Returns the results that feed none.
    pub fn run(
        &mut self,
        session: &mut Session,
        feeds: &BTreeMap<String, String>,
        inputs: &NamedTensors,
    ) -> Result<NamedTensors, Diagnostic> {
        let shapes: Vec<Vec<i64>> = inputs
            .iter()
            .map(|(_, given)| given.dims().to_vec())
            .collect();
        let results = if self.steps.contains_key(&shapes) {
            self.recorded_run(session, feeds, inputs, &shapes)?
        } else {
            let results = self.plain(session, feeds, inputs, Target::Next)?.0;
            if self.steps.len() < MOST_SHAPES {
                let steps = self.room(inputs, &results)?;
                self.steps.insert(shapes, steps);
            }
            results
        };
        if !self.fed.is_empty() {
            self.current = 1 - self.current;
        }
        Ok(results)
    }

    /// Places for what is given and what comes out in one shape.
    fn room(&self, inputs: &NamedTensors, results: &NamedTensors) -> Result<Steps, Diagnostic> {
        let placed = |(name, tensor): (&str, &HostTensor)| {
            let placed = self.placed(&value(tensor)?.into_dyn())?;
            Ok((name.to_owned(), placed))
        };
        Ok(Steps {
            inputs: inputs.iter().map(placed).collect::<Result<_, _>>()?,
            results: results.iter().map(placed).collect::<Result<_, _>>()?,
            directions: [None, None],
        })
    }

    fn recorded_run(
        &mut self,
        session: &mut Session,
        feeds: &BTreeMap<String, String>,
        inputs: &NamedTensors,
        shapes: &[Vec<i64>],
    ) -> Result<NamedTensors, Diagnostic> {
        let steps = self.steps.get_mut(shapes).expect("the caller looked");
        for (name, tensor) in inputs.iter() {
            let place = steps.inputs.get_mut(name).expect("names of one session");
            fill(place, tensor)?;
        }
        let is_replay = steps.directions[self.current].is_some();
        if !is_replay {
            let step = self.bound(session, feeds, shapes)?;
            self.recorded += 1;
            let steps = self.steps.get_mut(shapes).expect("the caller looked");
            steps.directions[self.current] = Some(step);
        }
        let expected = match is_replay && self.unchecked {
            true => Some(self.plain(session, feeds, inputs, Target::Aside)?),
            false => None,
        };
        let steps = &self.steps[shapes];
        let step = steps.directions[self.current].as_ref().expect("just made");
        let ran = session
            .session
            .run_binding_with_options(&step.binding, &step.options);
        ran.map_err(|error| errors::run_failed(error.message()))?;
        let mut results = NamedTensors::default();
        for (name, tensor) in &steps.results {
            results.push(
                name.clone(),
                on_host(session, name, &tensor.view().into_dyn())?,
            );
        }
        if let Some((plain, plain_fed)) = expected {
            let written = |output: &str| {
                let both = &self.fed[&feeds[output]];
                host_tensor(&both[1 - self.current].view().into_dyn())
            };
            let of_state = plain_fed
                .iter()
                .find(|(output, tensor)| written(output).as_ref() != Some(*tensor));
            let of_results = plain
                .iter()
                .find(|(name, tensor)| results.get(name) != Some(*tensor));
            if let Some((name, _)) = of_results.or(of_state) {
                return Err(errors::replay_differs(name));
            }
            self.unchecked = false;
        }
        Ok(results)
    }

    /// A step of that shape and of the current direction, not run yet.
    fn bound(
        &mut self,
        session: &Session,
        feeds: &BTreeMap<String, String>,
        shapes: &[Vec<i64>],
    ) -> Result<Step, Diagnostic> {
        let failed = |error: ort::Error| errors::run_failed(error.message());
        let mut binding = session.session.create_binding().map_err(failed)?;
        let inputs = &self.steps[shapes].inputs;
        self.bind_kept(&mut binding, |name| inputs.contains_key(name))
            .map_err(failed)?;
        let next = 1 - self.current;
        let steps = self.steps.get_mut(shapes).expect("the caller looked");
        for (name, tensor) in &steps.inputs {
            binding.bind_input(name, tensor).map_err(failed)?;
        }
        for port in &session.outputs {
            let result = match feeds.get(&port.name) {
                Some(input) => self.fed.get_mut(input).map(|both| &mut both[next]),
                None => {
                    let mut results = steps.results.iter_mut();
                    let found = results.find(|(name, _)| *name == port.name);
                    found.map(|(_, tensor)| tensor)
                }
            };
            let result = result.ok_or_else(|| errors::not_a_tensor(port))?;
            binding.bind_output(&*port.name, result).map_err(failed)?;
        }
        let mut options = RunOptions::new().map_err(failed)?;
        let number = self.recorded + 1;
        options.set(GRAPH, number.to_string()).map_err(failed)?;
        Ok(Step { binding, options })
    }

    /// Binds what is not given with a run.
    fn bind_kept(
        &self,
        binding: &mut IoBinding,
        is_given: impl Fn(&str) -> bool,
    ) -> ort::Result<()> {
        let fed = self
            .fed
            .iter()
            .map(|(name, both)| (name, &both[self.current]));
        for (name, tensor) in self.kept.iter().chain(fed) {
            if !is_given(name) {
                binding.bind_input(name, tensor)?;
            }
        }
        Ok(())
    }

    /// A run that is not recorded.
    fn plain(
        &mut self,
        session: &mut Session,
        feeds: &BTreeMap<String, String>,
        inputs: &NamedTensors,
        target: Target,
    ) -> Result<Results, Diagnostic> {
        let failed = |error: ort::Error| errors::run_failed(error.message());
        let mut binding = session.session.create_binding().map_err(failed)?;
        self.bind_kept(&mut binding, |name| inputs.get(name).is_some())
            .map_err(failed)?;
        for (name, tensor) in inputs.iter() {
            let tensor = value(tensor)?;
            binding.bind_input(name, &tensor).map_err(failed)?;
        }
        let memory = |place, number| {
            MemoryInfo::new(place, number, AllocatorType::Device, MemoryType::Default)
        };
        let aside = memory(self.device.clone(), self.number).map_err(failed)?;
        let host = memory(AllocationDevice::CPU, 0).map_err(failed)?;
        let next = 1 - self.current;
        for port in &session.outputs {
            let name = &*port.name;
            let input = feeds.get(name);
            let bound = match input.and_then(|input| self.fed.get_mut(input)) {
                Some(both) if target == Target::Next => binding.bind_output(name, &mut both[next]),
                Some(_) => binding.bind_output_to_device(name, &aside),
                None => binding.bind_output_to_device(name, &host),
            };
            bound.map_err(failed)?;
        }
        let mut options = RunOptions::new().map_err(failed)?;
        options.set(GRAPH, PLAIN).map_err(failed)?;
        let run = session.session.run_binding_with_options(&binding, &options);
        let mut outputs = run.map_err(failed)?;
        let mut results = Results::default();
        for port in &session.outputs {
            let is_fed = feeds.contains_key(&port.name);
            if is_fed && target == Target::Next {
                continue;
            }
            let value = outputs.remove(&port.name);
            let value = value.ok_or_else(|| errors::not_a_tensor(port))?;
            let tensor = host_tensor(&value).ok_or_else(|| errors::not_a_tensor(port))?;
            let of = if is_fed {
                &mut results.1
            } else {
                &mut results.0
            };
            of.push(port.name.clone(), tensor);
        }
        Ok(results)
    }
}

/// Where a plain run leaves what feeds the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Where the next run reads it.
    Next,
    /// Elsewhere, to be looked at.
    Aside,
}

fn on_host(session: &Session, name: &str, value: &DynValue) -> Result<HostTensor, Diagnostic> {
    host_tensor(value).ok_or_else(|| {
        let port = session.outputs.iter().find(|port| port.name == name);
        errors::not_a_tensor(port.expect("a result of the session"))
    })
}

/// Overwrites a tensor with one of its type and shape.
fn fill(place: &mut DynTensor, tensor: &HostTensor) -> Result<(), Diagnostic> {
    let copied = value(tensor)?.copy_into(place);
    copied.map_err(|error| errors::run_failed(error.message()))
}

#[cfg(test)]
mod tests {
    use super::is_sound;

    #[test]
    fn versions_are_numbers() {
        for (version, sound) in [
            ("1.31.0", true),
            ("1.31", true),
            ("1.32.0", true),
            ("2.0", true),
            ("1.30.9", false),
            ("1.9.1", false),
            ("unknown", false),
        ] {
            assert_eq!(is_sound(version), sound, "{version}");
        }
    }
}
