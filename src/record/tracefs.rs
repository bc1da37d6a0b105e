//! Where the kernel traces to: a private instance, or what the boot switched on; set, and undone by Drop.
//!
//! Holds: nothing outside is altered; it is undone however the run ends, and a private instance that a killed
//! run left is removed by the next. The root of `/proc` and of the mount is an argument.

use super::boot::is_traced;
use super::wait;
use crate::error::{Context, Error, Result};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the names of our instances begin with; the process' id and start time and a number follow.
const PREFIX: &str = "ebs-prewarm-";

/// The two events that make a touch with its latency.
pub const EVENTS: [&str; 2] = ["block_rq_issue", "block_rq_complete"];

/// What the kernel gives each CPU of its own ring when somebody first traces (`TRACE_BUF_SIZE_DEFAULT`). Less
/// would be lost on the next who traces: the kernel enlarges a ring by itself only once.
const OWN_RING_KIB: u64 = 1408;

/// A reader of the instance's files that is just going away makes rmdir answer EBUSY.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// Where tracefs is mounted: its own mount, or the one that debugfs carries on older systems.
pub fn find(root: &Path) -> Result<PathBuf> {
    let mounts = root.join("proc/self/mountinfo");
    let text = fs::read_to_string(&mounts)
        .context(|| format!("failed to read `{}` to find tracefs", mounts.display()))?;
    mounted(&text)
        .map(|(place, below)| root.join(place.trim_start_matches('/')).join(below))
        .find(|dir| dir.join("instances").is_dir() || denied(&dir.join("instances")))
        .ok_or_else(|| {
            Error::failed(format!("failed to find tracefs: `{}` lists no mount of it", mounts.display()))
                .hint("mount it as root: mount -t tracefs tracefs /sys/kernel/tracing")
        })
}

/// [`find`]; where nobody has mounted it, as in an initramfs, it is mounted in its place.
pub fn find_or_mount(root: &Path) -> Result<PathBuf> {
    find(root).or_else(|error| {
        let place = root.join("sys/kernel/tracing");
        match wait::mount_tracefs(&place) {
            Ok(()) => find(root),
            Err(cause) => {
                tracing::info!("failed to mount tracefs at `{}`: {cause}", place.display());
                Err(error)
            }
        }
    })
}

