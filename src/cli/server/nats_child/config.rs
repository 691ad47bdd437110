//! The server's configuration file.

use super::{NatsChildError, NatsChildSettings};

pub const FILE_NAME: &str = "nats-server.conf";

/// The file's text. Messages keep the server's own limit (1 MiB), which our limits assume.
pub fn text(settings: &NatsChildSettings, server_name: &str) -> Result<String, NatsChildError> {
    let store = std::path::absolute(&settings.store_dir)
        .map_err(|source| NatsChildError::Store { path: settings.store_dir.clone(), source })?;
    let jetstream = quoted("--nats-store-dir", &store.to_string_lossy())?;
    let pid_file = quoted("--nats-store-dir", &store.join("nats-server.pid").to_string_lossy())?;
    let sync_interval = sync_interval(&settings.sync_interval)?;
    let mut text = format!(
        "# Written at each start of `pyoco-server --with-nats`; changes are lost.\n\
         server_name: {server_name}\n\
         host: \"{}\"\n\
         port: {}\n\
         pid_file: {pid_file}\n\
         logtime: false\n\
         jetstream {{\n  store_dir: {jetstream}\n  sync_interval: {sync_interval}\n}}\n",
        settings.listen_host, settings.client_port,
    );
    if let Some(port) = settings.http_port {
        text.push_str(&format!("http: \"127.0.0.1:{port}\"\n"));
    }
    Ok(text)
}

/// `always`, or a number with a unit that the server knows.
fn sync_interval(value: &str) -> Result<&str, NatsChildError> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let is_duration = (1..10).contains(&digits) && ["ms", "s", "m", "h"].contains(&&value[digits..]);
    if value == "always" || is_duration {
        return Ok(value);
    }
    Err(NatsChildError::BadSetting {
        flag: "--nats-sync-interval",
        value: value.to_owned(),
        reason: "it must be `always` or a duration such as `500ms`, `10s` or `2m`",
    })
}

fn quoted(flag: &'static str, value: &str) -> Result<String, NatsChildError> {
    // U+FFFD is what a name that is not UTF-8 has become.
    if value.chars().any(|c| c.is_control() || c == '\u{fffd}') {
        return Err(NatsChildError::BadSetting {
            flag,
            value: value.to_owned(),
            reason: "it must be printable UTF-8",
        });
    }
    Ok(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv6Addr};

    fn settings() -> NatsChildSettings {
        NatsChildSettings {
            bin: None,
            listen_host: IpAddr::V6(Ipv6Addr::LOCALHOST),
            client_port: 4222,
            http_port: Some(8222),
            store_dir: "/data/a \"b\"".into(),
            sync_interval: "always".to_owned(),
        }
    }

    #[test]
    fn values_cannot_leave_their_place() {
        let text = text(&settings(), "n").unwrap();
        for line in [
            "host: \"::1\"",
            "port: 4222",
            "  store_dir: \"/data/a \\\"b\\\"\"",
            "  sync_interval: always",
            "http: \"127.0.0.1:8222\"",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        let broken = NatsChildSettings { store_dir: "/a\nport: 1".into(), ..settings() };
        assert!(super::text(&broken, "n").is_err());
    }

    #[test]
    fn a_sync_interval_is_checked_before_the_server_sees_it() {
        for good in ["always", "500ms", "10s", "2m", "1h"] {
            assert_eq!(sync_interval(good).unwrap(), good);
        }
        for bad in ["", "never", "10", "s", "10s\nport: 1", "-1s", "1d", "99999999999s"] {
            let error = sync_interval(bad).unwrap_err().to_string();
            assert!(error.contains("--nats-sync-interval"), "{error}");
        }
    }
}
