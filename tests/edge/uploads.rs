//! Bodies that are passed on while they arrive.

use std::io::Read;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use pyoco_server::gateway::http::{Reply, Request};
use pyoco_server::gateway::multipart::FormReader;
use sha2::{Digest, Sha256};

use crate::support::{
    Answer, PATIENCE, Site, UPLOAD_LIMIT, Wire, eventually, in_child, quick, resident_kib, site,
};

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
            request.body_reader().read_exact(&mut some).unwrap();
            assert_ne!(path, "/upload-panic", "as the test wishes");
            return Reply::text(409, "seen enough");
        }
        _ => {}
    }
    let announced = request.body_left();
    let result = match path.as_str() {
        "/upload-form" => read_form(request),
        _ => read_all(request),
    };
    let _ = ended.send(result.clone().map(|(count, _)| count));
    match result {
        Ok((count, text)) => Reply::text(200, format!("{count} of {announced} {text}")),
        Err(error) => Reply::text(400, error),
    }
}

fn read_all(request: &mut Request) -> Result<(u64, String), String> {
    let mut hash = Sha256::new();
    let mut count = 0;
    let mut piece = vec![0; 64 * 1024];
    let mut body = request.body_reader();
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
    let say = |error: pyoco_server::gateway::multipart::FormError| error.text().to_owned();
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
fn content(length: usize) -> Vec<u8> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn head(path: &str, length: u64, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{more}\r\n")
}

fn expected(content: &[u8]) -> String {
    format!("{0} of {0} {1}", content.len(), hex(&Sha256::digest(content)))
}

impl Site {
    fn upload(&self, path: &str, content: &[u8]) -> Answer {
        let mut wire = self.wire();
        wire.send(&head(path, content.len() as u64, ""));
        wire.send_bytes(content);
        wire.answer()
    }

    fn outcome(&self) -> Result<u64, String> {
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
        "3000003 of {} tags()={} wheel(a.whl)={} ",
        form.len(),
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
