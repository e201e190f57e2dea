//! Mutations of texts: by bytes and by words.

use crate::random::Random;

/// Words that mean something somewhere, and numbers at the edges.
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
    "x",
    "y",
    "weight",
    "bias",
    "mask",
    "tokens",
    "out",
    "rank",
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "1e308",
    "1e-400",
    "0.5",
    "100%",
    "\"",
    "\"*\"",
    "\"**\"",
    "\"{a,b}\"",
    "\"{0..9999999999}\"",
    "\"[\"",
    "\\",
    "//",
    "///",
    "\n",
    "\u{feff}",
    "é",
    "\u{202e}",
    "\0",
];

pub fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(corpus).clone();
    for _ in 0..=random.below(4) {
        match random.below(8) {
            0 => flip(&mut bytes, random),
            1 => {
                let other = random.pick(corpus);
                splice(&mut bytes, other, random);
            }
            2 => repeat(&mut bytes, random),
            3 => remove(&mut bytes, random),
            _ => replace_word(&mut bytes, random),
        }
    }
    bytes.truncate(1 << 18);
    bytes
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

fn repeat(bytes: &mut Vec<u8>, random: &mut Random) {
    let (start, end) = range(bytes.len().min(1 << 12), random);
    let piece = bytes[start..end.min(start + 64)].to_vec();
    let times = 1 << random.below(11);
    bytes.splice(start..start, piece.repeat(times));
}

pub fn remove(bytes: &mut Vec<u8>, random: &mut Random) {
    let (start, end) = range(bytes.len(), random);
    bytes.drain(start..end);
}

/// A word of the language in place of a word of the text.
fn replace_word(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let length = bytes[at..].iter().take_while(|b| is_word(b)).count();
    let end = if random.once_in(2) { at } else { at + length };
    let word = random.pick(WORDS).bytes();
    bytes.splice(at..end, word);
}

/// Short pieces are likelier than long ones.
fn range(length: usize, random: &mut Random) -> (usize, usize) {
    let start = random.below(length);
    let reach = 1 << random.below(10);
    (start, (start + random.below(reach)).min(length))
}
