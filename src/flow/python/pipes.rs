//! Sockets and pipes of one run, and a poll over some of them.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) struct RunPipes {
    /// Job and cancel out, events in.
    pub run: UnixStream,
    /// Orders out, the exit in.
    pub shim: UnixStream,
    pub out: PipeReader,
    pub err: PipeReader,
}

/// The ends of the processes; closed here as soon as the template has them.
pub(super) struct FarEnds {
    shim: UnixStream,
    run: UnixStream,
    out: PipeWriter,
    err: PipeWriter,
}

impl FarEnds {
    /// In the order in which the host expects them.
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 4] {
        [self.shim.as_fd(), self.run.as_fd(), self.out.as_fd(), self.err.as_fd()]
    }
}

/// Makes the pipes of a run. Our ends never block.
pub(super) fn open() -> io::Result<(RunPipes, FarEnds)> {
    let (run, far_run) = UnixStream::pair()?;
    let (shim, far_shim) = UnixStream::pair()?;
    let (out, far_out) = io::pipe()?;
    let (err, far_err) = io::pipe()?;
    for fd in [run.as_fd(), shim.as_fd(), out.as_fd(), err.as_fd()] {
        set_nonblocking(fd)?;
    }
    let pipes = RunPipes { run, shim, out, err };
    Ok((pipes, FarEnds { shim: far_shim, run: far_run, out: far_out, err: far_err }))
}

/// Reads and writes of `fd` return `WouldBlock` from now on.
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// Hands on what is in a pipe that never blocks, `most` bytes or a little more, so that of an endless
/// stream others have their turn. `false` when nothing will ever come again.
pub(super) fn read_available(pipe: &mut impl Read, most: usize, mut take: impl FnMut(&[u8])) -> bool {
    let mut buffer = [0; 16 * 1024];
    let mut left = most;
    while left > 0 {
        match pipe.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => {
                left = left.saturating_sub(length);
                take(&buffer[..length]);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return e.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

/// A pair whose reader is polled and whose writer wakes it, from any thread, without ever blocking.
pub(super) fn waker() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    set_nonblocking(reader.as_fd())?;
    set_nonblocking(writer.as_fd())?;
    Ok((reader, writer))
}

/// A socket pair that keeps messages apart, for descriptors to travel with them.
pub(super) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

pub(super) struct Waited<'a> {
    pub fd: BorrowedFd<'a>,
    pub to_write: bool,
}

/// Waits until one of `waited` has something or `due` has come; which ones have, in order.
pub(super) fn wait(waited: &[Option<Waited<'_>>], due: Option<Instant>) -> io::Result<Vec<bool>> {
    let mut fds: Vec<PollFd<'_>> = waited
        .iter()
        .flatten()
        .map(|one| {
            let write = if one.to_write { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::from_borrowed_fd(one.fd, PollFlags::IN | write)
        })
        .collect();
    let timeout = due.map(|due| timespec(due.saturating_duration_since(Instant::now())));
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(waited.iter().map(|one| one.is_some() && ready.next().unwrap_or(false)).collect())
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that the deadline has come when the wait is over.
    let duration = duration + Duration::from_micros(100);
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
