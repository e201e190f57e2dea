//! TensorBoard's event files: numbers by step, as records that are appended.
//!
//! A record is the length of an event, a checksum of the length, the event, and its checksum (TensorFlow's
//! `record_writer.cc`); an event is the message `Event` of `event.proto`, whose few fields are written by
//! hand here.

/// The first record of a file: what the others are.
pub fn event_file(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, WALL_TIME, wall_time);
    bytes(&mut event, FILE_VERSION, b"brain.Event:2");
    record(&event)
}

/// Numbers of a step, each under a tag such as `train/loss`. The time is in seconds since 1970.
pub fn event(wall_time: f64, step: u64, scalars: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, number) in scalars {
        let mut value = Vec::new();
        bytes(&mut value, TAG, tag.as_bytes());
        key(&mut value, SIMPLE_VALUE, FIXED32);
        value.extend((*number as f32).to_le_bytes());
        bytes(&mut summary, VALUE, &value);
    }
    let mut event = Vec::new();
    double(&mut event, WALL_TIME, wall_time);
    key(&mut event, STEP, VARINT);
    varint(&mut event, step);
    bytes(&mut event, SUMMARY, &summary);
    record(&event)
}

// Of `Event`.
const WALL_TIME: u32 = 1;
const STEP: u32 = 2;
const FILE_VERSION: u32 = 3;
const SUMMARY: u32 = 5;
// Of `Summary`, and of its `Value`.
const VALUE: u32 = 1;
const TAG: u32 = 1;
const SIMPLE_VALUE: u32 = 2;
// Wire types.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(&length));
    record.extend(event);
    record.extend(masked(event));
    record
}

/// A checksum that is no checksum of data with checksums in it.
fn masked(data: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c(data).rotate_right(15);
    sum.wrapping_add(0xa282_ead8).to_le_bytes()
}

fn key(out: &mut Vec<u8>, field: u32, wire: u32) {
    varint(out, u64::from(field << 3 | wire));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    key(out, field, FIXED64);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, DELIMITED);
    varint(out, value.len() as u64);
    out.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The same events by `RecordWriter` of tensorboard 2.21.
    #[test]
    fn records_are_tensorboards() {
        assert_eq!(
            hex(&event_file(1.5)),
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
        );
        let scalars = [("train/loss", 0.75), ("eval/f1", -2.5)];
        assert_eq!(
            hex(&event(1_700_000_000.25, 300, &scalars)),
            "31000000000000009d8383e90900001040fc54d94110ac022a230a110a0a747261696e2f6c6f7373\
             150000403f0a0e0a076576616c2f663115000020c0c7ed89ca"
        );
    }
}
