//! Jobs in, jobs out, settling, exhausted deliveries.

use std::time::{Duration, Instant};

use pyoco_server::bus::{self, Bus, Delivered, ExhaustedJob, PullEvent, PullInbox};
use serde_json::{Value, json};

use crate::support::jetstream;
use crate::support::nats::NatsServer;
use crate::support::wait::{PATIENCE, eventually};
use crate::{connect, connect_with};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn inbox(bus: &Bus) -> PullInbox {
    bus.ensure_resources().unwrap();
    bus.queue().ensure_consumer("default").unwrap();
    bus.queue().pull_inbox(&["default".to_owned()])
}

fn next(inbox: &mut PullInbox, deadline: Duration) -> Option<Delivered> {
    let until = Instant::now() + deadline;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if inbox.outstanding(0) == 0 {
            inbox.ask(0, 1, true).unwrap();
        }
        let look = inbox.next_deadline().map_or(left, |at| left.min(at - Instant::now()));
        let Ok(arrival) = inbox.arrivals().recv_timeout(look) else { continue };
        if let PullEvent::Delivered { message, .. } = inbox.take(arrival) {
            return Some(message);
        }
    }
    None
}

#[test]
fn a_job_is_delivered_once_and_gone_after_its_ack() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let mut inbox = inbox(&bus);
    let queue = bus.queue();
    queue.submit("default", "r1", b"job", soon()).unwrap();
    // The same run id again is the same job.
    queue.submit("default", "r1", b"job", soon()).unwrap();
    let job = next(&mut inbox, Duration::from_secs(5)).unwrap();
    assert_eq!((job.payload.as_slice(), job.num_delivered), (&b"job"[..], 1));
    job.ack().unwrap();
    assert!(next(&mut inbox, Duration::from_millis(1500)).is_none(), "delivered twice");
    assert!(queue.stored_job(job.stream_seq).unwrap().is_none());
}

#[test]
fn a_nak_brings_the_job_back_after_its_delay_and_in_progress_keeps_it_away() {
    let server = NatsServer::start();
    let bus = connect_with(&server, Duration::from_secs(3));
    let mut inbox = inbox(&bus);
    bus.queue().submit("default", "r1", b"job", soon()).unwrap();
    let job = next(&mut inbox, Duration::from_secs(5)).unwrap();
    let given_back = Instant::now();
    job.nak(Duration::from_millis(700)).unwrap();
    let again = next(&mut inbox, Duration::from_secs(5)).unwrap();
    assert!(given_back.elapsed() >= Duration::from_millis(600), "{:?}", given_back.elapsed());
    assert_eq!(again.num_delivered, 2);
    // ack_wait is three seconds here; two of them pass without a redelivery.
    for _ in 0..14 {
        again.in_progress().unwrap();
        assert!(next(&mut inbox, Duration::from_millis(500)).is_none(), "redelivered in progress");
    }
    again.ack().unwrap();
}

#[test]
fn a_sign_of_life_is_confirmed_and_ends_the_silence() {
    let mut server = NatsServer::start();
    let bus = connect_with(&server, Duration::from_secs(3));
    let mut inbox = inbox(&bus);
    bus.queue().submit("default", "r1", b"job", soon()).unwrap();
    let job = next(&mut inbox, Duration::from_secs(5)).unwrap();
    let in_slot = job.clone();
    for _ in 0..10 {
        in_slot.keep_alive(Duration::from_secs(1)).unwrap();
        assert!(next(&mut inbox, Duration::from_millis(500)).is_none(), "redelivered in progress");
    }
    // Not the five seconds since its delivery.
    assert!(job.silence() < Duration::from_secs(2), "{:?}", job.silence());
    server.stop();
    let silent = Instant::now();
    while silent.elapsed() < Duration::from_secs(3) {
        assert!(in_slot.keep_alive(Duration::from_millis(200)).is_err());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(job.silence() >= Duration::from_secs(3), "{:?}", job.silence());
}

#[test]
fn a_pull_that_ends_late_is_not_taken_for_the_present_one() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let mut inbox = inbox(&bus);
    inbox.ask(0, 4, true).unwrap();
    // As after a standstill of this process: nothing was heard for long, and the end of the pull is still to
    // be read.
    inbox.forget_silent(Instant::now() + Duration::from_secs(60));
    assert_eq!(inbox.outstanding(0), 0);
    std::thread::sleep(Duration::from_secs(1));
    inbox.ask(0, 4, true).unwrap();
    let asked = Instant::now();
    loop {
        let arrival = inbox.arrivals().recv_timeout(PATIENCE).unwrap();
        if matches!(inbox.take(arrival), PullEvent::Ended { .. }) {
            break;
        }
        assert_eq!(inbox.outstanding(0), 4);
    }
    // Pulls last for four seconds, and the first one has ended a second before.
    assert!(asked.elapsed() > Duration::from_millis(3500), "{:?}", asked.elapsed());
}

