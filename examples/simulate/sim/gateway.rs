//! A gateway: submits runs, takes failed submits back, brings back what dead workers had, and compares the
//! queue with the snapshots.

use std::collections::VecDeque;
use std::time::Duration;

use pyoco_server::bus::{Deliveries, Meta, QueueContents};
use pyoco_server::delivery::reconcile::missing::{self, Missing};
use pyoco_server::delivery::reconcile::stuck::{self, Stuck, Walked};
use pyoco_server::delivery::reconcile::{self, INTERVAL, QUEUED_WITHIN};
use pyoco_server::delivery::requeue::{self, Reason, Requeue};
use pyoco_server::delivery::rescue::{self, Facts, Remedy};
use pyoco_server::delivery::{Answer, Ask, Change, Limits, Newest, Protocol, Step, Stored, undo};
use pyoco_server::model::run::{RunSnapshot, RunStatus, RunSummary};

use super::checks::MAX_LOST;
use super::jetstream::Millis;
use super::net::{Going, Message, NAK_WITHIN, Net, Progress, RUN_IDS, RUNS, Trouble, Writer, job};
use super::worker::WORKER_IDS;

const RESCUE_INTERVAL: Millis = 1_000;
/// The tag of all runs.
const TAG: &str = "default";
const RECORD_SILENCE: Millis = 7_500;
const SUBMIT_DEADLINE: Millis = 5_000;
const CANCEL_GRACE: Duration = Duration::from_secs(30);

pub struct Gateway {
    actor: usize,
    /// Runs that it still has to submit, and when.
    pub to_submit: VecDeque<(usize, Millis)>,
    submit: Option<Submit>,
    undo: VecDeque<(usize, f64)>,
    /// The newest revision of each run that it has seen, and when that came.
    seen: [Option<(u64, Millis)>; RUNS],
    /// Since when it hears of changes, and of its own writes.
    live_since: Option<Millis>,
    rescue_due: Millis,
    reconcile_due: Millis,
    stuck: Stuck,
    missing: Missing,
    /// Whether the look at stuck messages, and that at runs without one, wait for the next time.
    paused: [bool; 2],
    /// Runs that have lost their job, and at which revision they were seen.
    lost: VecDeque<(usize, u64)>,
    going: Option<Work>,
}

struct Submit {
    run: usize,
    submitted_at: f64,
    created: bool,
    began: Millis,
    give_up: Millis,
}

/// What it does for a run at the moment.
enum Work {
    Undo(Going<Edit>),
    /// Then NAK this message, which was delivered so often, unless that takes until a time.
    Rescue(Going<Edit>, Option<(u64, u64)>, Millis),
    Requeue(Going<Requeue<'static>>),
    Lost(Going<Edit>),
}

/// One edit of a snapshot as a step.
pub struct Edit {
    decide: Box<dyn FnMut(&Newest<'_>) -> Change>,
    written: Option<bool>,
}

impl Edit {
    pub fn new(decide: impl FnMut(&Newest<'_>) -> Change + 'static) -> Edit {
        Edit { decide: Box::new(decide), written: None }
    }
}

impl Protocol for Edit {
    type End = bool;

    fn next(&mut self) -> Step<bool> {
        match self.written {
            Some(written) => Step::End(written),
            None => Step::Ask(Ask::Edit),
        }
    }

    fn edit(&mut self, newest: &Newest<'_>) -> Change {
        (self.decide)(newest)
    }

    fn answered(&mut self, answer: Answer) {
        self.written = Some(matches!(answer, Answer::Edited(Some(_))));
    }
}

impl Gateway {
    pub fn new(actor: usize) -> Gateway {
        Gateway {
            actor,
            to_submit: VecDeque::new(),
            submit: None,
            undo: VecDeque::new(),
            seen: [None; RUNS],
            live_since: None,
            rescue_due: 0,
            reconcile_due: 0,
            stuck: Stuck::default(),
            missing: Missing::default(),
            paused: [false; 2],
            lost: VecDeque::new(),
            going: None,
        }
    }

    /// SIGKILL, and a new start: what it had in mind is gone.
    pub fn die(&mut self, net: &mut Net) {
        if self.submit.as_ref().is_some_and(|submit| submit.created) {
            net.tell(|| format!("gateway {} dies between the two steps of a submit", self.actor));
        }
        let to_submit = std::mem::take(&mut self.to_submit);
        *self = Gateway { to_submit, ..Gateway::new(self.actor) };
    }

