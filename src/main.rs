//! The `peftc` command.

use std::process::ExitCode;

// Half of the time on a graph of ten thousand nodes would go to the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    peftc::cli::main()
}
