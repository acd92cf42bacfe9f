//! Pipes and sockets.

use crate::{
    port::{Message, Port, raise},
    throughput::{Sink, Source, stamp},
};
use anyhow::Result;
use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

/// A byte stream each way.
#[derive(Debug)]
pub struct Streams<R, W> {
    /// Receives here.
    pub input: R,
    /// Sends there.
    pub output: W,
}

impl<R: Read, W: Write> Port for Streams<R, W> {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        Ok(self.output.write_all(message)?)
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        Ok(self.input.read_exact(into)?)
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        self.receive(message)?;
        raise(message);
        self.send(message)
    }
}

/// Sends frames over a byte stream.
#[derive(Debug)]
pub struct StreamSource<W>(pub W);

impl<W: Write> Source for StreamSource<W> {
    #[inline]
    fn put(&mut self, data: &mut [u8], number: u64) -> Result<()> {
        stamp(data, number);
        Ok(self.0.write_all(data)?)
    }
}

/// Takes frames of one size off a byte stream.
#[derive(Debug)]
pub struct StreamSink<R> {
    input: R,
    frame: Vec<u8>,
}

impl<R: Read> StreamSink<R> {
    /// Frames of `size` bytes.
    pub fn new(input: R, size: usize) -> Self {
        Self {
            input,
            frame: vec![0; size],
        }
    }
}

impl<R: Read> Sink for StreamSink<R> {
    #[inline]
    fn take(&mut self, look: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        self.input.read_exact(&mut self.frame)?;
        look(&self.frame)
    }
}

/// This process's standard input, unbuffered: the measuring process puts one
/// end of a pipe or socket there.
fn inherited() -> Result<OwnedFd> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?)
}

/// The receiving end of the pipe at standard input.
///
/// # Errors
///
/// There is none.
pub fn inherited_pipe() -> Result<File> {
    Ok(File::from(inherited()?))
}

/// The socket at standard input.
///
/// # Errors
///
/// There is none.
pub fn inherited_socket() -> Result<UnixStream> {
    Ok(UnixStream::from(inherited()?))
}

/// Where a peer can open one of this process's pipes.
pub fn path_of(pipe: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), pipe.as_raw_fd())
}
