//! JetStream's JSON API over plain requests.

pub(crate) mod ownership;
pub(crate) mod resources;

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bus::connection::inbox::Pending;
use crate::bus::connection::link::Link;
use crate::bus::connection::message::Message;
use crate::bus::left;
use crate::bus::{Error, Result};

/// For one try of what may be repeated.
const TRY_TIMEOUT: Duration = Duration::from_secs(1);
/// What a try of a large message may count on.
const SLOW_LINK_BYTES_PER_SEC: usize = 128 * 1024;
/// For the question whether a stream is there, after nobody has answered for it.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Deserialize)]
pub struct PubAck {
    /// Sequence in the stream; 0 never counts as stored.
    #[serde(default)]
    pub seq: u64,
    /// Whether a message with the same id was there before.
    #[serde(default)]
    pub duplicate: bool,
}

/// A message as `STREAM.MSG.GET` returns it.
#[derive(Debug, Clone)]
pub(crate) struct StoredMessage {
    pub subject: String,
    pub seq: u64,
    pub data: Vec<u8>,
    pub headers: String,
    /// When it was stored, unix seconds.
    pub time: Option<f64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct StreamInfo {
    pub first_seq: u64,
    pub last_seq: u64,
    /// How many subjects have a message; `None` from a server that does not say so.
    pub subjects: Option<u64>,
    pub created: String,
    pub allow_direct: bool,
    /// The server's clock when it answered, unix seconds.
    pub now: Option<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Consumers {
    /// The answers of `CONSUMER.INFO`.
    pub infos: Vec<Value>,
    /// Whether there are more of them than were read.
    pub is_cut: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Subjects {
    pub subjects: Vec<String>,
    /// The server's clock when it looked, unix seconds.
    pub now: Option<f64>,
}

/// Publishes to a stream and returns its acknowledgement.
pub(crate) fn publish(
    link: &Link,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &[u8],
    timeout: Duration,
) -> Result<PubAck> {
    acked(&link.request(subject, headers, payload, timeout)?)
}

/// Publishes under a message id until the stream has acknowledged, at most for `timeout`: a repeat does no
/// harm. Fails at once without a connection.
pub(crate) fn publish_as(
    link: &Link,
    stream: &Value,
    subject: &str,
    id: &str,
    payload: &[u8],
    timeout: Duration,
) -> Result<PubAck> {
    let deadline = Instant::now() + timeout;
    let headers = [("Nats-Msg-Id", id)];
    loop {
        let patience = || left(deadline).min(try_timeout(payload.len()));
        let publish = || publish(link, subject, &headers, payload, patience());
        let error = match creating(link, stream, deadline, publish) {
            Ok(ack) => return Ok(ack),
            Err(e) => e,
        };
        if !error.may_pass() || !link.wait_up(Duration::ZERO) || left(deadline) <= RETRY_PAUSE {
            return Err(error);
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

/// How long one try of a message of `bytes` waits for its answer before it is repeated, where a repeat does
/// no harm: a leader that dies takes the answer with it.
pub(crate) fn try_timeout(bytes: usize) -> Duration {
    TRY_TIMEOUT + Duration::from_secs((bytes / SLOW_LINK_BYTES_PER_SEC) as u64)
}

/// Reads the answer to a publish.
pub(crate) fn acked(answer: &Message) -> Result<PubAck> {
    let ack: PubAck = read(answer)?;
    if ack.seq == 0 {
        return Err(Error::BadAnswer("acknowledgement without a sequence".into()));
    }
    Ok(ack)
}

/// Runs a request; when its stream is missing, creates that and runs the request once more. Of a stream that
/// only has no leader the first error stays, which is a transient one.
pub(crate) fn creating<T>(
    link: &Link,
    stream: &Value,
    deadline: Instant,
    request: impl Fn() -> Result<T>,
) -> Result<T> {
    match request() {
        Err(e) if e.is_missing_stream() => match ensure_soon(link, stream, deadline)? {
            true => request(),
            false => Err(e),
        },
        other => other,
    }
}

/// Creates a stream that seems to be missing. `false` when nobody says so soon: then it is there and has no
/// leader, and who wants to use it had better try again than wait.
pub(crate) fn ensure_soon(link: &Link, config: &Value, deadline: Instant) -> Result<bool> {
    let call_name = format!("STREAM.INFO.{}", config["name"].as_str().unwrap_or_default());
    match call::<Value>(link, &call_name, &Value::Null, left(deadline).min(LOOK_TIMEOUT)) {
        Ok(_) => Ok(true),
        Err(Error::Timeout { .. }) => Ok(false),
        Err(_) => ensure_stream(link, config, deadline).map(|()| true),
    }
}

pub(crate) fn call<T: DeserializeOwned>(
    link: &Link,
    call: &str,
    body: &Value,
    timeout: Duration,
) -> Result<T> {
    let payload = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    read(&link.request(&link.api(call), &[], &payload, timeout)?)
}

/// Creates the stream when it is missing; one that is there must be that of this installation.
pub(crate) fn ensure_stream(link: &Link, config: &Value, deadline: Instant) -> Result<()> {
    let name = config["name"].as_str().unwrap_or_default();
    let check = || {
        let info: Value = call(link, &format!("STREAM.INFO.{name}"), &Value::Null, left(deadline))?;
        ownership::check_stream(config, &info["config"])
    };
    match check() {
        Err(e) if e.is_missing_stream() && !matches!(e, Error::NoResponders(_)) => {}
        other => return other,
    }
    match call::<Value>(link, &format!("STREAM.CREATE.{name}"), config, left(deadline)) {
        Ok(_) => {
            log::info!(stream = name; "created a stream");
            Ok(())
        }
        // Somebody else was quicker.
        Err(e) if e.is_existing() => check(),
        Err(e) if e.is_overlap() => Err(ownership::overlap(link, config, deadline)),
        Err(e) => Err(e),
    }
}

/// Asks for the info of a stream; [`info_of`] waits for it.
pub(crate) fn begin_info(link: &Link, stream: &str, timeout: Duration) -> Result<Pending> {
    link.begin(&link.api(&format!("STREAM.INFO.{stream}")), &[], b"", timeout)
}

/// `None` when there is no such stream.
pub(crate) fn info_of(asked: Result<Pending>) -> Result<Option<Value>> {
    match asked.and_then(Pending::wait).and_then(|answer| read(&answer)) {
        Ok(info) => Ok(Some(info)),
        Err(Error::Api { code: 404, .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the server says of the consumers of a stream, at most `pages` of 256.
pub(crate) fn consumers(link: &Link, stream: &str, pages: usize, deadline: Instant) -> Result<Consumers> {
    let mut infos = Vec::new();
    for _ in 0..pages {
        let body = json!({"offset": infos.len()});
        let page: Value = call(link, &format!("CONSUMER.LIST.{stream}"), &body, left(deadline))?;
        let items = page["consumers"].as_array().map(Vec::as_slice).unwrap_or_default();
        infos.extend_from_slice(items);
        if items.is_empty() || infos.len() as u64 >= page["total"].as_u64().unwrap_or(0) {
            return Ok(Consumers { infos, is_cut: false });
        }
    }
    Ok(Consumers { infos, is_cut: true })
}

pub(crate) fn stream_info(link: &Link, stream: &str, timeout: Duration) -> Result<StreamInfo> {
    let info: Value = call(link, &format!("STREAM.INFO.{stream}"), &Value::Null, timeout)?;
    Ok(StreamInfo {
        first_seq: info["state"]["first_seq"].as_u64().unwrap_or(0),
        last_seq: info["state"]["last_seq"].as_u64().unwrap_or(0),
        // Left out when it is 0.
        subjects: match info["state"]["messages"].as_u64() {
            Some(0) => Some(0),
            _ => info["state"]["num_subjects"].as_u64(),
        },
        now: info["ts"].as_str().and_then(unix_seconds),
        created: info["created"].as_str().unwrap_or_default().to_owned(),
        allow_direct: info["config"]["allow_direct"].as_bool().unwrap_or(false),
    })
}

pub(crate) fn subjects(link: &Link, stream: &str, filter: &str, deadline: Instant) -> Result<Subjects> {
    let mut found = Subjects::default();
    loop {
        // The server tells them in pages.
        let body = json!({"subjects_filter": filter, "offset": found.subjects.len()});
        let info: Value = call(link, &format!("STREAM.INFO.{stream}"), &body, left(deadline))?;
        found.now = info["ts"].as_str().and_then(unix_seconds);
        let page = info["state"]["subjects"].as_object();
        let page: Vec<String> = page.into_iter().flat_map(|page| page.keys().cloned()).collect();
        let is_last = page.is_empty();
        found.subjects.extend(page);
        if is_last || info["total"].as_u64().unwrap_or(0) <= found.subjects.len() as u64 {
            return Ok(found);
        }
    }
}

/// Reads one message by `{"last_by_subj": …}` or `{"seq": …}`, from the stream's leader.
pub(crate) fn get_message(
    link: &Link,
    stream: &str,
    which: &Value,
    timeout: Duration,
) -> Result<Option<StoredMessage>> {
    let deadline = Instant::now() + timeout;
    loop {
        let patience = left(deadline).min(TRY_TIMEOUT);
        match stored(begin_get(link, stream, which, patience)?.wait()) {
            // Without a leader nobody answers; the next one does not know of the request.
            Err(Error::Timeout { subject, .. }) if left(deadline).is_zero() => {
                return Err(Error::Timeout { subject, after: timeout });
            }
            Err(Error::Timeout { .. }) => {}
            other => return other,
        }
    }
}

pub(crate) fn begin_get(link: &Link, stream: &str, which: &Value, timeout: Duration) -> Result<Pending> {
    let subject = link.api(&format!("STREAM.MSG.GET.{stream}"));
    link.begin(&subject, &[], which.to_string().as_bytes(), timeout)
}

pub(crate) fn stored(answer: Result<Message>) -> Result<Option<StoredMessage>> {
    #[derive(Deserialize)]
    struct Answer {
        message: Raw,
    }
    #[derive(Deserialize)]
    struct Raw {
        subject: String,
        seq: u64,
        #[serde(default)]
        data: String,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        time: String,
    }
    let answer: Answer = match answer.and_then(|answer| read(&answer)) {
        Ok(answer) => answer,
        Err(e) if e.is_no_message() => return Ok(None),
        Err(e) => return Err(e),
    };
    let raw = answer.message;
    Ok(Some(StoredMessage {
        subject: raw.subject,
        seq: raw.seq,
        data: decoded(&raw.data)?,
        headers: String::from_utf8_lossy(&decoded(&raw.hdrs)?).into_owned(),
        time: unix_seconds(&raw.time),
    }))
}

/// Removes one message by its sequence; one that is gone already counts as removed.
pub(crate) fn delete_message(link: &Link, stream: &str, seq: u64, timeout: Duration) -> Result<()> {
    let body = json!({"seq": seq, "no_erase": true});
    match call::<Value>(link, &format!("STREAM.MSG.DELETE.{stream}"), &body, timeout) {
        Ok(_) => Ok(()),
        Err(e) if e.is_no_message() => Ok(()),
        Err(e) => Err(e),
    }
}

fn read<T: DeserializeOwned>(message: &Message) -> Result<T> {
    #[derive(Deserialize)]
    struct ErrorBody {
        error: Option<ApiError>,
    }
    #[derive(Deserialize)]
    struct ApiError {
        #[serde(default)]
        code: u64,
        #[serde(default)]
        err_code: u64,
        #[serde(default)]
        description: String,
    }
    let unreadable = |e: serde_json::Error| Error::BadAnswer(e.to_string());
    let refusal: ErrorBody = serde_json::from_slice(&message.data).map_err(unreadable)?;
    if let Some(ApiError { code, err_code, description }) = refusal.error {
        return Err(Error::Api { code, err_code, description });
    }
    serde_json::from_slice(&message.data).map_err(unreadable)
}

fn unix_seconds(text: &str) -> Option<f64> {
    Some(text.parse::<jiff::Timestamp>().ok()?.as_duration().as_secs_f64())
}

fn decoded(text: &str) -> Result<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| Error::BadAnswer(e.to_string()))
}
