//! Finds bytes that no object names: what is left of uploads whose process has died.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{ObjectStore, unless_missing};
use crate::bus::{Result, jetstream};

/// Uploads that one call removes; the next one goes on.
const MAX_PURGES: usize = 8;

impl ObjectStore {
    /// Removes the chunks that no meta names and to which nothing was added for `idle_for`, which must be
    /// longer than any pause in an upload, its naming included; returns of how many uploads. The store's
    /// deadline is for each request. A meta that cannot be read may name any of them: nothing is removed.
    pub fn purge_orphans(&self, idle_for: Duration) -> Result<usize> {
        let deadline = Instant::now() + self.timeout;
        let chunks = self.chunks_subject();
        // Chunks first: what was named since is found among the metas.
        let found = jetstream::subjects(&self.control, &self.stream(), &chunks, deadline);
        let Some(found) = unless_missing(found)? else { return Ok(0) };
        if found.subjects.is_empty() {
            return Ok(0);
        }
        let mut named = HashSet::new();
        for meta in self.metas()?.0 {
            // What cannot be read may name anything.
            let meta = meta?;
            if !meta.deleted {
                named.extend(self.chunk_subject(&meta.nuid));
            }
        }
        let mut purged = 0;
        for subject in found.subjects.iter().filter(|subject| !named.contains(*subject)) {
            let Some(nuid) = subject.strip_prefix(chunks.trim_end_matches('>')) else { continue };
            // By the server's clock, on both sides. The message is a whole chunk.
            let which = json!({"last_by_subj": subject});
            let link = self.large_payloads.link(self.timeout)?;
            let last = jetstream::get_message(&link, &self.stream(), &which, self.timeout)?;
            let times = last.and_then(|last| last.time).zip(found.now);
            let Some((last, now)) = times else { continue };
            if now - last < idle_for.as_secs_f64() {
                continue;
            }
            self.purge(nuid)?;
            purged += 1;
            log::info!(bucket = self.name(), nuid = nuid; "removed bytes that no object names");
            if purged == MAX_PURGES {
                break;
            }
        }
        Ok(purged)
    }
}
