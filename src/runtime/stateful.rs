//! Sessions whose results are operands of their next run: parameters and the state of an optimizer
//! stay in ONNX Runtime's memory from step to step, on a GPU in that of the device.

use super::replay::Replays;
use super::session::{Provider, Replay, Session, Sums, fits, host_tensor, value};
use super::tensor::{HostTensor, NamedTensors};
use super::{Port, Profile, errors};
use crate::diag::{Diagnostic, Reported, Sink};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, SessionInputValue};
use ort::value::DynValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// An output that is an input of the next run. Both have one type and one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    pub output: String,
    pub input: String,
}

/// A session with a state. A run reads the state of the run before and leaves a new one; the two
/// are different memory, so no operator can read what has been overwritten already.
#[derive(Debug)]
pub struct Stateful {
    session: Session,
    /// Inputs by the output that feeds them.
    feeds: BTreeMap<String, String>,
    /// By input; with `replays` it lies there.
    state: BTreeMap<String, DynValue>,
    /// Where a session that records its runs has all that goes in and comes out; made by the first run.
    replays: Option<Replays>,
    /// Where a session on a device finds its operands and leaves its results; made by the first run.
    bound: Option<Bound>,
}

/// Operands and results bound to memory.
#[derive(Debug)]
struct Bound {
    binding: IoBinding,
    device: MemoryInfo<'static>,
    host: MemoryInfo<'static>,
}

impl Bound {
    fn new(session: &ort::session::Session, device: i32) -> ort::Result<Bound> {
        let memory = |place, number| {
            MemoryInfo::new(place, number, AllocatorType::Device, MemoryType::Default)
        };
        Ok(Bound {
            binding: session.create_binding()?,
            device: memory(AllocationDevice::CUDA, device)?,
            host: memory(AllocationDevice::CPU, 0)?,
        })
    }
}

impl Stateful {
    /// A session whose feeds have no values yet: [`Stateful::set`] gives them. Every feed must name
    /// an output and an input of the session.
    pub fn new(session: Session, feeds: Vec<Feed>) -> Stateful {
        let feeds = feeds.into_iter().map(|feed| (feed.output, feed.input));
        Stateful {
            session,
            feeds: feeds.collect(),
            state: BTreeMap::new(),
            replays: None,
            bound: None,
        }
    }

    /// Gives an input of a feed its value for the next run.
    pub fn set(
        &mut self,
        input: &str,
        tensor: &HostTensor,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        self.try_set(input, tensor)
            .map_err(|diagnostic| sink.emit(diagnostic))
    }

    fn try_set(&mut self, input: &str, tensor: &HostTensor) -> Result<(), Diagnostic> {
        let inputs = &self.session.inputs;
        let Some(port) = inputs.iter().find(|port| port.name == input) else {
            return Err(errors::unknown_inputs(&[input], inputs));
        };
        fits(port, tensor).map_err(|reason| errors::input_differs(port, tensor, &reason))?;
        match &mut self.replays {
            Some(replays) => replays.set(input, tensor)?,
            None => {
                let value = value(tensor)?.into_dyn();
                self.state.insert(input.to_owned(), value);
            }
        }
        Ok(())
    }

    /// What an input of a feed reads in the next run; `None` if it has no value yet or is no tensor.
    pub fn get(&self, input: &str) -> Option<HostTensor> {
        match &self.replays {
            Some(replays) => replays.get(input),
            None => host_tensor(self.state.get(input)?),
        }
    }

    /// Every input that an output feeds.
    pub fn fed(&self) -> impl Iterator<Item = &str> {
        self.feeds.values().map(String::as_str)
    }

    /// What [`Session::profile`] says.
    pub fn profile(&mut self, sink: &mut Sink) -> Result<Option<Profile>, Reported> {
        self.session.profile(sink)
    }

    /// Runs once on the state and on `inputs`; returns the outputs that are fed to no input, in the
    /// model's order. A run that fails leaves the state as it was.
    pub fn run(
        &mut self,
        inputs: &NamedTensors,
        sink: &mut Sink,
    ) -> Result<NamedTensors, Reported> {
        let misfits = self.misfits(inputs);
        if let Some(reported) = misfits.into_iter().map(|m| sink.emit(m)).last() {
            return Err(reported);
        }
        self.run_fitting(inputs)
            .map_err(|diagnostic| sink.emit(diagnostic))
    }

