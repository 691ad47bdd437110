//! A wheel's life at either gateway, by either client: they say the same, and what one has done the
//! other one knows.

use serde_json::{Value, json};

use crate::cluster::cluster_with_flows;
use crate::support::cluster::{Cluster, Gateway, Options};
use crate::support::process::Finished;
use crate::support::programs::Program;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::{WheelFile, noise, sha256_hex};
use crate::wheels::tasks;

/// What no two lives have in common.
const OF_ITS_OWN: [&str; 6] = ["nuid", "mtime", "event_id", "occurred_at", "host", "user_agent"];

/// The Python gateway answers a 503 with `NoKeysError` now and then.
fn finish(client: &Program<'_>, arguments: &[&str]) -> Finished {
    eventually(PATIENCE, "an answer", || {
        Some(client.finish(arguments)).filter(|ended| !ended.stderr.contains("NoKeysError"))
    })
}

/// What a client says of a command: its document, or the gateway's words for why there is none;
/// null when it has not even asked.
fn told(client: &Program<'_>, arguments: &[&str]) -> Value {
    let ended = finish(client, arguments);
    if ended.code == Some(0) {
        return serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: not JSON ({error}): {ended:?}"));
    }
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}: {ended:?}");
    if ended.stderr.starts_with("ERR-PYOCO-0018: cannot use the command line") {
        return Value::Null;
    }
    let reason = ended.stderr.lines().find_map(|line| line.strip_prefix("- reason: "));
    let reason = reason.unwrap_or_else(|| panic!("{arguments:?}: no reason: {ended:?}"));
    let read = |answer: &str| serde_json::from_str::<Value>(answer).ok();
    let (request, answer) = reason
        .split_once(": ")
        .and_then(|(request, answer)| Some((request, read(answer)?)))
        .unwrap_or_else(|| panic!("{arguments:?}: no answer: {ended:?}"));
    // Both ways of writing a plus are right.
    json!({"request": request.replace("%2B", "+"), "detail": answer["detail"]})
}

/// Everything that happens to wheels, in the client's words.
fn life(cluster: &Cluster, client: &Program<'_>) -> Vec<(String, Value)> {
    let write = |wheel: &WheelFile| wheel.write_to(cluster.folder()).to_str().unwrap().to_owned();
    let [low, first, second] = ["0.9", "1.0", "1.1+local.1"].map(tasks);
    let (first_name, second_name) = (first.file_name(), second.file_name());
    let [low, first, second] = [&low, &first, &second].map(write);
    let odd = cluster.write("mytasks-1.2.whl", "no archive");
    let commands: &[&[&str]] = &[
        &["wheels"],
        &["wheel-upload", "--wheel-file", &first, "--tags", " gpu,cpu, gpu"],
        &["wheel-upload", "--wheel-file", &second],
        &["wheels"],
        &["wheel-upload", "--wheel-file", &second],
        &["wheel-upload", "--wheel-file", &low],
        &["wheel-upload", "--wheel-file", &first, "--tags", "a.b"],
        &["wheel-upload", "--wheel-file", &odd, "--preflight", "off"],
        &["wheel-delete", "--name", &second_name],
        &["wheel-delete", "--name", &second_name],
        &["wheels"],
        &["wheel-history"],
        &["wheel-history", "--limit", "1"],
        &["wheel-history", "--wheel-name", &first_name],
        &["wheel-history", "--wheel-name", &second_name, "--action", "delete"],
        &["wheel-history", "--wheel-name", "x"],
        &["wheel-history", "--limit", "501"],
        &["wheel-upload", "--wheel-file", &second, "--tags", "cpu"],
        &["wheels"],
    ];
    let told = commands.iter().map(|command| (command.join(" "), told(client, command)));
    told.collect()
}

/// That all of what is said there is said here; here may be more.
fn hold(here: &Value, there: &Value, name: &str, what: &str) {
    match (here, there) {
        _ if OF_ITS_OWN.contains(&name) => {
            assert_eq!(here.is_null(), there.is_null(), "{what}: {name}");
        }
        (Value::Object(here), Value::Object(there)) => {
            for (name, value) in there {
                let ours = here.get(name).unwrap_or_else(|| panic!("{what}: no {name}: {here:?}"));
                hold(ours, value, name, what);
            }
        }
        (Value::Array(here), Value::Array(there)) => {
            assert_eq!(here.len(), there.len(), "{what}: {name}: {here:?} instead of {there:?}");
            here.iter().zip(there).for_each(|(here, there)| hold(here, there, name, what));
        }
        _ => assert_eq!(here, there, "{what}: {name}"),
    }
}

