//! `peftc test`: numeric proofs of methods.

use super::frame::{Context, Outcome, Payload};
use super::model_args::{ModelArgs, parse_setting};
use crate::diag::counted;
use crate::driver::{ModelOptions, PlanOptions, Session, Spec};
use crate::prove::{self, CHECKS, Case, Row, Table, Verdict};
use crate::report::{self, ProofCase, ProofOutcome};
use crate::runtime::Wanted;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Prove methods by numbers: gradients, merges, identity at start, independence of padding
#[derive(Debug, clap::Args)]
#[command(after_help = after_help())]
pub(super) struct Args {
    /// The spec; its own methods are proved, or those that its adapters use if it declares none
    spec: PathBuf,
    /// Prove the methods of the spec's adapters with the sizes of this model's modules
    #[arg(long, value_name = "ONNX")]
    model: Option<PathBuf>,
    /// Only these methods
    #[arg(long, value_name = "NAME")]
    method: Vec<String>,
    /// A hyper-parameter that wins over the spec, with `--model`: rank=16 or lora.rank=16
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting, requires = "model")]
    settings: Vec<(String, String)>,
    /// Seed of parameters and inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Leave ONNX Runtime out: what it computes is not compared
    #[arg(long)]
    reference_only: bool,
    #[command(flatten)]
    recovery: ModelArgs,
}

fn after_help() -> String {
    let width = CHECKS.iter().map(|check| check.name.len()).max();
    let width = width.unwrap_or(0);
    let lines = CHECKS
        .iter()
        .map(|check| format!("  {:width$}  {}", check.name, check.what));
    format!("Checks:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let library = match args.reference_only {
        true => None,
        false => Some(cx.onnx_runtime(Wanted::Cpu)?),
    };
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let spec = session.spec(&args.spec)?;
    let mut cases = match &args.model {
        Some(_) => of_model(args, &spec, &mut session)?,
        None => of_spec(&spec),
    };
    if !args.method.is_empty() {
        let name = |case: &Case| spec.program.method(case.method).name.node.clone();
        for wanted in &args.method {
            if !cases.iter().any(|case| name(case) == *wanted) {
                let known: Vec<String> = cases.iter().map(name).collect();
                return Err(cx.sink.emit(super::errors::no_such_method(wanted, &known)));
            }
        }
        cases.retain(|case| args.method.contains(&name(case)));
    }
    let options = prove::Options {
        seed: args.seed,
        library,
    };
    let mut table = Table::default();
    for case in &cases {
        cx.terminal.detail(&format!("proving {}", case.label));
        let one = std::slice::from_ref(case);
        table
            .rows
            .extend(prove::prove(&spec.program, one, &options, &mut cx.sink)?.rows);
    }
    Ok(Payload {
        junit: Some(junit(&table)),
        ..Payload::new(drawn(&table), json(&table))
    })
}

/// The methods that the file declares; of a file without any, all that it imports.
fn of_spec(spec: &Spec) -> Vec<Case> {
    let methods = &spec.program.methods;
    let any = methods.iter().any(|m| m.name.span.file == spec.file);
    let hidden: Vec<_> = spec.program.train.values().collect();
    let cases = prove::cases_of(&spec.program, |method| {
        !any || method.name.span.file == spec.file
    });
    cases
        .into_iter()
        .filter(|case| !hidden.contains(&&case.method))
        .collect()
}

fn of_model(
    args: &Args,
    spec: &Spec,
    session: &mut Session<'_>,
) -> Result<Vec<Case>, crate::diag::Reported> {
    let Some(path) = &args.model else {
        return Ok(Vec::new());
    };
    let adapters = session.adapters(spec, &[])?;
    let options = ModelOptions {
        without_data: true,
        roles: adapters.iter().any(|adapter| adapter.asks_for_roles()),
        ..args.recovery.options()
    };
    let loaded = session.model(path, &options)?;
    let options = PlanOptions {
        settings: args.settings.clone(),
    };
    let mut cases = Vec::new();
    for adapter in adapters {
        let (loaded, planned) = session.plan(spec, adapter, &loaded, &options)?;
        cases.extend(prove::cases_of_plan(
            &spec.program,
            &planned.plan,
            &loaded.modules,
        ));
    }
    session.sink.failed()?;
    Ok(cases)
}

