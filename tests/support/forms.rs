//! `multipart/form-data`, as browsers and clients send it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::http::{Client, Response};

/// One part of a form: name, file name if it is a file, content.
pub type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

/// The content type and the body of a form.
pub fn form(parts: &[Part<'_>]) -> (String, Vec<u8>) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let boundary = format!("part-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

impl Client {
    pub fn post_form(&self, path: &str, parts: &[Part<'_>]) -> Response {
        let (content_type, body) = form(parts);
        self.request("POST", path, &[("Content-Type", &content_type)], &body)
    }
}
