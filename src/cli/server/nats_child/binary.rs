//! Finds the nats-server program.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::NatsChildError;

/// The program that was named, else that of `PYOCO_NATS_SERVER_BIN`, else the first on PATH.
pub fn find(named: Option<&Path>) -> Result<PathBuf, NatsChildError> {
    let from_environment =
        || env::var_os("PYOCO_NATS_SERVER_BIN").filter(|v| !v.is_empty()).map(PathBuf::from);
    match named.map(Path::to_owned).or_else(from_environment) {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(NatsChildError::BinaryMissing { path }),
        None => on_path().ok_or(NatsChildError::NoBinary),
    }
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("nats-server")).find(|candidate| {
        candidate.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}
