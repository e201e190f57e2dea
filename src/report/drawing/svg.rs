//! SVG, laid out here. Texts are measured by their number of characters.

use super::layout::{Extent, Layout, lay_out};
use super::{Block, Drawing, Role, Side};
use crate::report::xml::escaped;
use std::fmt::Write;

/// Width of a character of the monospace font at 12 px; 0.6 em in every common one.
const CHARACTER: f64 = 7.3;
const LINE: f64 = 16.0;
const PADDING: f64 = 10.0;
const MARGIN: f64 = 24.0;
const HEAD: f64 = 64.0;
/// Longer texts are cut in their middle; the whole is in the tooltip.
const LONGEST: usize = 44;
/// Types are cut later: what they say is in the middle, too.
const LONGEST_TYPE: usize = 72;

const STYLE: &str = "
text { font: 12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #1f2328; white-space: pre; }
.page { fill: #ffffff; }
.heading { font-size: 14px; font-weight: bold; }
.title { font-weight: bold; }
.small { font-size: 11px; fill: #59636e; }
.new { fill: #116329; font-weight: bold; }
.box { fill: #f6f8fa; stroke: #818b98; }
.site { fill: #ddf4ff; stroke: #0969da; stroke-width: 2.5; }
.inserted { fill: #dafbe1; stroke: #1a7f37; }
.frame { fill: none; stroke: #1a7f37; }
.end { fill: none; stroke: #818b98; stroke-dasharray: 4 3; }
.wire { fill: none; stroke: #818b98; stroke-width: 1.2; }
.wire.added { stroke: #1a7f37; stroke-width: 2.4; }
.tip { fill: #818b98; }
.tip.added { fill: #1a7f37; }
.rule { stroke: #d1d9e0; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; }
.page { fill: #0d1117; }
.small { fill: #9198a1; }
.new { fill: #57d364; }
.box { fill: #151b23; }
.site { fill: #0c2d6b; stroke: #58a6ff; }
.inserted { fill: #033a16; stroke: #3fb950; }
.frame { stroke: #3fb950; }
.wire.added { stroke: #3fb950; }
.tip.added { fill: #3fb950; }
.rule { stroke: #3d444d; }
}
";

/// The drawing as a document of its own.
pub fn svg(drawing: &Drawing) -> String {
    let sides: Vec<(&Side, Layout)> = drawing
        .sides
        .iter()
        .map(|side| {
            let extents: Vec<Extent> = side.blocks.iter().map(extent).collect();
            (side, lay_out(&extents, &side.wires))
        })
        .collect();
    let mut body = String::new();
    let mut left = MARGIN;
    let mut height: f64 = 0.0;
    for (index, (side, layout)) in sides.iter().enumerate() {
        if index > 0 {
            let x = left - MARGIN;
            let _ = writeln!(
                body,
                r#"<path class="rule" d="M{x:.0} 44V{:.0}"/>"#,
                HEAD + sides.iter().map(|s| s.1.height).fold(0.0, f64::max)
            );
        }
        let caption = width_of(&side.caption, usize::MAX);
        let _ = writeln!(body, r#"<g transform="translate({left:.0} 0)">"#);
        text(&mut body, "title", 0.0, 52.0, &side.caption);
        let _ = writeln!(body, r#"<g transform="translate(0 {HEAD})">"#);
        draw_side(side, layout, &mut body);
        body.push_str("</g>\n</g>\n");
        left += layout.width.max(caption) + 2.0 * MARGIN;
        height = height.max(layout.height);
    }
    page(drawing, left - MARGIN, HEAD + height, &body)
}

/// Heading, legend and frame around the sides.
fn page(drawing: &Drawing, right: f64, bottom: f64, body: &str) -> String {
    let legend = "\u{25cf} the module's node \u{b7} + inserted by the adapter (double frame)";
    let legend = match drawing.sides.len() {
        0 | 1 => "\u{25cf} the module's node",
        _ => legend,
    };
    let texts = width_of(legend, usize::MAX).max(width_of(&drawing.title, usize::MAX) * 1.2);
    let (width, height) = (right.max(texts + 2.0 * MARGIN), bottom + 2.0 * MARGIN);
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" role="img">"#
    );
    let _ = writeln!(out, "<title>{}</title>", escaped(&drawing.title));
    let _ = writeln!(out, "<style>{STYLE}</style>");
    let _ = writeln!(
        out,
        r#"<rect class="page" width="{width:.0}" height="{height:.0}"/>"#
    );
    text(&mut out, "heading", MARGIN, 28.0, &drawing.title);
    out.push_str(body);
    text(&mut out, "small", MARGIN, height - 14.0, legend);
    out.push_str("</svg>\n");
    out
}

fn draw_side(side: &Side, layout: &Layout, out: &mut String) {
    for (index, wire) in side.wires.iter().enumerate() {
        draw_wire(side, layout, index, *wire, out);
    }
    for (block, (x, y)) in side.blocks.iter().zip(&layout.places) {
        draw_block(block, *x, *y, out);
    }
}

/// Half the width of a block's frame.
fn half(block: &Block) -> f64 {
    let title = width_of(&format!("{}{}", block.role.sign(), block.title), LONGEST);
    let lines = block
        .lines
        .iter()
        .map(|line| width_of(&line.marked(), LONGEST));
    lines.fold(title, f64::max) / 2.0 + PADDING
}

fn height(block: &Block) -> f64 {
    LINE * (1 + block.lines.len()) as f64 + PADDING
}

fn extent(block: &Block) -> Extent {
    let half = half(block);
    let labels = block
        .results
        .iter()
        .map(|text| width_of(text, LONGEST_TYPE));
    Extent {
        left: half,
        right: half.max(labels.fold(0.0, f64::max) + 8.0),
        height: height(block),
        below: LINE * block.results.len() as f64,
    }
}

fn draw_block(block: &Block, x: f64, y: f64, out: &mut String) {
    let (half, height) = (half(block), height(block));
    let (class, radius) = match block.role {
        Role::Node => ("box", 4),
        Role::Site => ("site", 4),
        Role::Inserted => ("inserted", 4),
        Role::End => ("end", 13),
    };
    let (left, width) = (x - half, 2.0 * half);
    out.push_str("<g>");
    if !block.text.is_empty() {
        let _ = write!(out, "<title>{}</title>", escaped(&block.text));
    }
    let _ = writeln!(
        out,
        r#"<rect class="{class}" x="{left:.0}" y="{y:.0}" width="{width:.0}" height="{height:.0}" rx="{radius}"/>"#
    );
    if block.role == Role::Inserted {
        let (left, top) = (left + 3.0, y + 3.0);
        let (width, height) = (width - 6.0, height - 6.0);
        let _ = writeln!(
            out,
            r#"<rect class="frame" x="{left:.0}" y="{top:.0}" width="{width:.0}" height="{height:.0}" rx="2"/>"#
        );
    }
    let title = format!("{}{}", block.role.sign(), block.title);
    let class = if block.role == Role::End {
        "small"
    } else {
        "title"
    };
    text(out, class, left + PADDING, y + 17.0, &cut(&title, LONGEST));
    for (index, line) in block.lines.iter().enumerate() {
        let class = if line.is_new { "new" } else { "small" };
        let down = y + 17.0 + LINE * (index + 1) as f64;
        text(
            out,
            class,
            left + PADDING,
            down,
            &cut(&line.marked(), LONGEST),
        );
    }
    for (index, result) in block.results.iter().enumerate() {
        let down = y + height + 14.0 + LINE * index as f64;
        text(out, "small", x + 6.0, down, &cut(result, LONGEST_TYPE));
    }
    out.push_str("</g>\n");
}

/// From the bottom of a block to the top of another: straight within layers, curved between them.
fn draw_wire(
    side: &Side,
    layout: &Layout,
    index: usize,
    (from, to): (usize, usize),
    out: &mut String,
) {
    let added = [from, to].map(|at| side.blocks[at].role == Role::Inserted);
    let class = if added.contains(&true) { " added" } else { "" };
    let (mut x, top) = layout.places[from];
    let mut path = format!("M{x:.0} {:.0}", top + height(&side.blocks[from]));
    let end = port(side, layout, index, to);
    let axes = layout.bends[index].iter().copied().chain([end]);
    for (layer, next) in (layout.layers[from]..).zip(axes) {
        let (start, stop) = (layout.bands[layer].1, layout.bands[layer + 1].0);
        // The tip takes the last pixels.
        let stop = if layer + 1 == layout.layers[to] {
            stop - 7.0
        } else {
            stop
        };
        let middle = (start + stop) / 2.0;
        let _ = write!(path, "V{start:.0}");
        if (next - x).abs() >= 0.5 {
            let _ = write!(
                path,
                "C{x:.0} {middle:.0} {next:.0} {middle:.0} {next:.0} {stop:.0}"
            );
        } else {
            let _ = write!(path, "V{stop:.0}");
        }
        x = next;
    }
    let y = layout.places[to].1;
    let _ = writeln!(out, r#"<path class="wire{class}" d="{path}"/>"#);
    let _ = writeln!(
        out,
        r#"<path class="tip{class}" d="M{:.0} {:.0}h8l-4 8z"/>"#,
        end - 4.0,
        y - 8.0
    );
}

/// Where a wire enters a block: wires side by side, in the order in which they come.
fn port(side: &Side, layout: &Layout, wire: usize, to: usize) -> f64 {
    let came = |index: usize| {
        let start = layout.places[side.wires[index].0].0;
        layout.bends[index].last().copied().unwrap_or(start)
    };
    let mut entering: Vec<usize> = (0..side.wires.len())
        .filter(|index| side.wires[*index].1 == to)
        .collect();
    entering.sort_by(|a, b| came(*a).total_cmp(&came(*b)));
    let at = entering
        .iter()
        .position(|index| *index == wire)
        .unwrap_or(0);
    let room = 2.0 * (half(&side.blocks[to]) - PADDING);
    let step = (room / entering.len() as f64).min(28.0);
    layout.places[to].0 + step * (at as f64 - (entering.len() - 1) as f64 / 2.0)
}

fn text(out: &mut String, class: &str, x: f64, y: f64, content: &str) {
    let content = escaped(content);
    let _ = writeln!(
        out,
        r#"<text class="{class}" x="{x:.0}" y="{y:.0}">{content}</text>"#
    );
}

fn width_of(text: &str, longest: usize) -> f64 {
    CHARACTER * text.chars().count().min(longest) as f64
}

/// The text with its middle left out where it is too long: names differ at their ends.
fn cut(text: &str, longest: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= longest {
        return text.to_owned();
    }
    let tail = longest * 2 / 3;
    let head = longest - 1 - tail;
    let start = characters[..head].iter();
    let end = characters[characters.len() - tail..].iter();
    start.chain(&['\u{2026}']).chain(end).collect()
}
