//! `pyoco-server-admin api-key`: makes, lists, revokes and replaces keys.

use std::time::{Duration, Instant};

use clap::Subcommand;
use crossbeam_channel::unbounded;
use serde_json::{Value, json};

use super::{PROGRAM, audit};
use crate::bus::{self, AuditLog, Edit, Entry, Kv, Operation, WatchEvent};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::program;
use crate::gateway::auth::hash::{self, NewKey, Pepper};
use crate::model::audit::Outcome;
use crate::model::error::Code;
use crate::model::key::{self, KeyRecord, Role};
use crate::model::limits::{MAX_KEY_NOTE_BYTES, MAX_TENANT_BYTES};
use crate::model::{clock, json as wire};

/// For the whole list of keys.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  pyoco-server-admin api-key create --tenant team-a
  pyoco-server-admin api-key create --tenant team-a --role viewer --expires-in 90d --note grafana
  pyoco-server-admin api-key list
  pyoco-server-admin api-key rotate --key-id 499132bc5568eaede51291d8 --overlap 1d
  pyoco-server-admin api-key revoke --key-id 499132bc5568eaede51291d8

PYOCO_AUTH_PEPPER must be what the gateways have. A key is printed once, when it is made.";

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true, after_help = EXAMPLES)]
pub(super) enum KeyCommand {
    /// Make a key, and print it this once
    Create {
        /// Whose runs it submits and sees
        #[arg(long, value_parser = tenant)]
        tenant: String,
        /// admin, operator, submitter or viewer
        #[arg(long, default_value = "operator", value_parser = role)]
        role: Role,
        /// After which time it is refused, such as 90d, 12h, 30m; never unless given
        #[arg(long, value_name = "DURATION", value_parser = super::duration::parse)]
        expires_in: Option<Duration>,
        /// What it is for
        #[arg(long, value_parser = note)]
        note: Option<String>,
    },
    /// List all keys, without what would open anything
    List,
    /// Refuse a key from now on; exit 2 when there is none of that id
    Revoke {
        /// The middle part of the key, before the dot
        #[arg(long)]
        key_id: String,
    },
    /// Make a key with the same tenant, role and note, and end the old one
    Rotate {
        /// The key to replace
        #[arg(long)]
        key_id: String,
        /// How long the old one is still good, such as 1d; not at all unless given
        #[arg(long, value_name = "DURATION", value_parser = super::duration::parse)]
        overlap: Option<Duration>,
        /// After which time the new one is refused; as long as the old one was made for unless given
        #[arg(long, value_name = "DURATION", value_parser = super::duration::parse)]
        expires_in: Option<Duration>,
    },
}

pub(super) fn run(command: KeyCommand, keys: &Kv, pepper: &Pepper, log: &AuditLog) -> Result<Exit, Failure> {
    match command {
        KeyCommand::Create { tenant, role, expires_in, note } => {
            let expires_at = expires_in.map(|time| clock::now() + time.as_secs_f64());
            let new = NewKey { tenant_id: tenant, role, expires_at, note };
            let (record, text) = create(keys, new, pepper)?;
            audit::note(log, "key.create", &record.key_id, Outcome::Done);
            print(&created(&record, &text))
        }
        KeyCommand::List => {
            let records = all(keys)?;
            print(&records.iter().map(shown).collect())
        }
        KeyCommand::Revoke { key_id } => {
            let now = clock::now();
            // Who was first stays.
            let revoke = |record: &mut KeyRecord| record.revoked_at = record.revoked_at.or(Some(now));
            match change(keys, &key_id, revoke)? {
                Some(record) => {
                    audit::note(log, "key.revoke", &key_id, Outcome::Done);
                    print(&json!({"key_id": key_id, "revoked_at": record.revoked_at}))
                }
                None => {
                    audit::note(log, "key.revoke", &key_id, Outcome::Refused);
                    Ok(unknown(&key_id))
                }
            }
        }
        KeyCommand::Rotate { key_id, overlap, expires_in } => {
            let rotated = rotate(keys, pepper, &key_id, overlap, expires_in);
            let outcome = match &rotated {
                Ok(Exit::Done) => Outcome::Done,
                Ok(_) | Err(Failure { exit: Exit::Usage, .. }) => Outcome::Refused,
                Err(_) => Outcome::Failed,
            };
            audit::note(log, "key.rotate", &key_id, outcome);
            rotated
        }
    }
}

