//! The identity of a base model: exact over the graph, sampled or exact over the weights.
//!
//! The digest covers, in the graph's order: every node's operator, attributes and the names that it
//! reads and writes; the names and types of inputs and outputs; the name, type and dimensions of
//! every constant. Of a constant's data it covers the first, the middle and the last KiB
//! ([`Depth::Sampled`], so that it costs milliseconds for any size) or everything
//! ([`Depth::Full`]).

use crate::diag::{Reported, Sink};
use crate::files;
use crate::graph::{Attribute, AttributeValue, Graph, Model, Tensor, TensorData};
use crate::onnx::ExternalFiles;
use blake3::Hasher;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// How much of the weights' data is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    Sampled,
    Full,
}

impl Depth {
    /// The word in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Depth::Sampled => "sampled",
            Depth::Full => "full",
        }
    }
}

/// Bytes of each sample.
const SAMPLE: u64 = 1024;

/// The digest as `blake3-sampled:…` or `blake3-full:…`, in hexadecimal.
pub fn fingerprint(
    model: &Model,
    weights: &ExternalFiles,
    depth: Depth,
    sink: &mut Sink,
) -> Result<String, Reported> {
    let mut digest = Digest {
        hasher: Hasher::new(),
        pending: Vec::with_capacity(PENDING),
        weights,
        depth,
        sink,
        open: None,
    };
    digest.graph(&model.graph)?;
    digest.flush();
    let hash = digest.hasher.finalize().to_hex();
    Ok(format!("blake3-{}:{hash}", depth.name()))
}

/// Bytes that are hashed at once: BLAKE3 is many times faster on long pieces than on words.
const PENDING: usize = 64 << 10;

struct Digest<'a> {
    hasher: Hasher,
    /// What has not been hashed yet.
    pending: Vec<u8>,
    weights: &'a ExternalFiles,
    depth: Depth,
    sink: &'a mut Sink,
    /// The external file read last.
    open: Option<(String, PathBuf, File)>,
}

impl Digest<'_> {
    /// Length first, so that two texts never run together.
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, value: i64) {
        self.add(&value.to_le_bytes());
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.pending.len() + bytes.len() > PENDING {
            self.flush();
        }
        if bytes.len() > PENDING {
            self.hasher.update(bytes);
        } else {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn flush(&mut self) {
        self.hasher.update(&self.pending);
        self.pending.clear();
    }

    fn graph(&mut self, graph: &Graph) -> Result<(), Reported> {
        for id in graph.inputs().iter().chain(graph.outputs()) {
            let value = graph.value(*id);
            self.text(&value.name);
        }
        let order = graph
            .order()
            .unwrap_or_else(|_| unreachable!("an imported graph has no cycles"));
        self.number(order.len() as i64);
        for id in order {
            let node = graph.node(id);
            self.text(&node.op.domain);
            self.text(&node.op.op_type);
            for operand in graph.operands(id).into_iter().chain(graph.results(id)) {
                match operand {
                    Some(value) => self.text(&graph.value(value).name),
                    None => self.number(-1),
                }
            }
            for attribute in &node.attributes {
                self.attribute(attribute)?;
            }
        }
        for id in graph.initializers() {
            let value = graph.value(*id);
            self.text(&value.name);
            if let Some(tensor) = value.tensor() {
                self.tensor(tensor)?;
            }
        }
        Ok(())
    }

    fn attribute(&mut self, attribute: &Attribute) -> Result<(), Reported> {
        self.text(&attribute.name);
        match &attribute.value {
            AttributeValue::Float(value) => self.number(i64::from(value.to_bits())),
            AttributeValue::Int(value) => self.number(*value),
            AttributeValue::String(bytes) => self.bytes(bytes),
            AttributeValue::Floats(values) => values
                .iter()
                .for_each(|v| self.number(i64::from(v.to_bits()))),
            AttributeValue::Ints(values) => values.iter().for_each(|v| self.number(*v)),
            AttributeValue::Strings(values) => values.iter().for_each(|v| self.bytes(v)),
            AttributeValue::Tensor(tensor) => self.tensor(tensor)?,
            AttributeValue::Tensors(tensors) => {
                for tensor in tensors {
                    self.tensor(tensor)?;
                }
            }
            AttributeValue::Graph(graph) => self.graph(graph)?,
            AttributeValue::Graphs(graphs) => {
                for graph in graphs {
                    self.graph(graph)?;
                }
            }
            AttributeValue::Reference(name) => self.text(name),
            AttributeValue::Opaque(bytes) => self.bytes(bytes),
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as i64);
        self.add(bytes);
    }

    fn tensor(&mut self, tensor: &Tensor) -> Result<(), Reported> {
        self.number(i64::from(tensor.dtype.number()));
        self.number(tensor.dims.len() as i64);
        for dim in &tensor.dims {
            self.number(*dim);
        }
        if let TensorData::Strings(strings) = &tensor.data {
            strings.iter().for_each(|text| self.bytes(text));
            return Ok(());
        }
        let length = tensor.byte_len();
        if self.depth == Depth::Full || length <= 3 * SAMPLE {
            return self.range(tensor, 0, length);
        }
        for start in [0, (length - SAMPLE) / 2, length - SAMPLE] {
            self.range(tensor, start, SAMPLE)?;
        }
        Ok(())
    }

    fn range(&mut self, tensor: &Tensor, start: u64, length: u64) -> Result<(), Reported> {
        // In pieces, so that a full digest does not hold a weight in memory.
        let mut at = start;
        let end = start + length;
        while at < end {
            let piece = (end - at).min(1 << 20);
            self.piece(tensor, at, piece)?;
            at += piece;
        }
        Ok(())
    }

    /// External data is read, not mapped: pages of a map would count as memory of this process.
    fn piece(&mut self, tensor: &Tensor, at: u64, length: u64) -> Result<(), Reported> {
        match &tensor.data {
            TensorData::Raw(raw) => {
                self.add(&raw[at as usize..(at + length) as usize]);
            }
            TensorData::Strings(_) => {}
            TensorData::External(external) => {
                let mut buffer = vec![0; length as usize];
                let path = self.open(&external.location)?;
                let (_, _, file) = self.open.as_mut().expect("opened just now");
                let read = file
                    .seek(SeekFrom::Start(external.offset + at))
                    .and_then(|_| file.read_exact(&mut buffer));
                if let Err(error) = read {
                    return Err(self.sink.emit(files::cannot_read(&path, &error)));
                }
                self.add(&buffer);
            }
        }
        Ok(())
    }

    fn open(&mut self, location: &str) -> Result<PathBuf, Reported> {
        if let Some((open, path, _)) = &self.open
            && open == location
        {
            return Ok(path.clone());
        }
        let path = self
            .weights
            .path(location)
            .map_err(|d| self.sink.emit(*d))?;
        let file =
            File::open(&path).map_err(|error| self.sink.emit(files::cannot_read(&path, &error)))?;
        self.open = Some((location.to_owned(), path.clone(), file));
        Ok(path)
    }
}