#[test]
fn at_our_gateway_it_is_told_as_at_that_of_the_package() {
    let cluster = cluster_with_flows();
    let there = life(&cluster, &cluster.start_python_gateway(Options::default()).python_program());
    assert_eq!(there.len(), 19);
    for is_ours in [false, true] {
        let cluster = cluster_with_flows();
        let gateway = cluster.start_gateway(Options::default());
        let client = match is_ours {
            true => gateway.program(),
            false => gateway.python_program(),
        };
        let here = life(&cluster, &client);
        for ((command, here), (_, there)) in here.iter().zip(&there) {
            match here {
                // Ours sees it without the gateway.
                Value::Null if is_ours => assert!(there["detail"].is_string(), "{command}"),
                here => hold(here, there, "", command),
            }
        }
    }
}

fn names(gateway: &Gateway) -> Vec<String> {
    let list = gateway.get_json("/wheels");
    let items = list.as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn wait_names(gateways: &[&Gateway], expected: &[&str]) {
    for gateway in gateways {
        eventually(PATIENCE, &format!("{expected:?} in the list"), || {
            (names(gateway) == expected).then_some(())
        });
    }
}

fn history(gateway: &Gateway) -> Option<Value> {
    let answer = gateway.get("/wheels/history");
    assert!(answer.status == 200 || answer.text().contains("NoKeysError"), "{}", answer.text());
    (answer.status == 200).then(|| answer.json())
}

#[test]
fn what_one_gateway_does_the_other_one_knows() {
    let cluster = cluster_with_flows();
    let (ours, theirs) =
        (cluster.start_gateway(Options::default()), cluster.start_python_gateway(Options::default()));
    let both = [&ours, &theirs];
    // Each of several pieces.
    let first = tasks("1.0").file("first.bin", noise(300_000));
    let second = WheelFile::new("other", "2.0").file("second.bin", noise(400_000));
    let upload = |client: Program<'_>, wheel: &WheelFile| {
        let path = wheel.write_to(cluster.folder());
        let path = path.to_str().unwrap();
        client.finish(&["wheel-upload", "--wheel-file", path, "--preflight", "off", "--tags", "a"])
    };
    let taken = |ended: Finished| assert_eq!(ended.code, Some(0), "{ended:?}");
    taken(upload(ours.python_program(), &first));
    taken(upload(theirs.program(), &second));
    let (first_name, second_name) = (first.file_name(), second.file_name());
    wait_names(&both, &[&first_name, &second_name]);
    let (our_list, their_list) = (ours.get_json("/wheels"), theirs.get_json("/wheels"));
    hold(&our_list, &their_list, "", "lists");
    for (here, there) in our_list.as_array().unwrap().iter().zip(their_list.as_array().unwrap()) {
        assert_eq!((&here["nuid"], &here["mtime"]), (&there["nuid"], &there["mtime"]));
    }
    for gateway in both {
        for wheel in [&first, &second] {
            let answer = gateway.get(&format!("/wheels/{}", wheel.file_name()));
            assert_eq!(answer.status, 200, "{}", wheel.file_name());
            assert_eq!(sha256_hex(&answer.body), sha256_hex(&wheel.build()));
        }
    }
    for (gateway, wheel) in [(&ours, "other"), (&theirs, "mytasks")] {
        let lower = WheelFile::new(wheel, "0.1");
        let refused = upload(gateway.python_program(), &lower);
        assert!(refused.stderr.contains("HTTP 409 POST /wheels"), "{refused:?}");
    }

    ours.python_program().json(&["wheel-delete", "--name", &second_name]);
    wait_names(&both, &[&first_name]);
    theirs.program().json(&["wheel-delete", "--name", &first_name]);
    wait_names(&both, &[]);
    for gateway in both {
        for name in [&first_name, &second_name] {
            let path = format!("/wheels/{name}");
            assert_eq!(gateway.get(&path).status, 404, "{path}");
        }
    }
    eventually(PATIENCE, "the same history", || {
        let (here, there) = (history(&ours)?, history(&theirs)?);
        let actions = here.as_array()?.iter().map(|event| event["action"].as_str().unwrap());
        assert!(actions.eq(["delete", "delete", "upload", "upload"]), "{here}");
        (here == there).then_some(())
    });
    // What was deleted there may come again here, and the other way round.
    taken(upload(ours.python_program(), &second));
    taken(upload(theirs.program(), &first));
    wait_names(&both, &[&first_name, &second_name]);
}

#[test]
fn a_large_wheel_that_is_refused_is_told_why() {
    let cluster = cluster_with_flows();
    let gateway = cluster.start_gateway(Options::default());
    let wheel = tasks("1.0").file("mytasks.bin", noise(20 * 1024 * 1024));
    let path = wheel.write_to(cluster.folder());
    let upload = ["wheel-upload", "--wheel-file", path.to_str().unwrap()];
    for (at, client) in [gateway.python_program(), gateway.program()].iter().enumerate() {
        if at == 0 {
            client.json(&upload);
        }
        let ended = client.finish(&upload);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("wheel version already exists"), "{at}: {ended:?}");
    }
}