#[test]
fn pulls_that_were_ended_take_no_job_and_lose_none() {
    let server = NatsServer::start();
    let (ends, goes_on) = (connect(&server), connect(&server));
    let (mut ending, mut other) = (inbox(&ends), inbox(&goes_on));
    ending.ask(0, 5, true).unwrap();
    for run_id in ["r1", "r2", "r3"] {
        ends.queue().submit("default", run_id, b"before", soon()).unwrap();
    }
    eventually(PATIENCE, "the jobs have come", || (ending.arrivals().len() == 3).then_some(()));
    ending.end_pulls(Duration::from_secs(2));
    assert_eq!(ending.outstanding(0), 0);
    let mut before = Vec::new();
    while let Ok(arrival) = ending.arrivals().try_recv() {
        if let PullEvent::Delivered { message, .. } = ending.take(arrival) {
            before.push(message);
        }
    }
    assert_eq!(before.len(), 3, "what has come before is kept");
    // The job that is given back goes to another worker at once, and so does a new one.
    before[0].nak(Duration::ZERO).unwrap();
    ends.queue().submit("default", "r4", b"after", soon()).unwrap();
    let came: Vec<u64> = (0..2).map(|_| next(&mut other, PATIENCE).unwrap().num_delivered).collect();
    assert_eq!(came.iter().sum::<u64>(), 3, "once again, and for the first time: {came:?}");
    assert!(ending.arrivals().recv_timeout(Duration::from_millis(500)).is_err());
    for job in &before[1..] {
        job.ack().unwrap();
    }
}

#[test]
fn another_process_can_give_a_job_back_by_its_ack_subject() {
    let server = NatsServer::start();
    // So long that it is not what brings the job back.
    let bus = connect_with(&server, Duration::from_secs(30));
    let mut inbox = inbox(&bus);
    bus.queue().submit("default", "r1", b"job", soon()).unwrap();
    let job = next(&mut inbox, Duration::from_secs(5)).unwrap();
    let subject = job.ack_subject().to_owned();
    connect(&server).queue().give_back(&subject).unwrap();
    let again = next(&mut inbox, Duration::from_secs(5)).unwrap();
    assert_eq!(again.num_delivered, 2);
    // A second give-back of the old delivery changes nothing.
    bus.queue().give_back(&subject).unwrap();
    again.ack().unwrap();
    assert!(bus.queue().give_back("pyoco.work.default").is_err());
}

#[test]
fn a_job_whose_deliveries_are_exhausted_is_told() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let mut inbox = inbox(&bus);
    let mut exhausted = bus.queue().exhausted_inbox().unwrap();
    bus.queue().submit("default", "r1", b"job", soon()).unwrap();
    for delivery in 1..=3 {
        let job = next(&mut inbox, Duration::from_secs(5)).unwrap();
        assert_eq!(job.num_delivered, delivery);
    }
    // The server tells when it would have delivered once more.
    inbox.ask(0, 1, true).unwrap();
    let advisory = next(&mut exhausted, Duration::from_secs(10)).expect("no advisory");
    let told: ExhaustedJob = serde_json::from_slice(&advisory.payload).unwrap();
    let stored = bus.queue().stored_job(told.stream_seq).unwrap().expect("job is gone");
    assert_eq!((stored.subject.as_str(), told.deliveries), ("pyoco.work.default", 3));
    bus.queue().remove_job(told.stream_seq).unwrap();
    assert!(bus.queue().stored_job(told.stream_seq).unwrap().is_none());
    bus.queue().remove_job(told.stream_seq).unwrap();
    advisory.ack().unwrap();
}

