//! The report of a training run: its figures, read back from `metrics.jsonl`, as curves.

use crate::diag::{Reported, Sink};
use crate::files;
use crate::report::{Chart, Curve, Page, html};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Figures of a run of some hundred thousand steps are smaller.
const LIMIT: u64 = 1 << 30;

/// Writes `report.html` beside the figures; answers with its path.
pub(super) fn write(
    folder: &Path,
    title: String,
    facts: Vec<(String, String)>,
    sink: &mut Sink,
) -> Result<PathBuf, Reported> {
    let text = files::read_text(&folder.join("metrics.jsonl"), LIMIT, sink)?;
    let run = Run {
        name: title.clone(),
        figures: figures(&text),
    };
    let page = html(&Page {
        title,
        facts,
        charts: charts(&[run]),
    });
    let path = folder.join("report.html");
    files::write(&path, sink, |out| out.write_all(page.as_bytes()))?;
    Ok(path)
}

/// Leaves of the lines of a run those up to a step: what was written behind the checkpoint that the run
/// goes on from comes again. So does the measurement of that step, if there is one.
pub(super) fn cut(path: &Path, done: u64, measures: bool) -> io::Result<()> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let stays = |line: &&[u8]| {
        // The last line of a run that was killed may be half of one.
        serde_json::from_slice::<Value>(line).is_ok_and(|line| {
            let comes_again = measures && line["event"] == "eval";
            let step = line["step"].as_u64().unwrap_or(0);
            step < done || (step == done && !comes_again)
        })
    };
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(stays).collect();
    files::replace(path, |out| {
        for line in lines {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Figures by kind of event, name and step. A step that was done again after a resume counts once.
type Figures = BTreeMap<&'static str, BTreeMap<String, BTreeMap<u64, f64>>>;

/// A run by the name that it is shown under.
struct Run {
    name: String,
    figures: Figures,
}

/// Writes the curves of several runs into one page.
pub(super) fn write_side_by_side(
    folders: &[PathBuf],
    path: &Path,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let mut runs = Vec::new();
    for folder in folders {
        let text = files::read_text(&folder.join("metrics.jsonl"), LIMIT, sink)?;
        runs.push(Run {
            name: folder.display().to_string(),
            figures: figures(&text),
        });
    }
    let last = |run: &Run| {
        let steps = run.figures.get("step").and_then(|of| of.get("seconds"))?;
        let (step, seconds) = steps.last_key_value()?;
        Some((run.name.clone(), format!("{step} steps in {seconds:.1} s")))
    };
    let page = html(&Page {
        title: "Training runs".to_owned(),
        facts: runs.iter().filter_map(last).collect(),
        charts: charts(&runs),
    });
    files::write(path, sink, |out| out.write_all(page.as_bytes()))
}

fn figures(text: &str) -> Figures {
    let mut found = Figures::new();
    for line in text.lines() {
        // A run that was killed may have left half a line.
        let Ok(Value::Object(row)) = serde_json::from_str(line) else {
            continue;
        };
        let (Some(event), Some(step)) = (event(&row["event"]), row["step"].as_u64()) else {
            continue;
        };
        for (name, value) in row {
            if let Some(value) = value.as_f64() {
                let curves = found.entry(event).or_default();
                curves.entry(name).or_default().insert(step, value);
            }
        }
    }
    found
}

/// The charts of runs: the loss, every score of held-out examples, and how it went. One run has both
/// losses in one chart.
fn charts(runs: &[Run]) -> Vec<Chart> {
    let curve = |run: &Run, event: &str, name: &str, shown: &str| Curve {
        name: shown.to_owned(),
        points: points(run.figures.get(event).and_then(|curves| curves.get(name))),
    };
    let all = |event: &str, name: &str, title: String, shown: &str| {
        let curves = runs.iter().map(|run| match runs.len() {
            1 => curve(run, event, name, shown),
            _ => curve(run, event, name, &run.name),
        });
        Chart {
            title,
            curves: curves.collect(),
        }
    };
    let mut charts = match runs {
        [run] => vec![Chart {
            title: "loss".to_owned(),
            curves: vec![
                curve(run, "step", "loss", "training"),
                curve(run, "eval", "loss", "held out"),
            ],
        }],
        _ => vec![
            all("step", "loss", "loss in training".to_owned(), ""),
            all("eval", "loss", "loss on held-out examples".to_owned(), ""),
        ],
    };
    let names = runs.iter().filter_map(|run| run.figures.get("eval"));
    let names: BTreeSet<&str> = names.flat_map(|of| of.keys()).map(String::as_str).collect();
    let scores = names
        .into_iter()
        .filter(|name| !["loss", "step"].contains(name));
    charts.extend(scores.map(|name| {
        let title = format!("{name} on held-out examples");
        all("eval", name, title, name)
    }));
    for (name, title) in [
        ("learning_rate", "learning rate"),
        ("grad_norm", "norm of the gradient"),
        ("tokens_per_second", "tokens per second, on average so far"),
    ] {
        charts.push(all("step", name, title.to_owned(), "training"));
    }
    charts
}

fn event(value: &Value) -> Option<&'static str> {
    ["step", "eval"].into_iter().find(|event| value == event)
}

fn points(values: Option<&BTreeMap<u64, f64>>) -> Vec<(f64, f64)> {
    let values = values.into_iter().flatten();
    values.map(|(step, value)| (*step as f64, *value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_are_of_the_figures() {
        let text = concat!(
            "{\"event\":\"eval\",\"step\":0,\"loss\":3.5,\"accuracy\":0.1}\n",
            "{\"event\":\"step\",\"step\":1,\"loss\":3.0,\"learning_rate\":0.1}\n",
            "{\"event\":\"step\",\"step\":2,\"loss\":9.0,\"learning_rate\":0.1}\n",
            "{\"event\":\"step\",\"step\":2,\"loss\":2.0,\"learning_rate\":0.1}\n",
            "{\"event\":\"eval\",\"step\":2,\"loss\":1.5,\"accuracy\":0.9}\n",
            "{\"event\":\"st",
        );
        let run = |name: &str| Run {
            name: name.to_owned(),
            figures: figures(text),
        };
        let several = charts(&[run("a"), run("b")]);
        let names: Vec<&str> = several[1].curves.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(
            (several[1].title.as_str(), &names[..]),
            ("loss on held-out examples", &["a", "b"][..])
        );
        let charts = charts(&[run("a")]);
        let loss = &charts[0].curves;
        assert_eq!(loss[0].points, [(1.0, 3.0), (2.0, 2.0)]);
        assert_eq!(loss[1].points, [(0.0, 3.5), (2.0, 1.5)]);
        assert_eq!(charts[1].title, "accuracy on held-out examples");
        assert_eq!(charts[1].curves[0].points, [(0.0, 0.1), (2.0, 0.9)]);
    }
}
