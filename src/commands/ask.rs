//! `status`, `wait`, `pause`, `resume`, `stop`, `metrics`: what a daemon is asked.

use super::common::parsed;
use super::output::Output;
use crate::control::protocol::{Answer, Request};
use crate::control::{self, SOCKET, Status};
use crate::error::{Error, Result};
use crate::units::parse_duration;
use clap::Args;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct At {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Show how far a daemon is, with several volumes each and all of them: stages, rate, time left, depth, errors
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm status
  ebs-prewarm --json status

Exit code 6: there is no daemon.")]
pub struct StatusArgs {
    #[command(flatten)]
    at: At,
}

/// Wait until a stage is warm, also for a daemon that is not there yet
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm wait --stage ready --timeout 30s

A stage is warm when all its reads, and those of the stages before it, are over; with several volumes, on all whose \
profiles have it. Which stages there are, `status` shows.

Exit codes: 0 warm, 2 there is no such stage, 3 warm but for blocks that could not be read, 5 not warm in time, \
6 no daemon came, 7 the warming ended before.")]
pub struct WaitArgs {
    #[command(flatten)]
    at: At,
    /// Stage of the profile, or `rest`
    #[arg(long, default_value = "ready", value_parser = parsed(super::daemon::stage))]
    stage: String,
    /// For so long, the wait for the daemon among it
    #[arg(long, default_value = "30s", value_parser = parsed(parse_duration), value_name = "TIME")]
    timeout: Duration,
}

/// Let a daemon wait: it reads nothing more until `resume`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm pause && backup; ebs-prewarm resume

Reads in flight end. A deadline goes on. Units that are being verified by then, 16 at the most, still are.")]
pub struct PauseArgs {
    #[command(flatten)]
    at: At,
}

/// Let a daemon that was paused go on
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm resume")]
pub struct ResumeArgs {
    #[command(flatten)]
    at: At,
}

/// End a daemon; returns when its report is written
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm stop

Where it was started with --journal, the next run goes on where it was.")]
pub struct StopArgs {
    #[command(flatten)]
    at: At,
}

/// Print a daemon's metrics in the text format of Prometheus
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm metrics | curl --data-binary @- http://pushgateway:9091/metrics/job/ebs_prewarm")]
pub struct MetricsArgs {
    #[command(flatten)]
    at: At,
}

fn unexpected(socket: &Path) -> Error {
    Error::failed(format!("failed to ask the daemon at `{}`: it answered something else", socket.display()))
        .hint("is it of the same version?")
}

impl StatusArgs {
    pub fn run(self, output: Output) -> Result<()> {
        match control::ask(&self.at.socket, &Request::Status {})? {
            Answer::Status(status) => output.print(&*status, Status::text),
            _ => Err(unexpected(&self.at.socket)),
        }
    }
}

#[derive(Serialize)]
struct Waited {
    stage: String,
    warm: bool,
}

impl WaitArgs {
    pub fn run(self, output: Output) -> Result<()> {
        let on_terminal = std::io::stderr().is_terminal();
        let mut drawn = false;
        let mut look = |status: &Status| {
            if on_terminal {
                let _ = write!(std::io::stderr(), "\r{}\x1b[K", status.line());
                drawn = true;
            }
        };
        let waited = control::wait(&self.at.socket, &self.stage, self.timeout, &mut look);
        if drawn {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        waited?;
        let said = Waited { stage: self.stage, warm: true };
        output.print(&said, |said| format!("stage {} is warm", said.stage))
    }
}

#[derive(Serialize)]
struct Done {
    done: String,
}

fn order(at: &At, request: &Request, output: Output) -> Result<()> {
    match control::ask(&at.socket, request)? {
        Answer::Done(done) => output.print(&Done { done }, |said| said.done.clone()),
        _ => Err(unexpected(&at.socket)),
    }
}

impl PauseArgs {
    pub fn run(self, output: Output) -> Result<()> {
        order(&self.at, &Request::Pause {}, output)
    }
}

impl ResumeArgs {
    pub fn run(self, output: Output) -> Result<()> {
        order(&self.at, &Request::Resume {}, output)
    }
}

impl StopArgs {
    pub fn run(self, output: Output) -> Result<()> {
        control::stop(&self.at.socket)?;
        output.print(&Done { done: "it has ended".into() }, |said| said.done.clone())
    }
}

#[derive(Serialize)]
struct Metrics {
    metrics: String,
}

impl MetricsArgs {
    pub fn run(self, output: Output) -> Result<()> {
        match control::ask(&self.at.socket, &Request::Metrics {})? {
            Answer::Metrics(metrics) => output.print(&Metrics { metrics }, |said| said.metrics.clone()),
            _ => Err(unexpected(&self.at.socket)),
        }
    }
}
