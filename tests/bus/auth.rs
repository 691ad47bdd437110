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