/// A verdict in a cell: an error where there is one.
fn cell(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Holds(0.0) => "yes".to_owned(),
        Verdict::Holds(error) => format!("{error:.0e}"),
        Verdict::Not(_) => "no".to_owned(),
        Verdict::Fails { .. } => "FAILS".to_owned(),
        Verdict::Skipped(_) => "–".to_owned(),
    }
}

fn drawn(table: &Table) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let head = ["method", "kind"].into_iter();
    let head = head.chain(CHECKS.iter().map(|check| check.name));
    lines.push(head.map(str::to_owned).collect());
    for row in &table.rows {
        let mut line = vec![row.method.clone(), row.kind.clone()];
        line.extend(row.verdicts.iter().map(cell));
        lines.push(line);
    }
    let columns = CHECKS.len() + 2;
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text.push_str(&remarks(table));
    let failed = table.count(|v| matches!(v, Verdict::Fails { .. }));
    let held = table.count(|v| matches!(v, Verdict::Holds(_)));
    let _ = writeln!(
        text,
        "\n{} held, {} failed; a number is the relative error that was measured",
        counted(held, "proof"),
        counted(failed, "proof")
    );
    text
}

/// Why something does not hold or could not be done: each reason once, with what it is about.
fn remarks(table: &Table) -> String {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for row in &table.rows {
        for (word, why, checks) in reasons(row) {
            let line = format!("{word} {}: {why}", checks.join(", "));
            let about = format!("{} at {}", row.method, row.kind);
            match found.iter_mut().find(|(known, _)| *known == line) {
                Some((_, rows)) => rows.push(about),
                None => found.push((line, vec![about])),
            }
        }
    }
    let mut text = String::new();
    for (line, rows) in &found {
        let more = match rows.len() {
            0..=3 => String::new(),
            count => format!(" and {} more", count - 3),
        };
        let some: Vec<&str> = rows.iter().take(3).map(String::as_str).collect();
        let _ = write!(text, "\n{line} ({}{more})", some.join(", "));
    }
    match text.is_empty() {
        true => text,
        false => format!("{text}\n"),
    }
}

/// The reasons of a row, with the checks that they are given for.
fn reasons(row: &Row) -> Vec<(&'static str, &str, Vec<&'static str>)> {
    let mut found: Vec<(&'static str, &str, Vec<&'static str>)> = Vec::new();
    for (check, verdict) in CHECKS.iter().zip(&row.verdicts) {
        let (word, why) = match verdict {
            Verdict::Not(why) => ("no", why.as_str()),
            Verdict::Skipped(why) => ("–", why.as_str()),
            _ => continue,
        };
        match found
            .iter_mut()
            .find(|known| (known.0, known.1) == (word, why))
        {
            Some((_, _, checks)) => checks.push(check.name),
            None => found.push((word, why, vec![check.name])),
        }
    }
    found
}

/// Every proof as a test case.
fn junit(table: &Table) -> String {
    let mut cases = Vec::new();
    for row in &table.rows {
        for (check, verdict) in CHECKS.iter().zip(&row.verdicts) {
            let outcome = match verdict {
                Verdict::Holds(error) => ProofOutcome::Holds(cell(&Verdict::Holds(*error))),
                Verdict::Not(why) => ProofOutcome::Holds(format!("does not hold: {why}")),
                Verdict::Fails { why, .. } => ProofOutcome::Fails(why.clone()),
                Verdict::Skipped(why) => ProofOutcome::Skipped(why.clone()),
            };
            cases.push(ProofCase {
                class: format!("{} at {}", row.method, row.kind),
                name: check.name.to_owned(),
                outcome,
            });
        }
    }
    report::junit_of_proofs("peftc test", &cases)
}

fn json(table: &Table) -> Value {
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Holds(error) => json!({"verdict": "holds", "error": error}),
        Verdict::Not(why) => json!({"verdict": "not", "why": why}),
        Verdict::Fails { error, why } => {
            json!({"verdict": "fails", "error": error.is_finite().then_some(error), "why": why})
        }
        Verdict::Skipped(why) => json!({"verdict": "skipped", "why": why}),
    };
    let rows = table.rows.iter().map(|row| {
        let checks = CHECKS.iter().zip(&row.verdicts);
        let checks: serde_json::Map<String, Value> = checks
            .map(|(check, found)| (check.name.to_owned(), verdict(found)))
            .collect();
        json!({
            "method": row.method,
            "kind": row.kind,
            "sizes": row.sizes,
            "checks": checks,
        })
    });
    json!({ "proofs": rows.collect::<Vec<_>>() })
}
