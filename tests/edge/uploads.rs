//! Bodies that are passed on while they arrive.

use std::io::Read;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use pyoco_server::http::form::FormReader;
use pyoco_server::http::{Reply, Request};
use sha2::{Digest, Sha256};

use crate::support::{Answer, PATIENCE, Site, eventually, in_child, peak_kib, quick, resident_kib, site};

/// The test handler of everything below `/upload`.
pub fn handle(request: &mut Request, ended: &Sender<Result<u64, String>>) -> Reply {
    let path = request.path().to_owned();
    match path.as_str() {
        "/upload-refused" => return Reply::text(401, "not you"),
        "/upload-download" => {
            return Reply::download(200, "text/plain", 1_000_000, |out| {
                out.write_all(&vec![b'd'; 1_000_000])
            });
        }
        "/upload-half" | "/upload-panic" => {
            let mut some = [0; 100_000];
            if let Err(error) = request.body_reader().read_exact(&mut some) {
                return Reply::text(400, error.to_string());
            }
            assert_ne!(path, "/upload-panic", "as the test wishes");
            return Reply::text(409, "seen enough");
        }
        _ => {}
    }
    let result = match path.as_str() {
        "/upload-form" => read_form(request),
        _ => read_all(request),
    };
    let _ = ended.send(result.clone().map(|(count, _)| count));
    match result {
        Ok((count, text)) => Reply::text(200, format!("{count} {text}")),
        Err(error) => Reply::text(400, error),
    }
}

fn read_all(request: &mut Request) -> Result<(u64, String), String> {
    let mut hash = Sha256::new();
    let mut count = 0;
    let mut piece = vec![0; 64 * 1024];
    let body = request.body_reader();
    loop {
        match body.read(&mut piece) {
            Ok(0) => break,
            Ok(some) => {
                hash.update(&piece[..some]);
                count += some as u64;
            }
            Err(error) => {
                // It stays one.
                assert_eq!(body.read(&mut piece).unwrap_err().to_string(), error.to_string());
                return Err(error.to_string());
            }
        }
    }
    assert_eq!(body.read(&mut piece).unwrap(), 0);
    Ok((count, hex(&hash.finalize())))
}

