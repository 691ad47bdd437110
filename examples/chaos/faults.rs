//! What goes wrong, and how it is healed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Error;
use super::clients::Tally;
use super::programs::Installation;
use super::random::Random;
use super::relay::Link;

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident,)*) => {
        /// One kind of trouble.
        #[derive(Clone, Copy, Debug)]
        enum Fault {
            $($(#[$doc])* $fault,)*
        }

        const ALL: &[Fault] = &[$(Fault::$fault),*];
    };
}

faults! {
    KillGateway,
    /// Several kills of gateways that are submitting: some fall between the two steps of a submit.
    KillGatewaysUnderSubmits,
    KillWorker,
    FreezeGateway,
    FreezeWorker,
    RestartGateway,
    RestartWorker,
    KillNats,
    StopNats,
    FreezeNats,
    FillSnapshots,
    FillQueue,
    TakePermissions,
    CutLink,
    SlowLink,
    SilentLink,
}

use Fault::*;

/// How long a round of all faults takes, about.
pub const ROUND: Duration = Duration::from_secs(96);
/// Between the end of one fault and the next one, in seconds.
const CALM: Range<f64> = 0.5..2.0;
/// How long a program is away.
const MOMENT: Range<f64> = 0.2..2.0;
/// How long a fault lasts that nobody restarts.
const WHILE: Range<f64> = 2.0..6.0;
/// How much longer than `ack_wait` a freeze lasts.
const BEYOND_ACK_WAIT: Duration = Duration::from_secs(2);

/// What the storm did.
#[derive(Default)]
pub struct Storm {
    pub faults: BTreeMap<String, usize>,
    /// Programs that did not end as they must, and other trouble that is none of the faults.
    pub problems: Vec<String>,
}

/// Faults in turn, each kind once in a round, until `wanted` runs are accepted and each kind has come.
pub fn storm(all: &mut Installation, tally: &Tally, wanted: usize, seed: u64, deadline: Instant) -> Storm {
    let mut storm = Storm::default();
    let mut random = Random::new(seed);
    let mut done = 0;
    'storm: loop {
        let mut round = ALL.to_vec();
        random.shuffle(&mut round);
        for fault in round {
            if (done >= ALL.len() && tally.count() >= wanted) || Instant::now() > deadline {
                break 'storm;
            }
            std::thread::sleep(random.duration(CALM));
            let began = Instant::now();
            if let Err(error) = inject(fault, all, &mut random) {
                storm.problems.push(format!("{fault:?}: {error}"));
            }
            for name in all.ended() {
                storm.problems.push(format!("{fault:?}: {name} has ended by itself"));
                restart_ended(all, &name, &mut storm);
            }
            let count = tally.count();
            eprintln!("{fault:?} ({:.1} s); {count} runs accepted", began.elapsed().as_secs_f64());
            *storm.faults.entry(format!("{fault:?}")).or_default() += 1;
            done += 1;
        }
    }
    if tally.count() < wanted {
        storm.problems.push(format!("only {} of {wanted} runs were accepted in time", tally.count()));
    }
    storm
}

fn restart_ended(all: &mut Installation, name: &str, storm: &mut Storm) {
    let Some(n) = all.programs.iter().position(|p| p.name == name) else { return };
    if let Err(error) = all.launch(n) {
        storm.problems.push(format!("cannot start {name} again: {error}"));
    }
}

fn inject(fault: Fault, all: &mut Installation, random: &mut Random) -> Result<(), Error> {
    let (gateways, workers) = (all.gateways(), all.workers());
    let gateway = gateways[random.below(gateways.len())];
    let worker = workers[random.below(workers.len())];
    let any = random.below(all.programs.len());
    let moment = random.duration(MOMENT);
    let span = random.duration(WHILE);
    let freeze = Duration::from_secs(all.options.ack_wait_sec.unwrap_or(30)) + BEYOND_ACK_WAIT;
    match fault {
        KillGateway => kill(all, gateway, moment),
        KillGatewaysUnderSubmits => {
            for n in 0..4 {
                kill(all, gateways[n % gateways.len()], random.duration(MOMENT) / 4)?;
                // The next one dies while this one serves.
                std::thread::sleep(random.duration(0.8..1.6));
            }
            Ok(())
        }
        KillWorker => kill(all, worker, moment),
        FreezeGateway | FreezeWorker => {
            let frozen = if matches!(fault, FreezeGateway) { gateway } else { worker };
            all.signal(frozen, Signal::STOP)?;
            std::thread::sleep(freeze);
            all.signal(frozen, Signal::CONT)
        }
        RestartGateway | RestartWorker => {
            let restarted = if matches!(fault, RestartGateway) { gateway } else { worker };
            let stopped = all.stop(restarted);
            all.launch(restarted)?;
            stopped
        }
        KillNats | StopNats => {
            all.nats.end(if matches!(fault, KillNats) { Signal::KILL } else { Signal::TERM })?;
            std::thread::sleep(moment);
            all.nats.launch()
        }
        FreezeNats => {
            all.nats.signal(Signal::STOP)?;
            std::thread::sleep(span);
            all.nats.signal(Signal::CONT)
        }
        FillSnapshots | FillQueue => {
            let stream = if matches!(fault, FillSnapshots) { "KV_pyoco_runs" } else { "PYOCO_WORK" };
            let before = all.nats.fill(stream)?;
            std::thread::sleep(span);
            all.nats.free(stream, &before)
        }
        TakePermissions => {
            all.nats.permit_snapshots(false)?;
            std::thread::sleep(span);
            all.nats.permit_snapshots(true)
        }
        CutLink | SlowLink | SilentLink => {
            let link = match fault {
                CutLink => Link::Cut,
                SlowLink => Link::Slow,
                _ => Link::Silent,
            };
            all.programs[any].link.set(link);
            std::thread::sleep(if link == Link::Silent { freeze } else { span });
            all.programs[any].link.set(Link::Open);
            Ok(())
        }
    }
}

fn kill(all: &mut Installation, n: usize, away: Duration) -> Result<(), Error> {
    all.kill(n)?;
    std::thread::sleep(away);
    all.launch(n)
}
