//! The report of a training run: its figures, read back from `metrics.jsonl`, as curves.

use crate::diag::{Reported, Sink};
use crate::files;
use crate::report::{Chart, Curve, Page, html};
use serde_json::Value;
use std::collections::BTreeMap;
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
    let figures = files::read_text(&folder.join("metrics.jsonl"), LIMIT, sink)?;
    let page = html(&Page {
        title,
        facts,
        charts: charts(&figures),
    });
    let path = folder.join("report.html");
    files::write(&path, sink, |out| out.write_all(page.as_bytes()))?;
    Ok(path)
}

/// Figures by kind of event, name and step. A step that was done again after a resume counts once.
type Figures = BTreeMap<&'static str, BTreeMap<String, BTreeMap<u64, f64>>>;

/// The charts of a run's figures: the loss, every score of held-out examples, and how it went.
fn charts(figures: &str) -> Vec<Chart> {
    let mut found = Figures::new();
    for line in figures.lines() {
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
    let curve = |event: &str, name: &str, shown: &str| Curve {
        name: shown.to_owned(),
        points: points(found.get(event).and_then(|curves| curves.get(name))),
    };
    let mut charts = vec![Chart {
        title: "loss".to_owned(),
        curves: vec![
            curve("step", "loss", "training"),
            curve("eval", "loss", "held out"),
        ],
    }];
    let scores = found.get("eval").into_iter().flatten();
    let scores = scores.filter(|(name, _)| !matches!(name.as_str(), "loss" | "step"));
    charts.extend(scores.map(|(name, _)| Chart {
        title: format!("{name} on held-out examples"),
        curves: vec![curve("eval", name, name)],
    }));
    for (name, title) in [
        ("learning_rate", "learning rate"),
        ("grad_norm", "norm of the gradient"),
        ("tokens_per_second", "tokens per second, on average so far"),
    ] {
        charts.push(Chart {
            title: title.to_owned(),
            curves: vec![curve("step", name, "training")],
        });
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
        let figures = concat!(
            "{\"event\":\"eval\",\"step\":0,\"loss\":3.5,\"accuracy\":0.1}\n",
            "{\"event\":\"step\",\"step\":1,\"loss\":3.0,\"learning_rate\":0.1}\n",
            "{\"event\":\"step\",\"step\":2,\"loss\":9.0,\"learning_rate\":0.1}\n",
            "{\"event\":\"step\",\"step\":2,\"loss\":2.0,\"learning_rate\":0.1}\n",
            "{\"event\":\"eval\",\"step\":2,\"loss\":1.5,\"accuracy\":0.9}\n",
            "{\"event\":\"st",
        );
        let charts = charts(figures);
        let loss = &charts[0].curves;
        assert_eq!(loss[0].points, [(1.0, 3.0), (2.0, 2.0)]);
        assert_eq!(loss[1].points, [(0.0, 3.5), (2.0, 1.5)]);
        assert_eq!(charts[1].title, "accuracy on held-out examples");
        assert_eq!(charts[1].curves[0].points, [(0.0, 0.1), (2.0, 0.9)]);
    }
}
