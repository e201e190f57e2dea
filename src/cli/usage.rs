//! Answers to command lines that do not start any work: help, version, mistakes.

use super::format::{Format, Report, asks_for_json};
use super::frame::{self, Payload};
use super::options::Global;
use super::{errors, exit};
use clap::error::ErrorKind;
use serde_json::json;
use std::ffi::OsString;

/// Shows what clap has to say and returns the exit status: help and version are data, everything else is an error.
pub(super) fn answer(error: &clap::Error, arguments: &[OsString]) -> u8 {
    let wants_json = asks_for_json(arguments);
    let format = if wants_json {
        Format::Json
    } else {
        Format::Human
    };
    let global = Global {
        format: vec![Report { format, file: None }],
        ..Global::default()
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if !wants_json => {
            // clap knows where it goes and with which colours.
            match error.print() {
                Ok(()) => exit::CLEAN,
                Err(_) => exit::TOOL,
            }
        }
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => frame::run(&global, "help", |_| {
            let text = error.render().to_string();
            Ok(Payload::new(text.clone(), json!({ "text": text })))
        }),
        // Without a subcommand the help is the answer, though not a result.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !wants_json => {
            let _ = error.print();
            exit::TOOL
        }
        _ => frame::run(&global, "usage", |cx| {
            let text = error.render().to_string();
            Err(cx.sink.emit(errors::usage(&text)))
        }),
    }
}
