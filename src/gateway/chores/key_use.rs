//! Notes when keys were used.

use std::time::{Duration, Instant};

use super::{Next, TIMEOUT, Turn};
use crate::bus::{self, Edit, Entry, Kv};
use crate::gateway::view::keys::{self, KeyMirror};
use crate::model::key::{self, KeyRecord};
use crate::model::{clock, json};

pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// After a note that could not be written, perhaps because NATS lets this gateway only read.
const PAUSE: Duration = Duration::from_secs(60);

pub(super) fn run(records: &Kv, keys: &KeyMirror, turn: &Turn<'_>) -> Next {
    while !turn.is_over() {
        let Some(key_id) = keys.next_used() else { return Next::InTime };
        match note(records, &key_id) {
            Ok(Some(entry)) => keys.wrote(entry),
            Ok(None) => {}
            Err(e) => {
                log::debug!(key_id = key_id.as_str(), error = e.to_string();
                    "cannot note the use of an API key");
                return Next::After(PAUSE);
            }
        }
    }
    Next::Again
}

/// Writes the present time into the record, unless another gateway has done so.
fn note(records: &Kv, key_id: &str) -> bus::Result<Option<Entry>> {
    let now = clock::now();
    let edited = records.edit(&key::record_key(key_id), Instant::now() + TIMEOUT, |newest| {
        match newest.and_then(Entry::live_value).map(json::from_wire::<KeyRecord>) {
            Some(Ok(record)) if keys::is_use_stale(&record, now) => {
                let record = KeyRecord { last_used_at: Some(now), ..record };
                Ok::<_, bus::Error>(Edit::Put(json::to_wire(&record)?, ()))
            }
            _ => Ok(Edit::Leave(())),
        }
    });
    Ok(edited?.written)
}