    fn misfits(&self, inputs: &NamedTensors) -> Vec<Diagnostic> {
        let ports = &self.session.inputs;
        let find = |name: &str| ports.iter().find(|port| port.name == name);
        let mut misfits: Vec<Diagnostic> = inputs
            .iter()
            .filter_map(|(name, tensor)| {
                let port = find(name)?;
                let reason = fits(port, tensor).err()?;
                Some(errors::input_differs(port, tensor, &reason))
            })
            .collect();
        let unknown: Vec<&str> = inputs
            .iter()
            .map(|(name, _)| name)
            .filter(|name| find(name).is_none())
            .collect();
        if !unknown.is_empty() {
            misfits.push(errors::unknown_inputs(&unknown, ports));
        }
        let is_missing = |port: &&Port| {
            let name = &*port.name;
            let replays = self.replays.as_ref();
            let has_value = self.state.contains_key(name) || replays.is_some_and(|r| r.has(name));
            inputs.get(name).is_none() && !has_value
        };
        let missing: Vec<&Port> = ports.iter().filter(is_missing).collect();
        if !missing.is_empty() {
            misfits.push(errors::missing_inputs(&missing));
        }
        misfits
    }

    fn run_fitting(&mut self, inputs: &NamedTensors) -> Result<NamedTensors, Diagnostic> {
        if self.session.replay == Replay::On {
            return self.run_recorded(inputs);
        }
        let results = match self.session.provider {
            Provider::Cpu => self.run_on_host(inputs)?,
            Provider::Cuda(device) => self.run_on_device(inputs, device)?,
        };
        let mut fed = Vec::with_capacity(self.feeds.len());
        let mut named = NamedTensors::default();
        for (port, value) in self.session.outputs.iter().zip(results) {
            match self.feeds.get(&port.name) {
                Some(input) => fed.push((input.clone(), value)),
                None => {
                    let tensor = host_tensor(&value).ok_or_else(|| errors::not_a_tensor(port))?;
                    named.push(port.name.clone(), tensor);
                }
            }
        }
        self.state.extend(fed);
        Ok(named)
    }

    fn run_recorded(&mut self, inputs: &NamedTensors) -> Result<NamedTensors, Diagnostic> {
        let replays = match &mut self.replays {
            Some(replays) => replays,
            none => {
                let place = match self.session.provider {
                    Provider::Cpu => (AllocationDevice::CPU, 0),
                    Provider::Cuda(device) => (AllocationDevice::CUDA, device),
                };
                let is_fed = |name: &str| self.feeds.values().any(|input| input == name);
                let state = self.state.iter().map(|(name, value)| (&**name, value));
                let (fed, kept) = state.partition(|(name, _)| is_fed(name));
                // Sums in any order differ from run to run.
                let checks = self.session.sums == Sums::Ordered;
                let replays = none.insert(Replays::new(place, fed, kept, checks)?);
                self.state.clear();
                replays
            }
        };
        replays.run(&mut self.session, &self.feeds, inputs)
    }

    /// Every output, in the model's order.
    fn run_on_host(&mut self, inputs: &NamedTensors) -> Result<Vec<DynValue>, Diagnostic> {
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::new();
        for (name, tensor) in inputs.iter() {
            values.push((name.into(), value(tensor)?.into()));
        }
        for (name, value) in &self.state {
            if inputs.get(name).is_none() {
                values.push((name.into(), value.into()));
            }
        }
        let outputs = self.session.session.run(values);
        let mut outputs = outputs.map_err(|error| errors::run_failed(error.message()))?;
        let names = self.session.outputs.iter();
        let results = names.map(|port| {
            let value = outputs.remove(&port.name);
            value.ok_or_else(|| errors::not_a_tensor(port))
        });
        results.collect()
    }

    /// Every output, in the model's order: what is fed back lies on the device, the others on the host.
    fn run_on_device(
        &mut self,
        inputs: &NamedTensors,
        device: i32,
    ) -> Result<Vec<DynValue>, Diagnostic> {
        let failed = |error: ort::Error| errors::run_failed(error.message());
        let session = &mut self.session.session;
        let bound = match &mut self.bound {
            Some(bound) => bound,
            none => none.insert(Bound::new(session, device).map_err(failed)?),
        };
        for (name, tensor) in inputs.iter() {
            let tensor = value(tensor)?;
            bound.binding.bind_input(name, &tensor).map_err(failed)?;
        }
        for (name, value) in &self.state {
            if inputs.get(name).is_none() {
                bound.binding.bind_input(name, value).map_err(failed)?;
            }
        }
        for port in &self.session.outputs {
            // Bound again, an output gets memory of its own: that of the run before is an operand now.
            let place = match self.feeds.contains_key(&port.name) {
                true => &bound.device,
                false => &bound.host,
            };
            let binding = &mut bound.binding;
            binding
                .bind_output_to_device(&*port.name, place)
                .map_err(failed)?;
        }
        let mut outputs = session.run_binding(&bound.binding).map_err(failed)?;
        let names = self.session.outputs.iter();
        let results = names.map(|port| {
            let value = outputs.remove(&port.name);
            value.ok_or_else(|| errors::not_a_tensor(port))
        });
        results.collect()
    }
}
