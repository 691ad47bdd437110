//! The report: one Markdown table.

use std::collections::BTreeMap;

use super::clients::Tally;
use super::faults::Storm;
use super::oracle::Findings;
use super::programs::{Holdings, Installation, Program};
use super::rescue::Rescue;

/// A program that has more threads or descriptors than before, beyond this, has not come back.
const SPARE: usize = 12;
/// The same for processes: a worker may have a template more, or one that is about to end.
const SPARE_PROCESSES: usize = 4;

/// All that a report says.
pub struct Report<'a> {
    pub seed: u64,
    pub seconds: f64,
    pub storm_seconds: f64,
    pub all: &'a Installation,
    pub tally: &'a Tally,
    pub storm: &'a Storm,
    pub rescue: Option<&'a Rescue>,
    pub findings: &'a Findings,
    /// What each program holds, and how many processes there are, before and after the storm.
    pub before: &'a (Vec<Holdings>, usize),
    pub after: &'a (Vec<Holdings>, usize),
}

impl Report<'_> {
    /// What must not be, one line each.
    pub fn problems(&self) -> Vec<String> {
        let found = self.findings;
        let mut problems = self.storm.problems.clone();
        problems.extend(self.rescue.iter().flat_map(|rescue| rescue.problems.clone()));
        problems.extend(found.lost.iter().map(|(id, why)| format!("run {id}: {why}")));
        problems.extend(found.failures.iter().map(|(why, n)| format!("{n} runs FAILED: {why}")));
        if found.left_in_queue > 0 || found.not_ended > 0 {
            let (jobs, runs) = (found.left_in_queue, found.not_ended);
            problems.push(format!("{jobs} jobs are left in the queue, {runs} runs have not ended"));
        }
        if self.after.1 > self.before.1 + SPARE_PROCESSES {
            problems.push(format!("there were {} processes and there are {}", self.before.1, self.after.1));
        }
        for ((program, before), after) in self.holdings() {
            for (what, before, after) in [
                ("threads", before.threads, after.threads),
                ("descriptors", before.descriptors, after.descriptors),
            ] {
                if after > before + SPARE {
                    problems.push(format!("{} had {before} {what} and has {after}", program.name));
                }
            }
        }
        problems
    }

    fn holdings(&self) -> impl Iterator<Item = ((&Program, &Holdings), &Holdings)> {
        self.all.programs.iter().zip(&self.before.0).zip(&self.after.0)
    }

    /// Prints the table.
    pub fn print(&self) {
        let (found, options) = (self.findings, &self.all.options);
        let row = |what: &str, value: String| println!("| {what} | {value} |");
        row("what", "seen".to_owned());
        row("---", "---".to_owned());
        row("seed", self.seed.to_string());
        for version in self.all.versions() {
            row("version", version);
        }
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        let ack_wait = options.ack_wait_sec.unwrap_or(30);
        row("build, settings", format!("{build}; in the storm `PYOCO_CONSUMER_ACK_WAIT_SEC={ack_wait}`"));
        row("seconds", format!("{:.0}, of them {:.0} of storm", self.seconds, self.storm_seconds));
        row("submits sent", self.tally.asked.load(std::sync::atomic::Ordering::Relaxed).to_string());
        row("accepted (200)", self.tally.count().to_string());
        for (what, count) in self.tally.refused() {
            row(&format!("not accepted: {what}"), count.to_string());
        }
        row("faults", self.storm.faults.values().sum::<usize>().to_string());
        for (what, count) in &self.storm.faults {
            row(&format!("of them `{what}`"), count.to_string());
        }
        row("ends of accepted runs", listed(&found.ends));
        let cancels = self.tally.cancels_accepted.lock().map_or(0, |ids| ids.len());
        row("cancels accepted", cancels.to_string());
        row("**lost**", format!("**{}**", found.lost.len()));
        row("FAILED, by reason", listed(&found.failures));
        row("started more than once", found.started_again.to_string());
        row("executed to the end more than once", found.ended_twice.to_string());
        row("longest overlap of two executions", format!("{:.1} s", found.longest_overlap));
        row("runs of submits without a 200", listed(&found.orphans));
        let (jobs, runs) = (found.left_in_queue, found.not_ended);
        row("left in the queue; not ended", format!("{jobs}; {runs}"));
        row("from the last fault until nothing was left", format!("{:.0} s", found.settled_in));
        if let Some(rescue) = self.rescue {
            row("runs of lost workers start again, default settings", quantiles(&rescue.waits));
        }
        row("processes, with those of runs", format!("{} → {}", self.before.1, self.after.1));
        for ((program, before), after) in self.holdings() {
            let shown = |h: &Holdings| {
                format!("{:.1} MB, {}, {}", h.resident_kib as f64 / 1024.0, h.threads, h.descriptors)
            };
            let what = format!("{}: memory, threads, descriptors", program.name);
            row(&what, format!("{} → {}", shown(before), shown(after)));
        }
    }
}

fn listed(counts: &BTreeMap<String, usize>) -> String {
    let items: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn quantiles(sorted: &[f64]) -> String {
    let at = |share: f64| {
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).ceil() as usize).copied().unwrap_or(f64::NAN)
    };
    format!("{} runs: p50 {:.1} s, p99 {:.1} s, longest {:.1} s", sorted.len(), at(0.5), at(0.99), at(1.0))
}
