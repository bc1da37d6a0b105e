//! One client's connection, on tokio-uring; on plain tokio where io_uring is refused.
//!
//! Holds: a read or a write is never dropped half-way, since the ring would keep it: whoever has to end it shuts the
//! connection, and it ends.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// A connection.
pub enum Stream {
    /// By the ring.
    Ring(tokio_uring::net::UnixStream),
    /// By readiness; the second is the same connection, to shut it.
    Plain(tokio::net::UnixStream, UnixStream),
}

impl Stream {
    /// Of one that was accepted.
    pub fn new(accepted: tokio::net::UnixStream, ring: bool) -> io::Result<Stream> {
        let stream = accepted.into_std()?;
        if ring {
            // A ring answers EAGAIN for what does not block.
            stream.set_nonblocking(false)?;
            return Ok(Stream::Ring(tokio_uring::net::UnixStream::from_std(stream)));
        }
        let other = stream.try_clone()?;
        Ok(Stream::Plain(tokio::net::UnixStream::from_std(stream)?, other))
    }

    /// Reads behind what the buffer holds, and no more than it has room for; 0 at the end.
    pub async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        use tokio_uring::buf::BoundedBuf;
        match self {
            Stream::Ring(stream) => {
                let filled = buffer.len();
                let (result, slice) = stream.read(buffer.slice(filled..)).await;
                (result, slice.into_inner())
            }
            Stream::Plain(stream, _) => loop {
                let filled = buffer.len();
                let room = buffer.capacity() - filled;
                if let Err(error) = stream.readable().await {
                    return (Err(error), buffer);
                }
                buffer.resize(filled + room, 0);
                let result = stream.try_read(&mut buffer[filled..]);
                buffer.truncate(filled + result.as_ref().map_or(0, |bytes| *bytes));
                match result {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    result => return (result, buffer),
                }
            },
        }
    }

    /// Writes all of it.
    pub async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Stream::Ring(stream) => stream.write_all(bytes).await.0,
            Stream::Plain(stream, _) => {
                let mut left = bytes.as_slice();
                while !left.is_empty() {
                    stream.writable().await?;
                    match stream.try_write(left) {
                        Ok(bytes) => left = &left[bytes..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
        }
    }

    /// Whatever waits for the client ends.
    pub fn shut(&self) {
        // It may be shut already.
        let _ = match self {
            Stream::Ring(stream) => stream.shutdown(Shutdown::Both),
            Stream::Plain(_, stream) => stream.shutdown(Shutdown::Both),
        };
    }
}
