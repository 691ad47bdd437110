//! Random operations on a work queue, at a real nats-server and at the model.
//!
//! `PYOCO_MODEL_SEQUENCES=1000 cargo test --test simulation` plays more of them. `PYOCO_MODEL_SEED=17` plays
//! the one with that seed. The clock has a say in which operations a seed leads to, so a replay may differ in
//! some.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::queue::Queue;
use crate::sim::jetstream::{Delivery, Figures, Millis, Settings, WorkQueue};
use crate::sim::random::Random;
use crate::support::nats::NatsServer;

const SEQUENCES: u64 = 40;
const STEPS: usize = 120;
/// Sequences played at the same time; they wait most of the time.
const AT_ONCE: usize = 40;
const ACK_WAIT: Millis = 600;
const DUPLICATE_WINDOW: Millis = 1500;
/// Passes every `ACK_WAIT` and the first of the delays.
const LONG: Millis = 900;
const DELAYS: [Millis; 2] = [300, 1500];
/// So far from a deadline the server and the model agree on whether it has passed.
const GUARD: Millis = 150;
/// The server forgets ids some time after they are due.
const FORGETS_WITHIN: Millis = 300;
/// Deadlines so far apart pass one after the other. Closer ones may pass together, lowest sequence first.
const APART: Millis = 50;
/// A sequence that differs and met a longer delay is played again: the clock may have decided.
const DISTURBED: Duration = Duration::from_millis(20);
const TRIES: usize = 5;
/// JetStream counts new and removed messages after it has answered.
const FIGURES_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn a_queue_answers_as_nats_server_does() {
    let nats = NatsServer::start();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("PYOCO_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PYOCO_MODEL_SEQUENCES").unwrap_or(SEQUENCES),
    };
    let next = AtomicU64::new(seeds.start);
    let disturbed = Mutex::new(Vec::new());
    let different = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || different.lock().unwrap().is_some() {
                        return;
                    }
                    match play(&nats, &format!("Q{seed}"), seed) {
                        Played::Equal => {}
                        Played::Disturbed(_) => disturbed.lock().unwrap().push(seed),
                        Played::Different(how) => *different.lock().unwrap() = Some(how),
                    }
                }
            });
        }
    });
    if let Some(how) = different.into_inner().unwrap() {
        panic!("{how}");
    }
    for seed in disturbed.into_inner().unwrap() {
        play_until_judged(&nats, seed);
    }
}

/// Plays a sequence alone, until nothing disturbs it or it comes to its end nevertheless.
fn play_until_judged(nats: &NatsServer, seed: u64) {
    let mut last = String::new();
    for attempt in 1..=TRIES {
        match play(nats, &format!("Q{seed}_{attempt}"), seed) {
            Played::Equal => return,
            Played::Disturbed(how) => last = how,
            Played::Different(how) => panic!("{how}"),
        }
    }
    panic!("it differed {TRIES} times, although on a slow machine each time\n{last}");
}

enum Played {
    Equal,
    /// It differs, but the clock may have decided.
    Disturbed(String),
    Different(String),
}

fn play(nats: &NatsServer, stream: &str, seed: u64) -> Played {
    let mut sequence = Sequence::new(nats, stream, seed);
    let played = sequence.play();
    let longest = sequence.oversleep.max(sequence.real.connection.slowest);
    sequence.real.delete();
    let Err(difference) = played else { return Played::Equal };
    let (settings, steps) = (sequence.model.settings, sequence.trace.join("\n"));
    let how = format!("seed {seed}, {settings:?}, longest delay {longest:?}\n{steps}\n{difference}");
    if longest > DISTURBED { Played::Disturbed(how) } else { Played::Different(how) }
}

/// What is done with a delivery; the numbers are milliseconds.
#[derive(Debug, Clone, Copy)]
enum Settlement {
    Ack,
    Term,
    Nak(Millis),
    InProgress,
}

struct Sequence {
    random: Random,
    model: WorkQueue<u64>,
    real: Queue,
    /// The model's time 0.
    began: Instant,
    /// All deliveries so far, with the subjects that settle them.
    deliveries: Vec<(Delivery, String)>,
    /// Ids of stored messages, and when each was stored last.
    ids: BTreeMap<String, Millis>,
    published: u64,
    figures: Figures,
    /// How much longer than asked the longest sleep took.
    oversleep: Duration,
    trace: Vec<String>,
}

