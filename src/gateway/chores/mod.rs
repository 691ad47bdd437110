//! What the gateway does without being asked: it rescues lost runs and tidies what others have left.
//!
//! One thread has a table of chores and runs what is due. Chores that only look into memory come first; the
//! others end their turn at the first failure or when it has taken long, so that a chore holds up the others
//! for one request to NATS at most. A panic ends a turn and nothing else.

mod audit;
mod backlog;
mod key_use;
mod orphans;
mod ownership;
mod reconcile;
mod registry;
mod rescue;
mod undo;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use audit::Audit;
use crossbeam_channel::{Receiver, at, never, select};
pub(crate) use undo::{Doubtful, Undo};

use super::view::backlog::Backlog;
use super::view::keys::KeyMirror;
use super::view::ownership::Ownership;
use super::view::runs::RunIndex;
use super::view::workers::WorkerMirror;
use crate::bus::Bus;
use crate::model::clock;
use crate::systemd::{self, Loop, Pulse};
use crate::thread::{self, Service, StopSignal};

/// For one request of a chore to NATS; nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(500);

pub(crate) struct ChoreParts {
    pub bus: Bus,
    pub runs: RunIndex,
    pub workers: WorkerMirror,
    /// `None` when nobody is asked for a key.
    pub keys: Option<KeyMirror>,
    pub backlog: Arc<Backlog>,
    pub undo: Undo,
    pub ownership: Ownership,
    pub audit: Audit,
    /// Silence after which a worker counts as disconnected.
    pub disconnect_timeout: Duration,
    /// Between two writes of a worker's record.
    pub worker_heartbeat: Duration,
    /// Silence after which a worker's record is removed.
    pub workers_retention: Duration,
    pub cancel_grace: Duration,
}

struct Chore {
    name: &'static str,
    every: Duration,
    due: Instant,
    /// Also when a handler kicks the thread.
    on_kick: bool,
    asks_nats: bool,
    run: Box<dyn FnMut(&Turn<'_>) -> Next + Send>,
}

enum Next {
    InTime,
    /// When the others have had their turn: there is more to do.
    Again,
    After(Duration),
}

struct Turn<'a> {
    stop: &'a StopSignal,
    end: Instant,
}

impl Turn<'_> {
    fn is_over(&self) -> bool {
        thread::is_stopped(self.stop) || Instant::now() >= self.end
    }
}

/// Starts the thread. `kicked` is written by those who want a chore at once.
pub(crate) fn start(parts: ChoreParts, kicked: Receiver<()>) -> std::io::Result<Service> {
    let table = table(parts);
    Service::start("chores", move |stop| run(table, kicked, stop))
}

fn table(parts: ChoreParts) -> Vec<Chore> {
    let ChoreParts { bus, runs, workers, keys, backlog, undo, ownership, audit, .. } = parts;
    let silence = parts.disconnect_timeout;
    let (heartbeat, grace) = (parts.worker_heartbeat, parts.cancel_grace);
    let absence = rescue::Absence::new(workers.clone(), heartbeat);
    let mut rescue = rescue::Rescue::new(&bus, runs.clone(), absence.clone(), grace);
    let mut reconciler = reconcile::Reconciler::new(&bus, runs, absence);
    let sweep = registry::Sweep::new(&bus, workers.clone(), parts.workers_retention);
    let (mut look, looked_at) = (ownership::Look::default(), bus.clone());
    let (queue, wheels) = (bus.queue().with_timeout(TIMEOUT), bus.wheels().with_timeout(TIMEOUT));
    let gate = ownership.clone();
    let mut table = vec![
        Chore::in_memory("silent workers", registry::SILENCE_INTERVAL, move || {
            workers.publish_silent(silence);
        }),
        Chore::new("ownership", ownership::FIRST, move |_| look.run(&looked_at, &ownership)),
        Chore::new("rescue", rescue::INTERVAL, move |turn| rescue.look(turn)).only_if_ours(&gate),
        Chore::new("reconcile", reconcile::INTERVAL, move |turn| reconciler.look(turn)).only_if_ours(&gate),
        Chore::new("old workers", sweep.interval(), move |turn| sweep.run(turn)).only_if_ours(&gate),
        Chore::new("undo", undo::RETRY, move |turn| undo.run(turn)).only_if_ours(&gate),
        Chore::new("audit", audit::RETRY, move |turn| audit.run(turn)),
        Chore::new("backlog", backlog::INTERVAL, move |_| backlog::run(&queue, &backlog)).on_kick(),
        Chore::new("orphans of wheels", orphans::FIRST, move |_| orphans::run(&wheels)).only_if_ours(&gate),
    ];
    if let Some(keys) = keys {
        let (records, expiring, mut looked_at) = (bus.auth(), keys.clone(), clock::now());
        table.push(Chore::in_memory("expired keys", key_use::INTERVAL, move || {
            let now = clock::now();
            expiring.end_expired(looked_at, now);
            looked_at = now;
        }));
        table.push(Chore::new("use of keys", key_use::INTERVAL, move |turn| {
            key_use::run(&records, &keys, turn)
        }));
    }
    table
}

impl Chore {
    fn new(
        name: &'static str,
        every: Duration,
        run: impl FnMut(&Turn<'_>) -> Next + Send + 'static,
    ) -> Chore {
        let due = Instant::now() + every;
        Chore { name, every, due, on_kick: false, asks_nats: true, run: Box::new(run) }
    }

    fn in_memory(name: &'static str, every: Duration, mut run: impl FnMut() + Send + 'static) -> Chore {
        let run = move |_: &Turn<'_>| {
            run();
            Next::InTime
        };
        Chore { asks_nats: false, ..Chore::new(name, every, run) }
    }

