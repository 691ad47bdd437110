//! Hears an answer that comes before the request has been sent whole.
//!
//! A gateway that refuses an upload (the key is wrong, the version exists) answers and closes the
//! connection while the client still sends. The library would tell of a broken pipe then; here the
//! answer is read, which says why.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Stands after the library's own connector. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct EarlyAnswers {
    has_left: Arc<AtomicBool>,
}

impl EarlyAnswers {
    /// Whether the peer has closed its end during a send. It does not read the rest.
    pub fn peer_has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }
}

impl<In: Transport> Connector<In> for EarlyAnswers {
    type Out = Listening<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Listening<In>>, Error> {
        let has_left = Arc::clone(&self.has_left);
        Ok(chained.map(|inner| Listening { inner, has_left, broken: None }))
    }
}

/// A connection whose answer is read also when it cannot be written to any more.
#[derive(Debug)]
pub struct Listening<T> {
    inner: T,
    has_left: Arc<AtomicBool>,
    /// Why nothing can be written, until something was heard all the same.
    broken: Option<Error>,
}

impl<T: Transport> Transport for Listening<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.has_left.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(error) if is_closed(&error) => {
                self.has_left.store(true, Ordering::Relaxed);
                self.broken = Some(error);
                Ok(())
            }
            sent => sent,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let heard = self.inner.await_input(timeout);
        match (self.broken.take(), heard) {
            // Nothing was said: what is known is why the sending failed.
            (Some(error), Ok(false)) => Err(error),
            (Some(error), Err(read)) if is_closed(&read) => Err(error),
            (_, heard) => heard,
        }
    }

    fn is_open(&mut self) -> bool {
        !self.has_left.load(Ordering::Relaxed) && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

fn is_closed(error: &Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let Error::Io(io) = error else { return false };
    matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}
