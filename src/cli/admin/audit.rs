//! `pyoco-server-admin audit`: who did what, and what the commands of this program add to it.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::bus::{self, AuditLog};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::program;
use crate::model::audit::{AuditEntry, Outcome};
use crate::model::error::Code;
use crate::model::{clock, json as wire};

const EXAMPLES: &str = "\
Examples:
  pyoco-server-admin audit --since 1h
  pyoco-server-admin audit --since 7d --action run.cancel
  pyoco-server-admin audit --actor api_key:499132bc5568eaede51291d8 --limit 1000

One JSON document per line, oldest first.";

#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Show {
    /// Entries of this last stretch of time, such as 30m, 12h, 7d
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = super::duration::parse)]
    since: Duration,
    /// Entries of this actor only: api_key:<key id>, anonymous, cli:<user>@<host>
    #[arg(long)]
    actor: Option<String>,
    /// Entries of this action only, such as run.submit; `run` stands for all that begin with `run.`
    #[arg(long)]
    action: Option<String>,
    /// The last ones of all that were found
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

impl Show {
    fn wants(&self, entry: &AuditEntry) -> bool {
        let is_action = |wanted: &String| {
            let rest = entry.action.strip_prefix(wanted.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.actor.as_ref().is_none_or(|actor| *actor == entry.actor)
            && self.action.as_ref().is_none_or(is_action)
    }
}

pub(super) fn show(show: &Show, log: &AuditLog) -> Result<Exit, Failure> {
    let unavailable = |e: bus::Error| program::failed(Code::NatsUnavailable, "cannot read the audit", e);
    let since = clock::now() - show.since.as_secs_f64();
    let mut next = log.since(since).map_err(unavailable)?;
    let mut lines = std::collections::VecDeque::new();
    while let Some(record) = log.read(next).map_err(unavailable)? {
        next = record.seq + 1;
        let Ok(entry) = wire::from_wire::<AuditEntry>(&record.data) else { continue };
        if show.wants(&entry) {
            if lines.len() == show.limit as usize {
                lines.pop_front();
            }
            lines.push_back(format!("{}\n", serde_json::json!(entry)));
        }
    }
    Ok(program::print(&lines.into_iter().collect::<String>()))
}

/// Appends what a command of this program has done; when NATS does not take it, stderr gets a line.
pub(super) fn note(log: &AuditLog, action: &str, object: &str, outcome: Outcome) {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let entry = AuditEntry {
        time: clock::now(),
        actor: format!("cli:{}@{}", user.as_deref().unwrap_or("unknown"), crate::worker::hostname()),
        action: action.to_owned(),
        object: Some(object.to_owned()),
        outcome,
        ..AuditEntry::default()
    };
    let stored = wire::to_wire(&entry)
        .map_err(|e| e.to_string())
        .and_then(|bytes| log.append(action, &bytes).map_err(|e| e.to_string()));
    if let Err(e) = stored {
        program::message(&format!("cannot append `{action}` of {object} to the audit: {e}"));
    }
}
