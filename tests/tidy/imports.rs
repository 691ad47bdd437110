//! Who may import whom, and who may name which crate.

use super::Breach;
use super::source::{Source, is_word, words};

/// A floor, the floors it may import beside itself, and why no more.
const FLOORS: &[(&str, &[&str], &str)] = &[
    ("model", &[], "plain data and rules, known by everybody, so it knows nobody"),
    ("thread", &[], "it starts threads and does not care what they do"),
    ("config", &["model"], "settings are data that `cli` hands down"),
    ("logging", &["model", "config", "thread"], "a writer of lines; it must work before anything else does"),
    ("systemd", &[], "it sends words to systemd and does not care who says them"),
    ("bus", &["model", "config", "logging", "thread"], "it speaks NATS and knows no HTTP, no flow"),
    ("flow", &["model", "thread"], "it is handed a cancel token and a sender, and never sees NATS"),
    (
        "delivery",
        &["bus", "model"],
        "the protocol of a run: decisions that know no clock, no flow and no HTTP, and what carries them out",
    ),
    ("client", &["model"], "it speaks HTTP to a gateway that may be another program"),
    ("http", &["model", "thread"], "it knows requests and answers, and no route"),
    ("wheel_archive", &["model"], "it reads archives and judges nothing in them"),
    (
        "worker",
        &["delivery", "flow", "bus", "model", "config", "logging", "systemd", "thread", "wheel_archive"],
        "a worker and a gateway meet in `model` and in NATS",
    ),
    (
        "gateway",
        &["delivery", "http", "bus", "model", "config", "logging", "systemd", "thread"],
        "a gateway and a worker meet in `model` and in NATS",
    ),
    (
        "cli",
        &[
            "gateway",
            "worker",
            "delivery",
            "client",
            "flow",
            "http",
            "bus",
            "model",
            "config",
            "logging",
            "systemd",
            "thread",
            "wheel_archive",
        ],
        "the top floor: it may use all of them, and nobody uses it",
    ),
];

/// A folder within a floor, the floors that it may import, and why no more than these.
const ROOMS: &[(&str, &[&str], &str)] = &[(
    "src/worker/wheels/",
    &["worker", "model", "thread", "wheel_archive"],
    "wheels on disk do not know where they come from, nor how runs are started",
)];

/// A room of the gateway, the rooms that it may import beside itself, and why no more. `mod.rs` puts all of
/// them together, so none imports that.
const GATEWAY: &[(&str, &[&str], &str)] = &[
    ("view", &[], "what is known in memory knows neither requests nor chores"),
    ("page", &[], "files of the dashboard hold no data and know no route"),
    ("auth", &["view"], "who asks is found out from a request and the records of keys"),
    ("chores", &["view"], "chores act on what is known; nothing but the composition calls them"),
    ("metrics", &["view"], "figures are read off what is known, or are counted by others"),
    ("settings", &["auth", "page"], "settings are data"),
    (
        "api",
        &["view", "page", "auth", "chores", "metrics", "settings"],
        "handlers use all other rooms; the composition uses them",
    ),
    ("openapi", &["api"], "the document describes the table of routes"),
];

/// A crate, the folders that may name it, and why.
const CRATES: &[(&str, &[&str], &str)] = &[
    ("nkeys", &["src/bus/"], "only the connection to NATS authenticates with one"),
    ("nats", &["src/bus/"], "it is deprecated and has hazards; the answers to them live in `bus`"),
    ("tiny_http", &["src/http/"], "one floor speaks HTTP to clients"),
    ("httparse", &["src/http/connection/"], "one place reads request heads"),
    ("ureq", &["src/client/"], "one place speaks HTTP outwards"),
    ("clap", &["src/cli/"], "floors below `cli` read no command line"),
    ("clap_complete", &["src/cli/"], "floors below `cli` read no command line"),
];

