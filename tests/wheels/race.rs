//! Several uploads of one package at the same moment, through several gateways.

use std::sync::Barrier;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::jetstream;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::WheelFile;

/// Rounds of one race; each has a version of its own.
const ROUNDS: usize = 12;

#[test]
fn of_two_uploads_of_one_version_exactly_one_wins() {
    let cluster = Cluster::with_gateway();
    let other = cluster.another_gateway();
    let gateways = [&cluster.gateways[0], &other];
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
                    let (barrier, gateway) = (&barrier, gateways[number % gateways.len()]);
                    scope.spawn(move || {
                        let bytes = wheel.build();
                        barrier.wait();
                        gateway.upload_bytes(&wheel.file_name(), &bytes, &[]).status
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let won = statuses.iter().filter(|status| **status == 200).count();
        let lost = statuses.iter().filter(|status| **status == 409).count();
        assert_eq!((won, lost), (1, wheels.len() - 1), "round {round}: {statuses:?}");
        // The winner may have been at the other gateway.
        eventually(PATIENCE, "the winner in the list", || {
            let count = cluster.wheel_names().len();
            assert!(count <= round + 1, "round {round}");
            (count == round + 1).then_some(())
        });
    }
    // One meta and one chunk for each that has won.
    eventually(PATIENCE, "the losers' chunks to be gone", || {
        (cluster.stored_wheel_messages() == 2 * ROUNDS as u64).then_some(())
    });
}

#[test]
fn uploads_of_other_packages_do_not_stand_in_each_others_way() {
    let cluster = Cluster::with_gateway();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|number| {
                let gateway = cluster.client();
                scope.spawn(move || {
                    let wheel = WheelFile::new(&format!("package{number}"), "1.0");
                    gateway.upload_bytes(&wheel.file_name(), &wheel.build(), &[]).status
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 8]);
    assert_eq!(cluster.wheel_names().len(), 8);
}

/// Puts other bytes in the place of an object's last chunk.
pub fn spoil(cluster: &Cluster, nuid: &str) {
    const STORE: &str = "OBJ_pyoco_wheels";
    let subject = format!("$O.pyoco_wheels.C.{nuid}");
    let mut chunk = jetstream::last(&cluster.nats, STORE, &subject).unwrap();
    let middle = chunk.data.len() / 2;
    chunk.data[middle] ^= 1;
    let delete = format!("STREAM.MSG.DELETE.{STORE}");
    let deleted = jetstream::call(&cluster.nats, &delete, &json!({"seq": chunk.seq}));
    assert_eq!(deleted["success"], true, "{deleted}");
    jetstream::publish(&cluster.nats, &subject, &chunk.data);
}
