//! TLS with stock clients, on both drivers: versions, names, resumption, certificates of clients, a swap under traffic.

use crate::gateway::{Gateway, Lines, eventually};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// An authority, and a folder with files of it.
pub struct Files {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("it signs");
        let files = Self { folder: tempfile::tempdir().expect("there is room"), authority };
        std::fs::write(files.ca(), files.authority.pem()).expect("the folder is ours");
        files
    }

    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `NAME.pem`, a certificate with its key; the name is its common name.
    pub fn issue(&self, name: &str, names: &[&str]) -> PathBuf {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("they are names");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.authority).expect("it signs");
        let path = self.path(&format!("{name}.pem"));
        // In one step, as whoever renews a certificate should.
        let draft = self.path(&format!("{name}.new"));
        std::fs::write(&draft, format!("{}{}", certificate.pem(), key.serialize_pem())).expect("the folder is ours");
        std::fs::rename(&draft, &path).expect("the folder is ours");
        path
    }

    pub fn rustls(&self) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("it is a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(builder.expect("they are known").with_root_certificates(roots).with_no_client_auth())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the folder of tests has a plain name")
}

fn everywhere(environment: &[(&str, &str)], test: impl Fn(&Gateway)) {
    for (driver, shards) in [("epoll", 1), ("epoll", 4), ("io_uring", 4)] {
        println!("{driver}, {shards} shards");
        test(&Gateway::start_with(driver, shards, environment));
    }
}

#[test]
fn mosquitto_curl_and_our_own_sub_speak_through_tls_on_the_one_port() {
    let files = Files::new();
    let server = files.issue("edge", &["localhost", "127.0.0.1"]);
    let environment = [("KITTIWAKE_TLS_CERTIFICATES", text(&server))];
    let ca = files.ca();
    let ca = text(&ca);
    everywhere(&environment, |gateway| {
        let plain = gateway.mosquitto_sub(&["-t", "$inbox/#", "-u", "alice", "-i", "plain", "-q", "1", "-v"]);
        let secured = |version: &str| {
            let device = format!("m-{version}");
            let arguments = ["-t", "$inbox/#", "-u", "alice", "-i", &device, "-q", "1", "-v"];
            gateway.mosquitto_sub(&[&arguments[..], &["--cafile", ca, "--tls-version", version]].concat())
        };
        let (new, old) = (secured("tlsv1.3"), secured("tlsv1.2"));
        let sub = |scheme: &str, device: &str| {
            let url = format!("{scheme}://localhost:{}", gateway.edge.port());
            let mut command = Command::new(env!("CARGO_BIN_EXE_kittiwake"));
            command.args(["sub", "--url", &url, "--ca", ca, "--user", "alice", "--device", device, "$inbox/#"]);
            Lines::of(&mut command)
        };
        let (mqtts, wss) = (sub("mqtts", "s1"), sub("wss", "s2"));
        let url = format!("https://localhost:{}/events?inbox=1&user=alice&device=page", gateway.edge.port());
        let curl = Lines::of(Command::new("curl").args(["-sN", "--fail", "--cacert", ca, &url]));
        gateway.wait_for_gauge("subscriptions", 6);
        gateway.push(json!({"to": {"user": "alice"}, "payload": "hello", "qos": 1}));
        for lines in [&plain, &new, &old, &mqtts, &wss] {
            assert_eq!(lines.next(), "$inbox/push hello");
        }
        eventually("the event has come", || curl.next().contains("hello"));
        // A large one goes in many records.
        let large = "z".repeat(200_000);
        gateway.push(json!({"to": {"user": "alice"}, "payload": large, "qos": 1}));
        for lines in [&plain, &new, &old, &mqtts, &wss] {
            assert_eq!(lines.next(), format!("$inbox/push {large}"));
        }
        let url = format!("https://localhost:{}/poll?inbox=1&user=bob&device=p&timeout_ms=0", gateway.edge.port());
        let poll = Lines::of(Command::new("curl").args(["-s", "--fail", "--cacert", ca, "-w", "\\n", &url]));
        assert!(poll.next().contains("\"next\""));
        let published = Command::new("mosquitto_pub")
            .args(["-h", "localhost", "-p", &gateway.edge.port().to_string(), "--cafile", ca])
            .args(["-u", "bob", "-t", "rooms/1", "-m", "up", "-q", "2"])
            .status();
        assert!(published.expect("mosquitto-clients is installed").success());
        drop((plain, new, old, mqtts, wss, curl));
        for gauge in ["connections", "transforms", "tls_handshakes", "blocks", "outboxes"] {
            gateway.wait_for_gauge(gauge, 0);
        }
    });
}

