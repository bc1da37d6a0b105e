//! The socket: its owner's alone, one daemon's at a time, and replaced where a killed one has left it.
//!
//! Holds: between its making and its place there is no moment in which others could connect; who has the lock has the
//! socket.

use crate::error::{Error, Result};
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Where a daemon is found if no other place is named.
pub const SOCKET: &str = "/run/ebs-prewarm/control.sock";

/// A socket that listens; taken away when dropped.
#[derive(Debug)]
pub struct Socket {
    /// For clients.
    pub listener: UnixListener,
    path: PathBuf,
    /// Held for as long as this daemon lives: the kernel gives it back also where it is killed.
    _lock: File,
}

impl Socket {
    /// Makes it, in a directory that is made where it is missing.
    pub fn new(path: &Path) -> Result<Socket> {
        let shown = path.display();
        let fail = |cause: io::Error| {
            let kind = cause.kind();
            let error = Error::failed(format!("failed to make socket `{shown}`")).because(cause);
            match kind {
                io::ErrorKind::PermissionDenied => {
                    error.hint("run it as root, or name another with --socket")
                }
                io::ErrorKind::InvalidInput => error.hint("name a shorter path with --socket"),
                io::ErrorKind::AlreadyExists => {
                    error.hint("what is there is no socket: take it away, or name another with --socket")
                }
                _ => error.hint("name one in a directory that can be written, with --socket"),
            }
        };
        let dir = match path.parent() {
            Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
            Some(dir) => dir,
            None => return Err(fail(io::ErrorKind::InvalidInput.into())),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
        let lock = lock(path).map_err(|error| match error {
            TryLockError::WouldBlock => {
                Error::failed(format!("failed to make socket `{shown}`: another daemon has it"))
                    .hint("ask it with `ebs-prewarm status`, or name another socket with --socket")
            }
            TryLockError::Error(cause) => fail(cause),
        })?;
        let listener = listen(dir, path).map_err(fail)?;
        Ok(Socket { listener, path: path.into(), _lock: lock })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("failed to remove socket `{}`: {error}", self.path.display());
        }
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The lock stays when the socket goes: were it taken away, two could each hold one of its name.
fn lock(path: &Path) -> Result<File, TryLockError> {
    let file = File::options().create(true).truncate(false).write(true).open(beside(path, ".lock"));
    let file = file.map_err(TryLockError::Error)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}

/// Whether a daemon listens there, or is about to.
pub fn is_there(path: &Path) -> bool {
    matches!(lock(path), Err(TryLockError::WouldBlock))
}

/// Made where nobody else can look, and moved to its place when its mode is set.
fn listen(dir: &Path, path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let hidden = dir.join(format!(".{}", std::process::id()));
    let _ = fs::remove_dir_all(&hidden);
    DirBuilder::new().mode(0o700).create(&hidden)?;
    let made = hidden.join("s");
    let listener = UnixListener::bind(&made).and_then(|listener| {
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        fs::rename(&made, path)?;
        Ok(listener)
    });
    let _ = fs::remove_dir_all(&hidden);
    listener
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_is_its_owners_and_one_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let socket = Socket::new(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(UnixStream::connect(&path).is_ok());
        let second = Socket::new(&path).unwrap_err().full_text();
        assert!(second.contains("another daemon has it") && second.contains("help: "), "{second}");
        assert!(UnixStream::connect(&path).is_ok(), "the first is as it was");
        drop(socket);
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["control.sock.lock"]);
    }

    #[test]
    fn what_a_killed_daemon_has_left_is_replaced_and_what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err(), "nobody listens there");
        let socket = Socket::new(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        fs::write(&path, "precious").unwrap();
        let error = Socket::new(&path).unwrap_err().full_text();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let long = dir.path().join("x".repeat(120)).join("s");
        assert!(Socket::new(&long).unwrap_err().full_text().contains("shorter"));
    }
}
