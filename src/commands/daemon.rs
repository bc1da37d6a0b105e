//! `daemon`: warms as `warm` does, and is there to be asked.

use super::common::{ReportFile, first_error, parsed};
use super::output::Output;
#[cfg(feature = "report")]
use super::volumes;
use super::warm::{self as verb, WarmArgs};
use crate::control::{self, Options, SOCKET};
use crate::error::{Error, Result};
use crate::process::{die_first, stop_on_signals};
use crate::report::WarmReport;
use crate::warm;
use clap::Args;
use std::path::PathBuf;

/// Warm as `warm` does, and answer on a socket: how far it is, when a stage is warm; pause, go on, end
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ebs-prewarm daemon --profile boot.bin --rest allocated
  ebs-prewarm daemon --profile boot.bin --metrics /var/lib/node_exporter/ebs_prewarm.prom --report /run/warm.json
  ebs-prewarm daemon --profile root.bin --profile data.bin --wait 10s --instance-iops 10000
  ebs-prewarm wait --stage ready --timeout 30s && ebs-prewarm status

It stays in the foreground, and stays when all is warm, so that it can be asked: `ebs-prewarm stop`, SIGTERM or --exit \
end it. A supervisor that sets NOTIFY_SOCKET (systemd, Type=notify) is told READY=1 after the stage of --ready, or when \
that will not come any more, and is kept alive by WATCHDOG=1.

Several profiles, each for a disk of its own, are warmed at once, as `warm` does it: a stage is warm when it is on all \
volumes whose profiles have it, and orders are for all of them.

Exit codes are those of `warm`; 0 also where it was told to end.")]
pub struct DaemonArgs {
    #[command(flatten)]
    pub warm: WarmArgs,
    #[command(flatten)]
    pub control: ControlArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The daemon")]
pub struct ControlArgs {
    /// Listen on this socket, which is for the user alone who runs the daemon
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
    /// The supervisor is told that it is ready when this stage of the profile is warm, or `start` for at once
    #[arg(long, value_name = "STAGE", default_value = "ready", value_parser = parsed(stage))]
    pub ready: String,
    /// Write metrics to this file every few seconds, whole, for the textfile collector of node_exporter
    #[arg(long, value_name = "FILE.prom")]
    pub metrics: Option<PathBuf>,
    /// End when the warming has ended
    #[arg(long)]
    pub exit: bool,
}

/// Told at once, not from the beginning of a stage.
const AT_ONCE: &str = "start";

/// The name of a stage.
pub fn stage(text: &str) -> Result<String> {
    let limit = crate::profile::NAME_BYTES_MAX;
    if text.is_empty() || text.len() > limit {
        return Err(Error::usage(format!("failed to parse stage `{text}`"))
            .hint(format!("a stage has a name of 1 to {limit} bytes, such as ready")));
    }
    Ok(text.into())
}

/// Warms and answers. Whatever comes of the warming is in the report.
pub fn run(args: DaemonArgs, output: Output) -> Result<()> {
    let DaemonArgs { warm: args, control } = args;
    let is_several = cfg!(feature = "report") && args.what.has_several();
    if !is_several {
        args.what.only_one("daemon")?;
    }
    if args.survive_switch_root {
        verb::survive_switch_root();
    }
    die_first();
    stop_on_signals();
    let options = Options {
        socket: control.socket,
        ready: Some(control.ready).filter(|stage| stage != AT_ONCE),
        metrics: control.metrics,
        exit: control.exit,
    };
    #[cfg(feature = "report")]
    if is_several {
        return volumes::daemon(&args, &options, output);
    }
    let file = args.report.clone().map(ReportFile::new::<WarmReport>);
    let named = args.what.device().to_path_buf();
    let volume = control::Volume {
        device: named.display().to_string(),
        among_several: None,
        rest_expected: args.what.has_rest(),
        work: Box::new(move |stop, control, watch| {
            verb::warmed(&args, None, args.share(), stop, control, watch)
        }),
    };
    let mut finished = match control::run(&options, vec![volume]) {
        Ok(finished) => finished,
        // The report may be that of the daemon which is there.
        Err(error) if control::is_there(&options.socket) => return Err(error),
        Err(error) => {
            let written = file.map_or(Ok(()), |file| file.write(&warm::refused(&named, &error)));
            return first_error([Err(error), written]);
        }
    };
    // One volume was asked for.
    let (report, verdict) = match finished.volumes.swap_remove(0) {
        Ok(report) => {
            let verdict = verdict_of_daemon(&report);
            (report, verdict)
        }
        Err(error) => (warm::refused(&named, &error), Err(error)),
    };
    let written = file.map_or(Ok(()), |file| file.write(&report));
    let printed = if output.json { output.print(&report, WarmReport::text) } else { Ok(()) };
    first_error([verdict, written, printed])
}

/// What a report means for the exit code.
pub fn verdict_of_daemon(report: &WarmReport) -> Result<()> {
    match report.end.as_str() {
        // That is what it was asked for.
        "stopped" => Ok(()),
        _ => warm::verdict(report),
    }
}