fn read_form(request: &mut Request) -> Result<(u64, String), String> {
    let content_type = request.header("Content-Type").unwrap_or_default().to_owned();
    let say = |error: pyoco_server::http::form::FormError| error.text().to_owned();
    let mut form = FormReader::new(&content_type, request.body_reader()).map_err(say)?;
    let mut text = String::new();
    let mut total = 0;
    let mut piece = vec![0; 64 * 1024];
    while let Some(head) = form.next_part().map_err(say)? {
        let mut hash = Sha256::new();
        loop {
            match form.read(&mut piece).map_err(say)? {
                0 => break,
                some => {
                    hash.update(&piece[..some]);
                    total += some as u64;
                }
            }
        }
        let file = head.filename.unwrap_or_default();
        text.push_str(&format!("{}({file})={} ", head.name, hex(&hash.finalize())));
    }
    Ok((total, text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that look random and depend on where they stand.
pub fn content(length: usize) -> Vec<u8> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub fn head(path: &str, length: u64, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{more}\r\n")
}

pub fn expected(content: &[u8]) -> String {
    format!("{} {}", content.len(), hex(&Sha256::digest(content)))
}

impl Site {
    pub fn upload(&self, path: &str, content: &[u8]) -> Answer {
        let mut wire = self.wire();
        wire.send(&head(path, content.len() as u64, ""));
        wire.send_bytes(content);
        wire.answer()
    }

    /// How the next upload has ended for its handler.
    pub fn outcome(&self) -> Result<u64, String> {
        self.uploaded.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn bodies_of_any_length_arrive_as_they_were_sent() {
    let site = site(quick());
    let mut wire = site.wire();
    let bytes = content(700_001);
    for length in [0, 1, 2, 1024, 1025, 16_384, 65_535, 65_536, 65_537, 131_072, 700_001] {
        let body = &bytes[..length];
        wire.send(&head("/upload", length as u64, ""));
        wire.send_bytes(body);
        // The connection goes on, upload for upload, and between them for anything else.
        assert_eq!(wire.answer().text(), expected(body), "{length}");
        wire.send("GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
        assert!(wire.answer().text().starts_with("GET /next?"));
    }
}

#[test]
fn a_form_is_read_while_it_arrives() {
    let site = site(quick());
    let wheel = content(3_000_000);
    let mut form = b"--XX\r\nContent-Disposition: form-data; name=\"tags\"\r\n\r\ncpu\r\n--XX\r\n\
        Content-Disposition: form-data; name=\"wheel\"; filename=\"a.whl\"\r\n\r\n"
        .to_vec();
    form.extend_from_slice(&wheel);
    form.extend_from_slice(b"\r\n--XX--\r\n");
    let mut wire = site.wire();
    let kind = "Content-Type: multipart/form-data; boundary=XX\r\n";
    wire.send(&head("/upload-form", form.len() as u64, kind));
    wire.send_bytes(&form);
    let text = wire.answer().text();
    let parts = format!(
        "3000003 tags()={} wheel(a.whl)={} ",
        hex(&Sha256::digest(b"cpu")),
        hex(&Sha256::digest(&wheel))
    );
    assert_eq!(text, parts);
    // A form without its end is none, although the body has come to its own.
    form.truncate(form.len() - 5);
    wire.send(&head("/upload-form", form.len() as u64, kind));
    wire.send_bytes(&form);
    assert_eq!(wire.answer().text(), "Invalid multipart data.");
}

#[test]
fn an_upload_of_any_size_costs_little_memory() {
    if !in_child("uploads::an_upload_of_any_size_costs_little_memory") {
        return;
    }
    let piece = content(1 << 20);
    let mut hash = Sha256::new();
    (0..200).for_each(|_| hash.update(&piece));
    let expected = format!("{} {}", 200 << 20, hex(&hash.finalize()));
    let site = site(quick());
    site.assert_alive();
    let mut wire = site.wire();
    let before = resident_kib();
    // From now on the peak is counted anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let started = Instant::now();
    wire.send(&head("/upload", 200 << 20, ""));
    (0..200).for_each(|_| wire.send_bytes(&piece));
    assert_eq!(wire.answer().text(), expected);
    let (took, grown) = (started.elapsed(), peak_kib() - before);
    println!("200 MiB in {took:?}, memory +{grown} KiB");
    assert!(grown < 4 * 1024, "{grown} KiB");
}

#[test]
fn a_slow_handler_slows_its_client_and_is_no_fault_of_it() {
    let site = site(quick());
    let body = content(20_000_000);
    let mut wire = site.wire();
    wire.send(&head("/upload-held", body.len() as u64, ""));
    let mut sender = wire.stream.try_clone().unwrap();
    let sent = body.clone();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &sent));
    site.slow_begun.recv_timeout(PATIENCE).unwrap();
    // Longer than the client itself would be waited for.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!sending.is_finished());
    site.release.send(()).unwrap();
    assert_eq!(wire.answer().text(), expected(&body));
    sending.join().unwrap().unwrap();
}

#[test]
fn leave_to_send_is_given_when_the_handler_reads() {
    let site = site(quick());
    let body = content(200_000);
    let mut wire = site.wire();
    for _ in 0..2 {
        wire.send(&head("/upload-held", body.len() as u64, "Expect: 100-continue\r\n"));
        site.slow_begun.recv_timeout(PATIENCE).unwrap();
        let pause = Duration::from_millis(1000);
        wire.stream.set_read_timeout(Some(pause)).unwrap();
        assert!(wire.try_answer(true).is_err());
        wire.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        site.release.send(()).unwrap();
        assert_eq!(wire.answer().status, 100);
        wire.send_bytes(&body);
        assert_eq!(wire.answer().text(), expected(&body));
    }
    // Who does not wait for it gets one answer, and the right one, however both cross each other.
    for length in [1, 200_000] {
        wire.send(&head("/upload", length as u64, "Expect: 100-continue\r\n"));
        wire.send_bytes(&body[..length]);
        let mut answer = wire.answer();
        if answer.status == 100 {
            answer = wire.answer();
        }
        assert_eq!(answer.text(), expected(&body[..length]));
    }
    // Who asks in vain sends nothing.
    wire.send(&head("/upload-refused", 1_000_000, "Expect: 100-continue\r\n"));
    let answer = wire.answer();
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    assert!(wire.is_closed());
}

#[test]
fn an_answer_may_come_before_the_end_of_the_body() {
    let site = site(quick());
    for (path, status) in [("/upload-refused", 401), ("/upload-half", 409), ("/upload-download", 200)] {
        let mut wire = site.wire();
        wire.send(&head(path, 2_000_000, ""));
        wire.send_bytes(&content(150_000));
        let answer = wire.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        // What is still under way does not turn the close into a reset.
        wire.send_bytes(&[b'x'; 10_000]);
        assert!(wire.is_closed(), "{path}");
        // A body that was small enough to be passed on is out of the way, read or not.
        let answer = site.upload(path, &content(100_000));
        assert_eq!(answer.status, status);
    }
    site.assert_alive();
}

#[test]
fn uploads_have_few_places_and_leave_all_others_free() {
    let mut settings = quick();
    settings.max_uploads = 8;
    settings.body_deadline = PATIENCE;
    let site = site(settings);
    // Twice as many as there are handlers.
    let mut wires: Vec<_> = (0..8).map(|_| site.wire()).collect();
    for wire in &mut wires {
        wire.send(&head("/upload", 100_000, ""));
        wire.send_bytes(&content(50_000));
    }
    eventually("eight uploads", || site.count() == 8);
    for _ in 0..3 {
        let refused = site.upload("/upload", b"one more");
        refused.assert_refused(503);
        assert!(refused.text().contains("too many uploads at once"));
    }
    let started = Instant::now();
    (0..100).for_each(|_| site.assert_alive());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // Each answer means that there is a place again, at once.
    let body = content(100_000);
    wires[0].send_bytes(&body[50_000..]);
    assert_eq!(wires[0].answer().text(), expected(&body));
    for _ in 0..50 {
        assert_eq!(site.upload("/upload", &body).text(), expected(&body));
    }
    drop(wires);
    eventually("free places", || site.upload("/upload", &body).status == 200);
}