fn rotate(
    keys: &Kv,
    pepper: &Pepper,
    key_id: &str,
    overlap: Option<Duration>,
    expires_in: Option<Duration>,
) -> Result<Exit, Failure> {
    let Some(old) = read(keys, key_id)? else { return Ok(unknown(key_id)) };
    let now = clock::now();
    let hint = format!("make a new key with `{PROGRAM} api-key create`");
    if !old.is_in_force(now) {
        let reason = format!("key {key_id} is revoked or has expired");
        return Err(Failure::usage(reason, None, hint));
    }
    let Some(role) = old.role() else {
        let reason = format!("key {key_id} has a role that this version does not know");
        return Err(Failure::usage(reason, None, hint));
    };
    let lasted = old.expires_at.zip(old.created_at).map(|(end, begin)| (end - begin).max(0.0));
    let lasts = expires_in.map(|time| time.as_secs_f64()).or(lasted);
    let new = NewKey {
        tenant_id: old.tenant_id,
        role,
        expires_at: lasts.map(|seconds| now + seconds),
        note: old.note,
    };
    // The new one first: should the second step fail, both are good, and no client is locked out.
    let (record, text) = create(keys, new, pepper)?;
    let end = overlap.map(|time| clock::now() + time.as_secs_f64());
    let ended = change(keys, key_id, |old| match end {
        Some(end) => old.expires_at = Some(old.expires_at.map_or(end, |before| before.min(end))),
        None => old.revoked_at = old.revoked_at.or(Some(clock::now())),
    });
    let mut shown = created(&record, &text);
    // The new key must be seen whatever became of the old one: it is shown nowhere else.
    shown["replaces"] = match &ended {
        Ok(old) => json!({
            "key_id": key_id,
            "revoked_at": old.as_ref().and_then(|old| old.revoked_at),
            "expires_at": old.as_ref().and_then(|old| old.expires_at),
        }),
        Err(_) => json!({"key_id": key_id, "error": "still in force"}),
    };
    let printed = print(&shown)?;
    ended.map(|_| printed)
}

fn create(keys: &Kv, new: NewKey, pepper: &Pepper) -> Result<(KeyRecord, String), Failure> {
    let (record, text) =
        hash::make(new, pepper).map_err(|e| program::failed(Code::BadCommandLine, "cannot make a key", e))?;
    let document = wire::to_wire(&record).map_err(|e| unavailable(e.into()))?;
    keys.create(&key::record_key(&record.key_id), &document).map_err(unavailable)?;
    Ok((record, text))
}

/// All records, the oldest first; what cannot be read is named on stderr.
fn all(keys: &Kv) -> Result<Vec<KeyRecord>, Failure> {
    let (sender, events) = unbounded();
    // The receiver outlives the watch, so a send fails only when nothing needs it any more.
    let watch = keys.watch(move |event| drop(sender.send(event))).map_err(unavailable)?;
    let deadline = Instant::now() + LIST_TIMEOUT;
    let mut records = Vec::new();
    loop {
        match events.recv_deadline(deadline) {
            Ok(WatchEvent::Live) => break,
            Ok(WatchEvent::Reset) => records.clear(),
            Ok(WatchEvent::Entry(entry)) => records.extend(listed(&entry)),
            Ok(WatchEvent::Stale(_)) => {}
            Err(_) => {
                let reason = format!("the bucket was not read within {LIST_TIMEOUT:?}");
                return Err(program::failed(Code::NatsUnavailable, "cannot list keys", reason));
            }
        }
    }
    drop(watch);
    records.sort_by(|a: &KeyRecord, b| {
        let at = |record: &KeyRecord| record.created_at.unwrap_or(0.0);
        at(a).total_cmp(&at(b)).then_with(|| a.key_id.cmp(&b.key_id))
    });
    Ok(records)
}

