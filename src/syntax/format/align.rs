//! What stands one under the other: the marks of parameters in a row, and comments behind code.

use super::super::grammar::Rule;
use super::layout::{Line, Piece};

/// What is longer stands out of its column, and so do things behind it: a column that far right
/// helps nobody, and the space for it would grow with the square of the text.
const WIDEST: usize = 100;

/// Aligns the colons and equals signs of parameters and states in a row; documentation and comments do not
/// end one, blank lines do.
pub(super) fn parameters(lines: &mut [Line<'_>]) {
    let mut run: Vec<usize> = Vec::new();
    for at in 0..lines.len() {
        if lines[at].blank_before {
            align_marks(lines, &std::mem::take(&mut run));
        }
        match lines[at].pieces[0].rule() {
            Some(Rule::shared | Rule::param_word | Rule::const_word | Rule::kw_state) => {
                run.push(at);
            }
            None | Some(Rule::doc_line) => {}
            Some(_) => align_marks(lines, &std::mem::take(&mut run)),
        }
    }
    align_marks(lines, &run);
}

fn align_marks(lines: &mut [Line<'_>], run: &[usize]) {
    for rule in [Rule::colon, Rule::assign] {
        align(lines, run, |piece| {
            piece.role.is_some_and(|found| {
                found.rule == rule && matches!(found.parent, Rule::param | Rule::state_item)
            })
        });
    }
}

/// Aligns the comments behind code on consecutive lines of one block.
pub(super) fn comments(lines: &mut [Line<'_>]) {
    let mut run: Vec<usize> = Vec::new();
    for at in 0..lines.len() {
        let line = &lines[at];
        let goes_on = run
            .last()
            .is_some_and(|last| lines[*last].indent == line.indent);
        let trailing = line.pieces.len() > 1 && line.pieces.iter().any(|p| p.role.is_none());
        if !goes_on || !trailing || line.blank_before {
            align_comments(lines, &std::mem::take(&mut run));
        }
        if trailing {
            run.push(at);
        }
    }
    align_comments(lines, &run);
}

fn align_comments(lines: &mut [Line<'_>], run: &[usize]) {
    align(lines, run, |piece| piece.role.is_none());
}

/// Puts the first such piece of each line into the column that all have room for.
fn align(lines: &mut [Line<'_>], run: &[usize], is_aligned: impl Fn(&Piece<'_>) -> bool) {
    let places: Vec<(usize, usize, usize)> = run
        .iter()
        .filter_map(|at| {
            let place = lines[*at].pieces.iter().position(&is_aligned)?;
            let before = &lines[*at].pieces[..place];
            let width = before
                .iter()
                .map(|p| p.spaces + p.text.chars().count())
                .sum();
            (width <= WIDEST).then_some((*at, place, width))
        })
        .collect();
    let widest = places.iter().map(|(_, _, width)| *width).max().unwrap_or(0);
    for (at, place, width) in places {
        lines[at].pieces[place].spaces = 1 + widest - width;
    }
}
