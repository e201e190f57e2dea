//! Diagnostics for people, drawn by miette.

mod shown;

use super::{Diagnostic, Severity, SourceMap, Span};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceSpan};
use shown::{Source, visible};
use std::fmt;

/// How to draw: decided once by the caller from the terminal and `NO_COLOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub color: bool,
    pub unicode: bool,
    /// Columns of the terminal.
    pub width: usize,
}

impl Style {
    /// Plain text of fixed width, as files and tests need it.
    pub const PLAIN: Style = Style {
        color: false,
        unicode: true,
        width: 100,
    };
}

/// Draws one diagnostic, ending in a line break.
pub fn render(diagnostic: &Diagnostic, sources: &SourceMap, style: Style) -> String {
    let theme = match (style.unicode, style.color) {
        (true, true) => GraphicalTheme::unicode(),
        (true, false) => GraphicalTheme::unicode_nocolor(),
        (false, _) => GraphicalTheme::none(),
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(style.width)
        .with_links(false);
    let mut out = String::new();
    handler
        .render_report(&mut out, &Drawn::new(diagnostic, sources))
        .expect("writing to a string does not fail");
    with_titled_notes(&out)
}

/// miette has one footer, titled `help:`; notes are lines of it and get their own title.
fn with_titled_notes(drawn: &str) -> String {
    const RESET: &str = "\u{1b}[0m";
    drawn
        .replace("  help: note: ", "  note: ")
        .replace(
            &format!("  help: {RESET}note: "),
            &format!("  note: {RESET}"),
        )
        .replace("\n        note: ", "\n  note: ")
}

/// A diagnostic as miette wants it: one source, further files and excerpts as related reports.
#[derive(Debug)]
struct Drawn {
    message: String,
    code: Option<&'static str>,
    severity: miette::Severity,
    help: Option<String>,
    source: Option<Source>,
    labels: Vec<LabeledSpan>,
    related: Vec<Drawn>,
}

impl Drawn {
    fn new(diagnostic: &Diagnostic, sources: &SourceMap) -> Self {
        let severity = match diagnostic.severity() {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        };
        let primary = diagnostic.labels.first().map(|label| label.span.file);
        let mut related: Vec<Drawn> = Vec::new();
        for label in &diagnostic.labels {
            if Some(label.span.file) == primary
                || related.iter().any(|d| d.is_of(label.span, sources))
            {
                continue;
            }
            related.push(Drawn::of_file(diagnostic, label.span, sources));
        }
        related.extend(diagnostic.excerpts.iter().map(Drawn::of_excerpt));
        let mut help: Vec<String> = diagnostic.help.clone();
        help.extend(diagnostic.notes.iter().map(|note| format!("note: {note}")));
        let mut labels = labels_in(diagnostic, primary);
        let source = primary.map(|file| Source::of(file, sources, &mut labels));
        Drawn {
            message: visible(&diagnostic.message),
            code: Some(diagnostic.code.name()),
            severity,
            help: (!help.is_empty()).then(|| visible(&help.join("\n"))),
            source,
            labels,
            related,
        }
    }

    fn is_of(&self, span: Span, sources: &SourceMap) -> bool {
        self.source
            .as_ref()
            .is_some_and(|source| source.name() == sources.name(span.file))
    }

    fn of_file(diagnostic: &Diagnostic, span: Span, sources: &SourceMap) -> Self {
        let mut labels = labels_in(diagnostic, Some(span.file));
        let source = Source::of(span.file, sources, &mut labels);
        Drawn {
            message: format!("in {}", sources.name(span.file)),
            code: None,
            severity: miette::Severity::Advice,
            help: None,
            source: Some(source),
            labels,
            related: Vec::new(),
        }
    }

    fn of_excerpt(excerpt: &super::Excerpt) -> Self {
        let mark = |(range, text): &(std::ops::Range<usize>, String)| {
            LabeledSpan::new_with_span(Some(visible(text)), range.clone())
        };
        let mut labels: Vec<LabeledSpan> = excerpt.labels.iter().map(mark).collect();
        let source = Source::new(&excerpt.title, &excerpt.text, &mut labels);
        Drawn {
            message: format!("in {}", excerpt.title),
            code: None,
            severity: miette::Severity::Advice,
            help: None,
            source: Some(source),
            labels,
            related: Vec::new(),
        }
    }
}

fn labels_in(diagnostic: &Diagnostic, file: Option<super::FileId>) -> Vec<LabeledSpan> {
    let mut primary = true;
    diagnostic
        .labels
        .iter()
        .filter(|label| Some(label.span.file) == file)
        .map(|label| {
            let span = SourceSpan::from(label.span.start as usize..label.span.end as usize);
            let text = (!label.text.is_empty()).then(|| visible(&label.text));
            if std::mem::take(&mut primary) {
                LabeledSpan::new_primary_with_span(text, span)
            } else {
                LabeledSpan::new_with_span(text, span)
            }
        })
        .collect()
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Drawn {}

impl miette::Diagnostic for Drawn {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.code
            .map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source
            .as_ref()
            .map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty())
            .then(|| Box::new(self.labels.iter().cloned()) as Box<dyn Iterator<Item = LabeledSpan>>)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        (!self.related.is_empty()).then(|| {
            Box::new(self.related.iter().map(|d| d as &dyn miette::Diagnostic))
                as Box<dyn Iterator<Item = &dyn miette::Diagnostic>>
        })
    }
}
