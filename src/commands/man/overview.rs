//! What the page of the whole says beyond its verbs: the job, exit codes, files, kernel parameters.
//!
//! Not here: anything that a verb's own definition says.

use crate::error::Kind;
use clap_mangen::roff::{Roff, bold, roman};

/// Paragraphs after the first sentence.
const DESCRIPTION: &[&str] = &[
    "A volume made from a snapshot fetches each block from object storage when it is first read, which takes tens of \
     milliseconds. On a reference boot, record traces which blocks the boot reads; profile build makes a profile of \
     the recording; on each new node, as early as it can run, warm reads these blocks ahead of the boot.",
    "No device is ever opened for writing. Where a profile is missing, damaged or for another volume, the boot goes \
     on, and the report says why.",
];

/// What an exit code stands for, whatever the verb.
fn exit_codes() -> Vec<(u8, &'static str)> {
    let kinds = [
        (Kind::Failed, "failed"),
        (Kind::Usage, "the command line, or a value in it, cannot be used"),
        (Kind::Unreadable, "done, but some blocks could not be read"),
        (Kind::OtherVolume, "the profile is not for this volume; the differences are named"),
        (Kind::Deadline, "a deadline or a timeout passed"),
        (Kind::NoDaemon, "there is no daemon to ask"),
        (Kind::NotWarm, "what was waited for will not become warm: the warming ended before"),
    ];
    let mut codes = vec![(0, "done")];
    codes.extend(kinds.map(|(kind, meaning)| (kind.exit_code(), meaning)));
    codes
}

/// Files that the units and the initramfs use.
pub const FILES: &[(&str, &str)] = &[
    (
        "/etc/ebs-prewarm/boot.bin",
        "The compiled profile that is warmed at each boot, from the initramfs that it was taken into, or by \
         ebs-prewarm.service. Without it nothing is warmed.",
    ),
    (
        "/etc/ebs-prewarm/off",
        "While this file is there ebs-prewarm.service does nothing, and an initramfs that is made holds no warmer. The \
         warmer of an initramfs that was made before is stopped when the root filesystem is there, if it is not done.",
    ),
    (
        "/run/ebs-prewarm/initramfs.json",
        "The report of the warmer in the initramfs. What it logged is in initramfs.log beside it where \
         initramfs-tools made the initramfs, and in the kernel's log where dracut did.",
    ),
    (
        "/run/ebs-prewarm/warm.json",
        "The report of ebs-prewarm.service, which warms where the initramfs did not.",
    ),
    (
        "/run/ebs-prewarm/effect.json",
        "What the warming did for the boot, by ebs-prewarm-effect.service where ebs_prewarm=watch was given; effect.rec \
         beside it is what the boot read, effect.prom are metrics.",
    ),
    (
        "/run/ebs-prewarm/rest.json",
        "The report of ebs-prewarm-rest.service, which an administrator enables: after the profile it warms what the \
         mounted filesystems have allocated, beside what the system does.",
    ),
    (
        "/var/lib/ebs-prewarm/*.warm",
        "That ebs-prewarm-rest.service has warmed the volume of that serial: on later boots it reads nothing.",
    ),
    (
        "/run/ebs-prewarm/control.sock",
        "Where ebs-prewarm daemon listens for status, wait, pause, resume, stop and metrics. Its lock beside it stays.",
    ),
    ("/var/lib/ebs-prewarm/boot.rec", "The recording of a reference boot, by ebs-prewarm-record.service."),
    (
        "/usr/lib/ebs-prewarm/ebs-prewarm-static",
        "The static build with record, warm and plan alone, which goes into an initramfs. It reads compiled profiles.",
    ),
];

/// What the kernel's command line may say.
pub const KERNEL_PARAMETERS: &[(&str, &str)] = &[
    ("ebs_prewarm=off", "Nothing is warmed in this boot."),
    (
        "ebs_prewarm=record",
        "This is a reference boot: nothing is warmed, and ebs-prewarm-record.service records it, unless there is a \
         recording already.",
    ),
    (
        "ebs_prewarm=watch",
        "The warmer in the initramfs listens to the boot's own requests, and ebs-prewarm-effect.service tells what it did \
         for the boot.",
    ),
    (
        "trace_event=block:block_rq_issue,block:block_rq_complete",
        "With ebs_prewarm=record: the kernel traces from its first read on. Without it, recording begins when the \
         recorder starts.",
    ),
    (
        "trace_buf_size=8M",
        "Each processor's ring for that trace: some 60,000 requests. It is given back afterwards.",
    ),
    (
        "trace_clock=mono",
        "The clock of that trace. Without it the kernel may change the clock and empty the ring.",
    ),
];

/// The rest of the description.
pub fn description(roff: &mut Roff) {
    for paragraph in DESCRIPTION {
        roff.control("PP", []);
        roff.text([roman(*paragraph)]);
    }
}

/// The sections after the options.
pub fn sections(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit_codes() {
        entry(roff, &code.to_string(), meaning);
    }
    roff.control("SH", ["FILES"]);
    FILES.iter().for_each(|(file, meaning)| entry(roff, file, meaning));
    roff.control("SH", ["KERNEL PARAMETERS"]);
    KERNEL_PARAMETERS.iter().for_each(|(words, meaning)| entry(roff, words, meaning));
    roff.control("SH", ["ENVIRONMENT"]);
    entry(roff, "NO_COLOR", "Where it is set, help and errors have no colours, also on a terminal.");
    roff.control("SH", ["EXAMPLES"]);
    roff.text([roman("From a reference boot to a warmed one:")]);
    super::controls(roff, super::TYPED);
    for line in [
        "ebs-prewarm profile build -o boot.yaml /var/lib/ebs-prewarm/boot.rec",
        "ebs-prewarm profile check boot.yaml --device auto",
        "ebs-prewarm profile compile -o /etc/ebs-prewarm/boot.bin boot.yaml",
        "ebs-prewarm warm --profile /etc/ebs-prewarm/boot.bin --deadline 60s",
    ] {
        roff.text([roman(line)]);
    }
    super::controls(roff, super::TYPED_END);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        roman("The guide from nothing to a warmed fleet and the formats byte by byte, in the documentation "),
        bold("/usr/share/doc/ebs-prewarm"),
        roman("."),
    ]);
}

fn entry(roff: &mut Roff, what: &str, meaning: &str) {
    roff.control("TP", []);
    // A number alone stays as it is: nothing to set off.
    let head = if what.chars().all(|letter| letter.is_ascii_digit()) { roman(what) } else { bold(what) };
    roff.text([head]);
    roff.text([roman(meaning)]);
}
