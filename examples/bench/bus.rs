//! KV put through our bus, and through the `nats` crate's own call.

use pyoco_server::bus::Kv;

use crate::measure::{CLIENTS, row};
use crate::setup::Setup;

const VALUE: [u8; 256] = [b'x'; 256];

pub fn run(setup: &Setup) -> Result<(), Box<dyn std::error::Error>> {
    for clients in CLIENTS {
        row("KV put, bus", clients, |client| {
            let kv: Kv = setup.bus.runs();
            move |n| kv.put(&format!("bench-{client}-{}", n % 64), &VALUE).is_ok()
        });
    }
    for clients in CLIENTS {
        row("KV get from the leader, bus", clients, |client| {
            let kv: Kv = setup.bus.runs();
            move |n| kv.get(&format!("bench-{client}-{}", n % 64)).is_ok()
        });
    }
    for clients in CLIENTS {
        crate_put(setup, clients)?;
    }
    // The runs of other rows should not be listed beside these.
    let kv = setup.bus.runs();
    for client in 0..16 {
        for n in 0..64 {
            let key = format!("bench-{client}-{n}");
            if let Some(entry) = kv.get(&key)? {
                kv.delete(&key, entry.revision)?;
            }
        }
    }
    Ok(())
}

/// What the crate offers by itself, for comparison only.
#[allow(deprecated, reason = "the crate marks all of itself deprecated")]
fn crate_put(setup: &Setup, clients: usize) -> Result<(), Box<dyn std::error::Error>> {
    let connection = nats::connect(setup.url())?;
    let jetstream = nats::jetstream::new(connection);
    let config = nats::kv::Config { bucket: "bench".to_owned(), ..Default::default() };
    let store = match jetstream.create_key_value(&config) {
        Ok(store) => store,
        Err(_) => jetstream.key_value("bench")?,
    };
    row("KV put, the crate's own call", clients, |client| {
        let store = store.clone();
        move |n| store.put(&format!("{client}-{}", n % 64), VALUE).is_ok()
    });
    Ok(())
}
