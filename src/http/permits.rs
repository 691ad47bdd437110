//! A counting semaphore: so many requests are handled at once, further ones wait for a bounded time.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::thread::StopSignal;

pub(super) struct Permits {
    /// Handlers that end write, requests that wait read; it holds one token per free permit.
    free: (Sender<()>, Receiver<()>),
    /// Ends all waits when the server stops hard.
    stop: StopSignal,
}

/// The right to call a handler, given back when dropped.
pub(super) struct Permit<'p>(&'p Sender<()>);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPermit {
    Busy,
    Stopped,
}

impl Permits {
    /// `count` permits; `stop` ends all waits for one.
    pub fn new(count: usize, stop: StopSignal) -> Permits {
        let (give, take) = bounded(count);
        // There is room for all of them.
        for _ in 0..count {
            let _ = give.try_send(());
        }
        Permits { free: (give, take), stop }
    }

    /// Takes a permit, or waits for one.
    pub fn take(&self, patience: Duration) -> Result<Permit<'_>, NoPermit> {
        let (give, take) = &self.free;
        if take.try_recv().is_ok() {
            return Ok(Permit(give));
        }
        select! {
            recv(self.stop) -> _ => Err(NoPermit::Stopped),
            recv(take) -> token => token.map(|()| Permit(give)).map_err(|_| NoPermit::Stopped),
            default(patience) => Err(NoPermit::Busy),
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // Never blocks: the token that was taken left its room.
        let _ = self.0.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread::stop_channel;

    #[test]
    fn a_permit_that_is_given_back_can_be_taken_again() {
        let (stop, stopped) = stop_channel();
        let permits = Permits::new(2, stopped);
        let one = permits.take(Duration::ZERO).unwrap();
        let _two = permits.take(Duration::ZERO).unwrap();
        assert_eq!(permits.take(Duration::from_millis(5)).err(), Some(NoPermit::Busy));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| permits.take(Duration::from_secs(10)).is_ok());
            drop(one);
            assert!(waiting.join().unwrap());
        });
        let _three = permits.take(Duration::ZERO).unwrap();
        drop(stop);
        assert_eq!(permits.take(Duration::from_secs(10)).err(), Some(NoPermit::Stopped));
    }
}
