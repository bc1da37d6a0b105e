//! `lab`: mounting, watching, resetting and unmounting an emulated cold volume.

mod compare;

use crate::cold::Model;
use crate::commands::output::Output;
use crate::error::{Context, Error, Result};
use crate::lab::{self, Mount, Options};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A model's file is a few lines; more is another file.
const MODEL_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Mount an image as a cold volume: DIR/volume holds its bytes, and its reads take as long as a real one's
    Mount(MountArgs),
    /// Print what was read and fetched, and the units in order of their first touch
    Stats(StatsArgs),
    /// Make the volume cold again and forget what was counted
    Reset(ResetArgs),
    /// Compare a recording with the units that a saved `lab stats --json` says were touched
    Compare(compare::CompareArgs),
    /// Unmount the volume and wait for its process to end
    Umount(UmountArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  truncate -s 1G disk.img && mkdir cold
  ebs-prewarm lab mount disk.img cold --model gp3 --set first_read=50ms
  losetup --find --show --direct-io=on --read-only cold/volume")]
pub struct MountArgs {
    /// Image file or block device that holds the volume's bytes
    image: PathBuf,
    /// Empty directory to mount on
    dir: PathBuf,
    /// How the volume behaves: gp3, io2, slow, fine, scarce, coarse, or a YAML file of parameters
    #[arg(long, default_value = "gp3", value_name = "NAME|FILE")]
    model: PathBuf,
    /// Override one parameter of the model, such as unit=128KiB or hydration=10MB/s
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Seed of all that is drawn: latencies, faults, shares
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Let writes through to the image
    #[arg(long)]
    writable: bool,
    /// Treat the holes of a sparse image as units that the snapshot does not hold
    #[arg(long)]
    holes_unallocated: bool,
    /// Stay in the foreground until unmounted or interrupted
    #[arg(long)]
    foreground: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm --json lab stats cold | jq '.touched[].unit'")]
pub struct StatsArgs {
    /// Directory the volume is mounted on
    dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm lab reset cold && echo 1 > /proc/sys/vm/drop_caches")]
pub struct ResetArgs {
    /// Directory the volume is mounted on
    dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm lab umount cold")]
pub struct UmountArgs {
    /// Directory the volume is mounted on
    dir: PathBuf,
}

#[derive(Serialize)]
struct Mounted {
    volume: PathBuf,
    pid: u32,
    model: String,
    seed: u64,
}

#[derive(Serialize)]
struct Done {
    dir: PathBuf,
    done: &'static str,
}

pub fn run(verb: Lab, output: Output) -> Result<()> {
    let done = |dir: PathBuf, done: &'static str| {
        output.print(&Done { dir, done }, |it| format!("{} {}", it.dir.display(), it.done))
    };
    match verb {
        Lab::Mount(args) => mount(args, output),
        Lab::Stats(args) => output.print(&lab::stats(&args.dir)?, lab::Stats::text),
        Lab::Reset(args) => {
            lab::reset(&args.dir)?;
            done(args.dir, "is cold again")
        }
        Lab::Compare(args) => compare::run(args, output),
        Lab::Umount(args) => {
            lab::umount(&args.dir)?;
            done(args.dir, "is unmounted")
        }
    }
}

fn mount(args: MountArgs, output: Output) -> Result<()> {
    let model = model(&args.model, &args.sets)?;
    let image = args.image.canonicalize().map_err(|error| {
        Error::failed(format!("failed to open image `{}`", args.image.display()))
            .hint("make one with `truncate -s 1G IMAGE` or `mkfs.ext4 IMAGE 1G`")
            .because(error)
    })?;
    let options =
        Options { writable: args.writable, holes_unallocated: args.holes_unallocated, daemon: true };
    // The child of a mount in the background leaves the caller's directory.
    let dir = std::path::absolute(&args.dir)
        .context(|| format!("failed to find directory `{}`", args.dir.display()))?;
    let name = model.name.clone();
    let told = |pid: u32| {
        let mounted = Mounted { volume: dir.join("volume"), pid, model: name, seed: args.seed };
        output.print(&mounted, |it| {
            format!(
                "{} behaves like {} (seed {}, process {})",
                it.volume.display(),
                it.model,
                it.seed,
                it.pid
            )
        })
    };
    if args.foreground {
        lab::hold_signals();
        let mount = Mount::new(&image, &dir, model, args.seed, options)?;
        told(std::process::id())?;
        return lab::serve(mount);
    }
    let pid = lab::in_background(|| Mount::new(&image, &dir, model, args.seed, options))?;
    told(pid)
}

/// A model by name or from a file, with parameters overridden.
fn model(name: &Path, sets: &[String]) -> Result<Model> {
    let known = name.to_str().filter(|name| Model::names().any(|known| known == *name));
    let mut model = match known {
        Some(name) => Model::named(name)?,
        None if name.exists() => {
            let failed = || format!("failed to read model file `{}`", name.display());
            let mut text = String::new();
            let file = File::open(name).context(failed)?;
            let bytes = file.take(MODEL_BYTES_MAX + 1).read_to_string(&mut text).context(failed)?;
            if bytes as u64 > MODEL_BYTES_MAX {
                return Err(Error::usage(failed()).because(format!("it is over {MODEL_BYTES_MAX} bytes")));
            }
            Model::from_yaml(&text).context(failed)?
        }
        None => return Model::named(&name.to_string_lossy()),
    };
    for set in sets {
        let (key, value) = set.split_once('=').ok_or_else(|| {
            Error::usage(format!("failed to parse `--set {set}`")).hint("write it as --set KEY=VALUE")
        })?;
        model.set(key, value).context(|| format!("failed to apply `--set {set}`"))?;
    }
    Ok(model)
}
