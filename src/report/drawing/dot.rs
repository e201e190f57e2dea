//! Graphviz' language.

use super::{Block, Drawing, Role, Side};
use std::fmt::Write;

/// The drawing as one `digraph` with a cluster a side.
pub fn dot(drawing: &Drawing) -> String {
    let mut out = String::from("digraph peftc {\n");
    let _ = writeln!(out, "  label={}; labelloc=t;", quoted(&drawing.title));
    out.push_str("  fontname=monospace;\n");
    out.push_str("  node [shape=box, fontname=monospace, fontsize=11];\n");
    out.push_str("  edge [fontname=monospace, fontsize=10];\n");
    for (index, side) in drawing.sides.iter().enumerate() {
        cluster(index, side, &mut out);
    }
    out.push_str("}\n");
    out
}

fn cluster(index: usize, side: &Side, out: &mut String) {
    let _ = writeln!(out, "  subgraph cluster_{index} {{");
    let _ = writeln!(out, "    label={};", quoted(&side.caption));
    for (at, block) in side.blocks.iter().enumerate() {
        let _ = writeln!(
            out,
            "    s{index}_{at} [label={}{}];",
            label(block),
            style(block.role)
        );
    }
    for (from, to) in &side.wires {
        let text = side.blocks[*from].results.join("\n");
        let inserted = [from, to].map(|at| side.blocks[*at].role == Role::Inserted);
        let bold = if inserted.contains(&true) {
            ", style=bold, color=\"#1a7f37\""
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "    s{index}_{from} -> s{index}_{to} [label={}{bold}];",
            quoted(&text)
        );
    }
    out.push_str("  }\n");
}

fn style(role: Role) -> &'static str {
    match role {
        Role::Node => "",
        Role::Site => ", penwidth=2.5",
        Role::Inserted => {
            ", peripheries=2, style=filled, fillcolor=\"#dafbe1\", color=\"#1a7f37\", fontcolor=\"#1f2328\""
        }
        Role::End => ", style=\"rounded,dashed\"",
    }
}

/// Title centred, lines to the left.
fn label(block: &Block) -> String {
    let title = format!("{}{}", block.role.sign(), block.title);
    let mut text = escaped(&title);
    if !block.lines.is_empty() {
        text.push_str("\\n");
    }
    for line in &block.lines {
        text.push_str(&escaped(&line.marked()));
        text.push_str("\\l");
    }
    format!("\"{text}\"")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Backslashes would begin an escape, control characters have no picture.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
