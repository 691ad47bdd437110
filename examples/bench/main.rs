//! Measures the bus, the gateway and a worker on a nats-server of its own, and prints figures.
//!
//! ```text
//! cargo run --release --example bench            # everything, about a minute
//! cargo run --release --example bench -- bus     # one part of them
//! ```
//! The parts are bus, gateway, footprint, dispatch, watch, python and wheels. It finds nats-server as the
//! tests do (`PYOCO_NATS_SERVER_BIN`, then PATH) and listens on free ports of 127.0.0.1 only.
//! `BENCH_SYNC=always` makes the server write through to the disk. The part `python` and a part of `wheels`
//! need an interpreter with pyoco, named by `PYOCO_PYTHON`.

mod bus;
mod dispatch;
mod footprint;
mod gateway;
mod measure;
mod python;
mod setup;
mod watch;
#[path = "../../tests/support/wheel.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "tests use more of it, and panic where they cannot go on")]
mod wheel;
mod wheels;

use setup::Setup;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let part = std::env::args().nth(1);
    let wants = |name: &str| part.as_deref().is_none_or(|part| part == name);
    let setup = Setup::start()?;
    println!("nats-server {}, sync {}", setup.server_version(), setup.sync);
    println!("{:<44} {:>7} {:>12} {:>10} {:>10}", "what", "clients", "per second", "p50", "p99");
    if wants("bus") {
        bus::run(&setup)?;
    }
    if wants("gateway") {
        gateway::run(&setup)?;
    }
    if wants("footprint") {
        footprint::run(&setup)?;
    }
    if wants("dispatch") {
        dispatch::run(&setup)?;
    }
    if wants("python") {
        python::run(&setup)?;
    }
    if wants("wheels") {
        wheels::run(&setup)?;
    }
    if wants("watch") {
        watch::run(&setup)?;
    }
    Ok(())
}
