//! `warm` and `daemon` with several profiles: each for a disk of its own, all at once, under one budget.

use super::common::{ReportFile, first_error, load_profile, parsed};
#[cfg(feature = "control")]
use super::daemon::verdict_of_daemon;
use super::output::Output;
use super::warm::{AUTO, WarmArgs, What, warmed};
#[cfg(feature = "control")]
use crate::control::{self, Options, Several};
use crate::device::{Device, disk_path, disks};
use crate::engine::Share;
use crate::error::{Error, Result};
use crate::process;
use crate::profile::Profile;
use crate::report::{VolumesReport, WarmReport};
use crate::units::Rate;
use crate::warm::several::{Taken, VOLUMES_MAX, recorded_on, same_disk, severity, side_by_side};
use crate::warm::{Control, Onlooker, find, refused, stamp, verdict};
use clap::Args;
use std::cmp::Reverse;
#[cfg(feature = "control")]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
#[cfg(feature = "control")]
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What all volumes together are held to.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "All volumes together")]
pub struct InstanceArgs {
    /// Submit at most so many reads a second, of all volumes together: those of earlier stages first, whichever volume
    /// they are of
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub instance_iops: u64,
    /// Read at most so many bytes a second, of all volumes together
    #[arg(long, value_parser = parsed(str::parse::<Rate>), value_name = "RATE")]
    pub instance_rate: Option<Rate>,
}

impl InstanceArgs {
    /// A share of the budget for each of so many volumes; none where there is no limit.
    fn shares(&self, volumes: usize) -> Vec<Option<Share>> {
        let rate = self.instance_rate.map_or(0, |rate| rate.0);
        match (self.instance_iops, rate) {
            (0, 0) => (0..volumes).map(|_| None).collect(),
            (iops, rate) => Share::of_each(iops, rate, volumes).into_iter().map(Some).collect(),
        }
    }

    /// That of a volume which is alone.
    pub fn share(&self) -> Option<Share> {
        self.shares(1).pop().flatten()
    }
}

impl What {
    /// The device of each profile, as named; `auto` where it is to be found.
    fn devices(&self) -> Result<Vec<PathBuf>> {
        let (profiles, devices) = (self.profile.len(), self.device.as_slice());
        let refuse = |why: &str, hint: &str| {
            Err(Error::usage(format!("failed to pair {}: {why}", self.counts())).hint(hint))
        };
        if profiles > VOLUMES_MAX {
            return refuse(
                &format!("at most {VOLUMES_MAX} are warmed at once"),
                "run it again for the others",
            );
        }
        if self.rest_blocks.is_some() {
            let hint = "give --rest allocated, or warm that volume in a run of its own";
            return refuse("blocks of a snapshot are those of one volume", hint);
        }
        if profiles == 0 {
            let hint = "give a --profile for each, or run it once for each device";
            return refuse("only profiles tell volumes apart", hint);
        }
        match devices {
            [one] if one == Path::new(AUTO) => Ok(vec![one.clone(); profiles]),
            each if each.len() == profiles => Ok(each.to_vec()),
            _ => {
                let hint =
                    "repeat --device for each profile in the same order, or leave it out to have each found";
                refuse("it is not clear which is for which", hint)
            }
        }
    }
}

/// One of several.
struct Volume {
    args: WarmArgs,
    path: PathBuf,
    profile: Result<Profile>,
}

/// What a volume was asked for by.
struct Asked {
    device: PathBuf,
    profile: PathBuf,
}

impl Volume {
    fn asked(&self) -> Asked {
        Asked { device: self.args.what.device().into(), profile: self.path.clone() }
    }

    fn is_named(&self) -> bool {
        self.args.what.device() != Path::new(AUTO)
    }

    fn recorded_on(&self) -> Option<&str> {
        self.profile.as_ref().ok().and_then(recorded_on)
    }

    /// Finds its disk, and warms it, on a thread of its own.
    fn warm(
        mut self,
        share: Option<Share>,
        taken: &Taken,
        stop: &AtomicBool,
        control: &Control,
        onlooker: &mut dyn Onlooker,
    ) -> Result<WarmReport> {
        let named = self.is_named();
        let profile = self.profile?;
        if !named {
            let disk = match stamped(&self.args)? {
                Some(disk) => disk,
                None => found(&self.args, &self.path, &profile, stop)?,
            };
            taken.take(&disk, &self.path)?;
            self.args.what.device = vec![disk];
        }
        let mut report = warmed(&self.args, Some(profile), share, stop, control, onlooker)?;
        report.totals.cpu_s = process::thread_cpu_s();
        Ok(report)
    }
}

