//! A part of a graph as a picture: DOT, SVG without Graphviz, and plain text.
//!
//! In: a [`Drawing`], plain data. Out: one whole document a format, the same bytes for the same
//! drawing. What holds: nothing is told by colour alone (inserted blocks have a plus sign and a
//! double frame), every text is escaped. Not here: what belongs into a drawing.

mod dot;
mod layout;
mod svg;

pub use dot::dot;
pub use svg::svg;

use std::fmt::Write;

/// Graphs side by side.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    pub title: String,
    pub sides: Vec<Side>,
}

/// One graph, from its inputs at the top to its outputs at the bottom.
#[derive(Clone, Debug, Default)]
pub struct Side {
    pub caption: String,
    /// In a topological order.
    pub blocks: Vec<Block>,
    /// From block to block; indices grow along every wire.
    pub wires: Vec<(usize, usize)>,
}

/// A box of a drawing.
#[derive(Clone, Debug)]
pub struct Block {
    pub role: Role,
    pub title: String,
    pub lines: Vec<Line>,
    /// What stands beside the wires that leave the block: types of the results.
    pub results: Vec<String>,
    /// The block in plain text; empty for an end.
    pub text: String,
}

/// A line inside a block.
#[derive(Clone, Debug)]
pub struct Line {
    pub text: String,
    pub is_new: bool,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Node,
    /// The node of the module that the drawing is about.
    Site,
    /// A node that the base does not have.
    Inserted,
    /// Where the drawn part ends: an input, an output or the rest of the graph.
    End,
}

impl Role {
    /// The sign in front of a title.
    fn sign(self) -> &'static str {
        match self {
            Role::Node | Role::End => "",
            Role::Site => "\u{25cf} ",
            Role::Inserted => "+ ",
        }
    }
}

impl Line {
    fn marked(&self) -> String {
        let sign = if self.is_new { "+ " } else { "" };
        format!("{sign}{}", self.text)
    }
}

/// The nodes of the last side as lines: `+` for inserted ones, `*` for the module's own.
pub fn text(drawing: &Drawing) -> String {
    let mut out = format!("{}\n", drawing.title);
    let Some(side) = drawing.sides.last() else {
        return out;
    };
    let _ = writeln!(out, "{}\n", side.caption);
    for block in &side.blocks {
        let sign = match block.role {
            Role::End => continue,
            Role::Node => ' ',
            Role::Site => '*',
            Role::Inserted => '+',
        };
        let _ = writeln!(out, "{sign} {}", block.text);
        for line in block.lines.iter().filter(|line| line.is_new) {
            let _ = writeln!(out, "+     {}", line.text);
        }
    }
    let _ = writeln!(out, "\n* the module's node");
    if drawing.sides.len() > 1 {
        let _ = writeln!(out, "+ inserted by the adapter");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A drawing whose every text is hostile.
    fn hostile() -> Drawing {
        let text = "<a b=\"c\">&\u{1}\\n\n".to_owned();
        let block = |role| Block {
            role,
            title: text.clone(),
            lines: vec![Line {
                text: text.clone(),
                is_new: true,
            }],
            results: vec![text.clone()],
            text: text.clone(),
        };
        let side = Side {
            caption: text.clone(),
            blocks: vec![block(Role::End), block(Role::Site), block(Role::Inserted)],
            wires: vec![(0, 1), (1, 2)],
        };
        Drawing {
            title: text,
            sides: vec![side],
        }
    }

    #[test]
    fn every_text_of_an_svg_is_escaped() {
        let svg = svg(&hostile());
        assert!(!svg.contains("<a") && !svg.contains("b=\"c\"") && !svg.contains('\u{1}'));
        assert!(svg.contains("&lt;a b=&quot;c&quot;&gt;&amp;\u{fffd}"));
        let open = svg.matches("<g").count();
        assert_eq!(open, svg.matches("</g>").count());
    }

    #[test]
    fn every_text_of_a_dot_file_is_quoted() {
        assert!(dot(&hostile()).contains("<a b=\\\"c\\\">&"));
        for line in dot(&hostile()).lines() {
            let quotes = line
                .replace("\\\\", "")
                .replace("\\\"", "")
                .matches('"')
                .count();
            assert_eq!(quotes % 2, 0, "{line}");
        }
    }

    #[test]
    fn an_empty_drawing_is_a_document_too() {
        let nothing = Drawing::default();
        assert!(svg(&nothing).ends_with("</svg>\n"));
        assert!(dot(&nothing).ends_with("}\n"));
    }
}
