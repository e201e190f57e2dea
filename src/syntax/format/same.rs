//! Whether two texts say the same in other blanks.

use super::super::grammar::{Grammar, Rule};
use super::super::token::Tokens;
use pest::Parser;

/// Whether both have the same tokens and comments in the same order on the same lines, in trees of
/// the same shape. Then what is built from them is the same, too, faults included.
pub(super) fn mean_the_same(before: &str, after: &str) -> bool {
    pieces(before) == pieces(after) && shape(before) == shape(after)
}

/// Tokens and comments without blanks at their ends, each with whether a line starts with it.
pub(super) fn pieces(text: &str) -> Vec<(&str, bool)> {
    let tokens = Tokens::scan(text);
    let words = tokens.tokens.iter();
    let words = words.map(|t| (t.start, t.end, t.first_on_line));
    let comments = tokens.comments.iter();
    let comments = comments.map(|c| (c.start, c.end, !c.trailing));
    let mut all: Vec<_> = words.chain(comments).collect();
    all.sort_unstable();
    let piece = |(start, end, first): (usize, usize, bool)| (text[start..end].trim_end(), first);
    all.into_iter().map(piece).collect()
}

/// The rules in the order in which they start and end: a tree whose leaves are the tokens. Nothing of
/// a text outside the grammar.
fn shape(text: &str) -> Option<Vec<(bool, Rule)>> {
    let pairs = Grammar::parse(Rule::file, text).ok()?;
    let events = pairs.tokens().map(|event| match event {
        pest::Token::Start { rule, .. } => (true, rule),
        pest::Token::End { rule, .. } => (false, rule),
    });
    Some(events.collect())
}
