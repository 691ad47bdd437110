//! Every order of steps and deaths around one job that is published anew, as far as three deliveries go.
//!
//! The worker of a run has died, and its message was delivered so often that the next claim publishes the
//! job anew. From there on each actor may make its next step or die, and NATS may deliver a message, in any
//! order.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use pyoco_server::delivery::claim::{Claim, Claimant, End};
use pyoco_server::delivery::owner::{self, Conflict};
use pyoco_server::delivery::{Limits, Newest, Stored};
use pyoco_server::model::run::{Delivery, RunSnapshot, RunStatus};

use crate::sim::jetstream;
use crate::sim::net::{Going, Message, Net, Progress, Writer, job};

const WORKERS: [&str; 4] = ["w0", "w1", "w2", "w3"];
/// Deliveries after the first worker's.
const DELIVERIES: usize = 3;
const ACK_WAIT: u64 = 30_000;
/// More than this would show that states are not recognised.
const MAX_STATES: usize = 2_000_000;

#[derive(Debug, Clone)]
struct World {
    net: Net,
    /// One per delivery; `None` once it is done or dead.
    actors: Vec<Option<Actor>>,
}

#[derive(Debug, Clone)]
struct Actor {
    message: Message,
    delivery: jetstream::Delivery,
    ack: String,
    doing: Doing,
}

#[derive(Debug, Clone)]
enum Doing {
    Claims(Box<Going<Claim<'static>>>),
    /// It has executed the run, and has to store that.
    Ends(Box<RunSnapshot>, u64),
    /// Another writer was quicker.
    ReadsBack(Box<RunSnapshot>),
    Acknowledges,
}

fn claims(worker: &'static str, message: Message, delivery: jetstream::Delivery, ack: &str) -> Doing {
    let claimant = Claimant {
        worker_id: worker,
        stream_seq: delivery.seq,
        num_delivered: delivery.num,
        delivery: Delivery::new(ack.to_owned(), worker.to_owned(), 1.0),
        now: 1.0,
    };
    // Any number of workers may die, so each second delivery is published anew.
    let claim = Claim::new(job(message), claimant, Limits::new(-1, Some(4)));
    Doing::Claims(Box::new(Going::new(claim, 0, Some(delivery))))
}

impl World {
    /// The run is held by a worker that has died, and its message is due for the second delivery.
    fn begin() -> World {
        let mut net = Net::new(0, WORKERS.len(), 1);
        let snapshot = RunSnapshot::pending("r0".into(), "main".into(), "default".into(), 1.0);
        net.write(0, 0, 0, Some(snapshot), Writer::Step).unwrap();
        net.queue.publish(0, "r0", (0, None));
        let mut world = World { net, actors: Vec::new() };
        world.deliver(0);
        while !matches!(world.actors[0].as_ref().unwrap().doing, Doing::Ends(..)) {
            world.step(0);
        }
        world.die(0);
        world
    }

    /// NATS delivers the next message, at once or after `ack_wait` has passed for all that are in delivery.
    fn deliver(&mut self, after: u64) -> bool {
        self.net.now += after;
        // What is in delivery is silent for all that time.
        for actor in self.actors.iter().flatten().filter(|_| after > 0) {
            self.net.checks.goes(actor.delivery.seq, actor.delivery.num);
        }
        let Some(delivery) = self.net.queue.fetch(self.net.now) else { return false };
        let message = *self.net.queue.get(delivery.seq).unwrap();
        let jetstream::Delivery { seq, num, nth } = delivery;
        let ack = format!("$JS.ACK.S.C.{num}.{seq}.{nth}.0.0");
        let doing = claims(WORKERS[self.actors.len()], message, delivery, &ack);
        self.actors.push(Some(Actor { message, delivery, ack, doing }));
        true
    }

    fn die(&mut self, index: usize) {
        if let Some(actor) = self.actors[index].take() {
            self.net.checks.goes(actor.delivery.seq, actor.delivery.num);
        }
    }

