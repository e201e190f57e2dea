//! The serialized model as pieces: what is new, written end to end, and slices of what was read, so
//! that writing takes no memory for what has not changed.

use crate::onnx::wire::put_header;
use bytes::Bytes;
use std::io::{self, IoSlice, Write};
use std::ops::Range;

/// Shared bytes from elsewhere are copied below this size; above it the copy would cost more than
/// the piece.
const SMALL: usize = 512;

/// How many pieces are handed to the system at once: more than Linux takes are of no use.
const BATCH: usize = 1024;

/// A byte string made of pieces.
#[derive(Default)]
pub(super) struct Rope {
    /// The file that unchanged items are slices of; empty if there is none.
    source: Bytes,
    /// Everything new, end to end.
    own: Vec<u8>,
    /// Everything shared, in order.
    shared: Vec<Shared>,
    shared_len: u64,
    /// The first piece of the message being written: earlier ones stand in front of its length.
    first: usize,
}

struct Shared {
    /// The position in `own` before which it stands.
    at: usize,
    bytes: Slice,
}

enum Slice {
    Source(Range<usize>),
    Other(Bytes),
}

impl Rope {
    /// An empty one. Slices of the source that follow one another in it become one piece.
    pub fn over(source: Bytes) -> Rope {
        Rope {
            source,
            ..Rope::default()
        }
    }

    pub fn len(&self) -> u64 {
        self.own.len() as u64 + self.shared_len
    }

    /// Appends bytes that may be shared.
    pub fn push(&mut self, bytes: &Bytes) {
        match self.place(bytes) {
            Some(place) => self.push_source(place),
            None if bytes.len() < SMALL => self.own.extend_from_slice(bytes),
            None => self.share(Slice::Other(bytes.clone()), bytes.len()),
        }
    }

    /// Where new bytes are appended.
    pub fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Appends a length-delimited field from its serialized value.
    pub fn field(&mut self, field: u32, value: &Bytes) {
        let start = self.own.len();
        put_header(field, value.len() as u64, &mut self.own);
        // What stands in front of the value in the source is as a rule this header.
        if let Some(place) = self.place(value)
            && self.source[..place.start].ends_with(&self.own[start..])
        {
            let header = self.own.len() - start;
            self.own.truncate(start);
            self.push_source(place.start - header..place.end);
        } else {
            self.push(value);
        }
    }

    /// Appends a text field.
    pub fn text(&mut self, field: u32, value: &str) {
        put_header(field, value.len() as u64, &mut self.own);
        self.own.extend_from_slice(value.as_bytes());
    }

    /// Appends a message field from a message that prost encodes.
    pub fn message(&mut self, field: u32, message: &impl prost::Message) {
        put_header(field, message.encoded_len() as u64, &mut self.own);
        self.append(message);
    }

    /// Appends the fields of a message that prost encodes.
    pub fn append(&mut self, message: &impl prost::Message) {
        message
            .encode(&mut self.own)
            .expect("a vector has room for any message");
    }

    /// Appends a message field whose value `content` appends.
    pub fn nest<T>(&mut self, field: u32, content: impl FnOnce(&mut Rope) -> T) -> T {
        let (start, before) = (self.own.len(), self.len());
        let first = std::mem::replace(&mut self.first, self.shared.len());
        let result = content(self);
        let mut header = Vec::new();
        put_header(field, self.len() - before, &mut header);
        for piece in &mut self.shared[self.first..] {
            piece.at += header.len();
        }
        self.own.splice(start..start, header);
        self.first = first;
        result
    }

    /// Where the bytes lie in the source, if they are a part of it.
    fn place(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let start = (bytes.as_ptr() as usize).checked_sub(self.source.as_ptr() as usize)?;
        let end = start.checked_add(bytes.len())?;
        (end <= self.source.len()).then_some(start..end)
    }

    fn push_source(&mut self, place: Range<usize>) {
        if let Some(last) = self.shared[self.first..].last_mut()
            && last.at == self.own.len()
            && let Slice::Source(before) = &mut last.bytes
            && before.end == place.start
        {
            before.end = place.end;
            self.shared_len += place.len() as u64;
            return;
        }
        let length = place.len();
        self.share(Slice::Source(place), length);
    }

    fn share(&mut self, bytes: Slice, length: usize) {
        let at = self.own.len();
        self.shared.push(Shared { at, bytes });
        self.shared_len += length as u64;
    }

    /// Writes everything in order.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut pieces = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut written = 0;
        for Shared { at, bytes } in &self.shared {
            pieces.push(IoSlice::new(&self.own[written..*at]));
            pieces.push(IoSlice::new(match bytes {
                Slice::Source(place) => &self.source[place.clone()],
                Slice::Other(bytes) => bytes,
            }));
            written = *at;
        }
        pieces.push(IoSlice::new(&self.own[written..]));
        pieces
            .chunks_mut(BATCH)
            .try_for_each(|pieces| write_all(out, pieces))
    }
}

fn write_all(out: &mut dyn Write, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Takes away what is empty: nothing written would look like a full disk.
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        match out.write_vectored(pieces) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut pieces, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rope: &Rope) -> Vec<u8> {
        let mut written = Vec::new();
        rope.write(&mut written).unwrap();
        assert_eq!(written.len() as u64, rope.len());
        written
    }

    #[test]
    fn nested_pieces_come_out_in_order() {
        let large = Bytes::from(vec![7; SMALL]);
        let mut out = Rope::default();
        out.text(1, "x");
        out.nest(2, |out| {
            out.text(1, "a");
            out.field(2, &large);
            out.text(3, "b");
        });
        out.text(3, "y");
        let written = written(&out);
        assert_eq!(&written[..3], b"\x0a\x01x");
        assert_eq!(&written[written.len() - 6..], b"\x1a\x01b\x1a\x01y");
        let body = crate::onnx::wire::find_bytes(&written, 2).unwrap();
        assert_eq!(crate::onnx::wire::find_bytes(body, 2), Some(&large[..]));
    }

    #[test]
    fn neighbours_in_the_source_are_one_piece() {
        let source = Bytes::from_static(b"\x0a\x01a\x0a\x01b\x12\x01c");
        let mut out = Rope::over(source.clone());
        out.field(1, &source.slice(2..3));
        out.field(1, &source.slice(5..6));
        assert_eq!(out.shared.len(), 1);
        out.text(9, "n");
        // Another header than in the source.
        out.field(3, &source.slice(8..9));
        assert_eq!(written(&out), b"\x0a\x01a\x0a\x01b\x4a\x01n\x1a\x01c");
    }

    #[test]
    fn a_piece_does_not_grow_over_the_start_of_a_message() {
        let source = Bytes::from_static(b"\x0a\x01a\x0a\x01b");
        let mut out = Rope::over(source.clone());
        out.field(1, &source.slice(2..3));
        out.nest(2, |out| out.field(1, &source.slice(5..6)));
        assert_eq!(written(&out), b"\x0a\x01a\x12\x03\x0a\x01b");
    }
}
