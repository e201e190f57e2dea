//! The blanks between two pieces of a line.

use super::super::grammar::Rule;
use super::layout::Line;
use super::roles::Role;

/// Sets the blanks before every piece but the first of each line.
pub(super) fn set(lines: &mut [Line<'_>]) {
    for line in lines {
        let mut previous: Option<Role> = None;
        for piece in &mut line.pieces {
            piece.spaces = match (previous, piece.role) {
                (Some(before), Some(role)) if are_joined(before, role) => 0,
                (Some(_), _) => 1,
                (None, _) => 0,
            };
            previous = piece.role;
        }
    }
}

/// Whether no blank stands between the two.
fn are_joined(before: Role, next: Role) -> bool {
    use Rule::*;
    match before.rule {
        open_paren | open_bracket | dot | path_mark | negate => return true,
        // Behind it stands the end of a range.
        dots => return true,
        open_brace if before.parent == use_item => return true,
        _ => {}
    }
    match next.rule {
        comma | semicolon | close_paren | close_bracket | dot | path_mark | percent => true,
        // At the start of a subscript a range has no start.
        dots => before.rule != comma,
        colon => next.parent == hyper,
        // A call's, not those of an override, which stand behind its pattern.
        open_paren if next.parent == arguments => before.rule == name,
        open_paren => next.parent != paren,
        open_bracket => matches!(next.parent, index | slice),
        open_brace => next.parent == use_item,
        close_brace => next.parent == use_item || before.rule == open_brace,
        _ => false,
    }
}