    fn step(&mut self, index: usize) {
        let Some(Actor { message, delivery, ack, doing }) = self.actors[index].take() else { return };
        let acks = [ack.clone()];
        let next = match doing {
            Doing::Claims(mut going) => match going.step(&mut self.net, index) {
                Progress::Going => Some(Doing::Claims(going)),
                Progress::End(End::Execute(mut snapshot, revision)) => {
                    snapshot.finish(RunStatus::Completed, None, 2.0);
                    Some(Doing::Ends(snapshot, revision))
                }
                Progress::End(End::Changed) => Some(claims(WORKERS[index], message, delivery, &ack)),
                Progress::End(_) | Progress::Trouble(_) => None,
            },
            Doing::Ends(snapshot, revision) => {
                let value = Some(snapshot.as_ref().clone());
                match self.net.write(index, 0, revision, value, Writer::Owner(&acks)).unwrap() {
                    Some(_) => Some(Doing::Acknowledges),
                    None => Some(Doing::ReadsBack(snapshot)),
                }
            }
            Doing::ReadsBack(mut snapshot) => {
                let newest = self.net.read(index, 0).unwrap();
                let (revision, theirs) = newest.as_ref().map(|(at, value)| (*at, value.as_ref())).unwrap();
                let stored = theirs.map_or(Stored::Deleted, Stored::Run);
                match owner::on_conflict(&mut snapshot, &acks, &Newest { revision, stored }) {
                    Conflict::Lost(_) => None,
                    Conflict::Stored => Some(Doing::Acknowledges),
                    Conflict::Again => Some(Doing::Ends(snapshot, revision)),
                }
            }
            Doing::Acknowledges => {
                self.net.queue.ack(self.net.now, delivery.seq);
                None
            }
        };
        self.actors[index] = next.map(|doing| Actor { message, delivery, ack, doing });
    }

    /// All that may happen next.
    fn nexts(&self) -> Vec<World> {
        let mut nexts = Vec::new();
        for index in 0..self.actors.len() {
            if self.actors[index].is_some() {
                let (mut steps, mut dies) = (self.clone(), self.clone());
                steps.step(index);
                dies.die(index);
                nexts.extend([steps, dies]);
            }
        }
        for after in [0, ACK_WAIT + 1] {
            let mut delivers = self.clone();
            if self.actors.len() <= DELIVERIES && delivers.deliver(after) {
                nexts.push(delivers);
            }
        }
        nexts
    }

    /// What must hold in each state: a run that has not ended has the message that stands for it.
    fn check(&self) {
        assert_eq!(self.net.checks.violation, None, "{self:#?}");
        let (_, snapshot) = self.net.runs.newest(0).unwrap();
        let snapshot = snapshot.as_ref().unwrap();
        if !snapshot.status.is_terminal() {
            let named = snapshot.job_seq.unwrap();
            assert!(
                self.net.queue.get(named).is_some(),
                "the run waits for a message that is gone: {self:#?}"
            );
        }
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Time only passes; what it has brought about is in the rest.
        format!("{:?}{:?}{:?}", self.actors, self.net.queue, self.net.runs).hash(&mut hasher);
        hasher.finish()
    }
}

#[test]
fn no_order_of_steps_and_deaths_loses_a_job_that_is_published_anew() {
    let mut seen = HashSet::new();
    let mut open = vec![World::begin()];
    let (mut ended, mut requeued) = (0, 0);
    while let Some(world) = open.pop() {
        if !seen.insert(world.key()) {
            continue;
        }
        assert!(seen.len() < MAX_STATES);
        world.check();
        let (_, snapshot) = world.net.runs.newest(0).unwrap();
        let snapshot = snapshot.as_ref().unwrap();
        ended += usize::from(snapshot.status.is_terminal());
        requeued += usize::from(snapshot.job_seq == Some(2));
        open.extend(world.nexts());
    }
    // Otherwise nothing was explored.
    assert!(ended > 100 && requeued > 100, "{} states, {ended} ended, {requeued} requeued", seen.len());
    println!("{} states", seen.len());
}
