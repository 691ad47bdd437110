//! `pyoco-client watch`: a run's snapshots as they come, also across breaks of the connection.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Ending;
use super::args::{Watch, WatchFormat};
use super::failed_call::failure_of;
use super::output::Output;
use super::progress::Progress;
use super::wait::{exit_of, is_passing, is_terminal, timed_out};
use crate::cli::exit::Exit;
use crate::client::{Client, Error, Event, Include, WatchQuery};
use crate::model::limits::{CLIENT_WAIT_PATIENCE, CLIENT_WAIT_PAUSES};

/// How long one connection of `pyoco-client watch` lasts before the next takes over: by then a dead one
/// is noticed.
const CLIENT_STREAM_SEGMENT: Duration = Duration::from_secs(30);
/// How long a watch lasts without `--timeout-sec` and `--until-terminal`: as long as on the gateway
/// (`docs/spec.md#get-runsidwatch`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Tells events until the time is over, enough of them have come, or the run has ended.
pub fn watch(client: &Client, args: &Watch, output: &mut Output) -> Result<Exit, Ending> {
    let timeout = match args.timeout_sec {
        Some(seconds) => Some(Duration::from_secs_f64(seconds)),
        None if args.until_terminal => None,
        None => Some(DEFAULT_TIMEOUT),
    };
    let mut watching = Watching {
        args,
        end: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        progress: args.output.is_none().then(|| Progress::on_terminal(output)).flatten(),
        output,
        told: 0,
        last_event_id: None,
        last_snapshot: None,
    };
    let outcome = watching.follow(client);
    if let Some(progress) = &mut watching.progress {
        progress.finish();
    }
    match outcome? {
        Some(exit) => Ok(exit),
        None if args.until_terminal => {
            Err(timed_out(&args.run_id, timeout.unwrap_or_default(), args.exit_status).into())
        }
        None => Ok(Exit::Done),
    }
}

struct Watching<'a> {
    args: &'a Watch,
    end: Option<Instant>,
    progress: Option<Progress>,
    output: &'a mut Output,
    told: u64,
    last_event_id: Option<String>,
    /// The newest one, to know it again when a gateway tells it twice.
    last_snapshot: Option<Value>,
}

