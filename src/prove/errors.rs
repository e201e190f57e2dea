//! Diagnostics of this room.

use super::{Check, Row};
use crate::diag::{Code, Diagnostic};

pub(super) fn proof_fails(row: &Row, check: &Check, error: f64, why: &str) -> Diagnostic {
    let (method, kind) = (&row.method, &row.kind);
    let diagnostic = Diagnostic::new(
        Code::E0350,
        format!("`{method}` fails a proof at {kind} modules: {why}"),
    )
    .label(row.span, format!("`{}`: {}", check.name, check.what));
    let diagnostic = match error.is_finite() && error > 0.0 {
        true => diagnostic.note(format!("measured on modules of {}: {error:.1e}", row.sizes)),
        false => diagnostic.note(format!("measured on modules of {}", row.sizes)),
    };
    diagnostic.help(match check.name {
        "alive" => "start one of two factors with other numbers than zeros",
        "reached" => "let the result depend on the parameter, or declare it `const`",
        _ => "this may be a fault of peftc's own: please report it with the method",
    })
}
