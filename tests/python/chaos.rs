//! Many runs at once, cancelled and killed in random moments.

use std::time::Duration;

use pyoco_server::flow::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::measure::below;
use crate::support::python_flows::PythonFlows;
use crate::support::wait::{PATIENCE, eventually};

const FLOWS: &str = r#"
@pyoco.task
def nap(ctx):
    print("nap")
    child = subprocess.Popen(["sleep", ctx.params["seconds"]], start_new_session=ctx.params["n"] % 2 == 0)
    if ctx.params["n"] % 5 == 0:
        while True: pass
    for _ in range(ctx.params["n"] % 7):
        if ctx.is_cancelled: return "left"
        time.sleep(0.01)
    return "slept"
@pyoco.task
def last(ctx): return "done"
flow_of(nap, last)
"#;
const AT_ONCE: u64 = 20;
const ROUNDS: u64 = 5;

#[test]
fn twenty_runs_at_once_with_cancels_and_kills_in_random_moments_leave_nothing() {
    let flows = PythonFlows::with(FLOWS);
    flows.executor.warm_up().unwrap();
    // Tells the sleepers of this test from all others.
    let seconds = format!("3600.{}", std::process::id());
    // A small generator of its own: the same moments each time, as far as the machine goes along.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..ROUNDS {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|n| {
                let run = flows.start("nap", json!({"n": n + round, "seconds": seconds}));
                let moment = Duration::from_micros(random(400_000));
                let mercy = Duration::from_millis(random(3) * 100);
                std::thread::spawn(move || {
                    let mut run = run;
                    std::thread::sleep(moment);
                    run.cancel.cancel();
                    if (n + round) % 5 == 0 || n % 3 == 0 {
                        run.execution.kill(mercy);
                        return None;
                    }
                    Some(run.finish())
                })
            })
            .collect();
        if round % 2 == 1 {
            std::thread::sleep(Duration::from_micros(random(300_000)));
            let status = flows.status();
            if let Some(pid) = status["pid"].as_i64() {
                let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
            }
        }
        for thread in threads {
            let outcome = thread.join().unwrap();
            assert!(
                matches!(outcome, None | Some(Outcome::Completed | Outcome::Cancelled)),
                "round {round}: {outcome:?}"
            );
        }
    }
    flows.executor.warm_up().unwrap();
    let template = flows.template_pid();
    eventually(PATIENCE, "only the template is left", || below(template).is_empty().then_some(()));
    eventually(PATIENCE, "no child of a run is left", || {
        let sleeps = format!("sleep\0{seconds}\0").into_bytes();
        let mut all = std::fs::read_dir("/proc").unwrap().flatten();
        let is_one = |entry: &std::fs::DirEntry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == sleeps)
        };
        all.all(|entry| !is_one(&entry)).then_some(())
    });
}
