//! NATS as the actors of a history see it: a model of JetStream behind a network that loses questions and
//! answers.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pyoco_server::delivery::drive;
use pyoco_server::delivery::{Answer, Ask, Change, Newest, Protocol, Step, Stored, Verdict, owner};
use pyoco_server::model::job::Job;
use pyoco_server::model::run::RunSnapshot;

use super::checks::Checks;
use super::jetstream::{Bucket, Connection, Delivery, Millis, Settings, WorkQueue};
use super::random::Random;

/// Runs of one history.
pub const RUNS: usize = 4;
/// Tasks of a run whose snapshot no message can hold.
pub const TOO_MANY_TASKS: usize = 3;
pub const RUN_IDS: [&str; RUNS] = ["r0", "r1", "r2", "r3"];

pub const NAK_WITHIN: Millis = drive::NAK_WITHIN.as_millis() as Millis;
pub const ACK_WAIT: Millis = 30_000;
/// How long after the death of a leader answers of it are missed.
const UNDER_WAY: Millis = 300;

/// A job in the queue: its run, and the revision if it was published anew.
pub type Message = (usize, Option<u64>);

/// What the server has sent to a worker.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub message: Message,
    pub delivery: Delivery,
}

/// Why an actor gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It may or may not have been carried out.
    Unknown,
    /// There is no connection.
    Disconnected,
    /// The stream has no leader.
    NoLeader,
    /// It was refused for now: the store is full.
    Full,
    /// It was decided on too long ago, so nothing was asked.
    TooLate,
}

impl Trouble {
    /// Whether NATS has answered.
    pub fn is_answer(self) -> bool {
        matches!(self, Trouble::NoLeader | Trouble::Full)
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Queue,
    Runs,
    Records,
}

/// From when until when.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    pub from: Millis,
    pub to: Millis,
}

impl Window {
    pub fn holds(self, now: Millis) -> bool {
        (self.from..self.to).contains(&now)
    }
}

#[derive(Debug, Clone)]
pub struct Net {
    pub now: Millis,
    pub random: Random,
    pub queue: WorkQueue<Message>,
    pub runs: Bucket<RunSnapshot>,
    /// Messages that are delivered no more, as far as somebody was told.
    advisories: VecDeque<u64>,
    /// What has come for each worker and was not read so far.
    pub inboxes: Vec<VecDeque<Arrival>>,
    /// The present connection of each worker.
    pub connections: Vec<u64>,
    /// When somebody has told the queue last that a message is worked on.
    progress: HashMap<u64, Millis>,
    /// When each worker has written its record last, and as which instance; `None`: it says that it has
    /// stopped.
    pub records: Vec<(Millis, Option<u64>)>,
    pub checks: Checks,
    /// No stream takes anything.
    pub full: Window,
    /// Nobody gets an answer.
    pub down: Window,
    /// The actor may not write snapshots.
    pub denied: Vec<Window>,
    /// The actor's messages do not arrive.
    pub cut: Vec<Window>,
    /// Neither side notices that: the connection stays, and what was sent to the actor comes later.
    pub half_open: Vec<bool>,
    /// The stream has no leader.
    pub leaderless: [Window; 3],
    /// The first run lasts longer than all others may take to end.
    pub has_long_run: bool,
    /// Single questions and answers are lost until then.
    pub lossy_until: Millis,
    pub trace: Option<Vec<String>>,
}

