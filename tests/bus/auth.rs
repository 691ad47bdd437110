//! Ways to prove who we are, and TLS.

use std::time::Duration;

use pyoco_server::bus::{Bus, Error};
use pyoco_server::config::{Config, NatsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::nats::{NatsOptions, NatsServer};

const PATIENCE: Duration = Duration::from_secs(10);

fn start(server: &NatsServer, edit: impl FnOnce(&mut NatsConfig)) -> Bus {
    let mut config = Config::default();
    config.nats.url = server.url();
    edit(&mut config.nats);
    Bus::start(&config.nats, &config.resources).unwrap()
}

fn works(bus: &Bus) {
    assert!(bus.wait_connected(PATIENCE), "no connection");
    bus.runs().put("a", b"1").unwrap();
}

fn is_refused(bus: &Bus) {
    assert!(!bus.wait_connected(Duration::from_secs(1)), "connected without the right secret");
    assert!(matches!(bus.runs().put("a", b"1"), Err(Error::Disconnected)));
}

#[test]
fn user_and_password_by_setting_or_by_url() {
    let user = Some(("bob".to_owned(), "hunter2".to_owned()));
    let server = NatsServer::start_with(NatsOptions { user, ..NatsOptions::default() });
    works(&start(&server, |nats| {
        nats.user = Some("bob".into());
        nats.password = Some("hunter2".into());
    }));
    works(&start(&server, |nats| nats.url = nats.url.replace("://", "://bob:hunter2@")));
    is_refused(&start(&server, |nats| {
        nats.user = Some("bob".into());
        nats.password = Some("wrong".into());
    }));
    is_refused(&start(&server, |_| {}));
}

#[test]
fn a_token() {
    let token = Some("s3cret".to_owned());
    let server = NatsServer::start_with(NatsOptions { token, ..NatsOptions::default() });
    works(&start(&server, |nats| nats.token = Some("s3cret".into())));
    is_refused(&start(&server, |nats| nats.token = Some("wrong".into())));
}

#[test]
fn tls_with_a_private_authority_and_a_client_certificate() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let shown = |name: &str| path(name).display().to_string();
    let config_lines = vec![
        // The readiness check of the test speaks plain text.
        "allow_non_tls: true".to_owned(),
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
            shown("server.pem"),
            shown("server.key"),
            shown("ca.pem")
        ),
    ];
    let server = NatsServer::start_with(NatsOptions { config_lines, ..NatsOptions::default() });
    let url = format!("tls://localhost:{}", server.address().port());
    works(&start(&server, |nats| {
        nats.url.clone_from(&url);
        nats.tls_ca = Some(path("ca.pem"));
        nats.tls_cert = Some(path("client.pem"));
        nats.tls_key = Some(path("client.key"));
    }));
    // Without the authority, the server's certificate means nothing to us.
    is_refused(&start(&server, |nats| nats.url.clone_from(&url)));
}

/// A server whose only user has the permissions or the key in `user`; whoever names nobody may do all.
fn with_user(user: &str) -> NatsServer {
    let users = format!("authorization {{ users: [ {{ user: all, password: all }}, {{ {user} }} ] }}");
    let config_lines = vec![users, "no_auth_user: all".to_owned()];
    NatsServer::start_with(NatsOptions { config_lines, ..NatsOptions::default() })
}

#[test]
fn an_nkey_without_a_jwt() {
    let files = tempfile::tempdir().unwrap();
    let seed_file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let key = nkeys::KeyPair::new_user();
    let server = with_user(&format!("nkey: {}", key.public_key()));
    let right = seed_file("right.nk", &format!("{}\n", key.seed().unwrap()));
    works(&start(&server, |nats| nats.nkey_seed_file = Some(right.clone())));
    let other = seed_file("other.nk", &nkeys::KeyPair::new_user().seed().unwrap());
    is_refused(&start(&server, |nats| nats.nkey_seed_file = Some(other)));
    // What cannot work at all is said at the start, without the seed.
    let mut config = Config::default();
    let mut refused = |edit: &dyn Fn(&mut NatsConfig)| {
        edit(&mut config.nats);
        Bus::start(&config.nats, &config.resources).err().unwrap().to_string()
    };
    let broken = seed_file("broken.nk", "SUABROKEN");
    let told = refused(&|nats| nats.nkey_seed_file = Some(broken.clone()));
    assert!(told.contains("broken.nk") && !told.contains("SUABROKEN"), "{told}");
    let told = refused(&|nats| nats.nkey_seed_file = Some(files.path().join("missing.nk")));
    assert!(told.contains("missing.nk"), "{told}");
    let told = refused(&|nats| {
        nats.nkey_seed_file = Some(right.clone());
        nats.token = Some("t".into());
    });
    assert!(told.contains("only one of") && told.contains("PYOCO_NATS_NKEY_SEED_FILE"), "{told}");
}

#[test]
fn an_inbox_prefix_of_ones_own() {
    let server =
        with_user("user: bob, password: b, permissions: { publish: \">\", subscribe: \"_INBOX_bob.>\" }");
    let as_bob = |nats: &mut NatsConfig| {
        nats.user = Some("bob".into());
        nats.password = Some("b".into());
        nats.request_timeout = Duration::from_secs(2);
    };
    works(&start(&server, |nats| {
        as_bob(nats);
        nats.inbox_prefix = "_INBOX_bob".into();
    }));
    let bus = start(&server, as_bob);
    assert!(bus.wait_connected(PATIENCE));
    assert!(matches!(bus.runs().get("a"), Err(Error::Timeout { .. })), "an answer that it may not read");
}

#[test]
fn a_tls_server_that_greets_first_when_it_is_waited_for() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(path("server.pem"), certificate.pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    let (pem, private) = (path("server.pem"), path("server.key"));
    let config_lines = vec![
        "allow_non_tls: true".to_owned(),
        format!("tls {{ cert_file: {pem:?}, key_file: {private:?}, handshake_first: auto }}"),
    ];
    let server = NatsServer::start_with(NatsOptions { config_lines, ..NatsOptions::default() });
    works(&start(&server, |nats| {
        nats.url = format!("tls://localhost:{}", server.address().port());
        nats.tls_ca = Some(pem.clone());
    }));
}
