//! What `peftc data` says, for people and for programs.

use crate::data::{Dataset, Encoder, Summary, Tokens, runs};
use crate::diag::counted;
use serde_json::{Value, json};
use std::fmt::Write;

/// The widest bar of a histogram.
const WIDTH: usize = 40;

pub(super) fn text(
    dataset: &Dataset,
    summary: &Summary,
    encoder: &Encoder,
    shown: usize,
) -> String {
    let mut out = String::new();
    let counts = dataset.counts();
    let rows = counted(counts.rows as usize, "row");
    let examples = counted(summary.examples, "example");
    let _ = writeln!(
        out,
        "{rows}, {examples} for `{}`",
        encoder.options().task.name()
    );
    let share = 100.0 * summary.counted as f64 / summary.tokens.max(1) as f64;
    let _ = writeln!(
        out,
        "  tokens   {}, of which {} count ({share:.1} %)",
        summary.tokens, summary.counted
    );
    let _ = writeln!(
        out,
        "  lengths  {} to {}, half at most {}, 95 % at most {}",
        summary.shortest, summary.longest, summary.median, summary.most
    );
    let columns = counts.columns.iter();
    let columns = columns.map(|(name, count)| match *count == counts.rows {
        true => format!("`{name}`"),
        false => format!("`{name}` (in {})", counted(*count as usize, "row")),
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "  columns  {columns}");
    let _ = writeln!(out, "  tokens   {}", special(encoder));
    histogram(summary, &mut out);
    for example in 0..shown {
        let tokens = dataset.examples().tokens(example);
        let place = dataset.place(example);
        let length = counted(tokens.ids.len(), "token");
        let _ = writeln!(out, "\n{place}: {length}, {} count", tokens.counted());
        for (counts, text) in drawn(&tokens, encoder) {
            let mark = if counts { "+" } else { " " };
            let _ = writeln!(out, "  {mark} {text}");
        }
    }
    if shown > 0 {
        out.push_str("\n+ is learned, the rest is context\n");
    }
    out
}

fn special(encoder: &Encoder) -> String {
    let token = |id: u32| {
        let written = encoder
            .tokenizer()
            .and_then(|tokenizer| tokenizer.token(id));
        written.map_or(id.to_string(), |token| format!("{id} (`{token}`)"))
    };
    let end = encoder.end().map_or("none".to_owned(), token);
    format!("end {end}, padding {}", token(encoder.padding()))
}

fn histogram(summary: &Summary, out: &mut String) {
    let bars = &summary.histogram;
    let highest = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
    let label = |range: &std::ops::Range<usize>| match range.len() {
        1 => range.start.to_string(),
        _ => format!("{}–{}", range.start, range.end - 1),
    };
    let wide = bars.iter().map(|(range, _)| label(range).chars().count());
    let wide = wide.max().unwrap_or(0);
    out.push('\n');
    for (range, count) in bars {
        let bar = "#".repeat((count * WIDTH).div_ceil(highest));
        let _ = writeln!(out, "  {:>wide$}  {bar:<WIDTH$}  {count}", label(range));
    }
}

/// The example in runs of what is learned and what is not.
fn drawn(tokens: &Tokens<'_>, encoder: &Encoder) -> Vec<(bool, String)> {
    let text = |ids: &[u32]| match encoder.tokenizer() {
        Some(tokenizer) => tokenizer.text(ids).escape_debug().to_string(),
        None => format!("{ids:?}"),
    };
    let runs = runs(tokens).into_iter();
    runs.map(|(counts, range)| (counts, text(&tokens.ids[range])))
        .collect()
}

pub(super) fn json(dataset: &Dataset, summary: &Summary, encoder: &Encoder, shown: usize) -> Value {
    let counts = dataset.counts();
    let bars = summary.histogram.iter();
    let bars: Vec<Value> = bars
        .map(|(range, count)| json!({"from": range.start, "to": range.end - 1, "examples": count}))
        .collect();
    let example = |example: usize| {
        let tokens = dataset.examples().tokens(example);
        let runs = drawn(&tokens, encoder).into_iter();
        let runs: Vec<Value> = runs
            .map(|(counted, text)| json!({"counted": counted, "text": text}))
            .collect();
        json!({
            "place": dataset.place(example),
            "input_ids": tokens.ids,
            "labels": tokens.labels,
            "runs": runs,
        })
    };
    json!({
        "task": encoder.options().task.name(),
        "rows": counts.rows,
        "broken": counts.broken,
        "cut": counts.cut,
        "seams": counts.seams,
        "columns": counts.columns,
        "examples": summary.examples,
        "tokens": summary.tokens,
        "counted": summary.counted,
        "end_token": encoder.end(),
        "padding_token": encoder.padding(),
        "lengths": {
            "least": summary.shortest,
            "half": summary.median,
            "most": summary.most,
            "greatest": summary.longest,
            "histogram": bars,
        },
        "shown": (0..shown).map(example).collect::<Vec<_>>(),
    })
}