    /// Whether a submit stands between its two steps.
    pub fn is_half_way(&self) -> bool {
        self.submit.as_ref().is_some_and(|submit| submit.created)
    }

    pub fn is_done(&self) -> bool {
        self.to_submit.is_empty() && self.submit.is_none() && self.undo.is_empty()
    }

    pub fn step(&mut self, net: &mut Net, accepted: &mut [bool; RUNS]) -> Millis {
        self.listen(net);
        if self.going.is_some() {
            self.go_on(net);
            return 1 + net.random.within(0..20);
        }
        if self.submit.is_some() {
            self.submit(net, accepted);
            return 1 + net.random.within(0..20);
        }
        if let Some((run, at)) = self.to_submit.front().copied()
            && net.now >= at
        {
            self.to_submit.pop_front();
            let (submitted_at, began, give_up) = (net.seconds(), net.now, net.now + SUBMIT_DEADLINE);
            self.submit = Some(Submit { run, submitted_at, created: false, began, give_up });
            return 1;
        }
        if let Some((run, submitted_at)) = self.undo.front().copied() {
            let edit = Edit::new(move |newest| undo::undo(newest, submitted_at));
            self.going = Some(Work::Undo(Going::new(edit, run, None)));
            return 500;
        }
        if let Some((run, revision)) = self.lost.pop_front() {
            let now = net.seconds();
            let edit = Edit::new(move |newest| reconcile::end_lost(newest, revision, now));
            self.going = Some(Work::Lost(Going::new(edit, run, None)));
            return 1;
        }
        if net.now >= self.reconcile_due {
            self.reconcile_due = net.now + u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
            self.paused = [false; 2];
            self.reconcile(net);
            return 1 + net.random.within(0..5);
        }
        if net.now >= self.rescue_due {
            self.rescue_due = net.now + RESCUE_INTERVAL;
            self.rescue(net);
        } else if !self.paused[0] && self.stuck.next().is_some() {
            self.paused[0] = self.find_stuck(net).is_err();
            return 1 + net.random.within(0..5);
        } else if !self.paused[1] && self.missing.next().is_some() {
            self.paused[1] = self.find_missing(net).is_err();
            return 1 + net.random.within(0..5);
        }
        100 + net.random.within(0..900)
    }

    /// What its watch has told: the newest revision of each run.
    fn listen(&mut self, net: &Net) {
        if net.is_cut(self.actor) {
            self.live_since = None;
            return;
        }
        self.live_since.get_or_insert(net.now);
        for run in 0..RUNS {
            let revision = net.runs.newest(run).map(|(revision, _)| *revision);
            if let Some(revision) = revision
                && self.seen[run].is_none_or(|(seen, _)| seen != revision)
            {
                self.seen[run] = Some((revision, net.now));
            }
        }
    }

    fn submit(&mut self, net: &mut Net, accepted: &mut [bool; RUNS]) {
        let Some(mut submit) = self.submit.take() else { return };
        let run = submit.run;
        if !submit.created {
            let name = || (RUN_IDS[run].to_owned(), "main".to_owned(), "default".to_owned());
            let (run_id, flow, tag) = name();
            let snapshot = RunSnapshot::pending(run_id, flow, tag, submit.submitted_at);
            match net.write(self.actor, run, 0, Some(snapshot), Writer::Step) {
                Ok(Some(_)) => {
                    submit.created = true;
                    self.submit = Some(submit);
                }
                Ok(None) => {}
                Err(_) => self.undo.push_back((run, submit.submitted_at)),
            }
            return;
        }
        match net.ask(self.actor, true, |net| net.queue.publish(net.now, RUN_IDS[run], (run, None))) {
            Ok(_) if u128::from(net.now - submit.began) >= QUEUED_WITHIN.as_millis() => {
                self.undo.push_back((run, submit.submitted_at));
            }
            Ok(_) => {
                net.tell(|| format!("r{run} is accepted"));
                accepted[run] = true;
            }
            Err(_) if net.now < submit.give_up => self.submit = Some(submit),
            Err(_) => self.undo.push_back((run, submit.submitted_at)),
        }
    }