/// A directory that may not be looked into is there all the same; making an instance will say why not.
fn denied(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Mount points of tracefs, and of debugfs with the directory in which it mounts tracefs when asked.
fn mounted(mountinfo: &str) -> impl Iterator<Item = (String, &'static str)> + '_ {
    let of_type = move |wanted: &'static str, below: &'static str| {
        mountinfo.lines().filter_map(move |line| {
            let (mount, source) = line.split_once(" - ")?;
            let is_wanted = source.split(' ').next() == Some(wanted);
            is_wanted.then(|| Some((unescape(mount.split(' ').nth(4)?), below)))?
        })
    };
    of_type("tracefs", "").chain(of_type("debugfs", "tracing"))
}

/// In mountinfo a space, tab, newline or backslash is written as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let code = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => (out.push(byte), bytes = &rest[3..]),
            _ => (out.push(*first), bytes = rest),
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// When a process started, in ticks since the kernel did; `None` where there is no such process.
fn started(root: &Path, pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(root.join(format!("proc/{pid}/stat"))).ok()?;
    // The name in parentheses may hold anything; the start time is the 20th value behind it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A name for an instance of this process: its id alone could be that of a later one.
fn own_name(root: &Path) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (pid, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    format!("{PREFIX}{pid}-{}-{number}", started(root, pid).unwrap_or(0))
}

/// Whether an instance of ours belongs to a process that is gone.
fn is_leftover(root: &Path, name: &str) -> bool {
    let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('-');
    let pid = parts.next().and_then(|pid| pid.parse::<u32>().ok());
    let start = parts.next().and_then(|start| start.parse::<u64>().ok());
    pid.zip(start).is_some_and(|(pid, start)| started(root, pid) != Some(start))
}

/// Removes the instances of killed runs; returns their names. One that somebody still reads stays (EBUSY).
pub fn remove_leftovers(root: &Path, tracefs: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(tracefs.join("instances")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| is_leftover(root, name))
        .filter(|name| fs::remove_dir(tracefs.join("instances").join(name)).is_ok())
        .collect()
}

/// Where what goes by a name is traced to.
pub fn lasting_dir(tracefs: &Path, name: &str) -> PathBuf {
    tracefs.join("instances").join(format!("{PREFIX}{name}"))
}

/// An instance that one process leaves to the next.
#[derive(Debug)]
pub struct Lasting {
    pub instance: Instance,
    /// Keeps others from taking half of what is in it; released when it is closed.
    pub lock: File,
    /// Whether it is traced to, as an earlier one has left it.
    pub is_on: bool,
}

/// A place that is traced to.
#[derive(Debug)]
pub struct Instance {
    dir: PathBuf,
    /// The kernel's own ring, which cannot be removed.
    is_top: bool,
    undone: bool,
}

impl Instance {
    /// Makes one of our own; tracing is off in it.
    pub fn create(root: &Path, tracefs: &Path) -> Result<Instance> {
        let dir = tracefs.join("instances").join(own_name(root));
        fs::create_dir(&dir).map_err(|cause| refused("make trace instance", &dir, cause))?;
        let instance = Instance { dir, is_top: false, undone: false };
        instance.write("tracing_on", "0")?;
        Ok(instance)
    }

    /// Makes one under a name that outlives the process, or takes over the one that is there.
    pub fn lasting(tracefs: &Path, name: &str) -> Result<Lasting> {
        let dir = lasting_dir(tracefs, name);
        match fs::create_dir(&dir) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refused("make trace instance", &dir, cause));
            }
            _ => {}
        }
        // Before there is an instance that would be undone: it may be another's.
        let lock = wait::lock_dir(&dir).map_err(|cause| {
            Error::failed(format!("failed to lock trace instance `{}`", dir.display()))
                .because(cause)
                .hint("another process listens to this disk; wait for its end")
        })?;
        let instance = Instance { dir, is_top: false, undone: false };
        // One that was killed may have made it and no more.
        let is_on = is_traced(&instance.dir);
        if !is_on {
            instance.write("tracing_on", "0")?;
        }
        Ok(Lasting { instance, lock, is_on })
    }

    /// Leaves it as it is, tracing on: somebody else goes on with it.
    pub fn leave(mut self) {
        self.undone = true;
    }

    /// One that is there; it is taken over, and undone like one of our own.
    pub fn adopt(dir: PathBuf) -> Instance {
        Instance { dir, is_top: false, undone: false }
    }

    /// The kernel's own ring: undoing switches our two events off and gives memory back.
    pub fn adopt_top(tracefs: PathBuf) -> Instance {
        Instance { dir: tracefs, is_top: true, undone: false }
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Sets a value.
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        let path = self.path(name);
        // Opened without O_CREAT or O_TRUNC: some of these files take truncation for an order to clear.
        File::options()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|cause| refused(&format!("write `{value}` to"), &path, cause))
    }

    /// Reads a value or a description.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        read_whole(&path).map_err(|cause| refused("read", &path, cause))
    }

    /// Switches our events on or off, leaving what others trace here as it is.
    pub fn write_events(&self, name: &str, value: &str) -> Result<()> {
        EVENTS.iter().try_for_each(|event| self.write(&format!("events/block/{event}/{name}"), value))
    }

    /// No more of our events come into its rings; what is in them stays.
    pub fn stop(&self) -> Result<()> {
        if self.is_top { self.write_events("enable", "0") } else { self.write("tracing_on", "0") }
    }

    /// Switches tracing off and takes back what was set. All its files must be closed by then.
    pub fn remove(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        self.undone = true;
        let off = self.stop();
        if self.is_top {
            return self.give_back(off);
        }
        let mut tries = REMOVE_TRIES;
        loop {
            match fs::remove_dir(&self.dir) {
                Ok(()) => return Ok(()),
                Err(cause) if cause.kind() == io::ErrorKind::ResourceBusy && tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(REMOVE_PAUSE);
                }
                Err(cause) => {
                    let error = refused("remove trace instance", &self.dir, cause);
                    let state = if off.is_ok() { "tracing is off in it" } else { "it may still be tracing" };
                    return Err(error.hint(format!(
                        "{state}; close what reads it and remove it as root: rmdir {}",
                        self.dir.display()
                    )));
                }
            }
        }
    }

    /// The kernel's own ring, as it would be had the boot not been traced.
    fn give_back(&self, off: Result<()>) -> Result<()> {
        let filters = self.write_events("filter", "0");
        let kib = self.read("buffer_size_kb").map(|text| leading_number(&text));
        let size = match kib {
            Ok(Some(kib)) if kib <= OWN_RING_KIB => Ok(()),
            Ok(_) => self.write("buffer_size_kb", &OWN_RING_KIB.to_string()),
            Err(error) => Err(error),
        };
        off.and(filters).and(size).map_err(|error| {
            error.hint(format!(
                "switch it off as root: echo 0 > {}, and the same for {}",
                self.path("events/block/block_rq_issue/enable").display(),
                EVENTS[1]
            ))
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.undone
            && let Err(error) = self.undo()
        {
            tracing::error!("{}", error.full_text());
        }
    }
}

/// `8195`, or `7 (expanded: 1408)` of a ring that nobody used yet; `X` where the CPUs differ is none.
fn leading_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// A description or a list of counters; the longest has some 3 KiB.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Reads a file of tracefs. Some of them answer the first read alone, so that one must be large enough.
pub fn read_whole(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; TEXT_BYTES_MAX];
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why tracefs said no, and what helps.
fn refused(verb: &str, path: &Path, cause: io::Error) -> Error {
    let denied = matches!(cause.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EROFS));
    let missing = cause.kind() == io::ErrorKind::NotFound;
    let error = Error::failed(format!("failed to {verb} `{}`", path.display())).because(cause);
    if denied {
        error.hint(
            "recording needs root; where root is refused, kernel lockdown (/sys/kernel/security/lockdown) or \
             a container without CAP_SYS_ADMIN forbids tracing",
        )
    } else if missing {
        error.hint("this kernel has no block trace events; it needs CONFIG_BLK_DEV_IO_TRACE or CONFIG_FTRACE")
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(mountinfo: &str, dirs: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), mountinfo).unwrap();
        dirs.iter().for_each(|dir| fs::create_dir_all(root.path().join(dir)).unwrap());
        root
    }

    #[test]
    fn the_mount_is_found_also_below_debugfs_and_with_spaces() {
        for (mountinfo, dir) in [
            ("31 24 0:12 / /sys/kernel/tracing rw - tracefs tracefs rw\n", "sys/kernel/tracing"),
            ("31 24 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n", "sys/kernel/debug/tracing"),
            ("31 24 0:12 / /mnt/a\\040b rw shared:3 - tracefs none rw\n", "mnt/a b"),
        ] {
            let root = tree(mountinfo, &[&format!("{dir}/instances")]);
            assert_eq!(find(root.path()).unwrap(), root.path().join(dir).join(""), "{mountinfo}");
        }
    }

    #[test]
    fn no_mount_says_how_to_mount() {
        for mountinfo in ["", "x\n", "31 24 0:12 / /sys rw - sysfs sysfs rw\n", " - tracefs\n"] {
            let error = find(tree(mountinfo, &[]).path()).unwrap_err().full_text();
            assert!(error.contains("mountinfo") && error.contains("mount -t tracefs"), "{error}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(find(empty.path()).unwrap_err().full_text().contains("proc/self/mountinfo"));
    }

    #[test]
    fn what_was_made_and_not_switched_on_is_nothing_to_go_on_with() {
        for (on, is_on) in [("1", true), ("0", false)] {
            let root = tree("", &[]);
            let dir = lasting_dir(root.path(), "watch-7-0");
            for event in EVENTS {
                fs::create_dir_all(dir.join("events/block").join(event)).unwrap();
                fs::write(dir.join("events/block").join(event).join("enable"), on).unwrap();
            }
            fs::write(dir.join("tracing_on"), "1").unwrap();
            let lasting = Instance::lasting(root.path(), "watch-7-0").unwrap();
            assert_eq!(lasting.is_on, is_on);
            let switched = fs::read_to_string(dir.join("tracing_on")).unwrap();
            assert_eq!(switched, on, "what is set up anew is off meanwhile");
            lasting.instance.leave();
        }
    }

    #[test]
    fn only_instances_of_processes_that_are_gone_are_leftovers() {
        let root = tree("", &["proc/77", "t/instances"]);
        let stat = "77 (a) b) S 1 77 77 0 -1 4 0 0 0 0 1 2 3 4 20 0 1 0 9000 1 2\n";
        fs::write(root.path().join("proc/77/stat"), stat).unwrap();
        assert_eq!(started(root.path(), 77), Some(9000));
        let ours = ["77-9000-0", "77-8999-0", "78-1-2", "x", "77"].map(|rest| format!("ebs-prewarm-{rest}"));
        let names = ours.into_iter().chain(["other".to_string()]);
        names.for_each(|name| fs::create_dir(root.path().join("t/instances").join(name)).unwrap());
        let mut removed = remove_leftovers(root.path(), &root.path().join("t"));
        removed.sort();
        assert_eq!(removed, ["ebs-prewarm-77-8999-0", "ebs-prewarm-78-1-2"]);
        assert_eq!(fs::read_dir(root.path().join("t/instances")).unwrap().count(), 4);
    }
}
