//! How far an upload is: a bar on a terminal, nothing elsewhere.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::client::output::{is_dumb, wants_colours};

const PLAIN: &str = "[{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";
const COLOURED: &str = "[{bar:30.cyan}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";

/// The bar; it goes to stderr, so that stdout stays data.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// A bar, when stderr is a terminal that can go back to the beginning of a line.
    pub fn on_terminal() -> Bar {
        if is_dumb() || !io::stderr().is_terminal() {
            return Bar(None);
        }
        let template = if wants_colours() { COLOURED } else { PLAIN };
        let style = ProgressStyle::with_template(template).map(|style| style.progress_chars("=> "));
        // A bar is no reason to fail.
        Bar(style.ok().map(|style| {
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style)
        }))
    }

    pub fn show(&self, sent: u64, size: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(size);
            bar.set_position(sent);
        }
    }

    /// Takes the bar away, so that what follows stands alone.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
