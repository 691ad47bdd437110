//! What the worker's record says of its wheels: written by the synchronisation, read by the registry.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::clock;
use crate::model::wheel::{InstalledWheel, SyncResult, WheelSync, shortened};
use crate::worker::wheels::{Generation, Selection};

/// The field `wheel_sync`. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Status(Arc<Mutex<WheelSync>>);

impl Status {
    /// Of a worker that has not tried yet.
    pub fn enabled() -> Status {
        let idle = WheelSync { enabled: true, last_result: SyncResult::Idle, ..WheelSync::default() };
        Status(Arc::new(Mutex::new(idle)))
    }

    pub fn get(&self) -> WheelSync {
        self.0.lock().clone()
    }

    pub fn begin(&self) {
        self.0.lock().last_attempt_at = Some(clock::now());
    }

    /// Runs get these since before the registry was asked.
    pub fn resume(&self, generation: &Generation) {
        let mut status = self.0.lock();
        status.installed_wheels = shortened(&sorted(Some(generation)));
        status.generation = Some(generation.set.generation.clone());
    }

    /// An attempt has ended: new runs get the wheels of `after`, and got those of `before`. With a `problem`
    /// some wheel could not be taken.
    pub fn succeed(
        &self,
        selection: &Selection,
        before: Option<&Generation>,
        after: Option<&Generation>,
        problem: Option<String>,
    ) {
        let (old, installed) = (sorted(before), sorted(after));
        // Another upload under the same name is another wheel, but the name has not gone.
        let updated = names(&installed, |new| !old.iter().any(|old| is_same(old, new)));
        let removed = names(&old, |old| !installed.iter().any(|new| new.wheel_name == old.wheel_name));
        let mut selected: Vec<String> =
            selection.chosen.iter().map(|choice| choice.offer.name.clone()).collect();
        selected.sort();
        let now = clock::now();
        let mut status = self.0.lock();
        if before.map(|g| &g.set) != after.map(|g| &g.set) {
            status.last_synced_at = Some(now);
        }
        if problem.is_none() {
            status.last_success_at = Some(now);
        }
        status.last_result = if problem.is_none() { SyncResult::Ok } else { SyncResult::Error };
        status.last_error = problem;
        status.selected_count = selected.len();
        status.selected_wheels = shortened(&selected);
        status.updated_count = updated.len();
        status.updated_wheels = shortened(&updated);
        status.removed_count = removed.len();
        status.removed_wheels = shortened(&removed);
        status.skipped_incompatible_count = selection.skipped.len();
        status.skipped_incompatible = shortened(&selection.skipped);
        status.installed_wheels = shortened(&installed);
        status.generation = after.map(|generation| generation.set.generation.clone());
    }

    pub fn fail(&self, why: String) {
        let mut status = self.0.lock();
        status.last_result = SyncResult::Error;
        status.last_error = Some(why);
    }
}

fn sorted(generation: Option<&Generation>) -> Vec<InstalledWheel> {
    let mut wheels = generation.map_or_else(Vec::new, |g| g.installed.clone());
    wheels.sort_by(|a, b| a.wheel_name.cmp(&b.wheel_name));
    wheels
}

fn is_same(one: &InstalledWheel, other: &InstalledWheel) -> bool {
    one.wheel_name == other.wheel_name && one.nuid == other.nuid
}

fn names(wheels: &[InstalledWheel], is_wanted: impl Fn(&InstalledWheel) -> bool) -> Vec<String> {
    let wanted = wheels.iter().filter(|wheel| is_wanted(wheel));
    wanted.map(|wheel| wheel.wheel_name.clone()).collect()
}
