//! What stands for a boot: many small files read one after the other, and beside that scattered reads of large ones.

use crate::bench::Draw;
use crate::error::{Context, Error, Result};
use crate::process;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const DIRECTORIES: u64 = 24;
const FILES_PER_DIRECTORY: u64 = 40;
const SMALL_BYTES_MAX: u64 = 64 << 10;
const LARGE_FILES: u64 = 6;
const LARGE_BYTES: u64 = 24 << 20;
/// Scattered reads, each waiting for the one before, as page faults of a program do.
const SCATTERED: u64 = 140;

/// Makes the tree that becomes the image.
pub fn make_tree(root: &Path) -> Result<()> {
    let mut draw = Draw(1);
    let mut write = |path: PathBuf, bytes: u64| {
        let mut content = Vec::with_capacity(bytes as usize);
        while (content.len() as u64) < bytes {
            content.extend_from_slice(&draw.below(u64::MAX).to_le_bytes());
        }
        fs::write(&path, &content).context(|| format!("failed to write `{}`", path.display()))
    };
    let mut sizes = Draw(2);
    for directory in 0..DIRECTORIES {
        let dir = root.join(format!("small/{directory:02}"));
        fs::create_dir_all(&dir).context(|| format!("failed to create `{}`", dir.display()))?;
        for file in 0..FILES_PER_DIRECTORY {
            write(dir.join(format!("{file:02}")), 1000 + sizes.below(SMALL_BYTES_MAX))?;
        }
    }
    fs::create_dir_all(root.join("large")).context(|| "failed to create a folder".into())?;
    (0..LARGE_FILES).try_for_each(|file| write(root.join(format!("large/{file}")), LARGE_BYTES))
}

/// Runs a program to its end.
pub fn call(program: &str, arguments: &[&Path]) -> Result<()> {
    let fail = || format!("failed to run `{program}`");
    let status = Command::new(program).args(arguments).status().context(fail)?;
    if status.success() { Ok(()) } else { Err(Error::failed(format!("{}: {status}", fail()))) }
}

/// Mounts, reads, unmounts; writes the seconds from mount to last read to a file.
pub fn run(device: &Path, dir: &Path, result: &Path) -> Result<()> {
    process::stop_on_signals();
    let start = Instant::now();
    // noload: a read-only device has no journal to replay.
    call("mount", &[Path::new("-o"), Path::new("ro,noload"), device, dir])?;
    let read = read_all(dir);
    let seconds = start.elapsed().as_secs_f64();
    call("umount", &[dir])?;
    read?;
    fs::write(result, seconds.to_string()).context(|| format!("failed to write `{}`", result.display()))
}

fn read_all(dir: &Path) -> Result<()> {
    std::thread::scope(|scope| {
        let large = scope.spawn(|| read_large(dir));
        read_small(&dir.join("small"))?;
        large.join().map_err(|_| Error::failed("failed to read the large files"))?
    })
}

/// After a signal nothing more is read, so that the filesystem is unmounted.
fn go_on() -> Result<()> {
    if process::stop_asked() { Err(Error::failed("failed to read on: stopped by a signal")) } else { Ok(()) }
}

fn read_small(dir: &Path) -> Result<()> {
    let fail = || format!("failed to read `{}`", dir.display());
    let mut entries: Vec<_> = fs::read_dir(dir).context(fail)?.collect::<Result<_, _>>().context(fail)?;
    entries.sort_by_key(|entry| entry.file_name());
    let mut content = Vec::new();
    for entry in entries {
        go_on()?;
        if entry.file_type().context(fail)?.is_dir() {
            read_small(&entry.path())?;
        } else {
            content.clear();
            File::open(entry.path()).and_then(|mut file| file.read_to_end(&mut content)).context(fail)?;
        }
    }
    Ok(())
}

fn read_large(dir: &Path) -> Result<()> {
    let mut draw = Draw(3);
    let mut page = [0; 4096];
    for _ in 0..SCATTERED {
        go_on()?;
        let path = dir.join(format!("large/{}", draw.below(LARGE_FILES)));
        let offset = draw.below(LARGE_BYTES / 4096) * 4096;
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut page, offset));
        read.context(|| format!("failed to read `{}`", path.display()))?;
    }
    Ok(())
}
