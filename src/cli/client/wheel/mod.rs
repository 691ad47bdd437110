//! The commands about wheels.
//!
//! A wheel is looked at before its upload: [`archive`] reads the little that is needed of it, [`preflight`]
//! says what it lacks.

mod archive;
pub mod args;
mod bar;
mod preflight;
pub(super) mod tables;

use std::path::Path;

use super::output::Output;
use super::{Ending, usage_of};
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, one_line};
use crate::cli::program::message;
use crate::client::{Client, WheelHistoryQuery};
use args::{Action, Preflight, WheelHistory, WheelUpload};
use preflight::{Finding, Kind};

pub(super) fn history(client: &Client, args: &WheelHistory, output: &mut Output) -> Result<Exit, Ending> {
    let action = args.action.map(|action| match action {
        Action::Upload => "upload".to_owned(),
        Action::Delete => "delete".to_owned(),
    });
    let (limit, wheel_name) = (args.limit, args.wheel_name.clone());
    let entries = client.wheel_history(&WheelHistoryQuery { limit, wheel_name, action });
    output.show_list(entries, args.output, tables::of_history)
}

pub(super) fn upload(client: &Client, args: &WheelUpload, output: &mut Output) -> Result<Exit, Ending> {
    if args.preflight != Preflight::Off {
        look_at(args)?;
    }
    let upload = crate::client::WheelUpload {
        path: args.wheel_file.clone(),
        tags: args.tags.as_ref().map(|tags| tags.0.clone()).unwrap_or_default(),
        replace: !args.no_replace,
    };
    let bar = bar::Bar::on_terminal();
    let uploaded = client.upload_wheel(&upload, &mut |sent, size| bar.show(sent, size));
    bar.finish();
    output.show(uploaded)
}

/// Warns of what the wheel lacks, or ends the command with it.
fn look_at(args: &WheelUpload) -> Result<(), Failure> {
    let path = &args.wheel_file;
    let found = findings(path).map_err(|reason| {
        Failure::usage(
            format!("cannot read --wheel-file {}: {reason}", path.display()),
            usage_of("wheel-upload"),
            "check the path and its permissions",
        )
    })?;
    let is_excused = |finding: &Finding| match finding.kind {
        _ if args.preflight == Preflight::Warn => true,
        Kind::NoSummary => true,
        Kind::NoEntryPoints => args.allow_no_entry_points,
        Kind::NoUsageDoc => args.allow_missing_usage_doc,
        Kind::Unusable => false,
    };
    let (excused, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(is_excused);
    for finding in excused {
        message(&format!("warning: {}", one_line(&finding.text)));
    }
    if refused.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = refused.iter().map(|finding| finding.text.clone()).collect();
    let mut hints: Vec<&str> = Vec::new();
    for hint in refused.iter().map(|finding| finding.kind.way_out()) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints.push("--preflight warn uploads the wheel as it is");
    Err(Failure::usage(
        format!("wheel preflight failed: {}", texts.join("; ")),
        usage_of("wheel-upload"),
        hints.join("; "),
    ))
}

fn findings(path: &Path) -> Result<Vec<Finding>, String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    let Some(name) = path.file_name().filter(|_| metadata.is_file()) else {
        return Err("it is not a file".to_owned());
    };
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let contents = archive::read(file);
    Ok(preflight::findings(&name.to_string_lossy(), &contents))
}
