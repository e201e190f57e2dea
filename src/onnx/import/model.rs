//! The model around the graph.

use super::functions::{self, Functions};
use super::{Cx, graph};
use crate::diag::{Reported, Sink};
use crate::graph::{Model, Origin};
use crate::onnx::errors::{self, NEWEST_IR, NEWEST_OPSET};
use crate::onnx::external::Seen;
use crate::onnx::proto::{OperatorSetIdProto, StringStringEntryProto};
use crate::onnx::schema::{self, Unknown};
use crate::onnx::sniff;
use crate::onnx::wire::{Malformed, Payload, Record, Records};
use bytes::Bytes;

/// The fields of `ModelProto` that are read here.
mod field {
    pub const IR_VERSION: u32 = 1;
    pub const GRAPH: u32 = 7;
    pub const OPSET_IMPORT: u32 = 8;
    pub const METADATA: u32 = 14;
    pub const TRAINING_INFO: u32 = 20;
    pub const FUNCTIONS: u32 = 25;
}

/// A model's fields, split but not decoded.
#[derive(Default)]
struct Sections {
    ir_version: Option<i64>,
    graph: Option<Bytes>,
    opsets: Vec<Bytes>,
    metadata: Vec<Bytes>,
    functions: Vec<Bytes>,
    /// Everything but graph and functions, as it was.
    header: Vec<(u32, Bytes)>,
}

/// A model as far as its own file tells.
pub(in crate::onnx) struct Read {
    pub model: Model,
    /// What it says about files beside it.
    pub external: Seen,
}

/// Imports a model from the bytes of its file.
pub(in crate::onnx) fn model(file: &str, bytes: &Bytes, sink: &mut Sink) -> Result<Read, Reported> {
    if let Some(found) = sniff::lookalike(bytes) {
        return Err(sink.emit(errors::lookalike(file, &found)));
    }
    let sections = sections(file, bytes, sink)?;
    let Some(graph_bytes) = &sections.graph else {
        return Err(sink.emit(errors::not_onnx(file, "it has no graph")));
    };
    let mut cx = Cx::new(file, sink);
    cx.ir_version = ir_version(&sections, &mut cx)?;
    let mut opsets = opsets(&sections, &mut cx)?;
    let metadata = metadata("model metadata", &sections.metadata, &mut cx);
    cx.functions = functions(&sections, graph_bytes, &mut opsets, &mut cx)?;
    let (body, unknown) = beside(
        bytes.len(),
        || graph::graph(&mut cx, graph_bytes, None),
        || {
            let mut all = Unknown::default();
            all.count(&schema::MODEL, bytes);
            all
        },
    );
    if cx.uses_default_domain && !opsets.iter().any(|(domain, _)| domain.is_empty()) {
        cx.error(errors::opset_missing());
    }
    functions::drop_imports(&cx.functions, &body.graph, &mut opsets);
    without_imports(cx.ir_version, &mut opsets);
    if let (Some(example), count) = (cx.defaults.first(), cx.defaults.len()) {
        let warning = errors::defaults(count, example);
        cx.warn(warning);
    }
    if let Some((count, example)) = cx.same_names.take() {
        cx.warn(errors::same_names(count, &example));
    }
    if let Some((count, example)) = cx.sparse.take() {
        cx.warn(errors::was_sparse(count, &example));
    }
    for warning in cx.external.warnings() {
        cx.warn(warning);
    }
    unknown_fields(&mut cx, unknown, &sections.functions);
    if let Some(reported) = cx.failure {
        return Err(reported);
    }
    Ok(Read {
        model: Model {
            name: file.to_owned(),
            graph: body.graph,
            ir_version: cx.ir_version,
            opsets,
            metadata,
            header: Some(header(sections.header)),
            source: Some(Origin(bytes.clone())),
        },
        external: cx.external,
    })
}

/// From this size on a second thread costs less than it brings.
const LARGE: usize = 1 << 20;

/// Does two things with a file of some size, in a large one at once.
fn beside<A, B: Send>(
    size: usize,
    first: impl FnOnce() -> A,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    if size < LARGE {
        return (first(), second());
    }
    std::thread::scope(|scope| {
        let second = scope.spawn(second);
        (first(), second.join().expect("reading does not panic"))
    })
}

/// Says which fields ONNX does not define, and which of them are lost: those of local functions and
/// of sparse initializers, which are never written again.
fn unknown_fields(cx: &mut Cx<'_>, mut all: Unknown, functions: &[Bytes]) {
    for function in functions {
        cx.lost.count(&schema::FUNCTION, function);
    }
    all.remove(&cx.lost);
    if !all.is_empty() {
        cx.warn(errors::unknown_fields(&all));
    }
    if !cx.lost.is_empty() {
        cx.warn(errors::lost_fields(&cx.lost));
    }
}

fn functions(
    sections: &Sections,
    graph: &Bytes,
    opsets: &mut Vec<(String, i64)>,
    cx: &mut Cx<'_>,
) -> Result<Functions, Reported> {
    let has_training = sections
        .header
        .iter()
        .any(|(field, _)| *field == field::TRAINING_INFO);
    if has_training && !sections.functions.is_empty() {
        let why = "has both local functions and training graphs, which may call them";
        cx.error(errors::item("the model", why));
    }
    functions::read(cx, &sections.functions, graph, opsets)
}

