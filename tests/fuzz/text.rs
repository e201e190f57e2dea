//! Mutations of texts: by tokens, by groups of brackets, and by bytes that are no text.

use crate::random::Random;
use crate::shrink::Pieces;

/// Longer texts show nothing more.
const LONGEST: usize = 1 << 16;

/// Words that mean something somewhere.
const WORDS: &[&str] = &[
    "adapter",
    "adapt",
    "method",
    "param",
    "const",
    "shared",
    "forward",
    "require",
    "let",
    "fn",
    "for",
    "in",
    "if",
    "else",
    "use",
    "std",
    "::",
    "with",
    "except",
    "where",
    "when",
    "override",
    "train",
    "expect",
    "identity",
    "at",
    "start",
    "all",
    "linear",
    "conv",
    "embedding",
    "norm",
    "role",
    "regex",
    "choice",
    "as",
    "on",
    "not",
    "and",
    "or",
    "true",
    "false",
    "base",
    "stop_gradient",
    "dropout",
    "largest",
    "has_bias",
    "features",
    "tokens",
    "mask",
    "x",
    "y",
    "weight",
    "bias",
    "out",
    "rank",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ":",
    "=",
    "==",
    "..",
    "+",
    "-",
    "*",
    "/",
    "%",
    "@",
    "**",
    ".T",
    "\"",
    "\"*\"",
    "\"**\"",
    "\"{a,b}\"",
    "\"{0..9999999999}\"",
    "\"[\"",
    "\\",
    "//",
    "///",
    "//!",
    "/*",
    "\n",
    "\u{feff}",
    "é",
    "\u{202e}",
    "\0",
    "\r",
    "\t",
];

/// Numbers at the edges.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "63",
    "64",
    "65536",
    "2147483648",
    "4294967296",
    "1099511627776",
    "3037000500",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "0.5",
    "1e308",
    "1e309",
    "1e-400",
    "0.0000001",
    "100%",
    "1_000",
    "00",
    "0x10",
    "1.",
    ".5",
    "1e",
];

/// What opens and closes a level of nesting.
const NESTS: &[(&str, &str)] = &[
    ("(", ")"),
    ("[", "]"),
    ("{", "}"),
    ("-", ""),
    ("not ", ""),
    ("relu(", ")"),
    ("if true {", "} else { x }"),
    ("1 + (", ")"),
    ("for i in 0..2 {", "}"),
    ("", ".T"),
    ("", " @ x"),
    ("fn f(x) {", "}"),
    ("\"{", "}\""),
];

pub fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut tokens = split(random.pick_short(corpus));
    for _ in 0..=random.below(5) {
        change(&mut tokens, corpus, random);
    }
    let mut bytes = tokens.concat();
    while random.once_in(8) {
        spoil(&mut bytes, random);
    }
    bytes.truncate(LONGEST);
    bytes
}

/// The tokens of a text, for making it smaller.
pub fn pieces(input: &[u8]) -> Pieces {
    Pieces::of(split(input))
}

fn change(tokens: &mut Vec<Vec<u8>>, corpus: &[Vec<u8>], random: &mut Random) {
    if tokens.is_empty() {
        return tokens.push(random.pick(WORDS).as_bytes().to_vec());
    }
    let at = random.below(tokens.len());
    match random.below(12) {
        0 => drop(tokens.drain(at..(at + 1 + random.below(4)).min(tokens.len()))),
        1 => {
            let to = random.below(tokens.len());
            tokens.swap(at, to);
        }
        2 => repeat(tokens, at, random),
        3 => tokens.insert(at, random.pick(WORDS).as_bytes().to_vec()),
        4 => tokens[at] = random.pick(WORDS).as_bytes().to_vec(),
        5 => number(tokens, at, random),
        6 => nest(tokens, at, random),
        7 => rename(tokens, random),
        8 => drop(tokens.drain(group(tokens, at))),
        9 => {
            let copy = tokens[group(tokens, random.below(tokens.len()))].to_vec();
            tokens.splice(at..at, copy);
        }
        10 => {
            let other = split(random.pick_short(corpus));
            if !other.is_empty() {
                let copy = other[group(&other, random.below(other.len()))].to_vec();
                let place = if random.once_in(2) {
                    at..at
                } else {
                    group(tokens, at)
                };
                tokens.splice(place, copy);
            }
        }
        _ => {
            let other = split(random.pick_short(corpus));
            if let Some(token) = like(&other, &tokens[at], random) {
                tokens[at] = token;
            }
        }
    }
}

