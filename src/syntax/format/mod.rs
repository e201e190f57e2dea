//! Text to formatted text: the same tokens and comments with other blanks.
//!
//! In: a text that parses. Out: the text in the style of the standard library. What holds: line
//! ends stay where the author has them, except that blank lines go where several are in a row or
//! next to a bracket, so the text parses to the same tree; formatting twice changes nothing more.
//! Both are tested, and the first is checked before the text is handed out. Not here: breaking or
//! joining lines, which would need a measure of what reads well.

mod align;
mod layout;
mod roles;
mod same;
mod spaces;
#[cfg(test)]
mod tests;

use super::parse::MAX_BYTES;
use super::token::Tokens;
use super::{errors, parse};
use crate::diag::{FileId, Reported, Sink, SourceMap, Span};

/// The formatted text of a file, or the faults for which it does not parse.
pub fn format(sources: &SourceMap, file: FileId, sink: &mut Sink) -> Result<String, Reported> {
    parse(sources, file, sink)?;
    let text = sources.text(file);
    let formatted = laid_out(text);
    let start = Span::new(file, 0, 0);
    if formatted.len() > MAX_BYTES {
        let size = formatted.len();
        return Err(sink.emit(errors::formatted_too_large(start, size, MAX_BYTES)));
    }
    if !same::mean_the_same(text, &formatted) {
        return Err(sink.emit(errors::formatting_changes_meaning(sources.name(file))));
    }
    Ok(formatted)
}

fn laid_out(text: &str) -> String {
    let mut lines = layout::lines(&Tokens::scan(text), &roles::roles(text));
    align::parameters(&mut lines);
    align::comments(&mut lines);
    layout::write(&lines)
}
