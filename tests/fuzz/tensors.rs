//! Adapter tensors, as `compile --values` reads them.

use crate::guard;
use crate::model::ADAPTERS;
use crate::random::Random;
use crate::spec;
use crate::text;
use crate::told::{resolved, told};
use peftc::adapt::{self, Plan};
use peftc::diag::{Reported, Sink, SourceMap};
use peftc::driver::{Loaded, trained_values};
use peftc::onnx;
use peftc::runtime::{HostTensor, NamedTensors};
use std::path::Path;
use std::sync::OnceLock;

/// A small model and what is planned on it.
fn planned() -> &'static (Loaded, Plan) {
    static PLANNED: OnceLock<(Loaded, Plan)> = OnceLock::new();
    PLANNED.get_or_init(|| {
        let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
        let spec = resolved("all.peft", ADAPTERS, &mut sources, &mut sink).unwrap();
        let loaded = spec::loaded("synthetic.if");
        let adapter = &spec.program.adapters[0];
        let planned = spec::planned(&spec, adapter, &loaded, &sources, &mut sink).unwrap();
        (loaded, planned.plan)
    })
}

/// The file that fits.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut tensors = NamedTensors::default();
    for parameter in &planned().1.parameters {
        let elements = parameter.dims.iter().product::<i64>() as usize;
        let values = HostTensor::from_f32(&parameter.dims, &vec![0.5; elements]);
        tensors.push(&parameter.name, values);
    }
    vec![tensors.to_safetensors().unwrap()]
}

/// Mostly the header changes, and its length with it.
pub fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(corpus).clone();
    let header = split(&bytes).filter(|_| !random.once_in(5));
    let Some((header, data)) = header else {
        text::spoil(&mut bytes, random);
        return bytes;
    };
    let header = text::mutate(&[header.to_vec()], random);
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(data);
    out
}

/// A file is the length of its header in eight bytes, the header, the data.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

pub fn run(input: &[u8]) -> String {
    let (sources, mut sink) = (SourceMap::new(), Sink::new());
    let path = guard::scratch().join("tensors.safetensors");
    // A new file: the last one may still be mapped.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, input).unwrap();
    let as_input = NamedTensors::read_safetensors(&path).is_ok();
    let fits = adapted(&path, &mut sink).is_ok();
    format!("{} {as_input} {fits}", told(&sources, &sink))
}

fn adapted(path: &Path, sink: &mut Sink) -> Result<(), Reported> {
    let (loaded, plan) = planned();
    let values = trained_values(plan, None, path, sink)?;
    let mut model = loaded.model.clone();
    let reader = |tensor: &peftc::graph::Tensor, sink: &mut Sink| loaded.weights.read(tensor, sink);
    let starts = adapt::Starts::new(0, &reader, &values);
    adapt::apply(plan, &mut model, &loaded.modules, &starts, sink)?;
    let done = onnx::write_model(&model, &mut Vec::new());
    assert!(done.is_ok(), "a model with trained values can be written");
    Ok(())
}
