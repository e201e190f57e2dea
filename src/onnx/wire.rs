//! Protobuf's wire format: a message as a list of records, without knowing its schema.
//!
//! In: serialized bytes. Out: records with their place, so that a caller can slice the original
//! bytes. What holds: every record lies inside the bytes; nothing is allocated.

use bytes::Bytes;
use std::ops::Range;

/// One field of a serialized message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub field: u32,
    pub value: Payload,
    /// Where tag and value are in the message.
    pub place: Range<usize>,
}

/// The value of a record by its wire type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Varint(u64),
    Fixed64,
    Fixed32(u32),
    /// Length-delimited: a string, bytes, a message or packed numbers.
    Bytes(Range<usize>),
}

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A field reaches this many bytes past the end.
    Truncated { missing: u64 },
    /// What stands at this offset cannot start or continue a field.
    Garbage { offset: usize },
}

/// Iterates over the records of a message; ends after the first fault.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Records { bytes, at: 0 }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        // Most tags and lengths are one byte.
        match self.bytes.get(self.at) {
            Some(byte) if byte & 0x80 == 0 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let Some(byte) = self.bytes.get(self.at) else {
                return Err(Malformed::Truncated { missing: 1 });
            };
            self.at += 1;
            if shift == 63 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Garbage { offset: start })
    }

    #[inline]
    fn skip(&mut self, length: u64) -> Result<Range<usize>, Malformed> {
        let left = (self.bytes.len() - self.at) as u64;
        if length > left {
            return Err(Malformed::Truncated {
                missing: length - left,
            });
        }
        let start = self.at;
        self.at += length as usize;
        Ok(start..self.at)
    }

    #[inline]
    fn record(&mut self) -> Result<Record, Malformed> {
        let start = self.at;
        let garbage = Malformed::Garbage { offset: start };
        let key = u32::try_from(self.varint()?).map_err(|_| garbage)?;
        let field = key >> 3;
        if field == 0 {
            return Err(garbage);
        }
        let value = match key & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => self.skip(8).map(|_| Payload::Fixed64)?,
            2 => {
                let length = self.varint()?;
                Payload::Bytes(self.skip(length)?)
            }
            5 => {
                let place = self.skip(4)?;
                let value = self.bytes[place].try_into().expect("4 bytes");
                Payload::Fixed32(u32::from_le_bytes(value))
            }
            // Groups have never been part of ONNX, and 6 and 7 do not exist.
            _ => return Err(garbage),
        };
        Ok(Record {
            field,
            value,
            place: start..self.at,
        })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.at = self.bytes.len();
        }
        Some(record)
    }
}

/// The payload of a length-delimited field: of its last record, as protobuf reads a repeated
/// singular field. `None` if it is not there or the bytes are no message.
pub(super) fn find_bytes(bytes: &[u8], field: u32) -> Option<&[u8]> {
    let mut found = None;
    for record in Records::new(bytes) {
        let record = record.ok()?;
        if record.field == field
            && let Payload::Bytes(range) = record.value
        {
            found = Some(&bytes[range]);
        }
    }
    found
}

/// Splits off the records of a serialized message as slices of it.
pub(super) fn split(bytes: &Bytes) -> Result<Vec<(Record, Bytes)>, Malformed> {
    Records::new(bytes)
        .map(|record| {
            let record = record?;
            let raw = bytes.slice(record.place.clone());
            Ok((record, raw))
        })
        .collect()
}

/// Appends a varint.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the tag and length of a length-delimited field.
pub(super) fn put_header(field: u32, length: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3 | 2, out);
    put_varint(length, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(bytes: &[u8]) -> Result<Record, Malformed> {
        Records::new(bytes).next().unwrap()
    }

    #[test]
    fn records_carry_their_place() {
        let mut bytes = vec![0x08, 0x96, 0x01];
        put_header(2, 3, &mut bytes);
        bytes.extend(b"abc");
        let records: Vec<Record> = Records::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(records[0].value, Payload::Varint(150));
        assert_eq!(records[1].value, Payload::Bytes(5..8));
        assert_eq!(records[1].place, 3..8);
    }

    #[test]
    fn what_is_cut_off_says_how_much_is_missing() {
        assert_eq!(
            only(&[0x12, 9, 1]),
            Err(Malformed::Truncated { missing: 8 })
        );
        assert_eq!(only(&[0x0d, 1]), Err(Malformed::Truncated { missing: 3 }));
        assert_eq!(only(&[0x08]), Err(Malformed::Truncated { missing: 1 }));
    }

    #[test]
    fn a_length_beyond_any_memory_is_only_a_missing_tail() {
        let mut bytes = vec![0x12];
        put_varint(u64::MAX, &mut bytes);
        assert_eq!(
            only(&bytes),
            Err(Malformed::Truncated { missing: u64::MAX })
        );
    }

    #[test]
    fn field_zero_groups_and_endless_varints_are_garbage() {
        for bytes in [&[0x00, 1][..], &[0x0b], &[0x0f], &[0xff; 12]] {
            assert_eq!(only(bytes), Err(Malformed::Garbage { offset: 0 }));
        }
    }

    #[test]
    fn the_last_record_of_a_singular_field_counts() {
        let bytes = [0x12, 1, b'a', 0x12, 1, b'b'];
        assert_eq!(find_bytes(&bytes, 2), Some(&b"b"[..]));
        assert_eq!(find_bytes(&bytes, 3), None);
    }
}
