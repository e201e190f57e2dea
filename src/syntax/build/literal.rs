//! Numbers, strings and documentation lines: text to value.

use super::Builder;
use crate::diag::Span;
use crate::syntax::ast::ExprKind;
use crate::syntax::errors;
use crate::syntax::grammar::Rule;
use pest::iterators::Pair;

impl Builder<'_> {
    /// An integer unless the text has a fraction or an exponent.
    pub(super) fn number(&mut self, pair: &Pair<'_, Rule>) -> ExprKind {
        let digits = pair.as_str().replace('_', "");
        if digits.contains(['.', 'e', 'E']) {
            return ExprKind::Float(self.float(&digits, self.span(pair)));
        }
        let value = digits.parse().unwrap_or_else(|_| {
            self.report(errors::number_out_of_range(
                self.span(pair),
                "integers end at 9223372036854775807",
            ));
            0
        });
        ExprKind::Int(value)
    }

    /// `1.5%`: the number before the sign.
    pub(super) fn percent(&mut self, pair: &Pair<'_, Rule>) -> ExprKind {
        let digits = pair.as_str().trim_end_matches('%').replace('_', "");
        ExprKind::Percent(self.float(&digits, self.span(pair)))
    }

    fn float(&mut self, digits: &str, span: Span) -> f64 {
        let value: f64 = digits
            .parse()
            .expect("grammar: a number is one that Rust reads");
        if value.is_finite() {
            return value;
        }
        self.report(errors::number_out_of_range(
            span,
            "floats end at about 1.8e308",
        ));
        0.0
    }

    /// The text between the quotes with its escapes resolved; reports those that do not exist.
    pub(super) fn unescape(&mut self, quoted: &str, span: Span) -> String {
        let inner = between_quotes(quoted);
        let mut out = String::with_capacity(inner.len());
        let mut chars = inner.char_indices();
        while let Some((at, c)) = chars.next() {
            if c != '\\' {
                out.push(c);
                continue;
            }
            let (_, escaped) = chars.next().expect("grammar: a backslash has a successor");
            match escaped {
                '"' | '\\' => out.push(escaped),
                'n' => out.push('\n'),
                't' => out.push('\t'),
                _ => {
                    let start = span.start as usize + 1 + at;
                    let end = start + 1 + escaped.len_utf8();
                    let place = Span::new(self.file, start, end);
                    self.report(errors::unknown_escape(place, escaped));
                }
            }
        }
        out
    }

    /// The text of documentation lines without their marks.
    pub(super) fn doc(&self, lines: &[Pair<'_, Rule>]) -> String {
        let texts: Vec<&str> = lines.iter().map(|line| doc_text(line.as_str())).collect();
        texts.join("\n")
    }
}

/// What stands between the quotes, as it is.
pub(super) fn between_quotes(quoted: &str) -> &str {
    &quoted[1..quoted.len() - 1]
}

/// A `///` or `//!` line without its mark, one blank behind it, and blanks at the end.
fn doc_text(line: &str) -> &str {
    let text = &line[3..];
    text.strip_prefix(' ').unwrap_or(text).trim_end()
}