/// What `openssl s_client` says, after it has been told that there is nothing more to send.
fn openssl(edge: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &edge.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn openssl_gets_the_names_certificate_in_either_version_and_takes_up_its_sessions() {
    let files = Files::new();
    let (first, second) =
        (files.issue("one.example", &["one.example"]), files.issue("two.example", &["*.two.example"]));
    let keys = files.path("tickets");
    std::fs::write(&keys, format!("{}\n", "5a".repeat(48))).expect("the folder is ours");
    let certificates = format!("{},{}", text(&first), text(&second));
    let environment =
        [("KITTIWAKE_TLS_CERTIFICATES", certificates.as_str()), ("KITTIWAKE_TLS_TICKET_KEYS", text(&keys))];
    let gateways =
        [("epoll", 1), ("io_uring", 2)].map(|(driver, shards)| Gateway::start_with(driver, shards, &environment));
    let ca = files.ca();
    for gateway in &gateways {
        for version in ["-tls1_2", "-tls1_3"] {
            for (name, common_name) in
                [("one.example", "one.example"), ("x.two.example", "two.example"), ("else", "one.example")]
            {
                let said = openssl(gateway.edge, &[version, "-servername", name, "-CAfile", text(&ca)]);
                assert!(said.contains(&format!("CN = {common_name}")), "{version} {name}: {said}");
                assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
            }
        }
    }
    // One node's ticket is good at another.
    let ticket = files.path("session");
    openssl(gateways[0].edge, &["-tls1_2", "-servername", "one.example", "-sess_out", text(&ticket)]);
    let said = openssl(gateways[1].edge, &["-tls1_2", "-servername", "one.example", "-sess_in", text(&ticket)]);
    assert!(said.contains("Reused, TLSv1.2"), "{said}");
    let mqtt_name = ServerName::try_from("one.example").expect("a name");
    let config = files.rustls();
    let shake = |gateway: &Gateway| {
        let connection = ClientConnection::new(Arc::clone(&config), mqtt_name.clone()).expect("it is complete");
        let mut stream = StreamOwned::new(connection, TcpStream::connect(gateway.edge).expect("it listens"));
        stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: one.example\r\n\r\n").expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it ends with a close_notify");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        stream.conn.handshake_kind()
    };
    assert_eq!(shake(&gateways[0]), Some(HandshakeKind::Full));
    assert_eq!(shake(&gateways[1]), Some(HandshakeKind::Resumed));
}

#[test]
fn a_certificate_is_swapped_under_traffic_and_nobody_notices() {
    let files = Files::new();
    let server = files.issue("before", &["localhost"]);
    let gateway = Gateway::start_with("epoll", 2, &[("KITTIWAKE_TLS_CERTIFICATES", text(&server))]);
    let ca = files.ca();
    let arguments =
        ["-t", "$inbox/#", "-u", "alice", "-i", "m", "-q", "1", "-v", "--cafile", text(&ca), "-h", "localhost"];
    let before = gateway.mosquitto_sub(&arguments);
    gateway.wait_for_gauge("subscriptions", 1);
    let common_name = || openssl(gateway.edge, &["-servername", "localhost", "-CAfile", text(&ca)]);
    assert!(common_name().contains("CN = before"));
    // Half a file is no certificate: all stays as it is.
    std::fs::write(&server, "half").expect("the folder is ours");
    hang_up(&gateway);
    gateway.push(json!({"to": {"user": "alice"}, "payload": "one", "qos": 1}));
    assert_eq!(before.next(), "$inbox/push one");
    assert!(common_name().contains("CN = before"));
    std::fs::rename(files.issue("after", &["localhost"]), &server).expect("the folder is ours");
    hang_up(&gateway);
    eventually("the new certificate is shown", || common_name().contains("CN = after"));
    gateway.push(json!({"to": {"user": "alice"}, "payload": "two", "qos": 1}));
    assert_eq!(before.next(), "$inbox/push two");
    // Without a signal it is seen within seconds.
    std::fs::rename(files.issue("later", &["localhost"]), &server).expect("the folder is ours");
    eventually("the file is looked at", || common_name().contains("CN = later"));
    gateway.push(json!({"to": {"user": "alice"}, "payload": "three", "qos": 1}));
    assert_eq!(before.next(), "$inbox/push three");
}

fn hang_up(gateway: &Gateway) {
    let status = Command::new("kill").args(["-HUP", &gateway.pid().to_string()]).status();
    assert!(status.expect("there is a kill").success());
}

#[test]
fn a_client_with_a_certificate_is_who_it_names_and_others_are_refused_where_one_is_required() {
    let files = Files::new();
    let (server, ann) = (files.issue("edge", &["localhost"]), files.issue("ann", &[]));
    let ca = files.ca();
    let environment = [
        ("KITTIWAKE_TLS_CERTIFICATES", text(&server)),
        ("KITTIWAKE_TLS_CLIENT_CA", text(&ca)),
        ("KITTIWAKE_TLS_CLIENT_CERTIFICATES", "required"),
    ];
    let gateway = Gateway::start_with("epoll", 2, &environment);
    let with = |device: &str, certificate: &Path| {
        let arguments = ["-t", "$inbox/#", "-u", "somebody", "-i", device, "-q", "1", "-v", "-h", "localhost"];
        let shown = ["--cafile", text(&ca), "--cert", text(certificate), "--key", text(certificate)];
        gateway.mosquitto_sub(&[&arguments[..], &shown].concat())
    };
    let phone = with("phone", &ann);
    gateway.wait_for_gauge("subscriptions", 1);
    gateway.push(json!({"to": {"user": "ann"}, "payload": "hello", "qos": 1}));
    assert_eq!(phone.next(), "$inbox/push hello");
    let other = Files::new();
    let stranger = other.issue("ann", &[]);
    let refused = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &gateway.edge.port().to_string(), "--cafile", text(&ca)])
        .args(["--cert", text(&stranger), "--key", text(&stranger), "-t", "a", "-m", "b", "-q", "1"])
        .stderr(Stdio::null())
        .status();
    assert!(!refused.expect("mosquitto-clients is installed").success());
    gateway.wait_for_gauge("tls_handshakes", 0);
}

