//! Whether the streams and consumers under our names are ours, and marks that say so to others.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bus::jetstream::{self, ownership, resources};
use crate::bus::queue::backlog::MAX_PAGES;
use crate::bus::{Bus, Error, Result, left};

/// What a look has found where nothing belongs to another installation.
#[derive(Debug, Default)]
pub struct Ownership {
    /// Whether the stream of the jobs and the bucket of the runs are ours, or missing.
    pub has_runs: bool,
    /// Why the look is not complete: the first question that had no answer.
    pub unanswered: Option<Error>,
    /// Consumers of tags that refuse every pull, each an [`Error::NotPullable`].
    pub refusing: Vec<Error>,
    /// Whether there are more consumers than were read.
    pub is_cut: bool,
}

impl Bus {
    /// Whether what is there under our names is ours; what is missing will be. What has not answered by
    /// `deadline` is left out.
    ///
    /// # Errors
    /// [`Error::Foreign`] when something must not be used.
    pub fn check_ownership(&self, deadline: Instant) -> Result<Ownership> {
        let (config, link) = (&self.inner.resources, &self.inner.control);
        let name_of = |stream: &Value| stream["name"].as_str().unwrap_or_default().to_owned();
        // All at once, so that one without a leader does not hold up the others.
        let asked = resources::all_streams(config).into_iter().map(|expected| {
            let name = name_of(&expected);
            let asked = jetstream::begin_info(link, &name, left(deadline));
            (name, expected, asked)
        });
        let asked: Vec<_> = asked.collect();
        let (jobs, runs) =
            (resources::work_stream_name(config), name_of(&resources::runs_bucket(config).stream));
        let (mut found, mut has_jobs) = (Ownership { has_runs: true, ..Ownership::default() }, false);
        for (name, expected, asked) in asked {
            match jetstream::info_of(asked) {
                Ok(None) => {}
                Ok(Some(info)) => {
                    ownership::check_stream(&expected, &info["config"])?;
                    has_jobs |= name == jobs;
                }
                Err(e) => {
                    found.has_runs &= name != jobs && name != runs;
                    found.unanswered.get_or_insert(e);
                }
            }
        }
        if has_jobs {
            match jetstream::consumers(link, &jobs, MAX_PAGES, deadline) {
                Ok(consumers) => {
                    found.refusing = ownership::check_tag_consumers(config, &consumers.infos)?;
                    found.is_cut = consumers.is_cut;
                }
                Err(e) => drop(found.unanswered.get_or_insert(e)),
            }
        }
        Ok(found)
    }

    /// Writes into the metadata of the work stream and of the bucket of runs that they belong together, where
    /// that is missing: what earlier versions and the Python package have made does not say so. The streams
    /// that were changed.
    ///
    /// # Errors
    /// [`Error::Foreign`], and what NATS refuses.
    pub fn mark_ownership(&self, timeout: Duration) -> Result<Vec<String>> {
        let (config, link) = (&self.inner.resources, &self.inner.control);
        let mut changed = Vec::new();
        for expected in [resources::work_stream(config), resources::runs_bucket(config).stream] {
            let name = expected["name"].as_str().unwrap_or_default();
            let Some(info) = jetstream::info_of(jetstream::begin_info(link, name, timeout))? else {
                continue;
            };
            ownership::check_stream(&expected, &info["config"])?;
            if let Some(marked) = ownership::marked(&expected, &info["config"]) {
                let updated: Value =
                    jetstream::call(link, &format!("STREAM.UPDATE.{name}"), &marked, timeout)?;
                // A server that is too old for metadata takes the update and leaves it out.
                if ownership::marked(&expected, &updated["config"]).is_none() {
                    changed.push(name.to_owned());
                }
            }
        }
        Ok(changed)
    }
}
