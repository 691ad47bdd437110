//! The delivery protocol in a world without a clock: two gateways, three workers, four runs and a model of
//! JetStream, with faults between any two steps, all from one seed.
//!
//! The decisions are those of `pyoco_server::delivery`. What is written again here is what surrounds them:
//! when an actor has its turn, what it remembers, and when it tries again.

pub mod checks;
mod client;
mod foreign;
mod gateway;
#[allow(dead_code, reason = "the test that holds it against a real server uses the rest")]
pub mod jetstream;
pub mod net;
#[allow(dead_code, reason = "as above")]
pub mod random;
mod worker;

use client::Client;
use foreign::Foreign;
use gateway::Gateway;
use jetstream::Millis;
use net::{Net, RUNS, Window};
use worker::{Kind, Worker};

/// How long after the last fault every run must have ended.
const BOUND: Millis = 240_000;
/// The same for a run that lasts longer than this.
const LONG_BOUND: Millis = 600_000;
/// Longest election.
const MAX_LEADERLESS: Millis = 8_000;
const GATEWAYS: usize = 2;
const WORKERS: usize = 3;

/// What one history was like.
#[derive(Debug, Clone, Copy, Default)]
pub struct History {
    pub steps: u64,
    pub faults: u64,
    pub accepted: u64,
    /// Virtual seconds.
    pub seconds: u64,
}

enum Actor {
    Gateway(Box<Gateway>),
    Ours(Box<Worker>),
    Foreign(Box<Foreign>),
    Client(Client),
}

/// Runs the history of a seed; the error says what went wrong.
pub fn run(seed: u64) -> Result<History, String> {
    let mut world = World::new(seed);
    match world.live() {
        None => Ok(world.history),
        Some(what) => Err(format!("seed {seed}: {what}")),
    }
}

/// The same, step by step; with what went wrong, if anything.
#[allow(dead_code, reason = "the tests have no use for it")]
pub fn replay(seed: u64) -> (Vec<String>, Option<String>) {
    let mut world = World::new(seed);
    world.net.trace = Some(Vec::new());
    let problem = world.live();
    (world.net.trace.unwrap_or_default(), problem)
}

struct World {
    net: Net,
    actors: Vec<(Millis, Actor)>,
    accepted: [bool; RUNS],
    /// No fault begins from here on.
    calm_from: Millis,
    history: History,
}

impl World {
    fn new(seed: u64) -> World {
        let mut net = Net::new(seed, GATEWAYS + WORKERS, WORKERS);
        let calm_from = net.random.within(5_000..60_000);
        // In some histories the network is well, and only processes fail.
        let only_processes = net.random.one_in(4);
        net.lossy_until = if !only_processes && net.random.one_in(2) { calm_from } else { 0 };
        let stops_without_nats = net.random.one_in(2);
        let has_foreign = net.random.one_in(2);
        net.checks.never_two = !has_foreign && (stops_without_nats || only_processes);
        net.checks.never_beside = !has_foreign && only_processes;
        net.has_long_run = net.random.one_in(8);
        let mut actors = Vec::new();
        for index in 0..GATEWAYS {
            let mut gateway = Gateway::new(index);
            for run in (index..RUNS).step_by(GATEWAYS) {
                gateway.to_submit.push_back((run, net.random.within(0..calm_from / 2)));
            }
            actors.push((net.random.within(0..1_000), Actor::Gateway(Box::new(gateway))));
        }
        for index in 0..WORKERS {
            let actor = GATEWAYS + index;
            let worker = match index + 1 == WORKERS && has_foreign {
                true => Actor::Foreign(Box::new(Foreign::new(actor, index))),
                false => {
                    let (is_native, has_tags) = (net.random.one_in(2), net.random.one_in(4));
                    let kind = Kind { stops_without_nats, is_native, has_tags };
                    Actor::Ours(Box::new(Worker::new(actor, index, kind)))
                }
            };
            actors.push((net.random.within(0..1_000), worker));
        }
        for run in 0..RUNS {
            if net.random.one_in(6) {
                let at = net.random.within(0..calm_from);
                actors.push((at, Actor::Client(Client::new(run % GATEWAYS, run, at))));
            }
        }
        let mut world =
            World { net, actors, accepted: [false; RUNS], calm_from, history: History::default() };
        if !only_processes {
            world.plan_faults();
        }
        world
    }

    /// Windows of trouble; deaths and freezes come as dice fall.
    fn plan_faults(&mut self) {
        let calm_from = self.calm_from;
        let window = |net: &mut Net, one_in: u64| {
            if !net.random.one_in(one_in) {
                return Window::default();
            }
            let from = net.random.within(0..calm_from);
            Window { from, to: net.random.within(from..calm_from) }
        };
        self.net.full = window(&mut self.net, 4);
        self.net.down = window(&mut self.net, 5);
        for stream in 0..self.net.leaderless.len() {
            let Window { from, to } = window(&mut self.net, 6);
            self.net.leaderless[stream] = Window { from, to: to.min(from + MAX_LEADERLESS) };
        }
        for actor in 0..GATEWAYS + WORKERS {
            self.net.cut[actor] = window(&mut self.net, 6);
            self.net.half_open[actor] = self.net.random.one_in(2);
            self.net.denied[actor] =
                if actor < GATEWAYS { Window::default() } else { window(&mut self.net, 5) };
        }
    }

