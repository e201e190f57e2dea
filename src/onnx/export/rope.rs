//! The serialized model as pieces: small ones written together, large ones shared with the map
//! that they came from, so that writing takes no memory for weights.

use crate::onnx::wire::put_header;
use bytes::Bytes;
use std::io::{self, Write};

/// Bytes below this size are copied together; above it the copy would cost more than the piece.
const SMALL: usize = 4096;

/// A byte string made of pieces.
#[derive(Default)]
pub(super) struct Rope {
    /// Everything small, end to end.
    small: Vec<u8>,
    /// Large pieces, each with the position in `small` before which it stands.
    large: Vec<(usize, Bytes)>,
    large_len: u64,
}

impl Rope {
    pub fn len(&self) -> u64 {
        self.small.len() as u64 + self.large_len
    }

    /// Appends bytes that may be shared.
    pub fn push(&mut self, bytes: &Bytes) {
        if bytes.len() < SMALL {
            self.small.extend_from_slice(bytes);
        } else {
            self.large_len += bytes.len() as u64;
            self.large.push((self.small.len(), bytes.clone()));
        }
    }

    /// Where small bytes are appended.
    pub fn small(&mut self) -> &mut Vec<u8> {
        &mut self.small
    }

    /// Appends a length-delimited field from its serialized value.
    pub fn field(&mut self, field: u32, value: &Bytes) {
        put_header(field, value.len() as u64, &mut self.small);
        self.push(value);
    }

    /// Appends a text field.
    pub fn text(&mut self, field: u32, value: &str) {
        put_header(field, value.len() as u64, &mut self.small);
        self.small.extend_from_slice(value.as_bytes());
    }

    /// Appends a message field from a message that prost encodes.
    pub fn message(&mut self, field: u32, message: &impl prost::Message) {
        put_header(field, message.encoded_len() as u64, &mut self.small);
        message
            .encode(&mut self.small)
            .expect("a vector has room for any message");
    }

    /// Appends a message field from its pieces.
    pub fn nest(&mut self, field: u32, inner: Rope) {
        put_header(field, inner.len(), &mut self.small);
        let offset = self.small.len();
        self.small.extend_from_slice(&inner.small);
        self.large_len += inner.large_len;
        self.large.extend(
            inner
                .large
                .into_iter()
                .map(|(at, bytes)| (at + offset, bytes)),
        );
    }

    /// Writes everything in order.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut written = 0;
        for (at, bytes) in &self.large {
            out.write_all(&self.small[written..*at])?;
            out.write_all(bytes)?;
            written = *at;
        }
        out.write_all(&self.small[written..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_pieces_come_out_in_order() {
        let large = Bytes::from(vec![7; SMALL]);
        let mut inner = Rope::default();
        inner.text(1, "a");
        inner.field(2, &large);
        inner.text(3, "b");
        let mut outer = Rope::default();
        outer.text(1, "x");
        outer.nest(2, inner);
        outer.text(3, "y");
        let mut written = Vec::new();
        outer.write(&mut written).unwrap();
        assert_eq!(written.len() as u64, outer.len());
        assert_eq!(&written[..3], b"\x0a\x01x");
        assert_eq!(&written[written.len() - 6..], b"\x1a\x01b\x1a\x01y");
        let body = crate::onnx::wire::find_bytes(&written, 2).unwrap();
        assert_eq!(crate::onnx::wire::find_bytes(body, 2), Some(&large[..]));
    }
}