impl Net {
    pub fn new(seed: u64, actors: usize, workers: usize) -> Net {
        let settings =
            Settings { ack_wait: ACK_WAIT, max_deliver: 4, max_ack_pending: 200, duplicate_window: 600_000 };
        Net {
            now: 0,
            random: Random::new(seed),
            queue: WorkQueue::new(settings),
            runs: Bucket::new(),
            advisories: VecDeque::new(),
            inboxes: vec![VecDeque::new(); workers],
            connections: vec![1; workers],
            progress: HashMap::new(),
            records: vec![(0, None); workers],
            checks: Checks::default(),
            full: Window::default(),
            down: Window::default(),
            denied: vec![Window::default(); actors],
            cut: vec![Window::default(); actors],
            half_open: vec![false; actors],
            leaderless: [Window::default(); 3],
            has_long_run: false,
            lossy_until: 0,
            trace: None,
        }
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>8.3} {}", self.now as f64 / 1000.0, what()));
        }
    }

    /// Takes advisories out of the server: each is told once, and not at all while the store is full.
    pub fn publish_advisories(&mut self) {
        for seq in self.queue.take_advisories(self.now) {
            self.checks.goes(seq, self.queue.settings.max_deliver);
            let is_lost = self.full.holds(self.now) || self.now < self.lossy_until && self.random.one_in(3);
            self.tell(|| {
                format!("the message {seq} is exhausted; {}", if is_lost { "nobody is told" } else { "told" })
            });
            if !is_lost {
                self.advisories.push_back(seq);
            }
        }
    }

    pub fn advisory(&mut self, actor: usize) -> Option<u64> {
        if self.is_cut(actor) { None } else { self.advisories.pop_front() }
    }

    /// An advisory that was not handled comes again.
    pub fn advise(&mut self, seq: u64) {
        self.advisories.push_back(seq);
    }

    /// Seconds, as snapshots have them.
    pub fn seconds(&self) -> f64 {
        self.now as f64 / 1000.0
    }

    /// Lets the server send what waiting pulls get.
    pub fn serve(&mut self) {
        if self.down.holds(self.now) || self.leaderless[Stream::Queue as usize].holds(self.now) {
            self.queue.lose_leader(self.now);
            return;
        }
        let now = self.now;
        loop {
            let (cut, half_open, first) = (&self.cut, &self.half_open, self.cut.len() - self.inboxes.len());
            let is_there =
                |(worker, _): Connection| half_open[first + worker] || !cut[first + worker].holds(now);
            let Some(((worker, connection), delivery)) = self.queue.deliver(now, is_there) else { return };
            self.hear(delivery.seq, delivery.num - 1);
            let Some(message) = self.queue.get(delivery.seq).copied() else { continue };
            let is_lost = now < self.lossy_until && self.random.one_in(40);
            self.tell(|| format!("r{} goes to w{worker} by {delivery:?}; lost: {is_lost}", message.0));
            if connection == self.connections[worker] && !is_lost {
                self.inboxes[worker].push_back(Arrival { message, delivery });
            }
        }
    }

    /// A worker has ended; with its machine, so that nobody closes its connection, or alone.
    pub fn disconnect(&mut self, worker: usize, with_machine: bool) {
        if !with_machine {
            self.queue.end_pulls((worker, self.connections[worker]));
        }
        self.connections[worker] += 1;
        self.inboxes[worker].clear();
    }

    pub fn in_progress(&mut self, actor: usize, seq: u64) -> Result<(), Trouble> {
        self.ask(actor, false, |net| {
            net.hear(seq, net.queue.deliveries_of(seq));
            net.queue.in_progress(net.now, seq);
        })
    }

    /// The queue hears of a message, whose last delivery may have been silent for too long.
    fn hear(&mut self, seq: u64, num: u64) {
        if self.progress.insert(seq, self.now).is_some_and(|at| at + ACK_WAIT <= self.now) {
            self.checks.goes(seq, num);
        }
    }

    pub fn nak(&mut self, actor: usize, seq: u64, delay: Duration) -> Result<(), Trouble> {
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.ask(actor, false, |net| net.queue.nak(net.now, seq, delay))
    }

    /// Carries a request to the queue out, unless the network is in the way.
    pub fn ask<T>(
        &mut self,
        actor: usize,
        stores: bool,
        request: impl FnOnce(&mut Net) -> T,
    ) -> Result<T, Trouble> {
        self.ask_of(Stream::Queue, actor, stores, request)
    }

    pub fn ask_of<T>(
        &mut self,
        stream: Stream,
        actor: usize,
        stores: bool,
        request: impl FnOnce(&mut Net) -> T,
    ) -> Result<T, Trouble> {
        if self.is_cut(actor) {
            return Err(if self.half_open[actor] { Trouble::Unknown } else { Trouble::Disconnected });
        }
        if self.now < self.lossy_until && self.random.one_in(40) {
            return Err(Trouble::Unknown);
        }
        let leaderless = self.leaderless[stream as usize];
        if leaderless.holds(self.now) {
            // What was under way to the leader that has died was stored by the others, or not.
            if self.now > leaderless.from + UNDER_WAY {
                return Err(Trouble::NoLeader);
            }
            if stores && self.random.one_in(2) {
                request(self);
            }
            return Err(Trouble::Unknown);
        }
        if stores && self.full.holds(self.now) {
            return Err(Trouble::Full);
        }
        let answer = request(self);
        if self.now < self.lossy_until && self.random.one_in(40) {
            return Err(Trouble::Unknown);
        }
        Ok(answer)
    }

    pub fn is_cut(&self, actor: usize) -> bool {
        self.down.holds(self.now) || self.cut[actor].holds(self.now)
    }

    pub fn read(&mut self, actor: usize, run: usize) -> Result<Option<(u64, Option<RunSnapshot>)>, Trouble> {
        self.ask_of(Stream::Runs, actor, false, |net| net.runs.newest(run).cloned())
    }

    /// `None`: another writer was quicker.
    pub fn write(
        &mut self,
        actor: usize,
        run: usize,
        expected: u64,
        value: Option<RunSnapshot>,
        by: Writer<'_>,
    ) -> Result<Option<u64>, Trouble> {
        if self.denied[actor].holds(self.now) {
            return Err(Trouble::Unknown);
        }
        self.ask_of(Stream::Runs, actor, true, |net| {
            let Net { runs, checks, now, .. } = net;
            let newest = runs.newest(run);
            if newest.map_or(0, |(revision, _)| *revision) == expected {
                let before = newest.and_then(|(_, value)| value.as_ref());
                checks.written(*now, run, before, value.as_ref(), by);
            }
            runs.update(run, expected, value).ok()
        })
    }

    /// Whether a bucket takes writes, as far as an actor may write.
    pub fn test_write(&mut self, actor: usize) -> bool {
        !self.denied[actor].holds(self.now) && self.ask_of(Stream::Runs, actor, true, |_| ()).is_ok()
    }
}