    fn live(&mut self) -> Option<String> {
        let mut look_at = self.calm_from;
        loop {
            let next = (0..self.actors.len()).min_by_key(|index| self.actors[*index].0)?;
            self.net.now = self.actors[next].0;
            self.net.publish_advisories();
            self.net.serve();
            let pause = self.turn(next);
            self.actors[next].0 = self.net.now + pause.max(1);
            self.history.steps += 1;
            self.net.checks.look(self.net.now);
            if let Some(violation) = self.net.checks.violation.take() {
                return Some(violation);
            }
            if self.net.now >= look_at {
                look_at = self.net.now + 1_000;
                if self.is_over() {
                    self.history.accepted = self.accepted.iter().filter(|accepted| **accepted).count() as u64;
                    self.history.seconds = self.net.now / 1_000;
                    return self.wrong_end();
                }
                let overdue = self.net.now - self.calm_from;
                let others_wait = (1..RUNS).any(|run| !self.has_ended(run));
                if overdue > LONG_BOUND || overdue > BOUND && (others_wait || !self.net.has_long_run) {
                    return Some(self.unfinished());
                }
            }
        }
    }

    /// Lets an actor have its turn, or a fault befall it; the time until its next one.
    fn turn(&mut self, index: usize) -> Millis {
        let net = &mut self.net;
        let is_calm = net.now >= self.calm_from;
        let actor = &mut self.actors[index].1;
        let is_frozen = matches!(actor, Actor::Ours(worker) if worker.is_frozen(net.now));
        if !is_calm && !is_frozen && !matches!(actor, Actor::Client(_)) {
            // A submit stands between its two steps for a moment only: that is when it shall be hit.
            let half_way = matches!(actor, Actor::Gateway(gateway) if gateway.is_half_way());
            let (dies, freezes) = (if half_way { 6 } else { 120 }, 200);
            if net.random.one_in(dies) {
                self.history.faults += 1;
                let with_machine = net.random.one_in(8);
                net.tell(|| format!("actor {index} dies; with its machine: {with_machine}"));
                match actor {
                    Actor::Gateway(gateway) => gateway.die(net),
                    Actor::Ours(worker) => worker.die(net, with_machine),
                    Actor::Foreign(worker) => worker.die(net, with_machine),
                    Actor::Client(_) => {}
                }
                return net.random.within(500..20_000);
            }
            if net.random.one_in(freezes) {
                self.history.faults += 1;
                let time = net.random.within(500..60_000);
                net.tell(|| format!("actor {index} is frozen for {time} ms"));
                match actor {
                    Actor::Ours(worker) => {
                        worker.freeze(net, time);
                        return worker.step(net);
                    }
                    Actor::Foreign(worker) => worker.die(net, false),
                    Actor::Gateway(_) | Actor::Client(_) => {}
                }
                return time;
            }
            if let Actor::Ours(worker) = actor
                && net.random.one_in(100)
            {
                self.history.faults += 1;
                net.tell(|| format!("actor {index} drains"));
                worker.drain(net);
            }
        }
        match actor {
            Actor::Gateway(gateway) => gateway.step(net, &mut self.accepted),
            Actor::Ours(worker) => worker.step(net),
            Actor::Foreign(worker) => worker.step(net),
            Actor::Client(client) => client.step(net),
        }
    }

    fn is_over(&self) -> bool {
        let gateways = self.actors.iter().all(|(_, actor)| match actor {
            Actor::Gateway(gateway) => gateway.is_done(),
            _ => true,
        });
        gateways && self.net.queue.is_empty() && (0..RUNS).all(|run| self.has_ended(run))
    }

    /// There never was a snapshot, it was taken back, or the run has ended.
    fn has_ended(&self, run: usize) -> bool {
        let newest = self.net.runs.newest(run).and_then(|(_, snapshot)| snapshot.as_ref());
        newest.is_none_or(|snapshot| snapshot.status.is_terminal())
    }

    /// An accepted run must be there, and must not have lost its job.
    fn wrong_end(&self) -> Option<String> {
        (0..RUNS).filter(|run| self.accepted[*run]).find_map(|run| {
            let newest = self.net.runs.newest(run).and_then(|(_, snapshot)| snapshot.as_ref());
            match newest {
                None => Some(format!("r{run} was accepted and is not there")),
                Some(_) if self.net.checks.lost[run] => {
                    Some(format!("r{run} was accepted and has lost its job"))
                }
                Some(_) => None,
            }
        })
    }

    fn unfinished(&self) -> String {
        let mut left = String::new();
        for run in (0..RUNS).filter(|run| !self.has_ended(*run)) {
            if let Some((revision, Some(snapshot))) = self.net.runs.newest(run) {
                let (status, accepted) = (snapshot.status.as_str(), self.accepted[run]);
                left += &format!("r{run} is {status} at revision {revision} (accepted: {accepted}); ");
            }
        }
        let messages: Vec<_> = {
            let mut messages = Vec::new();
            let mut next = 1;
            while let Some((seq, message)) = self.net.queue.next(next) {
                messages.push((seq, *message));
                next = seq + 1;
            }
            messages
        };
        let seconds = (self.net.now - self.calm_from) / 1_000;
        format!("{seconds} s after the last fault {left}in the queue: {messages:?}")
    }
}
