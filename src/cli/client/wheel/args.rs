//! The command line of the commands about wheels.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use crate::cli::client::output::Format;
use crate::model::wheel::parse_tags;

const UPLOAD_CHECKS: &str = "\
Before anything is sent, the file is looked at: it is a zip archive with the name of a wheel, a RECORD, and a \
METADATA that agrees with the name; it has entry points; it has usage documentation, which is a description of \
80 characters or more, or a Project-URL labelled Documentation, Docs, Doc or Usage.

Of a package the registry takes a version only once, and only a greater one than it has.";

#[derive(Debug, Args)]
pub struct Wheels {
    /// How to show them
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct WheelHistory {
    /// At most this many, 1 to 500 [default: 100]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub limit: Option<i64>,
    /// Only what was done to the wheel of this file name
    #[arg(long, value_name = "NAME")]
    pub wheel_name: Option<String>,
    /// Only uploads, or only deletes
    #[arg(long, value_enum)]
    pub action: Option<Action>,
    /// How to show them
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// A wheel came
    Upload,
    /// A wheel went
    Delete,
}

#[derive(Debug, Args)]
#[command(after_help = UPLOAD_CHECKS)]
pub struct WheelUpload {
    /// The wheel; it is stored under the name of its file
    #[arg(long, value_name = "FILE")]
    pub wheel_file: PathBuf,
    /// Only workers that serve one of these tags get it; all of them when left out
    #[arg(long, value_name = "A,B", value_parser = tags)]
    pub tags: Option<Tags>,
    /// It may replace a wheel of the same name; this is the default
    #[arg(long, overrides_with = "no_replace")]
    pub replace: bool,
    /// It may not
    #[arg(long, overrides_with = "replace")]
    pub no_replace: bool,
    /// What to do about a wheel that lacks something
    #[arg(long, value_enum, default_value_t = Preflight::Strict)]
    pub preflight: Preflight,
    /// A wheel without entry points is all right
    #[arg(long)]
    pub allow_no_entry_points: bool,
    /// A wheel without usage documentation is all right
    #[arg(long)]
    pub allow_missing_usage_doc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preflight {
    /// Upload nothing, and say what it lacks
    Strict,
    /// Say it, and upload the wheel
    Warn,
    /// Do not look
    Off,
}

#[derive(Debug, Args)]
pub struct WheelDelete {
    /// The wheel's file name
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
}

#[derive(Debug, Clone)]
pub struct Tags(pub Vec<String>);

fn tags(text: &str) -> Result<Tags, String> {
    parse_tags(text).map(Tags)
}
