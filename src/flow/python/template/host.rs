//! A quick look at what every Python run needs of this machine.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::flow::python::PythonSettings;
use crate::flow::python::pipes;
use crate::flow::python::program::find;
use crate::thread;

/// Room that a disk must have: less than any run that writes at all.
const PROBE_BYTES: usize = 64 * 1024;

/// Looks for the interpreter, for a thread, for descriptors, and for room in `place` and where temporary
/// files go. It takes less than a millisecond.
pub(super) fn look(place: &Path, settings: &PythonSettings) -> Result<(), String> {
    let variable = |wanted: &str| {
        let found = settings.environment.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_os_str())
    };
    let path = variable("PATH");
    // Without a PATH the system looks in places of its own.
    let is_findable = settings.interpreter.contains('/') || path.is_some();
    if is_findable && find(&settings.interpreter, path).is_none() {
        return Err(format!(
            "the Python interpreter `{}` is gone; install it again, or name another one with --python",
            settings.interpreter
        ));
    }
    // Joined by its drop.
    thread::spawn_small("py-look", || ()).map_err(|e| format!("cannot start a thread: {e}"))?;
    pipes::open().map_err(|e| format!("cannot make the pipes of a run: {e}"))?;
    let temporary = variable("TMPDIR").map_or_else(|| Path::new("/tmp"), Path::new);
    for folder in [place, temporary] {
        if let Err(e) = write_some(folder)
            && is_no_room(&e)
        {
            return Err(format!("no room in {}: {e}", folder.display()));
        }
    }
    Ok(())
}

fn write_some(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".pyoco-room-{}", uuid::Uuid::new_v4().simple()));
    let mut file = File::create_new(&path)?;
    let written = file.write_all(&[0; PROBE_BYTES]);
    fs::remove_file(&path)?;
    written
}

/// A folder that may not be written to was none before either, so it says nothing.
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
