//! Parses, dispatches, prints one error, returns an exit code.

use clap::Parser;
use ebs_prewarm::commands::{Cli, run};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = tracing_subscriber::fmt()
        .with_max_level(cli.level())
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        // Where stderr takes nothing, there is nobody to tell: that is no reason to panic.
        .log_internal_errors(false);
    #[cfg(feature = "control")]
    let journal = ebs_prewarm::control::JournalFormat::of_process();
    #[cfg(feature = "control")]
    match journal {
        Some(format) => log.event_format(format).init(),
        None => log.init(),
    }
    #[cfg(not(feature = "control"))]
    log.init();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("error: {}\n", error.full_text());
            #[cfg(feature = "control")]
            let text = journal.map_or(text.clone(), |journal| journal.error(&text));
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