/// Asks as often as a worker may, for `time`; how many pulls went out, and how the last one ended.
fn ask_for(inbox: &mut PullInbox, time: Duration) -> (u32, Option<PullEvent>) {
    let (end, mut pulls, mut last) = (Instant::now() + time, 0, None);
    while Instant::now() < end {
        if inbox.outstanding(0) == 0 {
            inbox.ask(0, 1, true).unwrap();
            pulls += u32::from(inbox.outstanding(0) > 0);
        }
        let deadline = inbox.next_deadline().unwrap_or(end).min(end);
        match inbox.arrivals().recv_deadline(deadline) {
            Ok(arrival) => last = Some(inbox.take(arrival)),
            Err(_) => inbox.forget_silent(Instant::now()),
        }
        if matches!(last, Some(PullEvent::Refused(_))) {
            break;
        }
    }
    (pulls, last)
}

/// A consumer of `default` with other settings, in the place of ours.
fn replace_consumer(server: &NatsServer, edit: impl FnOnce(&mut Value)) {
    let name = "PYOCO_WORK.pyoco_workers_default";
    let mut config = jetstream::call(server, &format!("CONSUMER.INFO.{name}"), &Value::Null)["config"].take();
    jetstream::call(server, &format!("CONSUMER.DELETE.{name}"), &Value::Null);
    edit(&mut config);
    let body = json!({"stream_name": "PYOCO_WORK", "config": config});
    jetstream::call(server, &format!("CONSUMER.DURABLE.CREATE.{name}"), &body);
}

#[test]
fn a_consumer_that_is_pushed_now_refuses_pulls_for_good() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let mut inbox = inbox(&bus);
    replace_consumer(&server, |config| {
        config["deliver_subject"] = "elsewhere".into();
        config["max_waiting"].take();
    });
    let (_, last) = ask_for(&mut inbox, Duration::from_secs(5));
    let Some(PullEvent::Refused(error)) = last else { panic!("{last:?}") };
    assert!(error.is_final() && error.to_string().contains("push based"), "{error}");
    let refused = bus.queue().ensure_consumer("default").unwrap_err();
    assert!(matches!(refused, bus::Error::NotPullable { .. }), "{refused}");
}

#[test]
fn pulls_that_end_at_once_are_not_repeated_at_once() {
    let server = NatsServer::start();
    let bus = connect(&server);
    let mut inbox = inbox(&bus);
    // Only who names the group may pull.
    replace_consumer(&server, |config| {
        config["priority_groups"] = json!(["others"]);
        config["priority_policy"] = "overflow".into();
    });
    let (pulls, last) = ask_for(&mut inbox, Duration::from_secs(2));
    assert!((3..12).contains(&pulls), "{pulls} pulls in two seconds, {last:?}");
    // A consumer that takes pulls again is asked again.
    replace_consumer(&server, |config| {
        config.as_object_mut().unwrap().retain(|field, _| !field.starts_with("priority"));
    });
    bus.queue().submit("default", "r1", b"job", soon()).unwrap();
    assert!(next(&mut inbox, Duration::from_secs(10)).is_some());
}

#[test]
fn a_consumer_that_another_process_has_just_made_is_used_as_it_is() {
    let server = NatsServer::start();
    let buses = [3, 7].map(|seconds| connect_with(&server, Duration::from_secs(seconds)));
    buses[0].ensure_resources().unwrap();
    for n in 0..40 {
        let tag = format!("t{n}");
        let start = std::sync::Barrier::new(2);
        let ensure = |bus: &Bus| {
            start.wait();
            bus.queue().ensure_consumer(&tag).unwrap().ack_wait
        };
        let [first, second] = std::thread::scope(|scope| {
            buses.each_ref().map(|bus| scope.spawn(|| ensure(bus))).map(|thread| thread.join().unwrap())
        });
        assert_eq!(first, second, "one of them relies on what the other one has changed");
    }
}
