//! Tests of the room through its two functions: bytes to the IR and back.

mod build;
mod data;
mod external;
mod faults;
mod functions;
mod names;
mod round_trip;
mod schema;
mod sparse;
mod unknown;

use super::proto::ModelProto;
use super::{Imported, import_bytes, write_model};
use crate::diag::{Code, Sink};
use crate::graph::Model;
use bytes::Bytes;
use prost::Message;

/// Imports a model that is expected to be good and returns its warnings, too.
fn accepted_with_warnings(bytes: Bytes) -> (Imported, Vec<Code>) {
    let mut sink = Sink::new();
    let imported = import_bytes("test.onnx", bytes, &mut sink);
    let codes = sink.diagnostics().iter().map(|d| d.code).collect();
    match imported {
        Ok(imported) => {
            assert!(imported.model.graph.verify().is_empty());
            (imported, codes)
        }
        Err(_) => panic!("{:#?}", sink.diagnostics()),
    }
}

fn accepted(model: &ModelProto) -> Model {
    let (imported, codes) = accepted_with_warnings(serialized(model));
    assert_eq!(codes, []);
    imported.model
}

/// Imports bytes that are expected to be refused; the codes and all messages joined.
fn refused(bytes: Bytes) -> (Vec<Code>, String) {
    let mut sink = Sink::new();
    assert!(import_bytes("test.onnx", bytes, &mut sink).is_err());
    assert!(sink.error_count() > 0);
    let codes = sink.diagnostics().iter().map(|d| d.code).collect();
    let messages: Vec<&str> = sink
        .diagnostics()
        .iter()
        .map(|d| d.message.as_str())
        .collect();
    (codes, messages.join("\n"))
}

fn serialized(model: &ModelProto) -> Bytes {
    Bytes::from(model.encode_to_vec())
}

fn written(model: &Model) -> Vec<u8> {
    let mut out = Vec::new();
    write_model(model, &mut out).unwrap();
    out
}
