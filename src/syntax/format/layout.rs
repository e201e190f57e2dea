//! Lines and how far each is indented.

use super::super::grammar::Rule;
use super::super::token::Tokens;
use super::roles::{Role, Roles};
use super::spaces;

const STEP: usize = 2;

/// A word, mark, documentation line or comment with the blanks before it.
pub(super) struct Piece<'s> {
    pub text: &'s str,
    pub start: usize,
    /// Nothing of an ordinary comment.
    pub role: Option<Role>,
    pub spaces: usize,
}

impl Piece<'_> {
    pub fn rule(&self) -> Option<Rule> {
        self.role.map(|role| role.rule)
    }
}

/// What stands on one line; never empty.
pub(super) struct Line<'s> {
    pub blank_before: bool,
    pub indent: usize,
    pub pieces: Vec<Piece<'s>>,
}

impl<'s> Line<'s> {
    fn first(&self) -> &Piece<'s> {
        &self.pieces[0]
    }

    /// The last token, comments apart.
    fn last_token(&self) -> Option<Rule> {
        self.pieces.iter().rev().find_map(Piece::rule)
    }
}

/// The lines of a text, with the blanks that the style wants.
pub(super) fn lines<'s>(tokens: &Tokens<'s>, roles: &Roles) -> Vec<Line<'s>> {
    let mut lines = split(tokens, roles);
    drop_blank_lines(&mut lines);
    spaces::set(&mut lines);
    indent(&mut lines, roles);
    lines
}

fn split<'s>(tokens: &Tokens<'s>, roles: &Roles) -> Vec<Line<'s>> {
    let comments = tokens.comments.iter().map(|c| (c.start, c.end, None));
    let words = tokens.tokens.iter();
    let words = words.map(|t| (t.start, t.end, roles.of(t.start)));
    let mut all: Vec<_> = comments.chain(words).collect();
    all.sort_unstable_by_key(|piece| piece.0);
    let mut lines: Vec<Line<'s>> = Vec::new();
    let mut end = 0;
    for (start, stop, role) in all {
        let text = tokens.text[start..stop].trim_end();
        let piece = Piece {
            text,
            start,
            role,
            spaces: 0,
        };
        let ends = line_ends(&tokens.text[end..start]);
        match lines.last_mut() {
            Some(line) if ends == 0 => line.pieces.push(piece),
            _ => lines.push(Line {
                blank_before: ends > 1 && !lines.is_empty(),
                indent: 0,
                pieces: vec![piece],
            }),
        }
        end = start + text.len();
    }
    lines
}

fn line_ends(gap: &str) -> usize {
    let pairs = gap.matches("\r\n").count();
    gap.matches(['\n', '\r']).count() - pairs
}

/// No blank line follows an opening bracket or documentation, and none stands before a closing
/// bracket.
fn drop_blank_lines(lines: &mut [Line<'_>]) {
    for at in 1..lines.len() {
        let before = &lines[at - 1];
        let is_comment = before.first().role.is_none();
        let opened = !is_comment && before.last_token().is_some_and(opens);
        let documented = before.first().rule() == Some(Rule::doc_line);
        let closes = lines[at].first().rule().is_some_and(closes);
        lines[at].blank_before &= !(opened || documented || closes);
    }
}

fn opens(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::open_brace | Rule::open_paren | Rule::open_bracket
    )
}

fn closes(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::close_brace | Rule::close_paren | Rule::close_bracket
    )
}

/// A bracket that is open, and the indentation of the line that it belongs to.
struct Open {
    /// Around statements, not around things with commas between them.
    is_body: bool,
    indent: usize,
}

/// The walk over the lines that finds their indentation.
struct Indenter<'r> {
    roles: &'r Roles,
    /// Where the lines start.
    starts: Vec<usize>,
    /// Of the lines so far.
    indents: Vec<usize>,
    open: Vec<Open>,
    previous: Option<Rule>,
}

fn indent(lines: &mut [Line<'_>], roles: &Roles) {
    let mut indenter = Indenter {
        roles,
        starts: lines.iter().map(|line| line.first().start).collect(),
        indents: Vec::with_capacity(lines.len()),
        open: Vec::new(),
        previous: None,
    };
    for line in lines.iter_mut() {
        line.indent = indenter.line(line);
    }
    indent_comments(lines);
}

impl Indenter<'_> {
    fn line(&mut self, line: &Line<'_>) -> usize {
        let first = line.first();
        let inside = self.open.last().map_or(0, |bracket| bracket.indent + STEP);
        let indent = match first.role {
            None => inside,
            Some(role) if closes(role.rule) => inside.saturating_sub(STEP),
            Some(role) => match self.of_line_with(role.anchor) {
                Some(indent) => indent,
                None if self.begins(first.start, role.rule) => inside,
                None => inside + STEP,
            },
        };
        self.indents.push(indent);
        for role in line.pieces.iter().filter_map(|piece| piece.role) {
            if opens(role.rule) {
                self.open.push(Open {
                    is_body: role.anchor.is_some(),
                    indent: self.of_line_with(role.anchor).unwrap_or(indent),
                });
            } else if closes(role.rule) {
                self.open.pop();
            }
            self.previous = Some(role.rule);
        }
        indent
    }

    /// The indentation of the line with this place, if it is one of those so far.
    fn of_line_with(&self, place: Option<usize>) -> Option<usize> {
        let place = place?;
        let behind = self.starts.partition_point(|start| *start <= place);
        self.indents.get(behind.checked_sub(1)?).copied()
    }

    /// Whether a line that starts with this token does not go on with what stands before it.
    fn begins(&self, start: usize, rule: Rule) -> bool {
        let is_doc = |rule: Rule| matches!(rule, Rule::doc_line | Rule::file_doc);
        if is_doc(rule) || self.previous.is_some_and(is_doc) {
            return true;
        }
        match self.open.last() {
            Some(bracket) if !bracket.is_body => {
                let is_start = |rule: Rule| rule == Rule::comma || opens(rule);
                rule == Rule::comma || self.previous.is_some_and(is_start)
            }
            _ => self.roles.starts_statement(start),
        }
    }
}

/// A comment with a line of its own stands where the code behind it does, unless that closes a
/// bracket.
fn indent_comments(lines: &mut [Line<'_>]) {
    let mut behind: Option<usize> = None;
    for line in lines.iter_mut().rev() {
        match line.first().rule() {
            None => line.indent = behind.unwrap_or(line.indent),
            Some(rule) if closes(rule) => behind = None,
            Some(_) => behind = Some(line.indent),
        }
    }
}

pub(super) fn write(lines: &[Line<'_>]) -> String {
    let mut out = String::new();
    for line in lines {
        if line.blank_before {
            out.push('\n');
        }
        out.extend(std::iter::repeat_n(' ', line.indent));
        for piece in &line.pieces {
            out.extend(std::iter::repeat_n(' ', piece.spaces));
            out.push_str(piece.text);
        }
        out.push('\n');
    }
    out
}