    /// The facts about a run that has not ended, as this gateway sees it at a time.
    fn facts<'a>(
        &self,
        net: &Net,
        run: usize,
        summary: &'a RunSummary,
        now: Millis,
    ) -> Option<(u64, Facts<'a>)> {
        let (revision, seen_at) = self.seen[run]?;
        let since = self.live_since?;
        let silence = now.saturating_sub(seen_at.max(since));
        let index = WORKER_IDS.iter().position(|id| summary.worker_id.as_deref() == Some(id));
        let worker_is_gone = index.is_none_or(|index| {
            let (at, instance) = net.records[index];
            let named = summary.delivery.as_ref().map(|delivery| delivery.instance_id.as_str());
            let present = instance.map(|instance| format!("w{index}-{instance}"));
            named.is_some() && named != present.as_deref()
                || now.saturating_sub(at.max(since)) >= RECORD_SILENCE
        });
        let silence = Duration::from_millis(silence);
        Some((revision, Facts { run: summary, silence, worker_is_gone }))
    }

    fn summary(net: &Net, run: usize) -> Option<RunSummary> {
        let (_, snapshot) = net.runs.newest(run)?;
        snapshot.as_ref().filter(|snapshot| !snapshot.status.is_terminal()).map(RunSnapshot::summary)
    }

    fn rescue(&mut self, net: &mut Net) {
        for run in 0..RUNS {
            let Some(summary) = Self::summary(net, run) else { continue };
            let Some((revision, facts)) = self.facts(net, run, &summary, net.now) else { continue };
            match rescue::remedy(facts, CANCEL_GRACE) {
                Remedy::Nothing => {}
                Remedy::GiveBack(ack) => {
                    net.tell(|| format!("gateway {} gives r{run} back", self.actor));
                    let now = net.seconds();
                    let edit = Edit::new(move |newest| {
                        let Stored::Run(snapshot) = newest.stored else { return Change::Leave };
                        let mut snapshot = Box::new(snapshot.clone());
                        let is_due = newest.revision == revision && rescue::sign(&mut snapshot, now);
                        if is_due { Change::Put(snapshot) } else { Change::Leave }
                    });
                    let message = Meta::parse(&ack).map(|meta| (meta.stream_seq, meta.num_delivered));
                    self.going =
                        Some(Work::Rescue(Going::new(edit, run, None), message, net.now + NAK_WITHIN));
                    return;
                }
                Remedy::CompleteCancel => {
                    let now = net.seconds();
                    let edit = Edit::new(move |newest| {
                        let Stored::Run(snapshot) = newest.stored else { return Change::Leave };
                        let mut snapshot = Box::new(snapshot.clone());
                        if newest.revision != revision || snapshot.status != RunStatus::Cancelling {
                            return Change::Leave;
                        }
                        snapshot.finish(RunStatus::Cancelled, None, now);
                        Change::Put(snapshot)
                    });
                    self.going = Some(Work::Rescue(Going::new(edit, run, None), None, net.now));
                    return;
                }
            }
        }
    }

    /// Runs that were overdue at a time, as far as they have not been heard of since.
    fn overdue(&self, net: &Net, at: Millis) -> Vec<(usize, u64)> {
        let is_overdue = |run| {
            let summary = Self::summary(net, run)?;
            let (revision, facts) = self.facts(net, run, &summary, at)?;
            reconcile::wants_look(facts).then_some((run, revision))
        };
        (0..RUNS).filter_map(is_overdue).collect()
    }

    fn reconcile(&mut self, net: &mut Net) {
        let Some(since) = self.live_since else { return };
        let (overdue, began) = (self.overdue(net, net.now), Duration::from_millis(net.now));
        let contents = net.ask(self.actor, false, |net| {
            let stored = net.queue.figures(net.now).stored;
            QueueContents {
                created: "once".to_owned(),
                first_seq: net.queue.next(1).map_or(net.queue.last_seq() + 1, |(seq, _)| seq),
                last_seq: net.queue.last_seq(),
                by_tag: (stored > 0).then(|| (TAG.to_owned(), stored)).into_iter().collect(),
            }
        });
        let Ok(contents) = contents else { return };
        self.missing.begin(began, Duration::from_millis(since), &contents, overdue.iter().map(|_| TAG));
        self.stuck.begin(&contents);
    }