/// Imports run downwards only.
pub fn floors(source: &Source) -> Vec<Breach> {
    let Some(floor) = floor_of(&source.path) else { return Vec::new() };
    let mut breaches = Vec::new();
    for (position, imported) in imported_floors(source) {
        let Some((_, allowed, reason)) = FLOORS.iter().find(|(name, ..)| *name == floor) else {
            breaches.push(format!("{}: no rule for the floor `{floor}`", source.path));
            break;
        };
        let known = FLOORS.iter().any(|(name, ..)| *name == imported);
        if known && imported != floor && !allowed.contains(&imported.as_str()) {
            let line = source.line_at(position);
            breaches.push(format!(
                "{}:{line}: `{floor}` imports `{imported}`; it may not: {reason}",
                source.path
            ));
        }
    }
    breaches
}

/// A folder within a floor may know less than its floor.
pub fn rooms(source: &Source) -> Vec<Breach> {
    let Some((room, allowed, reason)) = ROOMS.iter().find(|(room, ..)| source.path.starts_with(room)) else {
        return Vec::new();
    };
    imported_floors(source)
        .into_iter()
        .filter(|(_, imported)| FLOORS.iter().any(|(name, ..)| name == imported))
        .filter(|(_, imported)| !allowed.contains(&imported.as_str()))
        .map(|(position, imported)| {
            let line = source.line_at(position);
            format!("{}:{line}: `{room}` imports `{imported}`; it may not: {reason}", source.path)
        })
        .collect()
}

/// Rooms of the gateway import in one direction.
pub fn gateway(source: &Source) -> Vec<Breach> {
    let Some(rest) = source.path.strip_prefix("src/gateway/") else { return Vec::new() };
    let room = rest.split(['/', '.']).next().unwrap_or_default();
    if room == "mod" {
        return Vec::new();
    }
    let Some((_, allowed, reason)) = GATEWAY.iter().find(|(name, ..)| *name == room) else {
        return vec![format!("{}: no rule for the room `{room}` of the gateway", source.path)];
    };
    imports_of_gateway(source)
        .into_iter()
        .filter(|(_, imported)| imported != room && !allowed.contains(&imported.as_str()))
        .map(|(position, imported)| {
            let line = source.line_at(position);
            format!("{}:{line}: `{room}` imports `{imported}`; it may not: {reason}", source.path)
        })
        .collect()
}

/// Some crates have one home.
pub fn crates(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (name, homes, reason) in CRATES {
        if homes.iter().any(|home| source.path.starts_with(home)) {
            continue;
        }
        for at in words(&source.code, name) {
            if names_a_crate(&source.code, at, name) {
                let line = source.line_at(at);
                breaches.push(format!(
                    "{}:{line}: names the crate `{name}`, whose home is {homes:?}: {reason}",
                    source.path
                ));
            }
        }
    }
    breaches
}

/// One file starts threads.
pub fn threads(source: &Source) -> Vec<Breach> {
    if source.path == "src/thread.rs" {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for at in words(&source.product, "thread") {
        if !source.product[..at].ends_with("std::") {
            continue;
        }
        let rest = source.product[at + "thread".len()..].trim_start();
        // `use std::thread;` would let the call itself look like one of ours.
        let whole = !rest.starts_with("::");
        let named = rest.split([';', '(', '\n']).next().unwrap_or_default();
        let starts = ["spawn", "Builder", "scope", "*"].iter().any(|word| named.contains(word));
        if whole || starts {
            breaches.push(format!(
                "{}:{}: starts threads by itself; `crate::thread` does that, so that each has a \
                 name and an owner",
                source.path,
                source.line_at(at)
            ));
        }
    }
    breaches
}

/// `src/bus/kv.rs` and `src/bus.rs` belong to `bus`; `lib.rs` belongs to no floor. A program may
/// import what it calls, which is `cli`.
fn floor_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    if rest == "lib.rs" || rest.starts_with("bin/") {
        return None;
    }
    Some(rest.split_once('/').map_or(rest.trim_end_matches(".rs"), |(folder, _)| folder))
}

