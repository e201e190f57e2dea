//! What of a text is shown: the lines around its marks, long ones cut, and without control
//! characters, which could change what else is on the screen.

use crate::diag::{FileId, SourceMap};
use miette::{
    LabeledSpan, MietteError, MietteSpanContents, NamedSource, SourceCode, SourceSpan, SpanContents,
};
use std::ops::Range;

/// The longest line that is drawn whole, in bytes.
const WHOLE: usize = 400;
/// How much is shown on both sides of the marks of a longer line.
const AROUND: usize = 60;

/// How many lines of context are kept on both sides of the marks.
const CONTEXT: usize = 3;

/// The lines of a text around its marks, long ones cut. Places keep the lines and columns that they
/// have in the full text.
#[derive(Debug)]
pub(super) struct Source {
    text: NamedSource<String>,
    name: String,
    /// How many lines of the text come before those that are kept.
    lines_before: usize,
    /// Lines that are cut at their start: where they start in the text, and how many characters
    /// more than are there were before what is left.
    cuts: Vec<(usize, usize)>,
}

impl Source {
    /// The lines of a file, or of the part of it that is known.
    pub fn of(file: FileId, sources: &SourceMap, labels: &mut [LabeledSpan]) -> Source {
        let mut source = Source::new(sources.name(file), sources.text(file), labels);
        source.lines_before += sources.first_line(file) - 1;
        source
    }

    /// Cuts a text and its lines, and moves the labels to where their places are then.
    pub fn new(name: &str, text: &str, labels: &mut [LabeledSpan]) -> Source {
        let near = lines_around(text, labels);
        let lines_before = text[..near.start].matches('\n').count();
        let moved_back = |label| {
            let span = range(label);
            span.start - near.start..span.end - near.start
        };
        let spans: Vec<Range<usize>> = labels.iter().map(moved_back).collect();
        let text = &text[near];
        let mut kept = String::with_capacity(text.len());
        let mut cuts = Vec::new();
        let mut at = 0;
        let mut moved = spans.clone();
        for line in text.split_inclusive('\n') {
            let end = at + line.len();
            let window = window(text, at..end, &spans);
            let before = if window.start > at { "…" } else { "" };
            let behind = if window.end < end { "…\n" } else { "" };
            let start = kept.len() + before.len();
            for (span, moved) in spans.iter().zip(&mut moved) {
                let place =
                    |offset: usize| start + offset.clamp(window.start, window.end) - window.start;
                if (at..end).contains(&span.start)
                    || (span.start == text.len() && end == text.len())
                {
                    moved.start = place(span.start);
                }
                if (at..=end).contains(&span.end) {
                    moved.end = place(span.end);
                }
            }
            if window.start > at {
                let missing = text[at..window.start].chars().count();
                cuts.push((kept.len(), missing - "…".chars().count()));
            }
            kept.push_str(before);
            kept.push_str(&visible(&text[window]));
            kept.push_str(behind);
            at = end;
        }
        for (label, span) in labels.iter_mut().zip(moved) {
            *label = moved_label(label, span);
        }
        Source {
            text: NamedSource::new(name, kept),
            name: name.to_owned(),
            lines_before,
            cuts,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The text with every control character replaced by one of the same length.
pub(super) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => c,
            c if c.is_ascii_control() => '?',
            // The others take two bytes.
            c if c.is_control() => '¿',
            c => c,
        })
        .collect()
}

/// The lines from the first mark to the last one with some around them.
fn lines_around(text: &str, labels: &[LabeledSpan]) -> Range<usize> {
    let spans = || labels.iter().map(range);
    let first = spans().map(|span| span.start).min().unwrap_or(0);
    let last = spans().map(|span| span.end).max().unwrap_or(0);
    let before = text[..first].rmatch_indices('\n').nth(CONTEXT);
    let start = before.map_or(0, |(at, _)| at + 1);
    let behind = text[last..].match_indices('\n').nth(CONTEXT);
    let end = behind.map_or(text.len(), |(at, _)| last + at + 1);
    start..end
}

fn range(label: &LabeledSpan) -> Range<usize> {
    label.offset()..label.offset() + label.len()
}

fn moved_label(label: &LabeledSpan, span: Range<usize>) -> LabeledSpan {
    let text = label.label().map(str::to_owned);
    let span = SourceSpan::from(span.start..span.end.max(span.start));
    if label.primary() {
        LabeledSpan::new_primary_with_span(text, span)
    } else {
        LabeledSpan::new_with_span(text, span)
    }
}

