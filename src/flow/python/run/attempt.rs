//! One Python run from its fork to the end of its last process, on a thread that polls its pipes.

use std::io::{self, ErrorKind, PipeReader, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender, never};

use super::capture::{Capture, Stream};
use super::fork::{Forked, drain, fork};
use super::orders::Orders;
use super::tasks::Tasks;
use crate::flow::executor::{FlowEvent, FlowJob, Outcome};
use crate::flow::python::message::{
    JobMessage, RunMessage, SUPERVISOR_DIED, ShimMessage, cancel_line, lease_line,
};
use crate::flow::python::pipes::{self, RunPipes, Waited};
use crate::flow::python::template::{self, TemplateSupervisor};
use crate::model::{clock, json};

/// Longest message of a Python run; the host cuts values long before.
const MAX_RUN_MESSAGE_BYTES: usize = 32 * 1024 * 1024;
/// How long a run's output is read after its process has ended: a process that has got away may hold
/// the pipe for ever.
const OUTPUT_AFTER_EXIT: Duration = Duration::from_secs(2);
/// Between two looks at what a running task has printed.
const OUTPUT_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// From the word that a flow has ended to the end of its process.
const RUN_EXIT_DEADLINE: Duration = Duration::from_secs(2);
/// What the shim needs beside the grace of what a run has left.
const LEFTOVERS_SLACK: Duration = Duration::from_millis(300);
/// Between two tries to give a slot what it had no room for; it is writing a snapshot.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// What is read from one pipe before the others have their turn: as much as a pipe holds, so that all
/// that was printed before an event has been read when the event is.
pub(super) const TURN_BYTES: usize = 128 * 1024;
/// Parts of a lease after which it is renewed, and the longest pause until then.
const RENEWALS_PER_LEASE: u32 = 4;
const LONGEST_RENEWAL: Duration = Duration::from_secs(1);
/// How often a shim is told to kill before it is killed itself; each time it has [`RUN_EXIT_DEADLINE`].
const MAX_KILLS: u32 = 3;

/// Executes `job`; returns when no process of it is left. The outcome has gone to `events` before.
pub(super) fn run(
    supervisor: &TemplateSupervisor,
    job: &FlowJob,
    orders: &Orders,
    mut woken: PipeReader,
    events: &Sender<FlowEvent>,
) {
    let forked = match fork(supervisor, orders, &mut woken, &never()) {
        Ok(Some(forked)) => forked,
        Ok(None) => return,
        Err(error) => {
            let _ = events.send(FlowEvent::Finished(error.into()));
            return;
        }
    };
    let token = uuid::Uuid::new_v4().simple().to_string();
    let outgoing = match serde_json::to_vec(&JobMessage::new(job, &token)) {
        Ok(mut line) => {
            line.push(b'\n');
            line
        }
        // Unreachable for JSON values; the run then ends by itself for want of a job.
        Err(_) => b"\n".to_vec(),
    };
    let Forked { template, pipes, shim_pid, said } = forked;
    let attempt = PythonAttempt {
        pipes,
        shim_pid,
        supervisor,
        said,
        woken,
        orders,
        events,
        run_id: &job.run_id,
        outgoing,
        incoming: Vec::new(),
        capture: Capture::new(&token),
        tasks: Tasks::new(template.wheels().cloned()),
        open: Open { run: true, shim: true, out: true, err: true },
        told_cancel: false,
        has_begun: false,
        finished: false,
        exit: None,
        next_output: Instant::now() + OUTPUT_REPORT_INTERVAL,
        lease: supervisor.lease,
        leased_until: None,
        next_renewal: Instant::now(),
        kill_at: None,
        kills: 0,
        leave_at: None,
    };
    attempt.follow();
    // Of an old generation this may have been the last run.
    drop(template);
}

struct Open {
    run: bool,
    shim: bool,
    out: bool,
    err: bool,
}

struct PythonAttempt<'a> {
    pipes: RunPipes,
    shim_pid: u32,
    supervisor: &'a TemplateSupervisor,
    /// The beginning of a line of the shim.
    said: Vec<u8>,
    woken: PipeReader,
    orders: &'a Orders,
    events: &'a Sender<FlowEvent>,
    run_id: &'a str,
    outgoing: Vec<u8>,
    /// Read from the run; the beginning of a line.
    incoming: Vec<u8>,
    capture: Capture,
    tasks: Tasks,
    open: Open,
    told_cancel: bool,
    /// Whether code of the flow was executed.
    has_begun: bool,
    finished: bool,
    exit: Option<ShimMessage>,
    next_output: Instant,
    lease: Duration,
    /// By CLOCK_BOOTTIME; `None` before the first lease.
    leased_until: Option<Duration>,
    next_renewal: Instant,
    /// When processes that were asked to end are killed.
    kill_at: Option<Instant>,
    kills: u32,
    /// When what may still come is not waited for any more.
    leave_at: Option<Instant>,
}

