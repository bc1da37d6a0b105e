//! `warm`: a profile's blocks, first things first.

use super::common::{ReportFile, first_error, load_profile, parsed, read_file};
use super::output::Output;
use super::progress::Bar;
#[cfg(feature = "report")]
use super::volumes::{self, InstanceArgs};
use super::watch::Watching;
use crate::device::{Device, disk_path};
use crate::engine::Share;
use crate::error::{Context, Error, Result};
use crate::findings::FOLDER;
use crate::plan::Mode;
use crate::process::{die_first, leave_alone, stay_in_memory, stop_on_signals};
use crate::profile::Profile;
use crate::report::{SCHEMA, WarmReport};
use crate::units::{ByteSize, Rate, parse_duration};
use crate::warm::{self, Control, Hooks, Onlooker, RestOptions, blocks, find, stamp};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Blocks of a volume of 64 TiB take more than this; of 1 TiB a tenth of it.
const BLOCKS_BYTES_MAX: u64 = 2 << 30;
/// A device that is to be found.
pub const AUTO: &str = "auto";

/// Warm a profile's blocks, and the rest of the volume if asked
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  ebs-prewarm warm --profile boot.bin
  ebs-prewarm warm --profile boot.bin --device /dev/nvme1n1 --rest all --iops 1000 --report warm.json
  ebs-prewarm warm --device /dev/nvme1n1 --rest all
  ebs-prewarm warm --profile root.bin --profile data.bin --wait 10s --instance-iops 10000

Several profiles, each for a disk of its own, are warmed at once: the disk of each is found by what it carries, or named \
by a --device for each, in the same order. A volume that is missing or another stops none of the others; the report has \
all of them, and the exit code is that of the one of which the least was warmed: 3, 5, 4, 1, 2, the worst last. The small \
build warms one volume.

Exit codes: 0 done, 1 failed, 2 usage, 3 some blocks could not be read, 4 the profile is for another volume, \
5 the deadline passed.")]
pub struct WarmArgs {
    #[command(flatten)]
    pub what: What,
    /// Reads in flight: a number, or `auto` to find it from the rate of completions
    #[arg(long, default_value = "auto", value_parser = parsed(depth), value_name = "auto|N")]
    pub depth: Depth,
    /// Submit at most so many reads a second
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub iops: u64,
    /// Read at most so many bytes a second
    #[arg(long, value_parser = parsed(str::parse::<Rate>))]
    pub rate: Option<Rate>,
    /// Stop after this long; what was not warmed by then stays cold (exit code 5)
    #[arg(long, value_parser = parsed(parse_duration), value_name = "TIME")]
    pub deadline: Option<Duration>,
    /// Write what was done to a file, also where it was refused: as a page to look at where its name ends in .html, as
    /// Markdown in .md, else as JSON (the small build writes JSON only). Where that is impossible a warning says so
    /// at the start, the volume is warmed all the same, and the exit code is 1
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Keep in this directory what is done, so that a run after a crash, a stop or the change of root goes on there
    #[arg(long, value_name = "DIR")]
    pub journal: Option<PathBuf>,
    /// Write in this directory that the volume is warm, by its serial; where that is written already, read nothing. What
    /// --rest-budget left is not warm
    #[arg(long, value_name = "DIR")]
    pub stamp: Option<PathBuf>,
    /// Listen to the boot's own requests meanwhile: what it has read by itself is left to it. What was seen is left in the
    /// directory of --journal, and tracing on, for `ebs-prewarm effect` to tell what the warming did for the boot
    /// (`asked`: only where the kernel's command line has ebs_prewarm=watch)
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "always",
          requires = "journal", value_name = "WHEN")]
    pub watch: Option<Watch>,
    /// Do not stand back while the disk has others' requests: `later` and the rest at full depth
    #[arg(long)]
    pub regardless: bool,
    /// For an initramfs: wait so long for the disk that the profile is for, or the one that is named, to appear
    #[arg(long, value_parser = parsed(parse_duration), value_name = "TIME")]
    pub wait: Option<Duration>,
    /// For an initramfs: stay in memory, and let systemd leave this process alone when the root changes
    #[arg(long)]
    pub survive_switch_root: bool,
    // Last, each with a heading of its own: what comes after a heading is shown below it.
    #[command(flatten)]
    pub rest: RestArgs,
    #[cfg(feature = "report")]
    #[command(flatten)]
    pub instance: InstanceArgs,
}

