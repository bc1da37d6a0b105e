//! `profile build`: from recordings to a profile.

use super::{StageShown, name_of, shown_stages, stage_table, volume_line, write_profile};
use crate::commands::common::load_recording;
use crate::commands::output::Output;
use crate::error::{Context, Result};
use crate::profile::Profile;
use crate::profile::bind::recorded;
use crate::profile::build::{Options, Order, build};
use clap::ValueEnum;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Build a profile from one or more recordings of the same image
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ebs-prewarm profile build -o web.yaml --name web boot1.rec boot2.rec")]
pub struct Args {
    /// Where to write the profile
    #[arg(short, long, value_name = "PROFILE")]
    output: PathBuf,
    /// The profile's name; the file's name without its extension if not given
    #[arg(long)]
    name: Option<String>,
    /// What is warmed first within a stage
    #[arg(long, value_enum, default_value_t = OrderArg::Stall)]
    order: OrderArg,
    /// The recordings; their order does not matter, one named twice counts once
    #[arg(required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OrderArg {
    /// First use, earlier where it stalled the boot
    Stall,
    /// First use
    History,
    /// Address on the disk
    Address,
}

impl From<OrderArg> for Order {
    fn from(order: OrderArg) -> Order {
        match order {
            OrderArg::Stall => Order::Stall,
            OrderArg::History => Order::History,
            OrderArg::Address => Order::Address,
        }
    }
}

/// What a new profile holds.
#[derive(Debug, Serialize)]
pub struct Built {
    profile: String,
    name: String,
    volume: String,
    recordings: usize,
    events: u64,
    lost: u64,
    stages: Vec<StageShown>,
}

impl Built {
    /// For a profile that was written.
    pub fn new(path: &Path, profile: &Profile) -> Result<Built> {
        Ok(Built {
            profile: path.display().to_string(),
            name: profile.name.clone(),
            volume: volume_line(profile.volume.as_ref()),
            recordings: profile.recordings.len(),
            events: profile.events,
            lost: profile.lost,
            stages: shown_stages(&recorded(profile)?),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let Built { profile, name, volume, recordings, events, lost, stages } = self;
        let from = if *recordings == 1 { "1 recording".into() } else { format!("{recordings} recordings") };
        let table = stage_table(stages);
        format!(
            "wrote {profile}: {name}, from {from}, {events} events, {lost} lost\nvolume: {volume}\n{table}"
        )
    }
}

/// Builds and writes.
pub fn run(args: Args, output: Output) -> Result<()> {
    let name = name_of(args.name, &args.output)?;
    let recordings = args.recordings.iter().map(|path| load_recording(path)).collect::<Result<Vec<_>>>()?;
    let profile = build(&name, &recordings, Options { order: args.order.into() })?;
    if profile.lost > 0 {
        tracing::warn!("the recordings lost {} events: what they read may be missing", profile.lost);
    }
    write_profile(&args.output, &profile)
        .context(|| format!("failed to build profile `{}`", args.output.display()))?;
    output.print(&Built::new(&args.output, &profile)?, Built::text)
}
