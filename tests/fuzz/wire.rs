//! Mutations of protobuf: fields are found by the wire format, and each is a thing to change.

use crate::random::Random;
use crate::shrink::Pieces;
use crate::text;

#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
    /// What follows the key as it is, under a wire type of its own.
    Raw(u64, Vec<u8>),
}

#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

/// Larger models show nothing more.
const LONGEST: usize = 1 << 19;

/// Sizes and numbers at which readers err.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    65_535,
    1 << 20,
    1 << 31,
    u32::MAX as u64,
    1 << 40,
    1 << 62,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
];

/// Changes the bytes of a model.
pub fn mutated(mut bytes: Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if random.once_in(12) {
        // What is no protobuf at all, or is cut.
        for _ in 0..=random.below(3) {
            text::spoil(&mut bytes, random);
        }
        return bytes;
    }
    let Some(mut fields) = parse(&bytes, 0) else {
        text::flip(&mut bytes, random);
        return bytes;
    };
    for _ in 0..=random.below(3) {
        let other = random.pick_short(corpus);
        change(&mut fields, other, random, 0);
    }
    written(&fields)
}

/// Goes down a random way and changes what it finds there.
fn change(fields: &mut Vec<Field>, other: &[u8], random: &mut Random, depth: usize) {
    if fields.is_empty() {
        return;
    }
    let at = random.below(fields.len());
    if let Value::Message(inner) = &mut fields[at].value
        && !random.once_in(6)
    {
        return change(inner, other, random, depth + 1);
    }
    match random.below(11) {
        0 => drop(fields.remove(at)),
        1 => fields.insert(at, fields[at].clone()),
        2 => {
            let to = random.below(fields.len());
            fields.swap(at, to);
        }
        3 => fields[at].number = 1 + random.below(40) as u64,
        4 if depth > 0 => nest(&mut fields[at], random),
        5 => {
            if let Some(parsed) = parse(other, 0)
                && let Some(field) = deep(&parsed, random)
            {
                fields[at].value = field.value.clone();
            }
        }
        6 => fields[at].value = wrong(&fields[at].value, random),
        7 => {
            // The same field again and again.
            let copy = vec![fields[at].clone(); 1 << random.below(8)];
            fields.splice(at..at, copy);
        }
        _ => value(&mut fields[at].value, random),
    }
    while written(fields).len() > LONGEST {
        fields.truncate(fields.len() / 2);
    }
}

/// The field under another wire type, or with a length that is not its own.
fn wrong(value: &Value, random: &mut Random) -> Value {
    let mut content = Vec::new();
    match value {
        Value::Varint(number) => write_varint(*number, &mut content),
        Value::Fixed(bytes) | Value::Bytes(bytes) | Value::Raw(_, bytes) => {
            content.clone_from(bytes);
        }
        Value::Message(fields) => content = written(fields),
    }
    match random.below(5) {
        0 => Value::Varint(content.len() as u64),
        1 => Value::Fixed(vec![0xff; if random.once_in(2) { 4 } else { 8 }]),
        2 => Value::Bytes(content),
        // A varint in more bytes than it needs, or than there may be.
        3 => Value::Raw(0, [vec![0x80; random.below(12)], vec![0x01]].concat()),
        _ => {
            // 2 claims a length; 3, 4, 6 and 7 are old or none.
            let mut lie = Vec::new();
            write_varint(*random.pick(EDGES), &mut lie);
            lie.extend(content);
            Value::Raw(*random.pick(&[2, 2, 2, 3, 4, 6, 7]), lie)
        }
    }
}

fn value(value: &mut Value, random: &mut Random) {
    match value {
        Value::Varint(number) if random.once_in(2) => *number = *random.pick(EDGES),
        Value::Varint(number) => *number = number.wrapping_add(random.next() % 5).wrapping_sub(2),
        Value::Fixed(bytes) => text::flip(bytes, random),
        Value::Bytes(bytes) if random.once_in(3) => text::spoil(bytes, random),
        Value::Raw(_, bytes) => text::flip(bytes, random),
        Value::Bytes(bytes) if random.once_in(2) => text::remove(bytes, random),
        Value::Bytes(bytes) => text::flip(bytes, random),
        Value::Message(fields) => fields.clear(),
    }
}

/// The fields of a model, at every depth; its bytes if it is none.
pub fn pieces(input: &[u8]) -> Pieces {
    let Some(fields) = parse(input, 0).filter(|fields| written(fields) == input) else {
        return Pieces::bytes(input);
    };
    Pieces {
        count: count(&fields),
        join: Box::new(move |kept| written(&only(&fields, kept, &mut 0))),
    }
}

fn count(fields: &[Field]) -> usize {
    let inside = fields.iter().map(|field| match &field.value {
        Value::Message(inner) => count(inner),
        _ => 0,
    });
    fields.len() + inside.sum::<usize>()
}

/// The fields that are kept, by their place from the first to the last; with a message goes what is
/// in it.
fn only(fields: &[Field], kept: &[bool], at: &mut usize) -> Vec<Field> {
    let mut out = Vec::new();
    for field in fields {
        let is_kept = kept[*at];
        *at += 1;
        let value = match &field.value {
            Value::Message(inner) => Value::Message(only(inner, kept, at)),
            value => value.clone(),
        };
        if is_kept {
            let number = field.number;
            out.push(Field { number, value });
        }
    }
    out
}

/// The field many times inside itself.
fn nest(field: &mut Field, random: &mut Random) {
    let levels = 1 << random.below(9);
    for _ in 0..levels {
        let inner = std::mem::replace(&mut field.value, Value::Varint(0));
        field.value = Value::Message(vec![Field {
            number: field.number,
            value: inner,
        }]);
    }
}

fn deep<'f>(fields: &'f [Field], random: &mut Random) -> Option<&'f Field> {
    let mut field = fields.get(random.below(fields.len()))?;
    while let Value::Message(inner) = &field.value {
        if inner.is_empty() || random.once_in(4) {
            break;
        }
        field = &inner[random.below(inner.len())];
    }
    Some(field)
}

/// The fields of a message; `None` if the bytes are none. A text that happens to be one is one: it
/// is written back as it was.
fn parse(bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    if depth > 40 {
        return None;
    }
    let mut rest = bytes;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let number = key >> 3;
        if number == 0 || number > 1000 {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut rest)?),
            1 => Value::Fixed(take(&mut rest, 8)?.to_vec()),
            5 => Value::Fixed(take(&mut rest, 4)?.to_vec()),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let inner = take(&mut rest, length)?;
                match parse(inner, depth + 1) {
                    Some(fields) if !inner.is_empty() => Value::Message(fields),
                    _ => Value::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in 0..10 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift * 7)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn written(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    write(fields, &mut out);
    out
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for field in fields {
        let wire = match &field.value {
            Value::Raw(wire, _) => *wire,
            Value::Varint(_) => 0,
            Value::Fixed(bytes) if bytes.len() == 8 => 1,
            Value::Fixed(_) => 5,
            Value::Bytes(_) | Value::Message(_) => 2,
        };
        write_varint(field.number << 3 | wire, out);
        match &field.value {
            Value::Varint(number) => write_varint(*number, out),
            Value::Fixed(bytes) | Value::Raw(_, bytes) => out.extend(bytes),
            Value::Bytes(bytes) => {
                write_varint(bytes.len() as u64, out);
                out.extend(bytes);
            }
            Value::Message(inner) => {
                let bytes = written(inner);
                write_varint(bytes.len() as u64, out);
                out.extend(bytes);
            }
        }
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