impl Watching<'_> {
    /// `None` when the time is over. Connections are short: one that has died without a sign is noticed
    /// when its time is over.
    fn follow(&mut self, client: &Client) -> Result<Option<Exit>, Ending> {
        // Only a watch that has begun is worth waiting for.
        let mut answered: Option<Instant> = None;
        let mut pause = CLIENT_WAIT_PAUSES.0;
        loop {
            let begun = Instant::now();
            let told = self.told;
            let error = match self.connect(client) {
                Ok(mut stream) => loop {
                    answered = Some(Instant::now());
                    match stream.next_event() {
                        Ok(Some(event)) => {
                            pause = CLIENT_WAIT_PAUSES.0;
                            if let Some(exit) = self.take(event)? {
                                return Ok(Some(exit));
                            }
                            if self.left() == Some(Duration::ZERO) {
                                return Ok(None);
                            }
                        }
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                },
                Err(error) => Some(error),
            };
            if self.left() == Some(Duration::ZERO) {
                return Ok(None);
            }
            if error.is_none() && self.args.until_terminal && self.told == told {
                // The gateway has nothing more to tell: of a run that ended before --since, not even that.
                let newest = client.get_run(&self.args.run_id, Include::Snapshot).ok();
                if let Some(newest) = newest.filter(is_terminal) {
                    return Ok(Some(exit_of(&newest, self.args.exit_status)));
                }
            }
            match error {
                Some(error) if !is_passing(&error) || !is_recent(answered) => {
                    return Err(failure_of(error).into());
                }
                // A segment has ended as it should: the next one begins at once.
                None if begun.elapsed() >= CLIENT_WAIT_PAUSES.1 => {}
                _ => {
                    // Ctrl-C ends the program from within its signal.
                    std::thread::sleep(pause.min(self.left().unwrap_or(pause)));
                    pause = (pause * 2).min(CLIENT_WAIT_PAUSES.1);
                }
            }
        }
    }

    fn connect(&self, client: &Client) -> Result<crate::client::EventStream, Error> {
        let segment = self.left().unwrap_or(CLIENT_STREAM_SEGMENT).min(CLIENT_STREAM_SEGMENT);
        client.watch(
            &self.args.run_id,
            &WatchQuery {
                records: self.args.records,
                since: self.args.since,
                // Rounded up: the gateway takes whole seconds, and the end is looked at here.
                timeout_sec: (segment.as_secs_f64().ceil() as u64).max(1),
                until_terminal: self.args.until_terminal,
                last_event_id: self.last_event_id.clone(),
            },
        )
    }

    /// Shows an event; `Some` when it was the last one that is wanted.
    fn take(&mut self, event: Event) -> Result<Option<Exit>, Ending> {
        let snapshot = &event.data["snapshot"];
        if event.name == "snapshot" {
            // A gateway without ids tells the present snapshot anew with each connection.
            let known = self.last_snapshot.as_ref() == Some(snapshot);
            self.last_snapshot = Some(snapshot.clone());
            self.last_event_id.clone_from(&event.id);
            if known {
                return Ok(None);
            }
        }
        let has_ended = event.name == "snapshot" && is_terminal(snapshot);
        let exit = exit_of(snapshot, self.args.exit_status);
        self.told += 1;
        self.show(&event)?;
        let enough = self.args.max_events > 0 && self.told >= self.args.max_events;
        Ok(match has_ended && self.args.until_terminal {
            true => Some(exit),
            false => enough.then_some(Exit::Done),
        })
    }

    fn show(&mut self, event: &Event) -> Result<(), Ending> {
        let Event { name, id, data } = event;
        let snapshot = &data["snapshot"];
        let status = snapshot["status"].as_str().unwrap_or("-");
        let line = match (self.args.output, &mut self.progress) {
            (None, Some(progress)) => {
                progress.show(data);
                // People see the line above change; what stays is how the run ended.
                if !is_terminal(snapshot) {
                    return Ok(());
                }
                progress.finish();
                format!("{}\n", ending_of(snapshot))
            }
            (Some(WatchFormat::Status), _) => {
                format!("{}\t{name}\t{status}\t{}\n", data["ts"], self.args.run_id)
            }
            _ => {
                let mut line = json!({"event": name, "data": data});
                if let Some(id) = id {
                    line["id"] = id.as_str().into();
                }
                format!("{line}\n")
            }
        };
        self.output.text(&line)?;
        // The reader waits for this line.
        self.output.finish()
    }

    fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }
}

fn is_recent(answered: Option<Instant>) -> bool {
    answered.is_some_and(|at| at.elapsed() < CLIENT_WAIT_PATIENCE)
}

/// `COMPLETED main in 1.5 s`, with the error if there is one.
fn ending_of(snapshot: &Value) -> String {
    let text = |name: &str| crate::cli::failure::one_line(snapshot[name].as_str().unwrap_or("-"));
    let mut line = format!("{} {}", text("status"), text("flow_name"));
    if let (Some(start), Some(end)) = (snapshot["start_time"].as_f64(), snapshot["end_time"].as_f64()) {
        line.push_str(&format!(" in {:.1} s", end - start));
    }
    if !snapshot["error"].is_null() {
        line.push_str(&format!(": {}", text("error")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_one_line() {
        let snapshot = json!({"status": "FAILED", "flow_name": "main", "start_time": 1.0,
            "end_time": 2.5, "error": "a\nb"});
        assert_eq!(ending_of(&snapshot), "FAILED main in 1.5 s: a b");
        let snapshot = json!({"status": "CANCELLED", "flow_name": "main", "start_time": null});
        assert_eq!(ending_of(&snapshot), "CANCELLED main");
    }
}