    /// Of what is not ours, or may not be, it must not write what becomes of it.
    fn only_if_ours(self, ownership: &Ownership) -> Chore {
        let (mut run, ownership) = (self.run, ownership.clone());
        let run = move |turn: &Turn<'_>| match ownership.has_runs() {
            true => run(turn),
            false => Next::After(ownership::FIRST),
        };
        Chore { run: Box::new(run), ..self }
    }

    fn on_kick(self) -> Chore {
        Chore { on_kick: true, ..self }
    }

    fn take_turn(&mut self, stop: &StopSignal) {
        let turn = Turn { stop, end: Instant::now() + TURN };
        let next = catch_unwind(AssertUnwindSafe(|| (self.run)(&turn))).unwrap_or_else(|_| {
            log::error!(chore = self.name; "a chore has panicked; it goes on at its next turn");
            Next::InTime
        });
        let pause = match next {
            Next::InTime => self.every,
            Next::Again => Duration::ZERO,
            Next::After(pause) => pause,
        };
        self.due = Instant::now() + pause;
    }
}

fn run(mut table: Vec<Chore>, mut kicked: Receiver<()>, stop: &StopSignal) {
    systemd::ready(Loop::Chores);
    let mut pulse = Pulse::new(Loop::Chores);
    while !thread::is_stopped(stop) {
        pulse.beat();
        let now = Instant::now();
        let due = table.iter_mut().filter(|chore| chore.due <= now);
        if let Some(chore) = due.min_by_key(|chore| (chore.asks_nats, chore.due)) {
            chore.take_turn(stop);
            continue;
        }
        let next = table.iter().map(|chore| chore.due).min().unwrap_or(now + TURN);
        select! {
            recv(stop) -> _ => return,
            recv(kicked) -> kick => match kick {
                Ok(()) => table.iter_mut().filter(|chore| chore.on_kick).for_each(|c| c.due = now),
                Err(_) => kicked = never(),
            },
            recv(pulse.next()) -> _ => {}
            recv(at(next)) -> _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Sender, bounded, unbounded};

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_secs(10);
    const NEVER: Duration = Duration::from_secs(3600);

    fn telling(name: &'static str, tell: &Sender<&'static str>) -> Chore {
        let tell = tell.clone();
        Chore::new(name, SOON, move |_| {
            let _ = tell.try_send(name);
            Next::InTime
        })
    }

    fn started(table: Vec<Chore>) -> (Service, Sender<()>) {
        let (kick, kicked) = bounded(1);
        (Service::start("chores-test", move |stop| run(table, kicked, stop)).unwrap(), kick)
    }

    #[test]
    fn a_panic_ends_a_turn_and_neither_its_chore_nor_the_others() {
        let (tell, told) = unbounded();
        let mut turns = 0;
        let panics = Chore::new("panics", SOON, {
            let tell = tell.clone();
            move |_| {
                turns += 1;
                let _ = tell.try_send(if turns == 1 { "first" } else { "second" });
                assert!(turns > 1, "on purpose");
                Next::After(NEVER)
            }
        });
        let (_service, _kick) = started(vec![panics, telling("other", &tell)]);
        let mut seen = Vec::new();
        while !["first", "second", "other"].iter().all(|name| seen.contains(name)) {
            seen.push(told.recv_timeout(PATIENCE).unwrap());
        }
    }

    #[test]
    fn a_chore_with_more_to_do_lets_the_others_have_their_turns() {
        let (tell, told) = unbounded();
        let endless = Chore::new("endless", SOON, |turn| {
            while !turn.is_over() {
                std::thread::sleep(SOON);
            }
            Next::Again
        });
        let (service, _kick) = started(vec![endless, telling("other", &tell)]);
        for _ in 0..2 {
            told.recv_timeout(PATIENCE).unwrap();
        }
        let began = Instant::now();
        service.stop();
        assert!(began.elapsed() < PATIENCE, "a stop ends its turn");
    }

    #[test]
    fn what_is_in_memory_goes_before_what_waits_for_nats() {
        let (tell, told) = unbounded();
        let (mut table, past) = (vec![telling("asks", &tell)], Instant::now());
        table.push(Chore { asks_nats: false, ..telling("looks", &tell) });
        table[0].due = past;
        table[1].due = past;
        let (_service, _kick) = started(table);
        assert_eq!(told.recv_timeout(PATIENCE), Ok("looks"));
    }

    #[test]
    fn what_may_not_be_ours_is_left_alone() {
        let ownership = Ownership::default();
        let (tell, told) = unbounded();
        let mut chore = telling("writes", &tell).only_if_ours(&ownership);
        let (_source, stop) = thread::stop_channel();
        let mut turns = || {
            chore.take_turn(&stop);
            told.try_iter().count()
        };
        assert_eq!(turns(), 0, "nobody has looked yet");
        ownership.found(crate::bus::Ownership { has_runs: true, ..Default::default() });
        assert_eq!(turns(), 1);
        ownership.refused("another's".to_owned());
        assert_eq!(turns(), 0);
    }

    #[test]
    fn a_kick_wakes_the_chores_that_wait_for_one() {
        let (tell, told) = unbounded();
        let asleep = Chore { due: Instant::now() + NEVER, ..telling("asleep", &tell) };
        let kicked = Chore { due: Instant::now() + NEVER, ..telling("kicked", &tell) }.on_kick();
        let (_service, kick) = started(vec![asleep, kicked]);
        kick.send(()).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok("kicked"));
    }
}
