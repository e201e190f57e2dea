//! ONNX's messages as far as it takes to tell a field that ONNX defines from one that it does not.
//!
//! In: serialized bytes. Out: the unknown fields in them, counted. Nothing is decoded, and what is
//! no message is passed over: the import reports it. `tests/schema.rs` compares the tables here and
//! the messages of `proto` with the published schema.

use super::wire::{Payload, Records};
use std::collections::BTreeMap;

/// Messages nested deeper than any model that is read.
const DEEPEST: usize = 160;

/// A message: which fields it has, and which of them are messages.
pub(super) struct Schema {
    pub name: &'static str,
    /// Bit n stands for field n.
    pub known: u32,
    pub nested: &'static [(u32, &'static Schema)],
}

impl Schema {
    const fn new(
        name: &'static str,
        fields: &[u32],
        nested: &'static [(u32, &'static Schema)],
    ) -> Schema {
        let (mut known, mut at) = (0, 0);
        while at < fields.len() {
            known |= 1 << fields[at];
            at += 1;
        }
        let mut at = 0;
        while at < nested.len() {
            known |= 1 << nested[at].0;
            at += 1;
        }
        Schema {
            name,
            known,
            nested,
        }
    }

    /// Whether ONNX defines the field.
    pub fn knows(&self, field: u32) -> bool {
        field < 32 && self.known & 1 << field != 0
    }

    fn nested(&self, field: u32) -> Option<&'static Schema> {
        let found = self.nested.iter().find(|(other, _)| *other == field)?;
        Some(found.1)
    }
}

/// How often a message has a field that ONNX does not define, by the message's name and the field.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unknown(pub BTreeMap<(&'static str, u32), usize>);

impl Unknown {
    /// Counts the unknown fields of a serialized message and of those in it.
    pub fn count(&mut self, schema: &'static Schema, bytes: &[u8]) {
        self.walk(schema, bytes, DEEPEST);
    }

    fn walk(&mut self, schema: &'static Schema, bytes: &[u8], depth: usize) {
        for record in Records::new(bytes).map_while(Result::ok) {
            if !schema.knows(record.field) {
                *self.0.entry((schema.name, record.field)).or_default() += 1;
            } else if depth > 0
                && let Payload::Bytes(range) = record.value
                && let Some(inner) = schema.nested(record.field)
            {
                self.walk(inner, &bytes[range], depth - 1);
            }
        }
    }

    /// Takes those away that are counted elsewhere.
    pub fn remove(&mut self, others: &Unknown) {
        for (key, count) in &others.0 {
            if let Some(own) = self.0.get_mut(key) {
                *own = own.saturating_sub(*count);
            }
        }
        self.0.retain(|_, count| *count > 0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

macro_rules! schemas {
    ($($id:ident = $name:literal [$($field:literal)*] $({ $($number:literal: $inner:ident),* })?;)*) => {
        $(pub(super) static $id: Schema =
            Schema::new($name, &[$($field),*], &[$($(($number, &$inner)),*)?]);)*

        /// Every message of ONNX.
        #[cfg(test)]
        pub(super) static ALL: &[&Schema] = &[$(&$id),*];
    };
}

schemas! {
    MODEL = "ModelProto" [1 2 3 4 5 6]
        { 7: GRAPH, 8: OPSET, 14: ENTRY, 20: TRAINING, 25: FUNCTION, 26: CONFIGURATION };
    GRAPH = "GraphProto" [2 10]
        { 1: NODE, 5: TENSOR, 11: VALUE_INFO, 12: VALUE_INFO, 13: VALUE_INFO, 14: ANNOTATION,
          15: SPARSE_TENSOR, 16: ENTRY };
    NODE = "NodeProto" [1 2 3 4 6 7 8] { 5: ATTRIBUTE, 9: ENTRY, 10: NODE_CONFIGURATION };
    ATTRIBUTE = "AttributeProto" [1 2 3 4 7 8 9 13 20 21]
        { 5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 14: TYPE, 15: TYPE, 22: SPARSE_TENSOR,
          23: SPARSE_TENSOR };
    TENSOR = "TensorProto" [1 2 4 5 6 7 8 9 10 11 12 14] { 3: SEGMENT, 13: ENTRY, 16: ENTRY };
    SEGMENT = "TensorProto.Segment" [1 2];
    SPARSE_TENSOR = "SparseTensorProto" [3] { 1: TENSOR, 2: TENSOR };
    VALUE_INFO = "ValueInfoProto" [1 3] { 2: TYPE, 4: ENTRY };
    TYPE = "TypeProto" [6]
        { 1: TENSOR_TYPE, 4: SEQUENCE_TYPE, 5: MAP_TYPE, 7: OPAQUE_TYPE, 8: SPARSE_TENSOR_TYPE,
          9: OPTIONAL_TYPE };
    TENSOR_TYPE = "TypeProto.Tensor" [1] { 2: SHAPE };
    SPARSE_TENSOR_TYPE = "TypeProto.SparseTensor" [1] { 2: SHAPE };
    SEQUENCE_TYPE = "TypeProto.Sequence" [] { 1: TYPE };
    MAP_TYPE = "TypeProto.Map" [1] { 2: TYPE };
    OPTIONAL_TYPE = "TypeProto.Optional" [] { 1: TYPE };
    OPAQUE_TYPE = "TypeProto.Opaque" [1 2];
    SHAPE = "TensorShapeProto" [] { 1: DIMENSION };
    DIMENSION = "TensorShapeProto.Dimension" [1 2 3];
    OPSET = "OperatorSetIdProto" [1 2];
    ENTRY = "StringStringEntryProto" [1 2];
    ANNOTATION = "TensorAnnotation" [1] { 2: ENTRY };
    TRAINING = "TrainingInfoProto" [] { 1: GRAPH, 2: GRAPH, 3: ENTRY, 4: ENTRY };
    FUNCTION = "FunctionProto" [1 4 5 6 8 10 13]
        { 7: NODE, 9: OPSET, 11: ATTRIBUTE, 12: VALUE_INFO, 14: ENTRY };
    CONFIGURATION = "DeviceConfigurationProto" [1 2 3];
    NODE_CONFIGURATION = "NodeDeviceConfigurationProto" [1 3] { 2: SHARDING };
    SHARDING = "ShardingSpecProto" [1 2] { 3: DEVICE_GROUP, 4: SHARDED_DIM };
    DEVICE_GROUP = "IntIntListEntryProto" [1 2];
    SHARDED_DIM = "ShardedDimProto" [1] { 2: SIMPLE_SHARDED_DIM };
    SIMPLE_SHARDED_DIM = "SimpleShardedDimProto" [1 2 3];
}
