//! The `peftc` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    peftc::cli::main()
}