impl Sequence {
    fn new(nats: &NatsServer, stream: &str, seed: u64) -> Sequence {
        let mut random = Random::new(seed);
        let settings = Settings {
            ack_wait: ACK_WAIT,
            max_deliver: random.of(&[1, 2, 3, 5]).unwrap(),
            max_ack_pending: random.of(&[2, 4, 200]).unwrap(),
            duplicate_window: DUPLICATE_WINDOW,
        };
        let mut model = WorkQueue::new(settings);
        model.max_messages = random.of(&[5, 9, usize::MAX]).unwrap();
        let real = Queue::create(nats, stream, settings, model.max_messages);
        Sequence {
            random,
            figures: model.figures(0),
            model,
            real,
            began: Instant::now(),
            deliveries: Vec::new(),
            ids: BTreeMap::new(),
            published: 0,
            oversleep: Duration::ZERO,
            trace: Vec::new(),
        }
    }

    fn play(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.keep_clear();
            // A removal does not know the time, so the model hears of it here.
            self.figures = self.model.figures(self.now());
            match self.random.by_weight(&[26, 8, 30, 8, 2, 10, 7, 6, 5, 3, 3, 6]) {
                0 => self.publish_new()?,
                1 => self.publish_known()?,
                2 => drop(self.fetch()?),
                3 => self.settle(Settlement::Ack)?,
                4 => self.settle(Settlement::Term)?,
                5 => self.settle(Settlement::Nak(0))?,
                6 => {
                    let delay = self.random.of(&DELAYS).unwrap();
                    self.settle(Settlement::Nak(delay))?;
                }
                7 => self.settle(Settlement::InProgress)?,
                8 => self.remove()?,
                9 => self.get()?,
                10 => self.next()?,
                _ => self.wait(),
            }
            self.compare_figures()?;
        }
        self.wait();
        while self.fetch()? {
            self.compare_figures()?;
        }
        self.compare_figures()?;
        self.compare_contents()
    }

    fn publish_new(&mut self) -> Result<(), String> {
        self.published += 1;
        self.publish(format!("id{}", self.published))
    }

    /// An id that was used before, within the window or after it.
    fn publish_known(&mut self) -> Result<(), String> {
        let now = self.now();
        let open = DUPLICATE_WINDOW - GUARD..DUPLICATE_WINDOW + FORGETS_WITHIN;
        let ids = self.ids.iter().filter(|(_, stored)| !open.contains(&(now - **stored)));
        let ids: Vec<&str> = ids.map(|(id, _)| id.as_str()).collect();
        match self.random.of(&ids).map(str::to_owned) {
            Some(id) => self.publish(id),
            None => Ok(()),
        }
    }

    fn publish(&mut self, id: String) -> Result<(), String> {
        let message = self.published * 1000 + self.trace.len() as u64;
        let now = self.now();
        let expected = self.model.try_publish(now, &id, message);
        let answer = self.real.publish(&id, message);
        if let Ok((_, false)) = expected {
            self.ids.insert(id.clone(), now);
        }
        self.same(&format!("publish {id}"), expected, answer)
    }

    fn fetch(&mut self) -> Result<bool, String> {
        self.keep_order(|model, now| model.clone().fetch(now).map(|delivery| (delivery.seq, ACK_WAIT)));
        let may_be_held_back = self.figures.ack_pending >= self.model.settings.max_ack_pending as u64;
        let now = self.now();
        let expected = self.model.fetch(now).map(|delivery| {
            let message = *self.model.get(delivery.seq).unwrap();
            (delivery, message, self.model.figures(now).pending)
        });
        let answer = self.real.fetch(may_be_held_back);
        let answer = answer.map(|delivered| {
            self.deliveries.push((delivered.delivery, delivered.reply));
            (delivered.delivery, delivered.message, delivered.pending)
        });
        self.same("fetch", expected, answer)?;
        Ok(answer.is_some())
    }

    /// Often one of the newest deliveries, but any other as well: those of messages that were delivered
    /// again, settled, removed or exhausted.
    fn settle(&mut self, settlement: Settlement) -> Result<(), String> {
        let newest = self.deliveries.len().saturating_sub(4);
        let among = if self.random.one_in(3) { &self.deliveries[..] } else { &self.deliveries[newest..] };
        let indices: Vec<usize> = (0..among.len()).collect();
        let Some((delivery, reply)) = self.random.of(&indices).map(|at| among[at].clone()) else {
            return Ok(());
        };
        let seq = delivery.seq;
        let wait = match settlement {
            Settlement::Nak(delay) if delay > 0 => Some(delay),
            Settlement::InProgress => Some(ACK_WAIT),
            _ => None,
        };
        self.keep_order(|_, _| wait.map(|wait| (seq, wait)));
        let now = self.now();
        let word = match settlement {
            Settlement::Ack => "+ACK".to_owned(),
            Settlement::Term => "+TERM".to_owned(),
            Settlement::Nak(0) => "-NAK".to_owned(),
            Settlement::Nak(delay) => format!("-NAK {{\"delay\":{}}}", delay * 1_000_000),
            Settlement::InProgress => "+WPI".to_owned(),
        };
        match settlement {
            Settlement::Ack | Settlement::Term => drop(self.model.ack(now, seq)),
            Settlement::Nak(delay) => self.model.nak(now, seq, delay),
            Settlement::InProgress => self.model.in_progress(now, seq),
        }
        self.real.settle(&reply, &word);
        self.same(&format!("{word} of {delivery:?}"), (), ())
    }

    fn remove(&mut self) -> Result<(), String> {
        let seq = self.any_seq();
        let expected = self.model.get(seq).is_some();
        self.model.remove(seq);
        let answer = self.real.remove(seq);
        self.same(&format!("remove {seq}"), expected, answer)
    }

    fn get(&mut self) -> Result<(), String> {
        let seq = self.any_seq();
        let answer = self.real.get(seq);
        self.same(&format!("get {seq}"), self.model.get(seq).copied(), answer)
    }

    fn next(&mut self) -> Result<(), String> {
        let seq = self.any_seq();
        let answer = self.real.next(seq);
        self.same(&format!("next from {seq}"), self.model.next(seq).map(|(seq, m)| (seq, *m)), answer)
    }

    /// Most often of a message that is stored, but also gone or still to come.
    fn any_seq(&mut self) -> u64 {
        let mut stored = Vec::new();
        while let Some((seq, _)) = self.model.next(stored.last().map_or(1, |seq| seq + 1)) {
            stored.push(seq);
        }
        let known = self.random.of(&stored).filter(|_| !self.random.one_in(4));
        known.unwrap_or_else(|| 1 + self.random.below(self.published + 2))
    }

    fn wait(&mut self) {
        let until = self.now() + LONG;
        self.sleep_until(until);
        self.keep_clear();
        self.trace.push(format!("{:>6} waited", self.now()));
    }

    /// Lets deadlines pass that are so close that the server and the model may differ on them.
    fn keep_clear(&mut self) {
        loop {
            let now = self.now();
            let close = self.model.due().map(|(_, due)| due).filter(|due| due.abs_diff(now) < GUARD);
            match close.max() {
                Some(due) => self.sleep_until(due + GUARD),
                None => return,
            }
        }
    }

    /// Before an operation that makes a message due after some time: waits until it is clear in which order
    /// that message and the others will be due.
    fn keep_order(&mut self, next: impl Fn(&WorkQueue<u64>, Millis) -> Option<(u64, Millis)>) {
        loop {
            self.keep_clear();
            let now = self.now();
            let Some((seq, wait)) = next(&self.model, now) else { return };
            let due = now + wait;
            let is_open = self
                .model
                .due()
                .any(|(other, at)| other != seq && at.abs_diff(due) < APART && (at < due) != (other < seq));
            if !is_open {
                return;
            }
            self.sleep_until(now + 5);
        }
    }

    /// Waits until the figures and advisories of both are equal.
    fn compare_figures(&mut self) -> Result<(), String> {
        let end = Instant::now() + FIGURES_WITHIN;
        let max_deliver = self.model.settings.max_deliver;
        let mut advisories = Vec::new();
        let mut told = Vec::new();
        loop {
            let real = self.real.figures();
            told.extend(self.real.advisories());
            let now = self.now();
            self.figures = self.model.figures(now);
            advisories.extend(self.model.take_advisories(now).into_iter().map(|seq| (seq, max_deliver)));
            if max_deliver == 1 {
                // The server goes through what is due in no order.
                told.sort_unstable();
                advisories.sort_unstable();
            }
            let is_equal = real == self.figures && told == advisories;
            if is_equal || Instant::now() > end {
                self.same("figures", self.figures, real)?;
                return self.same("advisories", advisories, told);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn compare_contents(&mut self) -> Result<(), String> {
        let mut seq = 1;
        loop {
            let expected = self.model.next(seq).map(|(seq, message)| (seq, *message));
            let answer = self.real.next(seq);
            self.same(&format!("next from {seq}"), expected, answer)?;
            match expected {
                Some((found, _)) => seq = found + 1,
                None => return Ok(()),
            }
        }
    }

    fn same<T: PartialEq + Debug>(&mut self, what: &str, model: T, real: T) -> Result<(), String> {
        let line = format!("{:>6} {what}: {model:?}", self.now());
        if self.trace.last() != Some(&line) {
            self.trace.push(line);
        }
        if model == real {
            Ok(())
        } else {
            Err(format!("{what}: the model says {model:?}, nats-server {real:?}"))
        }
    }

    fn now(&self) -> Millis {
        self.began.elapsed().as_millis() as Millis
    }

    fn sleep_until(&mut self, until: Millis) {
        let until = self.began + Duration::from_millis(until);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        self.oversleep = self.oversleep.max(Instant::now().saturating_duration_since(until));
    }
}
