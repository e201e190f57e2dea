//! `peftc explain`: the page of a diagnostic code.

use super::errors;
use super::frame::{Context, Outcome, Payload};
use crate::diag::{Code, json::severity_name};
use serde_json::{Value, json};
use std::fmt::Write;

/// Explain a diagnostic code, such as E0401
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The code
    #[arg(required_unless_present = "list")]
    code: Option<String>,
    /// List every code
    #[arg(long, conflicts_with = "code")]
    list: bool,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let Some(name) = &args.code else {
        return Ok(list());
    };
    match Code::parse(name) {
        Some(code) => Ok(page(code)),
        None => Err(cx.sink.emit(errors::unknown_code(name))),
    }
}

fn page(code: Code) -> Payload {
    let mut json = summary(code);
    json["page"] = code.page().into();
    Payload::new(format!("{}\n", code.page().trim_end()), json)
}

fn list() -> Payload {
    let mut human = String::new();
    for code in Code::ALL {
        let _ = writeln!(human, "{}  {}", code.name(), code.title());
    }
    let codes: Vec<Value> = Code::ALL.iter().map(|code| summary(*code)).collect();
    Payload::new(human, json!({ "codes": codes }))
}

fn summary(code: Code) -> Value {
    json!({
        "code": code.name(),
        "severity": severity_name(code.severity()),
        "title": code.title(),
    })
}