/// What is to be read; shared with `plan`.
#[derive(Clone, Debug, Args)]
pub struct What {
    /// The profile, compiled or for people
    #[arg(long, value_name = "FILE", required_unless_present_any = ["rest", "rest_blocks"])]
    pub profile: Vec<PathBuf>,
    /// Block device, image file, or `auto` for the disk that carries /, or with several profiles for the one that each
    /// was recorded on
    #[arg(long, default_value = "auto")]
    pub device: Vec<PathBuf>,
    /// `touch` reads one block per unit, `full` every byte of the profile; `auto` touches, verifies a sample, and
    /// reads every byte where the unit turns out smaller, or where `bench` found that best on this volume
    #[arg(long, value_enum, default_value_t = ModeArg::Auto)]
    pub mode: ModeArg,
    /// What the storage hydrates at once: a size, or `auto` for what `bench` or `probe --save` found on this volume, and
    /// else 512KiB
    #[arg(long, default_value = "auto", value_parser = parsed(unit), value_name = "SIZE|auto")]
    pub unit: Unit,
    /// Folder of what was found, one file a volume
    #[arg(long, value_name = "FOLDER", default_value_os_t = Path::new("/").join(FOLDER), hide_default_value = true)]
    pub findings: PathBuf,
    /// After the profile, with idle priority: what the disk's mounted filesystems have allocated, or all of the volume
    #[arg(long, value_enum)]
    pub rest: Option<Rest>,
    /// The rest is what a snapshot holds: the JSON that `aws ebs list-snapshot-blocks` prints
    #[arg(long, value_name = "FILE", conflicts_with = "rest")]
    pub rest_blocks: Option<PathBuf>,
}

/// How the rest is warmed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The rest")]
pub struct RestArgs {
    /// Submit at most so many reads of the rest a second
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub rest_iops: u64,
    /// Hydrate at most so many bytes a second, such as 20MB/s
    #[arg(long, value_parser = parsed(str::parse::<Rate>), value_name = "RATE")]
    pub rest_rate: Option<Rate>,
    /// Hydrate at most so many bytes
    #[arg(long, value_parser = parsed(str::parse::<ByteSize>), value_name = "SIZE")]
    pub rest_budget: Option<ByteSize>,
    /// Stop this long after the rest has begun (exit code 5)
    #[arg(long, value_parser = parsed(parse_duration), value_name = "TIME")]
    pub rest_deadline: Option<Duration>,
    /// Begin the rest after a share of this time, another for each volume: a fleet does not ask the storage together
    #[arg(long, value_parser = parsed(parse_duration), value_name = "TIME")]
    pub jitter: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    Auto,
    Touch,
    Full,
}

/// When the boot is listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Watch {
    Always,
    Asked,
}

impl Watch {
    /// What a boot is asked by, on the kernel's command line.
    const WORD: &str = "ebs_prewarm=watch";

    fn is_on(self) -> bool {
        let asked = || std::fs::read_to_string("/proc/cmdline").is_ok_and(|line| Watch::is_asked(&line));
        self == Watch::Always || asked()
    }

