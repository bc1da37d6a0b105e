//! `effect`: what a warming did for the boot that it ran beside.

use super::common::{check_form, first_error, parsed, write_report};
use super::output::{Output, tell};
use super::record::{find_disk, identity, parse_unit};
use super::watch::{Place, share};
use crate::effect;
use crate::error::{Error, Result};
use crate::files::{check_writable, replace_readable, write_atomically};
use crate::process;
use crate::record::{Options, Session, Signals, Stops, is_left_on};
use crate::recording::{Recording, format, joined};
use crate::report::EffectReport;
use crate::units::parse_duration;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Tell what a warming with --watch did for this boot: unit by unit, who was first; what was spared; what was missed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ebs-prewarm effect
  ebs-prewarm effect --until-unit node-ready.service --report effect.html --metrics /var/lib/node_exporter/effect.prom
  ebs-prewarm effect --recording boot.rec && ebs-prewarm profile fold -o web-2.yaml web.yaml boot.rec

It takes over the trace that the warming has left on, and switches it off: it can be asked once a boot.")]
pub struct EffectArgs {
    /// Block device, or `auto` for the disk that carries /
    #[arg(long, default_value = "auto")]
    pub device: PathBuf,
    /// The directory that was given to the warming
    #[arg(long, value_name = "DIR", default_value = "/run/ebs-prewarm")]
    pub journal: PathBuf,
    /// Listen on until this systemd unit is active: then the boot is over; a name without a suffix is a service's
    #[arg(long, value_name = "UNIT", value_parser = parse_unit)]
    pub until_unit: Option<String>,
    /// Listen no longer than this
    #[arg(long = "for", value_parser = parsed(parse_duration), value_name = "TIME")]
    pub after: Option<Duration>,
    /// Write it to a file: a page to look at where its name ends in .html, else JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write what the boot read as a recording, for `profile fold`
    #[arg(long, value_name = "FILE.rec")]
    pub recording: Option<PathBuf>,
    /// Write metrics to this file, for the textfile collector of node_exporter
    #[arg(long, value_name = "FILE.prom")]
    pub metrics: Option<PathBuf>,
}

/// A warming that still goes on is waited for so long, where no time is given.
const WAIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Listens, counts, tells.
pub fn run(args: EffectArgs, output: Output) -> Result<()> {
    let root = Path::new("/");
    if let Some(report) = &args.report {
        check_form::<EffectReport>(report)?;
    }
    for path in [&args.report, &args.recording, &args.metrics].into_iter().flatten() {
        check_writable(path)?;
    }
    let disk = find_disk(root, &args.device)?;
    let place = Place::new(&args.journal, disk.number.kernel());
    if !is_left_on(root, disk.number.kernel()) {
        let shown = disk.path.display();
        return Err(Error::failed(format!(
            "failed to find a trace of this boot on `{shown}`: none was left on"
        ))
        .hint("warm with --watch and --journal; what it leaves on can be asked for once"));
    }
    let signals = Signals::hold()?;
    let mut session = open(root, &args, disk.number.kernel(), &signals)?;
    // Before anything is taken: a boot is traced but once.
    let left = place.read().and_then(|left| check_boot(&left.1, session.boot_id()).map(|()| left));
    let (mut warmed, first) = match left {
        // Of a warming that was killed there is nothing to be had: the trace ends with the session.
        Err(error) if !place.is_unfinished() => {
            session.put_back();
            return Err(error);
        }
        left => left?,
    };
    let stops = Stops {
        // Without anything to wait for, what there is by now is all.
        after: args.after.or(args.until_unit.is_none().then_some(Duration::ZERO)),
        until_unit: args.until_unit.clone(),
        ..Stops::default()
    };
    let stopped = session.run(&stops, &signals, None)?;
    if args.until_unit.is_some() {
        tell(format_args!("{stopped}"));
    }
    let finished = session.finish()?;
    let mut boot = joined(&first, finished.recording);
    boot.header.device = disk.path.display().to_string();
    warmed.boot = warmed.boot.plus(share(finished.foreign, process::machine_cpu_s(root).unwrap_or(0.0)));
    let report = effect::of(&warmed, &boot);
    if let Some(path) = &args.recording {
        effect::leave_out_ours(&mut boot);
        // Only for this: recognising the volume reads from it.
        boot.header.volume = Some(identity(root, &disk, &boot));
        write_atomically(path, &format::encode(&boot))?;
    }
    tracing::info!("{}", report.line());
    let written = args.report.as_deref().map_or(Ok(()), |path| write_report(path, &report));
    let metrics = args.metrics.as_deref();
    let metrics = metrics.map_or(Ok(()), |path| replace_readable(path, report.metrics().as_bytes()));
    first_error([finished.undone, written, metrics, output.print(&report, EffectReport::text)])
}

/// Takes the trace over, as soon as the warming lets go of it.
fn open(root: &Path, args: &EffectArgs, device: u32, signals: &Signals) -> Result<Session> {
    let options = Options { device, own_process: true, lasting: true, ..Options::default() };
    let until = Instant::now() + args.after.unwrap_or(WAIT);
    loop {
        match Session::start(root, &options) {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() >= until || signals.wait(PAUSE).is_some() => return Err(error),
            Err(_) => {}
        }
    }
}

fn check_boot(first: &Recording, boot_id: &str) -> Result<()> {
    if first.header.boot_id == boot_id {
        return Ok(());
    }
    Err(Error::failed("failed to join what was seen of this boot: what the warming left is of another boot")
        .hint("keep the journal below /run, which a reboot forgets"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    #[test]
    fn a_unit_is_named_as_for_record() {
        let parse = |unit: &str| {
            let command = EffectArgs::augment_args(clap::Command::new("effect"));
            let matches = command.try_get_matches_from(["effect", "--until-unit", unit])?;
            EffectArgs::from_arg_matches(&matches).map(|args| args.until_unit.unwrap())
        };
        assert_eq!(parse("ssh").unwrap(), "ssh.service");
        assert_eq!(parse("multi-user.target").unwrap(), "multi-user.target");
        assert!(parse("a/b.service").is_err());
    }
}
