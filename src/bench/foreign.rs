//! A foreign command on a part of the volume: run, timed, ended.
//!
//! Holds: it is timed until all of its process group has ended, and nothing of that is left running but what the kernel
//! itself cannot end; nothing of it can hold up the bench for ever; what it prints goes nowhere but into the reason why
//! it failed.

use super::bed::Ran;
use crate::error::{Context, Result};
use crate::process::{adopt_orphans, has_group_ended, terminate_group};
use std::io::Read;
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// A command that takes longer has hung.
const FOR_MAX: Duration = Duration::from_secs(600);
/// How long it may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(2);
/// And how long in all: a process whose read stalls in the kernel does not end before that read.
const LOST: Duration = Duration::from_secs(12);
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
    adopt_orphans();
    let start = Instant::now();
    let mut child = command.spawn().context(|| format!("failed to run command `{line}`"))?;
    let words = child.stderr.take().map(listen);
    let ended = wait(&mut child, start, stop).context(|| format!("failed to wait for `{line}`"))?;
    let elapsed_ns = start.elapsed().as_nanos() as u64;
    // Who has left the group may hold the pipe open, and is not waited for.
    let words = words.map_or(Some(String::new()), |words| words.recv_timeout(GRACE).ok());
    let error = match (ended, words) {
        (Err(why), _) => Some(format!("`{line}` {why}")),
        (Ok(_), None) => Some(format!("`{line}` left something running outside of its process group")),
        (Ok(status), Some(_)) if status.success() => None,
        (Ok(status), Some(words)) => {
            Some(format!("`{line}` failed: {status}{}{words}", if words.is_empty() { "" } else { ": " }))
        }
    };
    Ok(Ran { elapsed_ns, error })
}

/// Waits for all of its group. Its status, or why it was ended where it did not end itself.
fn wait(child: &mut Child, start: Instant, stop: &AtomicBool) -> std::io::Result<Result<ExitStatus, String>> {
    let (group, mut status) = (child.id(), None);
    let mut asked: Option<(Instant, &'static str)> = None;
    loop {
        if status.is_none() {
            status = child.try_wait()?;
        }
        // The shell may end first; what it has started reads on.
        if let Some(status) = status
            && has_group_ended(group)
        {
            return Ok(asked.map_or(Ok(status), |(_, why)| Err(why.into())));
        }
        match asked {
            None if stop.load(Ordering::Relaxed) => asked = Some((Instant::now(), "was stopped")),
            None if start.elapsed() >= FOR_MAX => {
                asked = Some((Instant::now(), "took more than ten minutes"))
            }
            None => {}
            Some((at, why)) if at.elapsed() >= LOST => return Ok(Err(format!("{why}, and does not end"))),
            Some((at, _)) => terminate_group(group, at.elapsed() >= GRACE),
        }
        std::thread::sleep(POLL);
    }
}

/// Reads what it says beside it, since a full pipe would hold it up; the last of that comes when nobody can say more.
fn listen(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(last_words(from)));
    receiver
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

    #[test]
    fn what_it_leaves_behind_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("read").display().to_string();
        // A forgotten `wait`.
        let ran = ran(&format!("(sleep 0.3; touch {marker}) 2>/dev/null &"));
        assert_eq!((ran.error, Path::new(&marker).exists()), (None, true));
    }

    #[test]
    fn a_stop_ends_also_what_is_deaf_to_it_and_outlives_the_shell() {
        let dir = tempfile::tempdir().unwrap();
        let (script, file) = (dir.path().join("deaf"), dir.path().join("id"));
        let lines = "trap '' TERM\necho $$ > $1.new\nmv $1.new $1\nsleep 600\n";
        std::fs::write(&script, lines).unwrap();
        let line = format!("sh {} {} & wait", script.display(), file.display());
        let stop = AtomicBool::new(false);
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !file.exists() {
                    std::thread::sleep(POLL);
                }
                stop.store(true, Ordering::Relaxed);
            });
            run(&line, Path::new("/dev/null"), &(0..1), &stop)
        });
        assert!(ran.unwrap().error.unwrap().ends_with("was stopped"));
        let id = std::fs::read_to_string(&file).unwrap();
        assert!(!Path::new("/proc").join(id.trim()).exists(), "{id} is left");
    }

    #[test]
    fn whoever_leaves_its_group_with_the_pipe_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display().to_string();
        // It goes when the place of this test does.
        let ran = ran(&format!("setsid sh -c 'while test -e {place}; do sleep 0.05; done' &"));
        assert!(ran.error.unwrap().ends_with("outside of its process group"));
    }
}