/// The disk that a stamp says was warmed by this already: it is told without reading anything of any disk.
fn stamped(args: &WarmArgs) -> Result<Option<PathBuf>> {
    let (Some(dir), root) = (&args.stamp, Path::new("/")) else { return Ok(None) };
    let work = args.work()?;
    let serial_of = |disk: &PathBuf| Device::open(disk).ok()?.serial(root);
    let is_stamped =
        |disk: &PathBuf| serial_of(disk).is_some_and(|serial| stamp::is_there(dir, &serial, &work));
    Ok(disks(root).into_iter().find(is_stamped))
}

/// The disk that a profile was recorded on.
fn found(args: &WarmArgs, path: &Path, profile: &Profile, stop: &AtomicBool) -> Result<PathBuf> {
    if recorded_on(profile).is_none() {
        let path = path.display();
        return Err(Error::usage(format!("failed to find the disk of profile `{path}`: it names none"))
            .hint("name the disks with a --device for each profile, in the same order"));
    }
    find::disk_of(Path::new("/"), profile, args.wait.unwrap_or_default(), stop)
}

/// A volume for each profile. What is wrong with one of these files concerns its volume alone.
fn volumes(args: &WarmArgs, devices: &[PathBuf]) -> Vec<Volume> {
    let pairs = args.what.profile.iter().zip(devices);
    let volumes = pairs.map(|(path, device)| {
        let mut args = args.clone();
        (args.what.profile, args.what.device) = (vec![path.clone()], vec![device.clone()]);
        Volume { args, path: path.clone(), profile: load_profile(path) }
    });
    volumes.collect()
}

/// Refuses what cannot be meant, before anything is read of a disk. Gives the disks that are named.
fn check(volumes: &[Volume]) -> Result<Taken> {
    let taken = Taken::default();
    for (at, volume) in volumes.iter().enumerate() {
        let device = volume.args.what.device();
        if volume.is_named() {
            taken.take(&disk_path(Path::new("/"), device).unwrap_or_else(|_| device.into()), &volume.path)?;
            continue;
        }
        let by = volume.recorded_on();
        let other = volumes[..at].iter().find(|other| !other.is_named() && other.recorded_on() == by);
        if let Some(other) = other.filter(|_| by.is_some()) {
            return Err(same_disk(&other.path, &volume.path, "were recorded on one disk"));
        }
    }
    Ok(taken)
}

/// What is told of all of them in the end.
struct Telling {
    started: Instant,
    file: Option<ReportFile>,
    asked: Vec<Asked>,
}

/// The volumes that are asked for, and what is to be told of them.
fn prepared(args: &WarmArgs) -> Result<(Vec<Volume>, Telling)> {
    let started = Instant::now();
    let devices = args.what.devices()?;
    let file = args.report.clone().map(ReportFile::new::<VolumesReport>);
    let volumes = volumes(args, &devices);
    // For the report of one that comes to nothing.
    let asked = volumes.iter().map(Volume::asked).collect();
    Ok((volumes, Telling { started, file, asked }))
}

impl Telling {
    /// Writes the report, and prints it where that is wanted. Gives the worst of what went wrong.
    fn end(
        self,
        ended: Result<Vec<Result<WarmReport>>>,
        judge: impl Fn(&WarmReport) -> Result<()>,
        print: impl FnOnce(&VolumesReport) -> Result<()>,
    ) -> Result<()> {
        let asked = &self.asked;
        let (reports, errors) = match ended {
            Ok(ended) => told(ended, asked, judge),
            Err(error) => (asked.iter().map(|asked| nothing(asked, &error)).collect(), vec![error]),
        };
        let report = VolumesReport::of(reports, self.started.elapsed().as_secs_f64(), process::cpu_s());
        let written = self.file.map_or(Ok(()), |file| file.write(&report));
        let printed = print(&report);
        first_error(errors.into_iter().map(Err).chain([written, printed]))
    }

    /// That nothing was begun, and why.
    #[cfg(feature = "control")]
    fn refused(self, error: Error) -> Result<()> {
        self.end(Err(error), verdict, |_| Ok(()))
    }
}

/// Warms all of them. Whatever happens to one, the others are warmed, and all are in the report.
pub fn run(args: &WarmArgs, stop: &AtomicBool, output: Output) -> Result<()> {
    let (volumes, telling) = prepared(args)?;
    let ended = all(volumes, &args.instance, stop);
    telling.end(ended, verdict, |report| output.print(report, VolumesReport::text))
}

/// What came of each. An error means that nothing was read of any.
fn all(volumes: Vec<Volume>, instance: &InstanceArgs, stop: &AtomicBool) -> Result<Vec<Result<WarmReport>>> {
    let (taken, control) = (&check(&volumes)?, &Control::default());
    let shares = instance.shares(volumes.len());
    let work = volumes
        .into_iter()
        .zip(shares)
        .map(|(volume, share)| move || volume.warm(share, taken, stop, control, &mut ()));
    Ok(side_by_side(work.collect()))
}

