//! A TCP relay between one program and another, here on loopback: a link that can be cut, slow, or silent.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How often a waiting direction looks at the link; it does what it was told after this.
pub const LOOK: Duration = Duration::from_millis(50);
/// What a slow link adds to each chunk, in each direction.
const DELAY: Duration = Duration::from_millis(150);

/// What the link does.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
pub enum Link {
    Open,
    /// Connections are closed, new ones too.
    Cut,
    /// Every chunk is late.
    Slow,
    /// Connections stay and new ones are accepted; no byte passes.
    Silent,
}

/// It listens until the program ends.
pub struct Relay {
    port: u16,
    link: Arc<AtomicU8>,
}

impl Relay {
    /// A relay to a port of this machine.
    pub fn start(target: u16) -> std::io::Result<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let link = Arc::new(AtomicU8::new(Link::Open as u8));
        let shared = Arc::clone(&link);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is(&shared, Link::Cut) {
                    continue;
                }
                // Without a target the client's connection closes, as it would without the relay.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let _ = connect(client, server, &shared);
            }
        });
        Ok(Relay { port, link })
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, link: Link) {
        self.link.store(link as u8, Ordering::SeqCst);
    }
}

fn is(link: &AtomicU8, which: Link) -> bool {
    link.load(Ordering::SeqCst) == which as u8
}

fn connect(client: TcpStream, server: TcpStream, link: &Arc<AtomicU8>) -> std::io::Result<()> {
    let ways = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (from, to) in ways {
        from.set_nodelay(true)?;
        from.set_read_timeout(Some(LOOK))?;
        let link = Arc::clone(link);
        std::thread::spawn(move || {
            let _ = pump(&from, &to, &link);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, link: &AtomicU8) -> std::io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    while !is(link, Link::Cut) {
        let length = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e),
        };
        while is(link, Link::Silent) {
            std::thread::sleep(LOOK);
        }
        if is(link, Link::Slow) {
            std::thread::sleep(DELAY);
        }
        if is(link, Link::Cut) {
            return Ok(());
        }
        to.write_all(&chunk[..length])?;
    }
    Ok(())
}
