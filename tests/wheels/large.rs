//! Wheels that are far larger than what a gateway may hold of them, and uploads that break off.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::cluster::Cluster;
use crate::support::measure;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::{WheelFile, noise};

const MIB: usize = 1024 * 1024;
/// The wheel of these tests: 200 MB.
const LARGE: usize = 200 * MIB;
/// What a gateway may need for one of them.
const ROOM: u64 = 4 * MIB as u64;
const NAME: &str = "large-1.0-py3-none-any.whl";
const END: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// An upload that is sent piece by piece: as a gateway sees it, an archive of `size` bytes.
struct Sender {
    stream: TcpStream,
    left: usize,
    piece: Vec<u8>,
    hash: Sha256,
}

impl Sender {
    fn open(address: SocketAddr, name: &str, size: usize) -> Sender {
        Sender::open_with(address, name, size, 0)
    }

    /// The same, with so many bytes behind the form.
    fn open_with(address: SocketAddr, name: &str, size: usize, behind: usize) -> Sender {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let part =
            format!("--x\r\nContent-Disposition: form-data; name=\"wheel\"; filename=\"{name}\"\r\n\r\n");
        let length = part.len() + size + b"\r\n--x--\r\n".len() + behind;
        let head = format!(
            "POST /wheels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n{part}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut sender = Sender { stream, left: size - END.len(), piece: noise(MIB), hash: Sha256::new() };
        sender.piece[..4].copy_from_slice(b"PK\x03\x04");
        sender
    }

    /// Sends so much of the content, or what is left of it.
    fn send(&mut self, count: usize) {
        let mut count = count.min(self.left);
        while count > 0 {
            let piece = &self.piece[..count.min(self.piece.len())];
            self.stream.write_all(piece).unwrap();
            self.hash.update(piece);
            self.left -= piece.len();
            count -= piece.len();
        }
    }

    /// Sends the rest; the answer's status line and body, and the hash of all.
    fn finish(mut self) -> (String, String) {
        self.send(self.left);
        self.hash.update(END);
        self.stream.write_all(END).unwrap();
        self.stream.write_all(b"\r\n--x--\r\n").unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).unwrap();
        let hash = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (answer, hash)
    }
}

/// What the process has used at most since this was last asked, in bytes, and what it uses now.
fn memory(pid: u32) -> (u64, u64) {
    let (most, now) = (measure::peak_kib(pid) * 1024, measure::resident_kib(pid) * 1024);
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    (most, now)
}

#[test]
fn two_hundred_megabytes_pass_through_four() {
    let cluster = Cluster::with_gateway();
    let pid = cluster.gateways[0].process.pid();
    // Everything that is made once is made by a small one.
    let small = WheelFile::new("small", "1.0");
    cluster.add_wheel(&small, "");
    assert_eq!(cluster.get(&format!("/wheels/{}", small.file_name())).status, 200);
    let (_, before) = memory(pid);
    let mut sender = Sender::open(cluster.address, NAME, LARGE);
    sender.send(LARGE);
    let (answer, hash) = sender.finish();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&hash), "{hash}: {answer}");
    let (most, now) = memory(pid);
    eprintln!("upload: {} KiB before, {} KiB at most", before / 1024, most / 1024);
    assert!(most < before + ROOM, "upload: {before} before, {most} at most");
    let (received, length) = download(cluster.address, NAME);
    assert_eq!((received, length), (hash, LARGE));
    let (most, _) = memory(pid);
    eprintln!("download: {} KiB before, {} KiB at most", now / 1024, most / 1024);
    assert!(most < now.max(before) + ROOM, "download: {now} before, {most} at most");
    assert_eq!(cluster.delete_wheel(NAME).status, 200);
    assert_eq!(cluster.wheel_names(), [small.file_name()]);
    assert_eq!(cluster.stored_wheel_messages(), 3);
}

fn download(address: SocketAddr, name: &str) -> (String, usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET /wheels/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let (mut hash, mut length, mut head) = (Sha256::new(), 0, Vec::new());
    let mut piece = vec![0; 256 * 1024];
    let mut in_body = false;
    loop {
        let count = stream.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        let mut data = &piece[..count];
        let joined;
        if !in_body {
            head.extend_from_slice(data);
            let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            in_body = true;
            joined = head.split_off(end + 4);
            data = &joined;
        }
        hash.update(data);
        length += data.len();
    }
    (hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), length)
}

#[test]
fn an_upload_that_crawls_after_its_file_is_not_named() {
    let cluster = Cluster::with_gateway();
    // Not a whole number of chunks: the last one is still to be stored when the form ends.
    let size = 4 * MIB + 1000;
    let mut sender = Sender::open_with(cluster.address, NAME, size, 3);
    sender.send(size);
    sender.stream.write_all(END).unwrap();
    sender.stream.write_all(b"\r\n--x--\r\n").unwrap();
    // What follows means nothing, and keeps the upload alive for longer than its chunks are safe.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(16));
        sender.stream.write_all(b".").unwrap();
    }
    let mut answer = String::new();
    sender.stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("at rest for too long"), "{answer}");
    assert!(cluster.wheel_names().is_empty());
    eventually(PATIENCE, "the chunks to be gone", || (cluster.stored_wheel_messages() == 0).then_some(()));
}

#[test]
fn a_client_that_breaks_off_leaves_nothing() {
    let cluster = Cluster::with_gateway();
    let mut sender = Sender::open(cluster.address, NAME, 20 * MIB);
    sender.send(8 * MIB);
    eventually(PATIENCE, "chunks in the store", || (cluster.stored_wheel_messages() > 8).then_some(()));
    drop(sender);
    eventually(PATIENCE, "the chunks to be gone", || (cluster.stored_wheel_messages() == 0).then_some(()));
    assert!(cluster.wheel_names().is_empty());
    assert_eq!(cluster.get("/wheels/history").json(), serde_json::json!([]));
}

#[test]
fn a_gateway_that_dies_in_the_middle_leaves_nothing_for_long() {
    let mut cluster = Cluster::with_gateway();
    let mut sender = Sender::open(cluster.address, NAME, 20 * MIB);
    sender.send(8 * MIB);
    eventually(PATIENCE, "chunks in the store", || (cluster.stored_wheel_messages() > 8).then_some(()));
    cluster.gateways[0].process.kill();
    drop(sender);
    cluster.gateways[0].restart();
    assert!(cluster.stored_wheel_messages() > 8);
    assert_eq!(cluster.get("/wheels").json(), serde_json::json!([]));
    // Longer than an upload that lives may be silent, and a look after that.
    eventually(Duration::from_secs(150), "the chunks to be purged", || {
        (cluster.stored_wheel_messages() == 0).then_some(())
    });
    let (answer, _) = Sender::open(cluster.address, NAME, 2 * MIB).finish();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