/// Every first name after `crate::` or after a `super::` chain that reaches the root.
fn imported_floors(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate", "pyoco_server"] {
        for at in words(&source.code, root) {
            found.extend(first_names(&source.code, at + root.len()).map(|name| (at, name)));
        }
    }
    // A chain one longer than the module is deep starts in an inline module.
    let path = source.path.trim_start_matches("src/").trim_end_matches(".rs");
    let depth = path.trim_end_matches("/mod").split('/').count();
    for at in words(&source.code, "super") {
        if source.code[..at].ends_with("::") {
            continue;
        }
        let rest = &source.code[at..];
        let chain = rest.split("::").take_while(|part| part.trim() == "super").count();
        if chain >= depth {
            let after = at + "super::".len() * chain - 2;
            found.extend(first_names(&source.code, after).map(|name| (at, name)));
        }
    }
    found
}

/// Every first name after `crate::gateway::`, or after a `super::` chain that ends there.
fn imports_of_gateway(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(&source.code, "gateway") {
        let before = source.code[..at].trim_end();
        if ["crate::", "pyoco_server::", "{", ","].iter().any(|root| before.ends_with(root)) {
            found.extend(first_names(&source.code, at + "gateway".len()).map(|name| (at, name)));
        }
    }
    let path = source.path.trim_start_matches("src/").trim_end_matches(".rs");
    let depth = path.trim_end_matches("/mod").split('/').count();
    for at in words(&source.product, "super") {
        if source.product[..at].ends_with("::") {
            continue;
        }
        let chain = source.product[at..].split("::").take_while(|part| part.trim() == "super");
        let chain = chain.count();
        if chain + 1 == depth {
            let after = at + "super::".len() * chain - 2;
            found.extend(first_names(&source.product, after).map(|name| (at, name)));
        }
    }
    found
}

/// The names that follow a root at `at`: one, or those of a `{…}` group.
fn first_names(code: &str, at: usize) -> std::vec::IntoIter<String> {
    let Some(rest) = code[at..].trim_start().strip_prefix("::") else {
        return Vec::new().into_iter();
    };
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![rest.chars().take_while(|c| is_word(*c)).collect()].into_iter();
    };
    let mut names = Vec::new();
    let (mut depth, mut fresh) = (0, true);
    let mut name = String::new();
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                fresh = true;
            }
            c if depth == 0 && fresh && is_word(c) => name.push(c),
            c if depth == 0 && !c.is_whitespace() => fresh = false,
            _ => {}
        }
    }
    names.push(name);
    names.into_iter()
}

/// Whether `name` at `at` is a path's beginning: `name::`, `use name;`, `use name as`.
fn names_a_crate(code: &str, at: usize, name: &str) -> bool {
    let before = code[..at].trim_end();
    let after = code[at + name.len()..].trim_start();
    // `a::name::b` is another module of that name; `::name` is the crate again.
    if let Some(prefix) = before.strip_suffix("::") {
        return !prefix.ends_with(is_word);
    }
    after.starts_with("::") || before.ends_with("use") || before.ends_with("extern crate")
}

#[test]
fn an_upward_import_is_found_in_every_spelling() {
    for text in [
        "use crate::bus::Bus;",
        "use crate::{model, bus::Bus};",
        "use crate::{\n    model::{run, job},\n    bus,\n};",
        "fn f() { crate::bus::go() }",
        "use super::super::bus;",
        "use pyoco_server::bus;",
    ] {
        let breaches = floors(&Source::new("src/flow/graph.rs", text));
        assert_eq!(breaches.len(), 1, "{text}: {breaches:?}");
    }
    assert_eq!(floors(&Source::new("src/model/run.rs", "use crate::thread;")).len(), 1);
    assert_eq!(floors(&Source::new("src/worker/pull.rs", "use crate::gateway::X;")).len(), 1);
    assert_eq!(floors(&Source::new("src/attic/old.rs", "use crate::bus;")).len(), 1);
}

