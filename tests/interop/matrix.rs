//! Stock clients by what they can do: each plays the same features, says what came of each, and every one must be well,
//! on both drivers, over TCP and, where the client speaks it, over WebSocket, and within TLS.

use crate::gateway::{Gateway, Lines};
use crate::tls::Files;
use crate::{mosquitto, rumqttc_client};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// What every client plays, in this order.
const FEATURES: [&str; 11] =
    ["connect", "qos0", "qos1", "qos2", "will", "retained", "take_over", "resume", "shared", "aliases", "expiry"];

const DRIVERS: [&str; 2] = ["epoll", "io_uring"];

/// Why a feature failed.
pub type Failure = String;

pub fn equal<T: PartialEq + std::fmt::Debug>(found: T, wanted: T, what: &str) -> Result<(), Failure> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?}, expected {wanted:?}")) }
}

/// The packages of `tests/interop/clients`, installed where they are missing; tests in other processes wait meanwhile.
fn packages(directory: &Path) {
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm.lock")).expect("cargo made the directory");
    lock.lock().expect("a file of our own");
    if !directory.join("node_modules/mqtt").exists() || !directory.join("node_modules/puppeteer-core").exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--silent"]).current_dir(directory);
        let status = npm.status().unwrap_or_else(|error| panic!("npm is needed by this test: {error}"));
        assert!(status.success(), "npm cannot install the clients: {status}");
    }
}

/// Where a client finds the gateway.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub url: &'a str,
    /// Within TLS, the file with the authority of its certificate.
    pub ca: Option<&'a Path>,
}

/// A program of `tests/interop/clients`, run with the address.
fn program(runner: &str, file: &str, at: At<'_>) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients");
    if runner == "node" {
        packages(&directory);
    }
    let mut command = Command::new(runner);
    command.arg(directory.join(file)).arg(at.url).current_dir(&directory);
    if let Some(ca) = at.ca {
        // As our Python program and as Node read it.
        command.env("CA", ca).env("NODE_EXTRA_CA_CERTS", ca);
    }
    let lines = Lines::of(&mut command);
    let mut all = Vec::new();
    loop {
        match lines.next() {
            line if line == "end" => return all,
            line => all.push(line),
        }
    }
}

/// Has a client play against a gateway of two shards on each driver, and shows what came of it.
fn all_is_well(client: &str, scheme: &str, play: impl Fn(At<'_>) -> Vec<String>) {
    is_well(client, scheme, &FEATURES, play, |_| {});
}

/// The same with mqtt.js, which plays large messages as well; over WebSocket it and browsers offer to pack messages, and
/// so they came and went packed.
fn mqtt_js_is_well(client: &str, scheme: &str, file: &str) {
    let features = [&FEATURES[..], &["large"]].concat();
    is_well(
        client,
        scheme,
        &features,
        |at| program("node", file, at),
        |gateway| {
            for counter in ["deflate_connections", "deflate_messages", "inflate_messages"] {
                assert_eq!(gateway.counter(counter) > 0, scheme.starts_with("ws"), "{client}: {counter}");
            }
            assert_eq!(gateway.counter("inflate_refused_broken") + gateway.counter("inflate_refused_too_long"), 0);
        },
    );
}

fn is_well(
    client: &str,
    scheme: &str,
    features: &[&str],
    play: impl Fn(At<'_>) -> Vec<String>,
    check: impl Fn(&Gateway),
) {
    let is_secure = matches!(scheme, "mqtts" | "wss");
    let files = is_secure.then(Files::new);
    let certificate = files.as_ref().map(|files| files.issue("edge", &["localhost", "127.0.0.1"]));
    let ca = files.as_ref().map(Files::ca);
    let certificate = certificate.as_ref().map(|path| path.to_str().expect("the folder of tests has a plain name"));
    let environment: Vec<_> = certificate.map(|path| ("KITTIWAKE_TLS_CERTIFICATES", path)).into_iter().collect();
    for driver in DRIVERS {
        let gateway = Gateway::start_with(driver, 2, &environment);
        let path = if scheme.starts_with("ws") { "/mqtt" } else { "" };
        let url = format!("{scheme}://{}{path}", gateway.edge);
        let results = play(At { url: &url, ca: ca.as_deref() });
        println!("{client}, {scheme}, {driver}: {}", results.join(", "));
        let expected: Vec<String> = features.iter().map(|feature| format!("ok {feature}")).collect();
        assert_eq!(results, expected, "{client}, {scheme}, {driver}");
        check(&gateway);
        gateway.wait_for_gauge("connections", 0);
        assert!(!is_secure || gateway.counter("tls_handshakes_done") > 20, "they have spoken TLS");
    }
}

#[test]
fn paho_over_tcp() {
    all_is_well("paho-mqtt", "tcp", |at| program("python3", "paho_client.py", at));
}

#[test]
fn paho_over_websocket() {
    all_is_well("paho-mqtt", "ws", |at| program("python3", "paho_client.py", at));
}

#[test]
fn paho_over_tls() {
    all_is_well("paho-mqtt", "mqtts", |at| program("python3", "paho_client.py", at));
}

#[test]
fn paho_over_websocket_within_tls() {
    all_is_well("paho-mqtt", "wss", |at| program("python3", "paho_client.py", at));
}

#[test]
fn mqtt_js_over_tls() {
    mqtt_js_is_well("mqtt.js in Node", "mqtts", "mqtt_js_node.js");
}

#[test]
fn mqtt_js_over_websocket_within_tls() {
    mqtt_js_is_well("mqtt.js in Node", "wss", "mqtt_js_node.js");
}

#[test]
fn mqtt_js_over_tcp() {
    mqtt_js_is_well("mqtt.js in Node", "tcp", "mqtt_js_node.js");
}

#[test]
fn mqtt_js_over_websocket() {
    mqtt_js_is_well("mqtt.js in Node", "ws", "mqtt_js_node.js");
}

#[test]
fn mqtt_js_in_chromium() {
    mqtt_js_is_well("mqtt.js in Chromium", "ws", "mqtt_js_browser.js");
}

#[test]
fn rumqttc_over_tcp() {
    all_is_well("rumqttc", "tcp", |at| rumqttc_client::play(at.url));
}

#[test]
fn rumqttc_over_websocket() {
    all_is_well("rumqttc", "ws", |at| rumqttc_client::play(at.url));
}

#[test]
fn mosquitto_over_tcp() {
    all_is_well("mosquitto_pub and mosquitto_sub", "tcp", mosquitto::play);
}

#[test]
fn mosquitto_over_tls() {
    all_is_well("mosquitto_pub and mosquitto_sub", "mqtts", mosquitto::play);
}