    fn is_asked(line: &str) -> bool {
        line.split_ascii_whitespace().any(|word| word == Watch::WORD)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rest {
    None,
    Allocated,
    All,
}

/// `None` stands for `auto`.
pub type Depth = Auto<u32>;
pub type Unit = Auto<u64>;

/// A value, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auto<T>(pub Option<T>);

fn depth(text: &str) -> Result<Depth> {
    if text == "auto" {
        return Ok(Auto(None));
    }
    let limit = crate::engine::DEPTH_LIMIT;
    let number = text.parse().ok().filter(|number| (1..=limit).contains(number));
    number.map(|number| Auto(Some(number))).ok_or_else(|| {
        Error::usage(format!("failed to parse depth `{text}`")).hint(format!("give 1 to {limit}, or auto"))
    })
}

fn unit(text: &str) -> Result<Unit> {
    if text == "auto" { Ok(Auto(None)) } else { text.parse::<ByteSize>().map(|size| Auto(Some(size.0))) }
}

impl What {
    /// The profile, of one volume.
    pub fn profile(&self) -> Option<&Path> {
        self.profile.first().map(PathBuf::as_path)
    }

    /// The device, of one volume.
    pub fn device(&self) -> &Path {
        self.device.first().map_or(Path::new(AUTO), PathBuf::as_path)
    }

    /// Whether more than one volume is asked for, rightly or not.
    pub fn has_several(&self) -> bool {
        self.profile.len() > 1 || self.device.len() > 1
    }

    /// Refuses several, for a verb that is about one volume.
    pub fn only_one(&self, verb: &str) -> Result<()> {
        if !self.has_several() {
            return Ok(());
        }
        Err(Error::usage(format!("failed to use {}: `{verb}` is about one volume", self.counts()))
            .hint(format!("run `{verb}` once for each volume")))
    }

    pub fn counts(&self) -> String {
        format!("{} profiles and {} devices", self.profile.len(), self.device.len())
    }

    /// For a device that was found.
    pub fn options(&self, device: PathBuf) -> warm::Options {
        warm::Options {
            device,
            root: "/".into(),
            mode: match self.mode {
                ModeArg::Auto => None,
                ModeArg::Touch => Some(Mode::Touch),
                ModeArg::Full => Some(Mode::Full),
            },
            unit_bytes: self.unit.0,
            depth: None,
            iops: 0,
            rate: 0,
            rest: RestOptions::default(),
            deadline: None,
            journal: None,
            stand_back: true,
        }
    }

    /// Whether something is warmed after the stages.
    #[cfg(feature = "control")]
    pub fn has_rest(&self) -> bool {
        self.rest_blocks.is_some() || !matches!(self.rest, None | Some(Rest::None))
    }

    /// What is warmed after the stages.
    fn rest(&self) -> Result<warm::Rest> {
        if let Some(path) = &self.rest_blocks {
            let bytes = read_file(path, "list of snapshot blocks", BLOCKS_BYTES_MAX)?;
            let extents = blocks::parse(&bytes).context(|| format!("failed to load `{}`", path.display()))?;
            return Ok(warm::Rest::Within(extents));
        }
        Ok(match self.rest {
            None | Some(Rest::None) => warm::Rest::None,
            Some(Rest::Allocated) => warm::Rest::Allocated,
            Some(Rest::All) => warm::Rest::All,
        })
    }

    /// Opens what is to be read, with the profile's extents on it: of one that was loaded, else of the one that is named.
    /// Waits so long for a disk that is to be found; a stop ends the waiting.
    pub fn bind(
        &self,
        loaded: Option<Profile>,
        wait: Duration,
        stop: &AtomicBool,
    ) -> Result<(warm::Options, warm::Bound)> {
        let rest = self.rest()?;
        if self.profile.is_empty() && rest == warm::Rest::None {
            return Err(Error::usage("failed to find anything to read: no profile and no rest")
                .hint("give --profile FILE, or --rest all"));
        }
        let profile = match (loaded, self.profile()) {
            (None, Some(path)) => Some(load_profile(path)?),
            (loaded, _) => loaded,
        };
        let mut options = self.options(self.find(profile.as_ref(), wait, stop)?);
        options.rest.what = rest;
        let mut bound = warm::bind(&options, profile.as_ref())?;
        bound.use_findings(&mut options, &self.findings);
        Ok((options, bound))
    }

    /// The disk to read. Where nothing carries `/` yet, as in an initramfs, `auto` is the disk that the profile was
    /// recorded on.
    fn find(&self, profile: Option<&Profile>, wait: Duration, stop: &AtomicBool) -> Result<PathBuf> {
        let root = Path::new("/");
        let found = disk_path(root, self.device());
        match profile {
            Some(profile) if self.device() == Path::new(AUTO) && profile.volume.is_some() => {
                found.or_else(|_| find::disk_of(root, profile, wait, stop))
            }
            _ => found,
        }
    }
}

/// A warmer that has not got what it asks for warms all the same.
pub fn survive_switch_root() {
    if let Err(error) = leave_alone() {
        tracing::warn!("failed to take a name that systemd leaves alone: {error}");
    }
    if let Err(error) = stay_in_memory() {
        tracing::warn!("failed to lock memory: {error}");
    }
}

impl WarmArgs {
    /// The budget of a volume that is warmed alone, where there is one.
    #[cfg(feature = "report")]
    pub fn share(&self) -> Option<Share> {
        self.instance.share()
    }

    #[cfg(not(feature = "report"))]
    pub fn share(&self) -> Option<Share> {
        None
    }

    fn all_options(&self, options: warm::Options) -> warm::Options {
        let rest = &self.rest;
        warm::Options {
            depth: self.depth.0,
            iops: self.iops,
            rate: self.rate.map_or(0, |rate| rate.0),
            deadline: self.deadline,
            journal: self.journal.clone(),
            stand_back: !self.regardless,
            rest: RestOptions {
                iops: rest.rest_iops,
                hydrated_bytes_per_s: rest.rest_rate.map_or(0, |rate| rate.0),
                budget_bytes: rest.rest_budget.map_or(0, |budget| budget.0),
                deadline: rest.rest_deadline,
                jitter: rest.jitter.unwrap_or_default(),
                ..options.rest
            },
            ..options
        }
    }

    /// Names the work for a stamp: what is warmed, and by which unit.
    pub fn work(&self) -> Result<String> {
        let crc_of = |path: Option<&Path>, what| match path {
            Some(path) => {
                let bytes = read_file(path, what, BLOCKS_BYTES_MAX)?;
                // A compiled profile ends with its own checksum, and the checksum over both is the same for each of them.
                let (content, own) = bytes.split_at(bytes.len().saturating_sub(4));
                let (content, own) = (crc32fast::hash(content), crc32fast::hash(own));
                Ok::<String, Error>(format!("{content:08x}{own:08x}"))
            }
            None => Ok("none".into()),
        };
        let profile = crc_of(self.what.profile(), "profile")?;
        let blocks = crc_of(self.what.rest_blocks.as_deref(), "list of snapshot blocks")?;
        let What { rest, unit, mode, .. } = &self.what;
        Ok(format!("profile {profile}, rest {rest:?} {blocks}, unit {unit:?}, mode {mode:?}"))
    }
}

/// Where a volume is stamped when it is warm, and as what.
struct Stamping {
    dir: PathBuf,
    serial: String,
    work: String,
}

impl Stamping {
    /// Where it is asked for and the volume has a serial. Nothing is read from the volume for it.
    fn of(args: &WarmArgs) -> Result<Option<Stamping>> {
        let Some(dir) = args.stamp.clone() else { return Ok(None) };
        let work = args.work()?;
        let root = Path::new("/");
        let device = disk_path(root, args.what.device()).and_then(|path| Device::open(&path));
        let serial = device.ok().and_then(|device| device.serial(root));
        if serial.is_none() {
            tracing::info!("the volume has no serial that would tell it from a copy: it gets no stamp");
        }
        Ok(serial.map(|serial| Stamping { dir, serial, work }))
    }

    fn is_there(&self) -> bool {
        stamp::is_there(&self.dir, &self.serial, &self.work)
    }

    /// A volume without a stamp is warmed once more: that is told and is no failure.
    fn write(&self) {
        if let Err(error) = stamp::write(Path::new("/"), &self.dir, &self.serial, &self.work) {
            tracing::warn!("{}", error.full_text());
        }
    }
}

/// Warms. Whatever happens, the report is written, and whatever happens to the report, the volume is warmed.
pub fn run(args: WarmArgs, output: Output) -> Result<()> {
    if args.survive_switch_root {
        survive_switch_root();
    }
    die_first();
    let stop = stop_on_signals();
    #[cfg(feature = "report")]
    if args.what.has_several() {
        return volumes::run(&args, stop, output);
    }
    args.what.only_one("warm")?;
    let file = args.report.clone().map(ReportFile::new::<WarmReport>);
    let mut bar = Bar::default();
    let warmed = warmed(&args, None, args.share(), stop, &Control::default(), &mut bar);
    bar.clear();
    let written = |report: &WarmReport| file.map_or(Ok(()), |file| file.write(report));
    match warmed {
        Ok(report) => {
            let written = written(&report);
            first_error([warm::verdict(&report), written, output.print(&report, WarmReport::text)])
        }
        Err(error) => {
            let written = written(&warm::refused(args.what.device(), &error));
            first_error([Err(error), written])
        }
    }
}

/// Warms one volume, by its profile where that is loaded already, with orders taken and looked on at, and within its share
/// of a budget.
pub fn warmed(
    args: &WarmArgs,
    loaded: Option<Profile>,
    budget: Option<Share>,
    stop: &AtomicBool,
    control: &Control,
    onlooker: &mut dyn Onlooker,
) -> Result<WarmReport> {
    let wait = args.wait.unwrap_or_default();
    // Before all else: whether it is stamped is asked of a disk that is there.
    if args.what.device() != Path::new(AUTO) {
        find::wait_for(args.what.device(), wait, stop);
    }
    let stamping = Stamping::of(args)?;
    if stamping.as_ref().is_some_and(Stamping::is_there) {
        return Ok(stamped(args));
    }
    let (options, bound) = args.what.bind(loaded, wait, stop)?;
    onlooker.found(&bound);
    let options = args.all_options(options);
    let dir = args.journal.as_deref().filter(|_| args.watch.is_some_and(Watch::is_on));
    let mut watching = dir.and_then(|dir| Watching::start(&bound.device, dir));
    let (seen, timed) = match &mut watching {
        Some(watching) => (Some(watching.seen.clone()), Some(&mut watching.timed)),
        None => (None, None),
    };
    let hooks = Hooks { stop, control, seen, budget, progress: onlooker, timed };
    let mut report = warm::warm(&bound, &options, hooks)?;
    report.notes.extend(watching.and_then(|watching| watching.finish(&report)));
    if let Some(stamping) = stamping.filter(|_| is_whole(&report, args.what.mode)) {
        stamping.write();
    }
    Ok(report)
}

/// Whether nothing is left to later boots: neither what a budget left, nor units of which touching a block was not enough.
fn is_whole(report: &WarmReport, mode: ModeArg) -> bool {
    let totals = &report.totals;
    let touched_in_vain = mode == ModeArg::Touch && report.unit_is_wrong;
    report.is_complete() && totals.errors == 0 && totals.units_left == 0 && !touched_in_vain
}

/// Nothing was done, since all was done by an earlier boot.
fn stamped(args: &WarmArgs) -> WarmReport {
    WarmReport {
        schema: SCHEMA,
        end: "already warm".into(),
        device: args.what.device().display().to_string(),
        notes: vec!["a stamp says that an earlier run has warmed this volume: nothing was read".into()],
        ..WarmReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Totals;

    #[test]
    fn what_is_left_to_later_boots_is_no_stamp() {
        let of = |end: &str, totals| WarmReport { end: end.into(), totals, ..WarmReport::default() };
        let none = Totals::default;
        assert!(is_whole(&of("complete", none()), ModeArg::Auto));
        assert!(is_whole(&of("already warm", none()), ModeArg::Auto));
        assert!(!is_whole(&of("deadline", none()), ModeArg::Auto));
        assert!(!is_whole(&of("complete", Totals { errors: 1, ..none() }), ModeArg::Auto));
        assert!(!is_whole(&of("complete", Totals { units_left: 1, ..none() }), ModeArg::Auto));
        // Every byte was read after it, or nobody looked further.
        let failed = Totals { verified: 16, verify_failed: 4, ..none() };
        let wrong = WarmReport { unit_is_wrong: true, ..of("complete", none()) };
        assert!(is_whole(&wrong, ModeArg::Auto));
        assert!(!is_whole(&wrong, ModeArg::Touch));
        // Some are slow on a busy machine, and that is no wrong unit.
        assert!(is_whole(&of("complete", failed), ModeArg::Touch));
        // What is wrong in the stages alone is not made good by the rest.
        assert!(!is_whole(&wrong.then(of("complete", none()), 1.0), ModeArg::Touch));
    }
}
