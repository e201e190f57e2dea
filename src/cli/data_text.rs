//! What `peftc data` says, for people and for programs.

use crate::data::{Dataset, Encoder, Summary, Task, Tokens, runs};
use crate::diag::counted;
use serde_json::{Value, json};
use std::fmt::Write;
use std::ops::Range;

/// The widest bar of a histogram.
const WIDTH: usize = 40;
/// So many classes are listed.
const CLASSES: usize = 20;

/// What is shown of a data set.
pub(super) struct View<'a> {
    pub dataset: &'a Dataset,
    pub summary: Summary,
    pub encoder: &'a Encoder,
    /// How many examples are shown.
    pub shown: usize,
    pub packed: Option<Packed>,
}

/// Rows that several examples share.
pub(super) struct Packed {
    pub rows: usize,
    pub room: usize,
}

impl View<'_> {
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.sizes(&mut out);
        self.histogram(&mut out);
        self.classes(&mut out);
        for example in 0..self.shown {
            self.example(example, &mut out);
        }
        if self.shown > 0 && self.dataset.task().labels_tokens() {
            out.push_str("\n+ is learned, the rest is context\n");
        }
        out
    }

    fn sizes(&self, out: &mut String) {
        let (summary, counts) = (&self.summary, self.dataset.counts());
        let rows = counted(counts.rows as usize, "row");
        let examples = counted(summary.examples, "example");
        let task = self.dataset.task();
        let _ = writeln!(out, "{rows}, {examples} for `{}`", task.name());
        let columns = counts.columns.iter();
        let columns = columns.map(|(name, count)| match *count == counts.rows {
            true => format!("`{name}`"),
            false => format!("`{name}` (in {})", counted(*count as usize, "row")),
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "  columns  {columns}");
        let _ = match task.labels_tokens() {
            true => writeln!(
                out,
                "  tokens   {}, of which {} count ({:.1} %)",
                summary.tokens,
                summary.counted,
                100.0 * summary.counted as f64 / summary.tokens.max(1) as f64
            ),
            false => writeln!(out, "  tokens   {}", summary.tokens),
        };
        let _ = writeln!(
            out,
            "  lengths  {} to {}, half at most {}, 95 % at most {}",
            summary.shortest, summary.longest, summary.median, summary.most
        );
        let end = self
            .encoder
            .end()
            .map_or("none".to_owned(), |id| self.token(id));
        let padding = self.token(self.encoder.padding());
        let start = match task {
            Task::Seq2Seq => format!(", decoders start with {}", self.token(self.encoder.start())),
            _ => String::new(),
        };
        let _ = writeln!(out, "  special  end {end}, padding {padding}{start}");
        if let Some(packed) = &self.packed {
            let _ = writeln!(
                out,
                "  packed   {} of {} tokens, {:.1} % full",
                counted(packed.rows, "row"),
                packed.room,
                packed.share(summary)
            );
        }
    }

    fn token(&self, id: u32) -> String {
        let tokenizer = self.encoder.tokenizer();
        let written = tokenizer.and_then(|tokenizer| tokenizer.token(id));
        written.map_or(id.to_string(), |token| format!("{id} (`{token}`)"))
    }

    fn histogram(&self, out: &mut String) {
        let bars = self.summary.histogram.iter();
        let label = |range: &Range<usize>| match range.len() {
            1 => range.start.to_string(),
            _ => format!("{}–{}", range.start, range.end - 1),
        };
        draw_bars(
            bars.map(|(range, count)| (label(range), *count as u64)),
            out,
        );
    }

    fn classes(&self, out: &mut String) {
        let classes = self.summary.classes.iter().take(CLASSES).cloned();
        if classes.len() > 0 {
            draw_bars(classes, out);
        }
        let more = self.summary.classes.len().saturating_sub(CLASSES);
        if more > 0 {
            let _ = writeln!(out, "  and {more} more classes");
        }
    }

    fn example(&self, example: usize, out: &mut String) {
        let place = self.dataset.place(example);
        let length = counted(self.dataset.examples().length(example), "token");
        let _ = writeln!(out, "\n{place}: {length}");
        for part in self.parts(example) {
            for (counts, text) in self.runs(&part) {
                let mark = if counts { "+" } else { " " };
                let _ = writeln!(out, "  {mark} {text}");
            }
        }
        if let Some(label) = self.label(example) {
            let _ = writeln!(out, "  = {label}");
        }
    }

    fn parts(&self, example: usize) -> impl Iterator<Item = Tokens<'_>> {
        let examples = self.dataset.examples();
        (0..examples.parts()).map(move |part| examples.part(example, part))
    }

    /// A sequence in runs of what is learned and what is not.
    fn runs(&self, tokens: &Tokens<'_>) -> Vec<(bool, String)> {
        let text = |ids: &[u32]| match self.encoder.tokenizer() {
            Some(tokenizer) => tokenizer.text(ids).escape_debug().to_string(),
            None => format!("{ids:?}"),
        };
        let runs = runs(tokens).into_iter();
        runs.map(|(counts, range)| (counts, text(&tokens.ids[range])))
            .collect()
    }

    /// What is to be learned from an example as a whole.
    fn label(&self, example: usize) -> Option<String> {
        let examples = self.dataset.examples();
        let names = self.dataset.classes();
        if let Some(class) = examples.class(example) {
            return names.get(class as usize).cloned();
        }
        match examples.numbers(example) {
            [] => None,
            shares if !names.is_empty() => {
                let holds = shares
                    .iter()
                    .zip(&names)
                    .filter(|(share, _)| **share >= 0.5);
                let names: Vec<&str> = holds.map(|(_, name)| name.as_str()).collect();
                Some(names.join(", "))
            }
            numbers => Some(
                numbers
                    .iter()
                    .map(f32::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
        }
    }

    pub fn json(&self) -> Value {
        let (summary, counts) = (&self.summary, self.dataset.counts());
        let bars = summary.histogram.iter();
        let bars: Vec<Value> = bars
            .map(|(range, count)| {
                json!({"from": range.start, "to": range.end - 1, "examples": count})
            })
            .collect();
        let classes = summary.classes.iter();
        let classes: Vec<Value> = classes
            .map(|(name, count)| json!({"name": name, "count": count}))
            .collect();
        let packed = self.packed.as_ref();
        json!({
            "task": self.dataset.task().name(),
            "rows": counts.rows,
            "broken": counts.broken,
            "cut": counts.cut,
            "seams": counts.seams,
            "columns": counts.columns,
            "classes": classes,
            "examples": summary.examples,
            "tokens": summary.tokens,
            "counted": summary.counted,
            "end_token": self.encoder.end(),
            "padding_token": self.encoder.padding(),
            "lengths": {
                "least": summary.shortest,
                "half": summary.median,
                "most": summary.most,
                "greatest": summary.longest,
                "histogram": bars,
            },
            "packed": packed.map(|packed| json!({"rows": packed.rows, "room": packed.room})),
            "shown": (0..self.shown).map(|example| self.example_json(example)).collect::<Vec<_>>(),
        })
    }

    fn example_json(&self, example: usize) -> Value {
        let examples = self.dataset.examples();
        let part = |tokens: Tokens<'_>| {
            let runs = self.runs(&tokens).into_iter();
            let runs: Vec<Value> = runs
                .map(|(counted, text)| json!({"counted": counted, "text": text}))
                .collect();
            json!({"input_ids": tokens.ids, "labels": tokens.labels, "runs": runs})
        };
        json!({
            "place": self.dataset.place(example),
            "parts": self.parts(example).map(part).collect::<Vec<_>>(),
            "class": examples.class(example),
            "numbers": examples.numbers(example),
        })
    }
}

impl Packed {
    /// How much of the rows is used, in percent.
    fn share(&self, summary: &Summary) -> f64 {
        100.0 * summary.tokens as f64 / (self.rows * self.room).max(1) as f64
    }
}

/// A bar for each, after a blank line.
fn draw_bars(bars: impl Iterator<Item = (String, u64)>, out: &mut String) {
    let bars: Vec<(String, u64)> = bars.collect();
    let highest = bars
        .iter()
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(0)
        .max(1);
    let wide = bars.iter().map(|(label, _)| label.chars().count()).max();
    let wide = wide.unwrap_or(0);
    out.push('\n');
    for (label, count) in bars {
        let bar = "#".repeat((count as usize * WIDTH).div_ceil(highest as usize));
        let _ = writeln!(out, "  {label:>wide$}  {bar:<WIDTH$}  {count}");
    }
}