#[test]
fn a_downward_import_is_none_of_our_business() {
    for text in [
        "use crate::model::run; use crate::thread; use crate::flow::graph;",
        "use crate::{model::{bus, gateway}, thread};",
        "// use crate::bus;\nlet s = \"crate::bus\";",
        "use super::graph; use crate::VERSION;",
        "mod tests { use super::super::engine; }",
    ] {
        assert_eq!(floors(&Source::new("src/flow/graph.rs", text)), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_room_that_imports_what_only_its_floor_may_is_found() {
    for text in ["use crate::bus::Bus;", "use crate::flow::Executor;", "super::super::super::bus::x()"] {
        let breaches = rooms(&Source::new("src/worker/wheels/prepare.rs", text));
        assert_eq!(breaches.len(), 1, "{text}: {breaches:?}");
        assert!(rooms(&Source::new("src/worker/wheel_sync/mod.rs", text)).is_empty());
    }
    let text = "use crate::{model::wheel, thread, worker::wheels::Fault};";
    assert!(rooms(&Source::new("src/worker/wheels/prepare.rs", text)).is_empty());
}

#[test]
fn an_import_against_the_order_of_the_gateways_rooms_is_found() {
    for text in [
        "use crate::gateway::metrics::RunFigures;",
        "use crate::{bus, gateway::chores::Undo};",
        "use super::super::auth::Auth;",
        "use super::super::{hub, api::error::ApiError};",
        "use crate::gateway::{view::hub, GatewaySettings};",
        "fn f() { crate::gateway::api::go() }",
    ] {
        let breaches = gateway(&Source::new("src/gateway/view/runs.rs", text));
        let breaches = breaches.iter().filter(|breach| !breach.contains("`hub`"));
        assert_eq!(breaches.count(), 1, "{text}");
    }
    let text = "use crate::gateway::view::hub; use super::hub; use super::super::view::keys;";
    for path in ["src/gateway/view/runs.rs", "src/gateway/metrics/text.rs"] {
        assert_eq!(gateway(&Source::new(path, text)), Vec::<String>::new(), "{path}");
    }
    let circle = Source::new("src/gateway/page/mod.rs", "use super::api::context::Context;");
    assert_eq!(gateway(&circle).len(), 1);
    let inwards = Source::new("src/gateway/openapi/mod.rs", "use super::api::route::ROUTES;");
    assert!(gateway(&inwards).is_empty());
    assert_eq!(gateway(&Source::new("src/gateway/attic/old.rs", "")).len(), 1);
    assert!(gateway(&Source::new("src/gateway/mod.rs", "use super::gateway::api;")).is_empty());
}

#[test]
fn a_crate_outside_its_home_is_found() {
    for text in ["use nats::Connection;", "let c = ::nats::connect(url);", "use nats as n;"] {
        assert_eq!(crates(&Source::new("src/worker/pull.rs", text)).len(), 1, "{text}");
        assert!(crates(&Source::new("src/bus/mod.rs", text)).is_empty());
    }
    for text in ["mod nats;", "super::nats::start()", "let nats = 1;", "// nats::Connection"] {
        assert!(crates(&Source::new("src/cli/x.rs", text)).is_empty(), "{text}");
    }
    assert_eq!(crates(&Source::new("src/gateway/api/mod.rs", "tiny_http::Server::new()")).len(), 1);
}

#[test]
fn a_thread_of_ones_own_is_found() {
    for text in [
        "std::thread::spawn(|| ());",
        "use std::thread::{Builder, JoinHandle};",
        "use std::thread;",
        "std::thread::scope(|s| ());",
    ] {
        assert_eq!(threads(&Source::new("src/worker/pull.rs", text)).len(), 1, "{text}");
        assert!(threads(&Source::new("src/thread.rs", text)).is_empty());
    }
    for text in [
        "crate::thread::spawn(\"x\", f)",
        "std::thread::sleep(d); spawn(x)",
        "std::thread::available_parallelism()",
        "#[cfg(test)]\nmod tests { use std::thread; }",
    ] {
        assert!(threads(&Source::new("src/worker/pull.rs", text)).is_empty(), "{text}");
    }
}
