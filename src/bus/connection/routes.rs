//! Where replies go: one shared inbox, a map from its last token to the receiver.
//!
//! A reply subject is `<inbox>.<id>` for a request and `<inbox>.<id>-<pull>` for a route that lives longer,
//! so that its owner knows which pull a status message ends. Pulls from work queues have a subscription of
//! their own, [`Routes::pulls`]: without it the server gives their jobs to others. A stored message keeps its
//! own subject; the consumer named in its ACK subject tells its route, so that a late one still finds its
//! owner.

use std::collections::HashMap;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Condvar, Mutex};

use crate::bus::Error;
use crate::bus::connection::message::{Message, Meta};
use crate::bus::connection::unanswered::Unanswered;

/// Bytes of requests that may be under way at once: less than a socket's buffer, so that a frozen
/// server is noticed by the watchdog before a caller blocks in a write.
const MAX_BYTES_IN_FLIGHT: usize = 2 * 1024 * 1024;

/// Token of the pulls' own subscription.
const PULLS: &str = "pull";

#[derive(Debug)]
pub(crate) enum Routed {
    /// A stored message that the consumer `source` (an index) of the route delivered.
    Delivered {
        source: usize,
        meta: Meta,
        message: Message,
    },
    /// What the server says of the route's pull `pull`.
    Status {
        pull: u64,
        message: Message,
    },
    Reconnected,
}

pub(crate) type Answer = Result<Message, Error>;

pub(crate) struct Routes {
    /// Prefix of all reply subjects of a link; it survives reconnects.
    pub(crate) inbox: String,
    table: Mutex<Table>,
    room: Condvar,
    /// Of the present connection.
    pub(crate) unanswered: Unanswered,
}

struct Table {
    next_id: u64,
    requests: HashMap<u64, Request>,
    lasting: HashMap<u64, Sender<Routed>>,
    /// `<stream>.<consumer>` → the route that pulls from it, and its index there.
    consumers: HashMap<String, (u64, usize)>,
    bytes: usize,
}

struct Request {
    answer: Sender<Answer>,
    epoch: u64,
    bytes: usize,
}

impl Routes {
    pub(crate) fn new(inbox_prefix: &str) -> Self {
        Routes {
            inbox: format!("{inbox_prefix}.{}", uuid::Uuid::new_v4().simple()),
            table: Mutex::new(Table {
                next_id: 1,
                requests: HashMap::new(),
                lasting: HashMap::new(),
                consumers: HashMap::new(),
                bytes: 0,
            }),
            room: Condvar::new(),
            unanswered: Unanswered::default(),
        }
    }

    /// Prefix of the reply subjects of pulls from work queues.
    pub(crate) fn pulls(&self) -> String {
        format!("{}.{PULLS}", self.inbox)
    }

    /// Registers a request of `bytes` sent in connection `epoch`; waits for room until `deadline`.
    pub(crate) fn request(
        &self,
        epoch: u64,
        bytes: usize,
        deadline: Instant,
    ) -> Option<(u64, Receiver<Answer>)> {
        let mut table = self.table.lock();
        // One request alone may be larger than the bound, or it could never be sent.
        let is_full = |table: &mut Table| table.bytes > 0 && table.bytes + bytes > MAX_BYTES_IN_FLIGHT;
        self.room.wait_while_until(&mut table, is_full, deadline);
        if is_full(&mut table) {
            return None;
        }
        let id = table.take_id();
        let (answer, receiver) = bounded(1);
        table.bytes += bytes;
        table.requests.insert(id, Request { answer, epoch, bytes });
        Some((id, receiver))
    }

    pub(crate) fn forget(&self, id: u64) {
        self.table.lock().remove(id);
        self.room.notify_all();
    }

    /// `consumers` are `<stream>.<consumer>`; the route holds at most `capacity` unread messages.
    pub(crate) fn open(&self, capacity: usize, consumers: &[String]) -> (u64, Receiver<Routed>) {
        let mut table = self.table.lock();
        let id = table.take_id();
        let (sender, receiver) = bounded(capacity);
        table.lasting.insert(id, sender);
        for (source, consumer) in consumers.iter().enumerate() {
            if table.consumers.insert(consumer.clone(), (id, source)).is_some() {
                log::error!(consumer = consumer.as_str();
                    "two inboxes over one connection pull from the same consumer; the first is deaf \
                     now: give each worker a bus of its own");
            }
        }
        (id, receiver)
    }

    pub(crate) fn close(&self, id: u64) {
        let mut table = self.table.lock();
        table.lasting.remove(&id);
        table.consumers.retain(|_, (route, _)| *route != id);
    }

    /// A message that nobody waits for is dropped.
    pub(crate) fn deliver(&self, message: Message) {
        let token = message.subject.strip_prefix(&self.inbox).and_then(|rest| rest.strip_prefix('.'));
        let token = token.map(|token| match token.split_once('.') {
            Some((PULLS, token)) => token,
            _ => token,
        });
        match token.map(|token| token.split_once('-').unwrap_or((token, ""))) {
            None => self.deliver_stored(message),
            Some((id, "")) => {
                if let Ok(id) = id.parse() {
                    self.deliver_answer(id, message);
                }
            }
            Some((id, pull)) => {
                if let (Ok(id), Ok(pull)) = (id.parse(), pull.parse()) {
                    self.table.lock().push(id, Routed::Status { pull, message });
                }
            }
        }
    }

    fn deliver_answer(&self, id: u64, message: Message) {
        if let Some(request) = self.table.lock().remove(id) {
            self.room.notify_all();
            let answer = match message.is_no_responders() {
                true => Err(Error::NoResponders(String::new())),
                false => Ok(message),
            };
            // A caller that has just given up is no loss.
            let _ = request.answer.try_send(answer);
        }
    }

    fn deliver_stored(&self, message: Message) {
        let Some(meta) = message.meta() else { return };
        let Some(consumer) = message.consumer() else { return };
        let table = self.table.lock();
        if let Some((id, source)) = table.consumers.get(&consumer).copied() {
            table.push(id, Routed::Delivered { source, meta, message });
        }
    }

    /// Fails the requests of connections before `epoch`; long-lived routes learn that they must ask again.
    pub(crate) fn reconnected(&self, epoch: u64) {
        let mut table = self.table.lock();
        let void: Vec<u64> =
            table.requests.iter().filter(|(_, r)| r.epoch < epoch).map(|(id, _)| *id).collect();
        for id in void {
            if let Some(request) = table.remove(id) {
                let _ = request.answer.try_send(Err(Error::Disconnected));
            }
        }
        for sender in table.lasting.values() {
            // A full route is read soon, and its owner then notices the gap by itself.
            let _ = sender.try_send(Routed::Reconnected);
        }
        drop(table);
        self.room.notify_all();
    }
}

impl Table {
    fn push(&self, id: u64, routed: Routed) {
        let Some(sender) = self.lasting.get(&id) else { return };
        if let Err(TrySendError::Full(_)) = sender.try_send(routed) {
            // A watch notices the gap; a job comes again after its ack_wait.
            log::warn!("an inbox is full; a message from NATS was dropped");
        }
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn remove(&mut self, id: u64) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.bytes -= request.bytes;
        Some(request)
    }
}
