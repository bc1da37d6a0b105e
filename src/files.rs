//! Files that are there whole or not at all.
//!
//! Holds: a file is written under a temporary name in its own directory, synced and renamed; after a failure
//! the temporary file is gone and an older file is as it was. Not here: what is in the files.

use crate::error::{Context, Error, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a file may be called after something that has any name: no path, and not long.
pub fn plain_name(name: &str) -> String {
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '_' };
    name.chars().take(100).map(plain).collect()
}

/// A file not yet under its name; removed unless it gets there.
struct Unfinished {
    path: PathBuf,
    named: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.named
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::error!("failed to remove temporary file `{}`: {error}", self.path.display());
        }
    }
}

/// Where the file really goes: a symbolic link stays one.
fn target(path: &Path) -> PathBuf {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => path.canonicalize().unwrap_or_else(|_| path.into()),
        _ => path.into(),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn hint(error: Error, cause: io::ErrorKind) -> Error {
    match cause {
        io::ErrorKind::NotFound => error.hint("make the directory first"),
        io::ErrorKind::PermissionDenied => error.hint("write to a directory of your own, or run as root"),
        io::ErrorKind::ReadOnlyFilesystem => error.hint("write to another filesystem, such as /run or /tmp"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            error.hint("make room, or write to another filesystem")
        }
        _ => error,
    }
}

fn failed(path: &Path, cause: io::Error) -> Error {
    let kind = cause.kind();
    hint(Error::failed(format!("failed to write file `{}`", path.display())).because(cause), kind)
}

/// Makes the temporary file; `path` is for the error.
fn create(path: &Path, target: &Path) -> Result<(File, Unfinished)> {
    let name = match target.file_name() {
        Some(name) if !target.is_dir() => name,
        _ => {
            return Err(Error::failed(format!(
                "failed to write file `{}`: it is a directory",
                path.display()
            ))
            .hint("name the file, not its directory"));
        }
    };
    if fs::metadata(target).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::failed(format!(
            "failed to write file `{}`: it is no ordinary file",
            path.display()
        ))
        .hint("a file that appears whole cannot be a pipe or a device; name an ordinary file"));
    }
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory(target).join(hidden);
    // One of that name is left of a killed process with our id.
    let file = match File::create_new(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary).and_then(|()| File::create_new(&temporary))
        }
        other => other,
    };
    let file = file.map_err(|cause| failed(path, cause))?;
    Ok((file, Unfinished { path: temporary, named: false }))
}

/// Writes a file that is there whole or not at all, also after a power cut.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = target(path);
    let (mut file, mut unfinished) = create(path, &target)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&unfinished.path, &target)).map_err(|cause| failed(path, cause))?;
    unfinished.named = true;
    let directory = directory(&target);
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.context(|| format!("failed to sync directory `{}`", directory.display()))
}

/// Writes a file that readers find whole, the older one or this, and that all may read. After a power cut it may be
/// empty: nothing waits for the disk.
pub fn replace_readable(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let target = target(path);
    let (mut file, mut unfinished) = create(path, &target)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&unfinished.path, &target));
    written.map_err(|cause| failed(path, cause))?;
    unfinished.named = true;
    Ok(())
}

/// Whether a file could be written there now, with a block to spare: asked before long work. Changes nothing.
pub fn check_writable(path: &Path) -> Result<()> {
    let (mut file, _unfinished) = create(path, &target(path))?;
    // A filesystem without room says so at the first block, not when the file is made.
    file.write_all(&[0; 4096]).and_then(|()| file.flush()).map_err(|cause| failed(path, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_replaces_the_older_one_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rec");
        check_writable(&path).unwrap();
        assert!(names(dir.path()).is_empty(), "a check leaves no trace");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_atomically(&link, b"through").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"through");
        assert_eq!(names(dir.path()), ["a.rec", "link"]);
    }

    #[test]
    fn a_leftover_of_a_killed_process_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(dir.path().join(format!(".a.{}.tmp", std::process::id())), "half").unwrap();
        write_atomically(&path, b"whole").unwrap();
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn what_cannot_be_written_is_named_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        for (path, why) in [
            (dir.path().to_path_buf(), "it is a directory"),
            (dir.path().join("none/a"), "make the directory first"),
            (PathBuf::from("/dev/null"), "no ordinary file"),
            (PathBuf::from("/proc/none"), "failed to write file `/proc/none`"),
            (PathBuf::from("/"), "it is a directory"),
            (PathBuf::new(), "failed to write file"),
        ] {
            for result in [check_writable(&path), write_atomically(&path, b"x")] {
                let error = result.unwrap_err().full_text();
                assert!(error.contains(why), "{error}");
            }
        }
        assert!(names(dir.path()).is_empty());
    }
}