/// What is kept of a line: all of it, or what lies around the marks in it.
fn window(text: &str, line: Range<usize>, marks: &[Range<usize>]) -> Range<usize> {
    if line.len() <= WHOLE {
        return line;
    }
    let here = marks
        .iter()
        .filter(|mark| mark.start < line.end && mark.end >= line.start);
    let first = here.clone().map(|mark| mark.start.max(line.start)).min();
    let last = here.map(|mark| mark.end.min(line.end)).max();
    let first = first.unwrap_or(line.start);
    let last = last.unwrap_or(line.start).min(first + WHOLE);
    let mut start = first.saturating_sub(AROUND).max(line.start);
    let mut end = (last + AROUND).min(line.end);
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.text.read_span(span, lines_before, lines_after)?;
        let at_column = |column| -> Box<dyn SpanContents<'a> + 'a> {
            Box::new(MietteSpanContents::new_named(
                self.name.clone(),
                found.data(),
                *found.span(),
                self.lines_before + found.line(),
                column,
                found.line_count(),
            ))
        };
        if lines_before != 0 || lines_after != 0 {
            return Ok(at_column(found.column()));
        }
        // This is how the place in the title is asked for. miette counts bytes, editors characters.
        let start = span.offset().saturating_sub(found.column());
        let shown = self.text.inner().get(start..span.offset());
        let shown = shown.map_or(found.column(), |text| text.chars().count());
        let missing = self.cuts.iter().find(|(line, _)| *line == start);
        let column = shown + missing.map_or(0, |(_, missing)| *missing);
        Ok(at_column(column))
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::{Code, Diagnostic, SourceMap, Span, render};

    fn drawn(text: &str, mark: &str) -> String {
        let mut sources = SourceMap::new();
        let file = sources.add("a.peft", text);
        let start = text.find(mark).expect("the mark is there");
        let span = Span::new(file, start, start + mark.len());
        let diagnostic = Diagnostic::new(Code::E0201, "message").label(span, "here");
        render::render(&diagnostic, &sources, render::Style::PLAIN)
    }

    #[test]
    fn a_long_line_is_cut_around_its_mark_and_keeps_its_columns() {
        let long = "é".repeat(100_000);
        for text in [
            format!("{long} mark {long}"),
            format!("first\n{long} mark {long}\nlast"),
            format!("mark {long}\n{long}"),
            format!("{long}\n{long} mark"),
        ] {
            let drawn = drawn(&text, "mark");
            assert!(drawn.len() < 3000, "{}", drawn.len());
            let marked = drawn
                .lines()
                .find(|line| line.contains(" mark") || line.contains("│ mark"));
            assert!(marked.is_some(), "{drawn}");
            let line = text[..text.find("mark").unwrap()].matches('\n').count() + 1;
            let line_text = text.lines().nth(line - 1).unwrap();
            let before = &line_text[..line_text.find("mark").unwrap()];
            let place = format!("[a.peft:{line}:{}]", before.chars().count() + 1);
            assert!(drawn.contains(&place), "no {place} in {drawn}");
        }
    }

    #[test]
    fn a_mark_far_from_the_start_keeps_its_line() {
        let text = "line\n".repeat(70_000) + "  mark\nlast";
        let drawn = drawn(&text, "mark");
        assert!(drawn.contains("[a.peft:70001:3]"), "{drawn}");
        assert!(drawn.contains(" 70001 │   mark\n"), "{drawn}");
        assert!(drawn.contains(" 70002 │ last\n"), "{drawn}");
    }

    #[test]
    fn a_part_of_a_file_has_the_lines_of_the_file() {
        let mut sources = SourceMap::new();
        let file = sources.add_part("a.jsonl", "first\nmark\n", 4711);
        let diagnostic = Diagnostic::new(Code::E0201, "message");
        let diagnostic = diagnostic.label(Span::new(file, 6, 10), "here");
        let drawn = render::render(&diagnostic, &sources, render::Style::PLAIN);
        assert!(drawn.contains("[a.jsonl:4712:1]"), "{drawn}");
        assert!(drawn.contains(" 4711 │ first\n"), "{drawn}");
        assert_eq!(sources.line_column(file, 6).line, 4712);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let drawn = drawn("a \u{1b}[31m \u{9b}mark \0", "mark");
        assert!(drawn.contains("a ?[31m ¿mark ?"), "{drawn}");
        assert!(!drawn.contains(|c: char| c.is_control() && c != '\n'));
    }

    #[test]
    fn a_mark_that_is_longer_than_a_line_should_be_is_cut_itself() {
        let text = "x".repeat(100_000);
        assert!(drawn(&text, &text).len() < 3000);
    }
}