    /// Makes one request.
    fn find_stuck(&mut self, net: &mut Net) -> Result<(), Trouble> {
        let Some(ask) = self.stuck.next() else { return Ok(()) };
        let asked = match ask {
            stuck::Ask::Figures(_) => {
                net.ask(self.actor, false, |net| net.queue.figures(net.now)).map(|now| {
                    let (pending, ack_pending) = (now.pending, now.ack_pending);
                    let (delivered_to, deliveries) = (now.delivered_to, now.deliveries);
                    self.stuck.figures(Some(Deliveries { pending, ack_pending, delivered_to, deliveries }));
                })
            }
            stuck::Ask::Count(_) => net
                .ask(self.actor, false, |net| net.queue.figures(net.now).stored)
                .map(|stored| self.stuck.count(stored)),
            stuck::Ask::Message { from, .. } => self.message(net, from).map(|found| {
                if let (Walked::Examine, Some((seq, message))) =
                    (self.stuck.message(found.map(|(seq, _)| seq)), found)
                {
                    self.unstick(net, seq, message);
                }
            }),
        };
        asked.inspect_err(|_| self.stuck.failed())
    }

    fn unstick(&mut self, net: &Net, seq: u64, message: Message) {
        let run = message.0;
        let summary = Self::summary(net, run);
        let facts = summary.as_ref().and_then(|summary| self.facts(net, run, summary, net.now));
        if self.live_since.is_some() && reconcile::may_be_stuck(seq, facts.map(|(_, facts)| facts)) {
            let limits = Limits::new(MAX_LOST, None);
            let mut step = Requeue::new(job(message), seq, Reason::Stuck, limits, net.seconds());
            if let Some((revision, _)) = facts {
                step = step.decided_on(revision);
            }
            self.going = Some(Work::Requeue(Going::new(step, run, None)));
        }
    }

    /// Makes one request.
    fn find_missing(&mut self, net: &mut Net) -> Result<(), Trouble> {
        match self.missing.next() {
            None => Ok(()),
            Some(missing::Next::Message { from, .. }) => {
                let found = self.message(net, from).inspect_err(|_| self.missing.failed())?;
                self.missing.message(found.map(|(seq, (run, _))| (seq, Some(RUN_IDS[run]))));
                Ok(())
            }
            Some(missing::Next::Decide { began }) => {
                let overdue = self.overdue(net, u64::try_from(began.as_millis()).unwrap_or(0));
                let now = Duration::from_millis(net.now);
                self.lost.extend(self.missing.lost(now, overdue, |(run, _)| (TAG, RUN_IDS[*run])));
                Ok(())
            }
        }
    }

    /// The first message from a sequence on.
    fn message(&self, net: &mut Net, from: u64) -> Result<Option<(u64, Message)>, Trouble> {
        net.ask(self.actor, false, |net| net.queue.next(from).map(|(seq, message)| (seq, *message)))
    }

    fn go_on(&mut self, net: &mut Net) {
        let Some(work) = self.going.take() else { return };
        self.going = match work {
            Work::Undo(mut going) => match going.step(net, self.actor) {
                Progress::Going => Some(Work::Undo(going)),
                Progress::End(_) => {
                    net.tell(|| format!("gateway {} has taken r{} back", self.actor, going.run));
                    self.undo.pop_front();
                    None
                }
                Progress::Trouble(_) => None,
            },
            Work::Rescue(mut going, seq, until) => match going.step(net, self.actor) {
                Progress::Going => Some(Work::Rescue(going, seq, until)),
                Progress::End(written) => {
                    if let (true, Some((seq, deliveries))) = (written && net.now < until, seq) {
                        net.checks.taken(going.run);
                        // The server may have delivered it by itself, and nobody has claimed it so far; that
                        // delivery is lost then.
                        if net.queue.deliveries_of(seq) != deliveries {
                            net.checks.excuse(going.run);
                        }
                        let _ = net.ask(self.actor, false, |net| net.queue.nak(net.now, seq, 0));
                    }
                    None
                }
                // Nobody could write: what was silent may not be gone.
                Progress::Trouble(_) => {
                    self.live_since = self.live_since.map(|_| net.now);
                    None
                }
            },
            Work::Requeue(mut going) => match going.step(net, self.actor) {
                Progress::Going => Some(Work::Requeue(going)),
                Progress::End(end) => {
                    if end != requeue::End::Changed {
                        net.tell(|| format!("gateway {} finds r{} stuck: {end:?}", self.actor, going.run));
                    }
                    None
                }
                Progress::Trouble(_) => None,
            },
            Work::Lost(mut going) => match going.step(net, self.actor) {
                Progress::Going => Some(Work::Lost(going)),
                Progress::End(written) => {
                    if written {
                        net.tell(|| format!("gateway {} ends r{}, whose job is lost", self.actor, going.run));
                        net.checks.lost[going.run] = true;
                    }
                    None
                }
                Progress::Trouble(_) => None,
            },
        };
    }
}