fn listed(entry: &Entry) -> Option<KeyRecord> {
    let key_id = key::key_id_of(&entry.key).filter(|_| entry.operation == Operation::Put)?;
    match wire::from_wire::<KeyRecord>(&entry.value) {
        // Whatever the record says: this is what can be revoked.
        Ok(record) => Some(KeyRecord { key_id: key_id.to_owned(), ..record }),
        Err(_) => {
            program::message(&format!("the record of key {key_id} cannot be read"));
            None
        }
    }
}

/// Changes a record by compare-and-set; `None` when there is none.
fn change(keys: &Kv, key_id: &str, edit: impl Fn(&mut KeyRecord)) -> Result<Option<KeyRecord>, Failure> {
    if !key::is_key_id(key_id) {
        return Ok(None);
    }
    let record_key = key::record_key(key_id);
    let changed = keys.edit(&record_key, keys.deadline(), |newest| {
        let mut record = match record_of(newest, key_id) {
            Ok(Some(record)) => record,
            other => return Ok(Edit::Leave(other)),
        };
        edit(&mut record);
        Ok::<_, bus::Error>(Edit::Put(wire::to_wire(&record)?, Ok(Some(record))))
    });
    changed.map_err(unavailable)?.result
}

fn read(keys: &Kv, key_id: &str) -> Result<Option<KeyRecord>, Failure> {
    if !key::is_key_id(key_id) {
        return Ok(None);
    }
    let newest = keys.newest(&key::record_key(key_id)).map_err(unavailable)?;
    record_of(newest.as_ref(), key_id)
}

fn record_of(newest: Option<&Entry>, key_id: &str) -> Result<Option<KeyRecord>, Failure> {
    let read = newest.and_then(Entry::live_value).map(wire::from_wire).transpose();
    read.map_err(|_| {
        let reason = format!("the record of key {key_id} cannot be read");
        program::failed(Code::NatsUnavailable, "cannot read the key", reason)
    })
}

fn unavailable(error: bus::Error) -> Failure {
    program::failed(Code::NatsUnavailable, "cannot use the bucket of keys", error)
}

/// As the Python side says it, on stderr.
fn unknown(key_id: &str) -> Exit {
    program::message(&json!({"error": "not_found", "key_id": key_id}).to_string());
    Exit::Unknown
}

/// The one place where a key is shown.
fn created(record: &KeyRecord, text: &str) -> Value {
    json!({
        "key_id": record.key_id,
        "tenant_id": record.tenant_id,
        "api_key": text,
        "created_at": record.created_at,
        "role": record.role,
        "expires_at": record.expires_at,
        "note": record.note,
    })
}

/// Neither hash nor salt.
fn shown(record: &KeyRecord) -> Value {
    json!({
        "key_id": record.key_id,
        "tenant_id": record.tenant_id,
        "created_at": record.created_at,
        "revoked_at": record.revoked_at,
        "role": record.role.as_deref().unwrap_or(Role::Operator.as_str()),
        "expires_at": record.expires_at,
        "note": record.note,
        "last_used_at": record.last_used_at,
    })
}

fn print(document: &Value) -> Result<Exit, Failure> {
    Ok(program::print(&format!("{document}\n")))
}

fn tenant(text: &str) -> Result<String, String> {
    match key::is_tenant(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("a tenant has 1 to {MAX_TENANT_BYTES} of the characters A-Za-z0-9_-")),
    }
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "it is admin, operator, submitter or viewer".to_owned())
}

fn note(text: &str) -> Result<String, String> {
    match text.len() <= MAX_KEY_NOTE_BYTES {
        true => Ok(text.to_owned()),
        false => Err(format!("a note has at most {MAX_KEY_NOTE_BYTES} bytes")),
    }
}