/// Who writes a snapshot, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub enum Writer<'a> {
    /// The owner of an attempt, by the deliveries that it has had.
    Owner(&'a [String]),
    /// A step of the protocol, or the gateway.
    Step,
    /// A worker that knows nothing of deliveries.
    Foreign,
}

/// One step of the protocol under way, one request at a time.
#[derive(Debug, Clone)]
pub struct Going<P> {
    pub protocol: P,
    pub run: usize,
    delivery: Option<Delivery>,
    write: Option<(u64, Change)>,
    /// When its first request was made.
    begun: Option<Millis>,
}

pub enum Progress<E> {
    Going,
    End(E),
    Trouble(Trouble),
}

impl<P: Protocol> Going<P> {
    pub fn new(protocol: P, run: usize, delivery: Option<Delivery>) -> Self {
        Going { protocol, run, delivery, write: None, begun: None }
    }

    /// Makes the next request.
    pub fn step(&mut self, net: &mut Net, actor: usize) -> Progress<P::End> {
        let begun = *self.begun.get_or_insert(net.now);
        let answer = match (self.protocol.next(), self.delivery) {
            (Step::End(end), _) => return Progress::End(end),
            (Step::Ask(Ask::Edit), _) => match self.edit(net, actor) {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => return Progress::Going,
                Err(trouble) => Err(trouble),
            },
            (Step::Ask(Ask::Find(seq)), _) => {
                let run = self.run;
                net.ask(actor, false, |net| net.queue.get(seq).is_some_and(|(of, _)| *of == run))
                    .map(Answer::Found)
            }
            (Step::Ask(Ask::Publish { id, revision, .. }), _) => net
                .ask(actor, true, |net| net.queue.publish(net.now, &id, (self.run, Some(revision))))
                .map(|(seq, duplicate)| Answer::Published { seq, duplicate }),
            (Step::Ask(Ask::Remove(seq)), _) => {
                net.ask(actor, false, |net| net.queue.remove(seq)).map(|()| Answer::Done)
            }
            (Step::Ask(Ask::Settle(Verdict::Nak(_))), Some(_)) if net.now >= begun + NAK_WITHIN => {
                Err(Trouble::TooLate)
            }
            (Step::Ask(Ask::Settle(Verdict::Nak(delay))), Some(delivery)) => {
                net.nak(actor, delivery.seq, delay).map(|()| Answer::Done)
            }
            (Step::Ask(Ask::Settle(Verdict::Ack)), Some(delivery)) => {
                net.ask(actor, false, |net| net.queue.ack(net.now, delivery.seq)).map(|_| Answer::Done)
            }
            (Step::Ask(Ask::Settle(_)), None) => Ok(Answer::Done),
        };
        match answer {
            Ok(answer) => {
                self.protocol.answered(answer);
                Progress::Going
            }
            Err(trouble) => Progress::Trouble(trouble),
        }
    }

    /// Reads, or writes what was decided on the read; another actor may have its turn in between.
    fn edit(&mut self, net: &mut Net, actor: usize) -> Result<Option<Answer>, Trouble> {
        let Some((expected, change)) = self.write.take() else {
            let newest = net.read(actor, self.run)?;
            let revision = newest.as_ref().map_or(0, |(revision, _)| *revision);
            let stored = match &newest {
                None => Stored::Missing,
                Some((_, None)) => Stored::Deleted,
                Some((_, Some(snapshot))) => Stored::Run(snapshot),
            };
            let change = self.protocol.edit(&Newest { revision, stored });
            if matches!(change, Change::Leave) {
                return Ok(Some(Answer::Edited(None)));
            }
            self.write = Some((revision, change));
            return Ok(None);
        };
        let value = match change {
            Change::Put(mut snapshot) => {
                while snapshot.tasks.len() >= TOO_MANY_TASKS && owner::shrink(&mut snapshot, net.seconds()) {}
                Some(*snapshot)
            }
            Change::Delete | Change::Leave => None,
        };
        let written = net.write(actor, self.run, expected, value, Writer::Step)?;
        Ok(written.map(|revision| Answer::Edited(Some(revision))))
    }
}

thread_local! {
    static JOBS: RefCell<HashMap<Message, &'static Job>> = RefCell::default();
}

/// The job of a message. There are few of them, so each is made once per thread and kept.
pub fn job(message: Message) -> &'static Job {
    JOBS.with_borrow_mut(|jobs| {
        *jobs.entry(message).or_insert_with(|| {
            let text =
                format!(r#"{{"run_id":"{}","flow_name":"main","submitted_at":1.0}}"#, RUN_IDS[message.0]);
            let job = Job::parse(text.as_bytes()).expect("a job as the gateway writes it");
            Box::leak(Box::new(Job { requeued_at_revision: message.1, ..job }))
        })
    })
}