/// Words, strings, comments, runs of space; everything else byte by byte.
fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut tokens = Vec::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let run = |is: fn(&u8) -> bool| rest.iter().take_while(|b| is(b)).count();
        let length = match first {
            b'"' => rest[1..]
                .iter()
                .position(|b| matches!(b, b'"' | b'\n'))
                .map_or(rest.len(), |at| at + 2),
            b'/' if rest.starts_with(b"//") => run(|b| *b != b'\n'),
            b if is_word(b) => run(is_word),
            b if b.is_ascii_whitespace() => run(u8::is_ascii_whitespace),
            _ => 1,
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_vec());
        rest = after;
    }
    tokens
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

/// From a token to the bracket that closes what it opens, or that closes the next group; the token
/// alone if there is none.
fn group(tokens: &[Vec<u8>], at: usize) -> std::ops::Range<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.as_slice() {
            b"(" | b"[" | b"{" => depth += 1,
            b")" | b"]" | b"}" if depth <= 1 => return at..index + 1,
            b")" | b"]" | b"}" => depth -= 1,
            _ => {}
        }
    }
    at..at + 1
}

fn repeat(tokens: &mut Vec<Vec<u8>>, at: usize, random: &mut Random) {
    let end = (at + 1 + random.below(12)).min(tokens.len());
    let most = if random.once_in(4) { 12 } else { 3 };
    let times = 1 << random.below(most);
    let piece = tokens[at..end].to_vec();
    let most = LONGEST / piece.iter().map(Vec::len).sum::<usize>().max(1);
    let copies = std::iter::repeat_n(piece, times.min(most)).flatten();
    tokens.splice(at..at, copies);
}

/// The next number becomes one at the edges.
fn number(tokens: &mut [Vec<u8>], at: usize, random: &mut Random) {
    let is_number = |token: &&mut Vec<u8>| token.first().is_some_and(u8::is_ascii_digit);
    if let Some(token) = tokens[at..].iter_mut().find(is_number) {
        *token = random.pick(NUMBERS).as_bytes().to_vec();
    }
}

/// Puts a group deep into brackets or behind many signs.
fn nest(tokens: &mut Vec<Vec<u8>>, at: usize, random: &mut Random) {
    let (open, close) = random.pick(NESTS);
    let deepest = if random.once_in(4) { 11 } else { 3 };
    let levels = 1 << random.below(deepest);
    let inside = if random.once_in(2) {
        at..at + 1
    } else {
        group(tokens, at)
    };
    let piece = tokens[inside.clone()].concat();
    let nested = [
        open.repeat(levels).into_bytes(),
        piece,
        close.repeat(levels).into_bytes(),
    ];
    tokens.splice(inside, split(&nested.concat()));
}

/// One word takes the place of another everywhere: names meet, recursion begins.
fn rename(tokens: &mut [Vec<u8>], random: &mut Random) {
    let words: Vec<Vec<u8>> = tokens
        .iter()
        .filter(|t| t.first().is_some_and(is_word))
        .cloned()
        .collect();
    if words.is_empty() {
        return;
    }
    let (from, to) = (random.pick(&words).clone(), random.pick(&words).clone());
    for token in tokens.iter_mut().filter(|token| **token == from) {
        token.clone_from(&to);
    }
}

/// A token of the same kind from another text.
fn like(other: &[Vec<u8>], token: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let kind = |token: &[u8]| {
        token
            .first()
            .map(|b| (is_word(b), b.is_ascii_digit(), *b == b'"'))
    };
    let alike: Vec<&Vec<u8>> = other.iter().filter(|t| kind(t) == kind(token)).collect();
    (!alike.is_empty()).then(|| random.pick(&alike).to_vec())
}

/// Changes that know nothing of texts.
pub fn spoil(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(5) {
        0 => flip(bytes, random),
        1 => remove(bytes, random),
        2 => bytes.truncate(at),
        // No UTF-8: a lone continuation, an overlong form, half of a surrogate.
        3 => drop(
            bytes.splice(
                at..at,
                random
                    .pick(&[&b"\x80"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xff"])
                    .iter()
                    .copied(),
            ),
        ),
        _ => bytes.insert(at, random.next() as u8),
    }
}

pub fn flip(bytes: &mut [u8], random: &mut Random) {
    if !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
}

/// A piece of another input over a piece of this one.
pub fn splice(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let (from, to) = range(other.len(), random);
    let (start, end) = range(bytes.len(), random);
    bytes.splice(start..end, other[from..to].iter().copied());
}

pub fn remove(bytes: &mut Vec<u8>, random: &mut Random) {
    let (start, end) = range(bytes.len(), random);
    bytes.drain(start..end);
}

/// Short pieces are likelier than long ones.
fn range(length: usize, random: &mut Random) -> (usize, usize) {
    let start = random.below(length);
    let reach = 1 << random.below(10);
    (start, (start + random.below(reach)).min(length))
}
