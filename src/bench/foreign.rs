//! A foreign command on a part of the volume: run, timed, ended.
//!
//! Holds: nothing of it is left running; what it prints goes nowhere but into the reason why it failed.

use super::bed::Ran;
use crate::error::{Context, Result};
use crate::process::terminate_group;
use std::io::Read;
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A command that takes longer has hung.
const FOR_MAX: Duration = Duration::from_secs(600);
/// How long it may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How often its end is looked for, which is also how exactly it is timed.
const POLL: Duration = Duration::from_millis(1);
/// What is kept of what it says.
const WORDS_MAX: usize = 500;

/// The command line for a device and a range of its bytes.
fn filled_in(line: &str, device: &Path, part: &Range<u64>) -> String {
    line.replace("{device}", &device.display().to_string())
        .replace("{offset}", &part.start.to_string())
        .replace("{size}", &(part.end - part.start).to_string())
}

/// Runs it by the shell, in a process group of its own.
pub fn run(line: &str, device: &Path, part: &Range<u64>, stop: &AtomicBool) -> Result<Ran> {
    let line = filled_in(line, device, part);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &line]).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().context(|| format!("failed to run command `{line}`"))?;
    // Read beside it: a full pipe would hold it up.
    let words = child.stderr.take().map(|from| std::thread::spawn(move || last_words(from)));
    let (status, ended) = wait(&mut child, start, stop).context(|| format!("failed to wait for `{line}`"))?;
    let elapsed_ns = start.elapsed().as_nanos() as u64;
    let words = words.and_then(|words| words.join().ok()).unwrap_or_default();
    let error = match ended {
        Some(why) => Some(format!("`{line}` {why}")),
        None if status.success() => None,
        None => Some(format!("`{line}` failed: {status}{}{words}", if words.is_empty() { "" } else { ": " })),
    };
    Ok(Ran { elapsed_ns, error })
}

/// Its status, and why it was ended where it did not end itself.
fn wait(
    child: &mut Child,
    start: Instant,
    stop: &AtomicBool,
) -> std::io::Result<(ExitStatus, Option<&'static str>)> {
    let mut asked: Option<(Instant, &'static str)> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, asked.map(|(_, why)| why)));
        }
        match asked {
            None if stop.load(Ordering::Relaxed) => asked = Some((Instant::now(), "was stopped")),
            None if start.elapsed() >= FOR_MAX => {
                asked = Some((Instant::now(), "took more than ten minutes"))
            }
            None => {}
            Some((at, _)) => terminate_group(child, at.elapsed() >= GRACE),
        }
        std::thread::sleep(POLL);
    }
}

/// The end of what it says, on one line.
fn last_words(mut from: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        kept.drain(..kept.len().saturating_sub(WORDS_MAX));
    }
    let text = String::from_utf8_lossy(&kept).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    static GO: AtomicBool = AtomicBool::new(false);

    fn ran(line: &str) -> Ran {
        run(line, Path::new("/dev/loop9"), &(4096..12288), &GO).unwrap()
    }

    #[test]
    fn the_part_is_filled_in_and_success_says_nothing() {
        let ran =
            ran("test {device} = /dev/loop9 && test {offset} = 4096 && test {size} = 8192 && echo seen");
        assert_eq!(ran.error, None);
    }

    #[test]
    fn a_failure_is_told_with_the_command_and_its_last_words() {
        let error = ran("echo one >&2; yes x | head -c 100000 >&2; echo last >&2; exit 7").error.unwrap();
        assert!(error.contains("exit status: 7") && error.ends_with("last"), "{error}");
        assert!(error.len() < 2500 && error.contains("`echo one"), "{error}");
        assert!(ran("kill -9 $$").error.unwrap().contains("signal: 9"));
        assert!(ran("no-such-command-anywhere").error.unwrap().contains("127"));
    }

    #[test]
    fn a_stop_ends_it_and_all_that_it_has_started() {
        let stop = AtomicBool::new(true);
        let ran = run("sleep 600 & sleep 600; wait", Path::new("/dev/null"), &(0..1), &stop).unwrap();
        assert!(ran.error.unwrap().ends_with("was stopped"));
    }
}
