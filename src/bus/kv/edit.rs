//! The compare-and-set loop: read the newest value, decide, write on the condition that it still is
//! the newest, and on a conflict begin again.

use std::time::Instant;

use super::{Entry, Kv};
use crate::bus::left;
use crate::bus::{Error, Result};

/// How often one edit is decided anew because another writer was quicker. A run and a worker record
/// are written a few times a second at most, so the deadline comes first.
const MAX_CONFLICTS: usize = 32;

/// What to do with a key, decided on its newest message. The value inside goes back to the caller.
#[derive(Debug)]
pub enum Edit<T> {
    Put(Vec<u8>, T),
    /// Delete the key; also one that has no value, so that a create under way fails.
    Delete(T),
    Leave(T),
}

#[derive(Debug)]
pub struct Edited<T> {
    pub result: T,
    /// The message that was stored; `None` when the key was left as it is.
    pub written: Option<Entry>,
}

impl Kv {
    /// Changes a key by compare-and-set. `decide` sees the key's newest message as the stream's
    /// leader has it (`None`: there never was one; a deleted key has a tombstone) and is called
    /// again when another writer was quicker, until `deadline`.
    pub fn edit<T, E: From<Error>>(
        &self,
        key: &str,
        deadline: Instant,
        decide: impl FnMut(Option<&Entry>) -> std::result::Result<Edit<T>, E>,
    ) -> std::result::Result<Edited<T>, E> {
        self.edit_loop(key, deadline, None, decide)
    }

    /// Like [`Kv::edit`] for a writer that knows the newest revision: `first` goes out without a read.
    pub fn edit_from<T, E: From<Error>>(
        &self,
        key: &str,
        revision: u64,
        first: Edit<T>,
        deadline: Instant,
        decide: impl FnMut(Option<&Entry>) -> std::result::Result<Edit<T>, E>,
    ) -> std::result::Result<Edited<T>, E> {
        self.edit_loop(key, deadline, Some((revision, first)), decide)
    }

    fn edit_loop<T, E: From<Error>>(
        &self,
        key: &str,
        deadline: Instant,
        mut known: Option<(u64, Edit<T>)>,
        mut decide: impl FnMut(Option<&Entry>) -> std::result::Result<Edit<T>, E>,
    ) -> std::result::Result<Edited<T>, E> {
        for _ in 0..MAX_CONFLICTS {
            let (revision, edit) = match known.take() {
                Some(known) => known,
                None => {
                    let newest = self.with_timeout(left(deadline)).newest(key)?;
                    let edit = decide(newest.as_ref())?;
                    (newest.map_or(0, |entry| entry.revision), edit)
                }
            };
            match self.with_timeout(left(deadline)).write(key, revision, edit)? {
                Some(edited) => return Ok(edited),
                None if left(deadline).is_zero() => break,
                None => {}
            }
        }
        Err(Error::Conflict(key.to_owned()).into())
    }

    /// `None` when another writer was quicker.
    fn write<T>(&self, key: &str, revision: u64, edit: Edit<T>) -> Result<Option<Edited<T>>> {
        let (written, result) = match edit {
            Edit::Leave(result) => return Ok(Some(Edited { result, written: None })),
            Edit::Put(value, result) => {
                let stored = self.update(key, &value, revision);
                (stored.map(|revision| Entry::put(key, value, revision)), result)
            }
            Edit::Delete(result) => {
                let stored = self.delete(key, revision);
                (stored.map(|revision| Entry::tombstone(key, revision)), result)
            }
        };
        match written {
            Ok(entry) => Ok(Some(Edited { result, written: Some(entry) })),
            Err(Error::Conflict(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