/// Splits the file. A file that fits the schema up to where it breaks off is a truncated model,
/// anything else is no model at all.
fn sections(file: &str, bytes: &Bytes, sink: &mut Sink) -> Result<Sections, Reported> {
    let mut sections = Sections::default();
    for record in Records::new(bytes) {
        let record = match record {
            Ok(record) => record,
            Err(Malformed::Truncated { missing }) if sections.ir_version.is_some() => {
                let has = bytes.len() as u64;
                return Err(sink.emit(errors::truncated(file, has, missing)));
            }
            Err(_) => {
                return Err(sink.emit(errors::not_onnx(
                    file,
                    no_model(bytes, "it is not protobuf"),
                )));
            }
        };
        if let Err(why) = sections.add(&record, bytes) {
            return Err(sink.emit(errors::not_onnx(file, no_model(bytes, &why))));
        }
    }
    Ok(sections)
}

impl Sections {
    fn add(&mut self, record: &Record, bytes: &Bytes) -> Result<(), String> {
        let raw = bytes.slice(record.place.clone());
        match (record.field, &record.value) {
            (field::IR_VERSION, Payload::Varint(version)) => {
                self.ir_version = Some(*version as i64);
            }
            (5, Payload::Varint(_)) => {}
            (field::GRAPH, Payload::Bytes(range)) => {
                if self.graph.is_some() {
                    return Err("it has two graphs".to_owned());
                }
                self.graph = Some(bytes.slice(range.clone()));
                return Ok(());
            }
            (field::FUNCTIONS, Payload::Bytes(range)) => {
                self.functions.push(bytes.slice(range.clone()));
                return Ok(());
            }
            (field::OPSET_IMPORT, Payload::Bytes(range)) => {
                self.opsets.push(bytes.slice(range.clone()));
            }
            (field::METADATA, Payload::Bytes(range)) => {
                self.metadata.push(bytes.slice(range.clone()));
            }
            (2..=4 | 6 | 20 | 26, Payload::Bytes(_)) => {}
            (1..=8 | 14 | 20 | 25 | 26, _) => {
                return Err(format!("field {} has another type", record.field));
            }
            // A field of a later version: carried.
            _ => {}
        }
        self.header.push((record.field, raw));
        Ok(())
    }
}

/// Texts are protobuf by chance for their first few letters: what stops there says nothing.
fn no_model<'a>(bytes: &[u8], why: &'a str) -> &'a str {
    match sniff::is_text(bytes) {
        true => "it is a text",
        false => why,
    }
}

fn ir_version(sections: &Sections, cx: &mut Cx<'_>) -> Result<i64, Reported> {
    match sections.ir_version {
        Some(version @ 1..=NEWEST_IR) => Ok(version),
        Some(version) => Err(cx.error(errors::ir_version(version))),
        None => Err(cx.error(errors::not_onnx(cx.file, "it has no IR version"))),
    }
}

/// The imported opsets, with the default domain written "".
fn opsets(sections: &Sections, cx: &mut Cx<'_>) -> Result<Vec<(String, i64)>, Reported> {
    let mut opsets: Vec<(String, i64)> = Vec::new();
    for bytes in &sections.opsets {
        let entry: OperatorSetIdProto = cx.decode("an opset import", bytes)?;
        let (domain, version) = normalized(&entry);
        match opsets.iter().find(|(name, _)| *name == domain) {
            Some((_, first)) if *first != version => {
                return Err(cx.error(errors::opset_twice(&domain, *first, version)));
            }
            _ => {}
        }
        if domain.is_empty() && !(1..=NEWEST_OPSET).contains(&version) {
            return Err(cx.error(errors::opset_unknown(version)));
        }
        opsets.push((domain, version));
    }
    without_imports(cx.ir_version, &mut opsets);
    Ok(opsets)
}

/// IR versions 1 and 2 had no other opset than the first: there, no import means that one.
fn without_imports(ir_version: i64, opsets: &mut Vec<(String, i64)>) {
    if ir_version < 3 && opsets.is_empty() {
        opsets.push((String::new(), 1));
    }
}

/// An opset import with `ai.onnx`, the default domain's other name, written "".
pub(in crate::onnx) fn normalized(entry: &OperatorSetIdProto) -> (String, i64) {
    let domain = entry.domain.as_deref().unwrap_or_default();
    let domain = if domain == "ai.onnx" { "" } else { domain };
    (domain.to_owned(), entry.version.unwrap_or_default())
}

/// Metadata entries as pairs.
pub(super) fn metadata(what: &str, entries: &[Bytes], cx: &mut Cx<'_>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for bytes in entries {
        if let Ok(entry) = cx.decode::<StringStringEntryProto>(what, bytes) {
            pairs.push(pair(entry));
        }
    }
    pairs
}

/// A metadata entry as a pair.
pub(in crate::onnx) fn pair(entry: StringStringEntryProto) -> (String, String) {
    (
        entry.key.unwrap_or_default(),
        entry.value.unwrap_or_default(),
    )
}

/// Joins the carried records in the order of their field numbers.
fn header(mut records: Vec<(u32, Bytes)>) -> Origin {
    records.sort_by_key(|(field, _)| *field);
    let joined: Vec<u8> = records
        .iter()
        .flat_map(|(_, raw)| raw.iter().copied())
        .collect();
    Origin(Bytes::from(joined))
}