impl PythonAttempt<'_> {
    fn follow(mut self) {
        // Before the job goes out.
        self.renew_lease();
        loop {
            let all_passed_on = self.pass_on();
            if self.is_over() {
                break;
            }
            if let Err(e) = self.wait(all_passed_on) {
                log::error!(run_id = self.run_id, error = e.to_string(); "cannot wait for a run");
                // Its shim ends it, since our sockets close.
                let error = format!("cannot wait for the run's process: {e}");
                self.finish(Outcome::HostFault { error, has_begun: self.has_begun });
                break;
            }
            self.take_orders();
            self.write_out();
            self.read_run();
            self.read_shim();
            self.keep_deadlines();
        }
        if let Some(text) = self.capture.outside() {
            log::info!(target: "python", run_id = self.run_id; "printed outside of tasks: {}", text.trim_end());
        }
        let left = match self.exit.as_ref().filter(|_| !self.finished) {
            Some(ShimMessage::Exit { left, .. } | ShimMessage::Lapsed { lapsed: left }) => *left,
            _ => 0,
        };
        if left > 0 {
            log::error!(run_id = self.run_id, left = left; "processes of a run could not be killed");
        }
        if !self.finished {
            let died = || Outcome::Failed { error: SUPERVISOR_DIED.to_owned() };
            let outcome = self.exit.as_ref().map_or_else(died, ShimMessage::outcome);
            self.tasks.add_untold(&mut self.capture);
            self.finish(outcome);
        }
    }

    /// The shim has spoken or is gone, and no output is to come.
    fn is_over(&self) -> bool {
        let shim_is_done = self.exit.is_some() || !self.open.shim;
        let output_is_done = !self.open.out && !self.open.err;
        (shim_is_done && output_is_done) || self.leave_at.is_some_and(|at| at <= Instant::now())
    }

    fn wait(&mut self, all_passed_on: bool) -> io::Result<()> {
        let pause = (!all_passed_on).then(|| Instant::now() + FULL_PAUSE);
        // Once the shim has told of the exit there is nothing left to kill.
        let kill_at = self.kill_at.filter(|_| self.exit.is_none());
        let renewal = self.open.shim.then_some(self.next_renewal);
        let dues = [Some(self.next_output), renewal, kill_at, self.leave_at, pause, self.tasks.next_due()];
        let due = dues.into_iter().flatten().min();
        let to_write = !self.outgoing.is_empty();
        let waited = [
            Some(Waited { fd: self.woken.as_fd(), to_write: false }),
            self.open.run.then(|| Waited { fd: self.pipes.run.as_fd(), to_write }),
            self.open.shim.then(|| Waited { fd: self.pipes.shim.as_fd(), to_write: false }),
            self.open.out.then(|| Waited { fd: self.pipes.out.as_fd(), to_write: false }),
            self.open.err.then(|| Waited { fd: self.pipes.err.as_fd(), to_write: false }),
        ];
        pipes::wait(&waited, due).map(drop)
    }

    fn take_orders(&mut self) {
        drain(&mut self.woken);
        let wanted = self.orders.now();
        if wanted.cancel && !self.told_cancel {
            self.told_cancel = true;
            self.outgoing.extend(cancel_line());
        }
        if let Some(term_grace) = wanted.kill
            && self.kill_at.is_none()
        {
            if !term_grace.is_zero() {
                self.tell_shim(b"term\n");
            }
            self.kill_at = Some(Instant::now() + term_grace);
        }
    }

    /// Tells the shim that this process lives. After a gap it does not any more: the shim ends the run for
    /// it, also when it hears of the gap first and of the time later.
    fn renew_lease(&mut self) {
        let now = clock::since_boot();
        let is_unbroken = self.leased_until.is_none_or(|until| now <= until);
        self.next_renewal = Instant::now() + (self.lease / RENEWALS_PER_LEASE).min(LONGEST_RENEWAL);
        if is_unbroken {
            let until = now + self.lease;
            self.leased_until = Some(until);
            // A shim that does not read has stood still itself; then there is a gap for it, too.
            self.tell_shim(&lease_line(now, until));
        }
    }

    fn keep_deadlines(&mut self) {
        let now = Instant::now();
        if self.open.shim && self.next_renewal <= now {
            self.renew_lease();
        }
        if self.exit.is_none() && self.kill_at.is_some_and(|at| at <= now) {
            // The shim answers when all are gone; were it gone itself, its socket would say so.
            if self.kills < MAX_KILLS {
                self.tell_shim(b"kill\n");
            } else if self.open.shim {
                // Its end makes the kernel and the template do its work.
                template::kill(self.shim_pid);
            }
            self.kills += 1;
            self.kill_at = Some(now + RUN_EXIT_DEADLINE);
        }
        if !self.finished
            && let Some(error) = self.tasks.fail_stuck(now)
        {
            self.finish(Outcome::Failed { error });
            self.kill_at = Some(now);
        }
        if self.next_output <= now {
            self.next_output = now + OUTPUT_REPORT_INTERVAL;
            self.tasks.add_output(&mut self.capture);
        }
    }

    fn tell_shim(&self, order: &[u8]) {
        // When it is gone, so is the run, and its socket says so.
        let _ = (&self.pipes.shim).write(order);
    }

    fn read_output(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            let (pipe, is_open) = match stream {
                Stream::Out => (&mut self.pipes.out, &mut self.open.out),
                Stream::Err => (&mut self.pipes.err, &mut self.open.err),
            };
            if *is_open {
                let capture = &mut self.capture;
                *is_open = pipes::read_available(pipe, TURN_BYTES, |bytes| capture.take(stream, bytes));
            }
        }
    }

    fn write_out(&mut self) {
        while !self.outgoing.is_empty() {
            match self.pipes.run.write(&self.outgoing) {
                Ok(length) => drop(self.outgoing.drain(..length)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // It has ended, or has closed its end; the shim tells how that goes on.
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    /// Whether there may be more.
    fn read_run(&mut self) -> bool {
        let before = self.incoming.len();
        if self.open.run {
            let incoming = &mut self.incoming;
            let take = |bytes: &[u8]| incoming.extend_from_slice(bytes);
            self.open.run = pipes::read_available(&mut self.pipes.run, TURN_BYTES, take);
        }
        let may_be_more = self.incoming.len() - before >= TURN_BYTES;
        // After the events were read and before they are looked at: what was printed before an event is
        // in its pipe by now, and belongs to the task as it was then.
        self.read_output();
        let mut from = 0;
        while let Some(length) = self.incoming[from..].iter().position(|&byte| byte == b'\n') {
            let line = self.incoming[from..from + length].to_vec();
            from += length + 1;
            self.take_message(&line);
        }
        self.incoming.drain(..from);
        if self.incoming.len() > MAX_RUN_MESSAGE_BYTES {
            self.incoming.clear();
            self.refuse("sent a message that has no end");
        }
        may_be_more
    }

    fn take_message(&mut self, line: &[u8]) {
        if self.finished {
            return;
        }
        match json::from_wire::<RunMessage>(line) {
            Ok(RunMessage::Begun { .. }) => self.has_begun = true,
            Ok(RunMessage::Flow { flow, tasks }) => self.tasks.begin(flow, tasks),
            Ok(RunMessage::Task(task)) => {
                if !self.tasks.change(*task, &mut self.capture) {
                    self.refuse("told of a task that its flow does not have");
                }
            }
            Ok(RunMessage::End { end, error }) => {
                self.finish(end.outcome(error, self.has_begun));
                // What the flow has left behind, threads, handlers, processes, must not keep it.
                let patience = RUN_EXIT_DEADLINE.max(self.supervisor.settings.term_grace + LEFTOVERS_SLACK);
                self.kill_at.get_or_insert(Instant::now() + patience);
            }
            Err(e) => self.refuse(&format!("sent a message that cannot be read: {e}")),
        }
    }

    /// Ends a run that does not keep to the protocol: its flow has got hold of the socket.
    fn refuse(&mut self, what: &str) {
        if !self.finished {
            self.finish(Outcome::Failed { error: format!("the process of the run {what}") });
            self.kill_at = Some(Instant::now());
        }
    }

    fn read_shim(&mut self) {
        if self.open.shim {
            let said = &mut self.said;
            self.open.shim = pipes::read_available(&mut self.pipes.shim, TURN_BYTES, |bytes| {
                said.extend_from_slice(bytes)
            });
        }
        while let Some(end) = self.said.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.said.drain(..=end).collect();
            if let Ok(said) = serde_json::from_slice(&line) {
                self.exit = Some(said);
            }
        }
        if (self.exit.is_some() || !self.open.shim) && self.leave_at.is_none() {
            self.leave_at = Some(Instant::now() + OUTPUT_AFTER_EXIT);
            // What it said last is in the socket; nobody is there to say more.
            while self.read_run() {}
        }
    }

    /// Whether there was room for all of it.
    fn pass_on(&mut self) -> bool {
        // Without a listener the run was killed or is lost; its orders say so too.
        self.tasks.pass_on(self.events).unwrap_or(true)
    }

    fn finish(&mut self, outcome: Outcome) {
        let outcome = match &outcome {
            Outcome::Failed { error } | Outcome::FlowNotFound { error } => {
                let told = self.supervisor.look_at_host().map_err(|why| format!("{why} (the run: {error})"));
                let has_begun = self.has_begun;
                told.map_or_else(|error| Outcome::HostFault { error, has_begun }, |()| outcome)
            }
            _ => outcome,
        };
        self.finished = true;
        self.read_output();
        self.tasks.add_output(&mut self.capture);
        for event in self.tasks.take_all().into_iter().chain([FlowEvent::Finished(outcome)]) {
            if !self.deliver(event) {
                return;
            }
        }
    }

    /// Waits for room; a slot that kills the run, or is gone, wants nothing more.
    fn deliver(&self, mut event: FlowEvent) -> bool {
        loop {
            event = match self.events.send_timeout(event, FULL_PAUSE) {
                Ok(()) => return true,
                Err(SendTimeoutError::Disconnected(_)) => return false,
                Err(SendTimeoutError::Timeout(event)) => event,
            };
            if self.orders.now().kill.is_some() {
                return false;
            }
        }
    }
}
