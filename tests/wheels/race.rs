//! Several uploads of one package at the same moment, through several gateways.

#![allow(deprecated, reason = "the tests' own access to JetStream is the crate that `bus` uses")]

use std::sync::Barrier;

use base64::Engine;
use serde_json::{Value, json};

use crate::desk::{names, stored_messages, upload};
use crate::stage::{Gateway, Stage};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::WheelFile;

/// Rounds of one race; each has a version of its own.
const ROUNDS: usize = 12;

#[test]
fn of_two_uploads_of_one_version_exactly_one_wins() {
    let stage = Stage::start();
    let mut other = Gateway::start(&stage.nats, &[]);
    other.wait_ready();
    let addresses = [stage.address(), other.address];
    for round in 0..ROUNDS {
        // Other bytes under other names of one package and version, two at each gateway.
        let tags = ["py3-none-any", "py2.py3-none-any", "cp311-cp311-any", "cp312-none-any"];
        let wheels = tags.map(|tag| WheelFile::new("foo", &format!("1.{round}")).tag(tag));
        let barrier = Barrier::new(wheels.len());
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let racers: Vec<_> = wheels
                .iter()
                .enumerate()
                .map(|(number, wheel)| {
                    let (barrier, address) = (&barrier, addresses[number % addresses.len()]);
                    scope.spawn(move || {
                        let bytes = wheel.build();
                        barrier.wait();
                        upload(address, &wheel.file_name(), &bytes, &[]).status
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let won = statuses.iter().filter(|status| **status == 200).count();
        let lost = statuses.iter().filter(|status| **status == 409).count();
        assert_eq!((won, lost), (1, wheels.len() - 1), "round {round}: {statuses:?}");
        // The winner may have come through the other gateway, so this one hears of it a moment later.
        eventually(PATIENCE, &format!("the winner of round {round}"), || {
            (names(&stage).len() == round + 1).then_some(())
        });
    }
    // One meta and one chunk for each that has won.
    eventually(PATIENCE, "the losers' chunks to be gone", || {
        (stored_messages(&stage) == 2 * ROUNDS as u64).then_some(())
    });
}

#[test]
fn uploads_of_other_packages_do_not_stand_in_each_others_way() {
    let stage = Stage::start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|number| {
                let address = stage.address();
                scope.spawn(move || {
                    let wheel = WheelFile::new(&format!("package{number}"), "1.0");
                    upload(address, &wheel.file_name(), &wheel.build(), &[]).status
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 8]);
    assert_eq!(names(&stage).len(), 8);
}

/// Puts other bytes in the place of an object's last chunk.
pub fn spoil(stage: &Stage, nuid: &str) {
    let nats = nats::connect(stage.nats.url()).unwrap();
    let subject = format!("$O.pyoco_wheels.C.{nuid}");
    let call = |what: &str, body: Value| -> Value {
        let answer = nats
            .request_timeout(
                &format!("$JS.API.{what}.OBJ_pyoco_wheels"),
                body.to_string(),
                PATIENCE,
            )
            .unwrap();
        serde_json::from_slice(&answer.data).unwrap()
    };
    let found = call("STREAM.MSG.GET", json!({"last_by_subj": subject}));
    let data = found["message"]["data"].as_str().unwrap();
    let mut bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let deleted = call("STREAM.MSG.DELETE", json!({"seq": found["message"]["seq"]}));
    assert_eq!(deleted["success"], true, "{deleted}");
    let answer = nats.request_timeout(&subject, &bytes, PATIENCE).unwrap();
    assert!(serde_json::from_slice::<Value>(&answer.data).unwrap()["seq"].is_u64());
}