/// Warms all of them and answers. What is refused before anything is read is an error at once.
#[cfg(feature = "control")]
pub fn daemon(args: &WarmArgs, options: &Options, output: Output) -> Result<()> {
    let (volumes, telling) = prepared(args)?;
    let taken = match check(&volumes) {
        Ok(taken) => Arc::new(taken),
        Err(error) => return telling.refused(error),
    };
    let (names, shares) = (names(&telling.asked), args.instance.shares(volumes.len()));
    let each = volumes.into_iter().zip(names).zip(shares);
    let each = each.map(|((volume, name), share)| watched(volume, name, share, taken.clone()));
    let finished = match control::run(options, each.collect()) {
        Ok(finished) => finished,
        // The report may be that of the daemon which is there.
        Err(error) if control::is_there(&options.socket) => return Err(error),
        Err(error) => return telling.refused(error),
    };
    // The socket goes when all is written.
    telling.end(Ok(finished.volumes), verdict_of_daemon, |report| {
        tracing::info!("{}", report.last_line());
        if output.json { output.print(report, VolumesReport::text) } else { Ok(()) }
    })
}

/// One of several, for a daemon.
#[cfg(feature = "control")]
fn watched(volume: Volume, name: String, share: Option<Share>, taken: Arc<Taken>) -> control::Volume {
    let names = |profile: &Profile| profile.stages.iter().map(|stage| stage.name.clone()).collect();
    let stages = volume.profile.as_ref().ok().map(names);
    control::Volume {
        device: volume.args.what.device().display().to_string(),
        among_several: Some(Several { name, stages }),
        rest_expected: volume.args.what.has_rest(),
        work: Box::new(move |stop, control, watch| volume.warm(share, &taken, stop, control, watch)),
    }
}

/// A name for each volume: that of its profile's file, with as much besides as it takes to tell it from the others.
#[cfg(feature = "control")]
fn names(asked: &[Asked]) -> Vec<String> {
    let stem = |asked: &Asked| asked.profile.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let path = |asked: &Asked| asked.profile.display().to_string();
    let pair = |asked: &Asked| format!("{} on {}", asked.profile.display(), asked.device.display());
    let ways: [&dyn Fn(&Asked) -> String; 3] = [&stem, &path, &pair];
    let tell_apart = |names: &Vec<String>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    let found = ways.iter().map(|way| asked.iter().map(way).collect()).find(tell_apart);
    found.unwrap_or_else(|| (1..=asked.len()).map(|number| number.to_string()).collect())
}

/// The report of each, and what went wrong, the worst first.
fn told(
    ended: Vec<Result<WarmReport>>,
    asked: &[Asked],
    judge: impl Fn(&WarmReport) -> Result<()>,
) -> (Vec<WarmReport>, Vec<Error>) {
    let mut errors = Vec::new();
    let reports = ended.into_iter().zip(asked).map(|(ended, asked)| match ended {
        Ok(mut report) => {
            errors.extend(judge(&report).err());
            // One that a stamp calls warm was not looked into.
            if report.profile.is_empty() {
                report.profile = asked.profile.display().to_string();
            }
            report
        }
        Err(error) => {
            let report = nothing(asked, &error);
            errors.push(error);
            report
        }
    });
    let reports = reports.collect();
    let worst = errors.iter().enumerate().min_by_key(|(_, error)| Reverse(severity(error.kind())));
    if let Some((at, _)) = worst {
        errors[..=at].rotate_right(1);
    }
    (reports, errors)
}

/// The report of a volume of which nothing was read.
fn nothing(asked: &Asked, error: &Error) -> WarmReport {
    WarmReport { profile: asked.profile.display().to_string(), ..refused(&asked.device, error) }
}

#[cfg(all(test, feature = "control"))]
mod tests {
    use super::*;

    #[test]
    fn each_volume_has_a_name_that_no_other_has() {
        let of = |pairs: &[(&str, &str)]| {
            let asked =
                |(profile, device): &(&str, &str)| Asked { profile: profile.into(), device: device.into() };
            names(&pairs.iter().map(asked).collect::<Vec<_>>())
        };
        assert_eq!(of(&[("/etc/root.bin", "auto"), ("data.yaml", "auto")]), ["root", "data"]);
        assert_eq!(of(&[("a/boot.bin", "auto"), ("b/boot.bin", "auto")]), ["a/boot.bin", "b/boot.bin"]);
        assert_eq!(of(&[("a.bin", "/dev/x"), ("a.bin", "/dev/y")]), ["a.bin on /dev/x", "a.bin on /dev/y"]);
        assert_eq!(of(&[("a.bin", "auto"), ("a.bin", "auto")]), ["1", "2"]);
    }
}
