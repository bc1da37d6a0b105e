//! Parses, dispatches, prints one error, returns an exit code.

use clap::Parser;
use ebs_prewarm::commands::{Cli, run};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(cli.log)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        // Where stderr takes nothing, there is nobody to tell: that is no reason to panic.
        .log_internal_errors(false)
        .init();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", error.full_text());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