#[test]
fn the_api_speaks_tls_over_http_1_and_2_to_callers_with_a_certificate() {
    let files = Files::new();
    let (server, caller) = (files.issue("api", &["127.0.0.1"]), files.issue("caller", &[]));
    let other = Files::new();
    let stranger = other.issue("caller", &[]);
    let ca = files.ca();
    let environment = [
        ("KITTIWAKE_TLS_CERTIFICATES", text(&server)),
        ("KITTIWAKE_API_TLS", "true"),
        ("KITTIWAKE_API_CLIENT_CA", text(&ca)),
    ];
    let gateway = Gateway::begin("epoll", 1, &environment);
    let url = format!("https://{}/readyz", gateway.api);
    let curl = |certificate: Option<&Path>, version: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", version, "--cacert", text(&ca), "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]);
        if let Some(certificate) = certificate {
            command.args(["--cert", text(certificate)]);
        }
        let output = command.arg(&url).output().expect("curl is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    eventually("the gateway is ready", || curl(Some(&caller), "--http1.1") == "200 1.1");
    assert_eq!(curl(Some(&caller), "--http2"), "200 2");
    for (certificate, version) in [(None, "--http1.1"), (Some(&*stranger), "--http1.1"), (None, "--http2")] {
        let said = curl(certificate, version);
        assert!(said.starts_with("000"), "{said}");
    }
    assert!(gateway.get("/readyz").is_none(), "nothing is said without TLS");
}

#[test]
fn backends_push_over_tls_by_curl_and_by_command_line_to_an_api_that_they_know() {
    let files = Files::new();
    let server = files.issue("api", &["localhost", "127.0.0.1"]);
    let (ca, stranger) = (files.ca(), Files::new());
    let environment = [("KITTIWAKE_TLS_CERTIFICATES", text(&server)), ("KITTIWAKE_API_TLS", "true")];
    let gateway = Gateway::begin("epoll", 1, &environment);
    let url = format!("https://localhost:{}", gateway.api.port());
    let curl = |arguments: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "--cacert", text(&ca)]).args(arguments).arg(format!("{url}{path}"));
        String::from_utf8_lossy(&command.output().expect("curl is installed").stdout).into_owned()
    };
    eventually("the gateway is ready", || curl(&["-o", "/dev/null", "-w", "%{http_code}"], "/readyz") == "200");
    let port = gateway.edge.port().to_string();
    let phone = Lines::of(
        Command::new("mosquitto_sub")
            .args(["-h", "localhost", "-p", &port, "--cafile", text(&ca)])
            .args(["-t", "$inbox/#", "-u", "alice", "-i", "phone", "-q", "1", "-v"]),
    );
    let subscriptions = || {
        let stats: serde_json::Value = serde_json::from_str(&curl(&[], "/v1/stats")).expect("it is JSON");
        stats["total"]["gauges"]["subscriptions"].as_u64()
    };
    eventually("the phone subscribes", || subscriptions() == Some(1));
    let body = r#"{"to": {"user": "alice"}, "payload": "by curl"}"#;
    let said = curl(&["-H", "content-type: application/json", "-d", body], "/v1/push");
    assert!(said.contains("\"offset\""), "{said}");
    assert_eq!(phone.next(), "$inbox/push by curl");
    let push = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kittiwake"));
        command.args(["push", "--user", "alice"]).args(arguments);
        let output = command.output().expect("the binary was built for this test");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for trusting in [&["--ca", text(&ca)][..], &["--insecure-tls"]] {
        assert_eq!(push(&[&["--api", &url, "by command"], trusting].concat()), (Some(0), String::new()));
        assert_eq!(phone.next(), "$inbox/push by command");
    }
    let other = stranger.ca();
    let (code, said) = push(&["--api", &url, "--ca", text(&other), "nobody's"]);
    assert!(code == Some(1) && said.contains("certificate"), "{said}");
    let (code, said) = push(&["--api", &url, "--ca", text(&server.with_extension("nowhere")), "nobody's"]);
    assert!(code == Some(2) && said.starts_with("kittiwake: --ca: "), "{said}");
    let plain = format!("http://{}", gateway.api);
    for flag in [&["--ca", text(&ca)][..], &["--insecure-tls"]] {
        let (code, said) = push(&[&["--api", &plain, "nobody's"], flag].concat());
        assert!(code == Some(2) && said.contains("the URL is not of TLS"), "{said}");
    }
    assert!(phone.rest().is_empty());
}
