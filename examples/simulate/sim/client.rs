//! A client of the gateways: asks to cancel runs.

use pyoco_server::delivery::{Change, Stored, cancel};

use super::gateway::Edit;
use super::jetstream::Millis;
use super::net::{Going, Net, Progress};

pub struct Client {
    /// The gateway that it asks.
    actor: usize,
    /// The run that it cancels, and when.
    wants: (usize, Millis),
    going: Option<Going<Edit>>,
}

impl Client {
    pub fn new(actor: usize, run: usize, at: Millis) -> Client {
        Client { actor, wants: (run, at), going: None }
    }

    /// One step; the time until the next one.
    pub fn step(&mut self, net: &mut Net) -> Millis {
        let (run, at) = self.wants;
        if net.now < at {
            return at - net.now;
        }
        let now = net.seconds();
        let mut going = self.going.take().unwrap_or_else(|| {
            let edit = Edit::new(move |newest| {
                let Stored::Run(snapshot) = newest.stored else { return Change::Leave };
                let mut snapshot = Box::new(snapshot.clone());
                match cancel::request(&mut snapshot, None, None, now) {
                    true => Change::Put(snapshot),
                    false => Change::Leave,
                }
            });
            Going::new(edit, run, None)
        });
        net.checks.cancels[run] = true;
        match going.step(net, self.actor) {
            Progress::Going => {
                self.going = Some(going);
                1 + net.random.within(0..20)
            }
            Progress::End(written) => {
                net.tell(|| format!("a client has asked to cancel r{run}: {written}"));
                Millis::MAX / 2
            }
            // It was answered with an error, and asks no more.
            Progress::Trouble(_) => Millis::MAX / 2,
        }
    }
}
