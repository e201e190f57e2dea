//! Field numbers of ONNX's messages, where they are read or written without their structs
//! (`onnx.proto`).

pub mod node {
    pub const INPUT: u32 = 1;
    pub const OUTPUT: u32 = 2;
    pub const NAME: u32 = 3;
    pub const OP_TYPE: u32 = 4;
    pub const ATTRIBUTE: u32 = 5;
    pub const DOC: u32 = 6;
    pub const DOMAIN: u32 = 7;
    pub const OVERLOAD: u32 = 8;
    pub const METADATA: u32 = 9;
    pub const DEVICES: u32 = 10;
}

/// Of `StringStringEntryProto`.
pub mod entry {
    pub const KEY: u32 = 1;
    pub const VALUE: u32 = 2;
}

pub mod attribute {
    pub const NAME: u32 = 1;
    pub const FLOAT: u32 = 2;
    pub const INT: u32 = 3;
    pub const STRING: u32 = 4;
    pub const TENSOR: u32 = 5;
    pub const GRAPH: u32 = 6;
    pub const INTS: u32 = 8;
    pub const TENSORS: u32 = 10;
    pub const GRAPHS: u32 = 11;
    pub const DOC: u32 = 13;
    pub const TYPE: u32 = 20;
}

pub mod tensor {
    pub const RAW_DATA: u32 = 9;
    pub const DOC: u32 = 12;
    pub const EXTERNAL_DATA: u32 = 13;
    pub const METADATA: u32 = 16;
}

pub mod value_info {
    pub const TYPE: u32 = 2;
    pub const DOC: u32 = 3;
    pub const METADATA: u32 = 4;
}
