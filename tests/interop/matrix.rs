//! Stock clients by what they can do: each plays the same features, says what came of each, and every one must be well,
//! on both drivers, over TCP and, where the client speaks it, over WebSocket.

use crate::gateway::{Gateway, Lines};
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

/// A program of `tests/interop/clients`, run with the address.
fn program(runner: &str, file: &str, url: &str) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients");
    if runner == "node" {
        packages(&directory);
    }
    let lines = Lines::of(Command::new(runner).arg(directory.join(file)).arg(url).current_dir(&directory));
    let mut all = Vec::new();
    loop {
        match lines.next() {
            line if line == "end" => return all,
            line => all.push(line),
        }
    }
}

/// Has a client play against a gateway of two shards on each driver, and shows what came of it.
fn all_is_well(client: &str, scheme: &str, play: impl Fn(&str) -> Vec<String>) {
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
        |url| program("node", file, url),
        |gateway| {
            for counter in ["deflate_connections", "deflate_messages", "inflate_messages"] {
                assert_eq!(gateway.counter(counter) > 0, scheme == "ws", "{client}: {counter}");
            }
            assert_eq!(gateway.counter("inflate_refused_broken") + gateway.counter("inflate_refused_too_long"), 0);
        },
    );
}

fn is_well(
    client: &str,
    scheme: &str,
    features: &[&str],
    play: impl Fn(&str) -> Vec<String>,
    check: impl Fn(&Gateway),
) {
    for driver in DRIVERS {
        let gateway = Gateway::start(driver, 2);
        let path = if scheme == "ws" { "/mqtt" } else { "" };
        let results = play(&format!("{scheme}://{}{path}", gateway.edge));
        println!("{client}, {scheme}, {driver}: {}", results.join(", "));
        let expected: Vec<String> = features.iter().map(|feature| format!("ok {feature}")).collect();
        assert_eq!(results, expected, "{client}, {scheme}, {driver}");
        check(&gateway);
        gateway.wait_for_gauge("connections", 0);
    }
}

#[test]
fn paho_over_tcp() {
    all_is_well("paho-mqtt", "tcp", |url| program("python3", "paho_client.py", url));
}

#[test]
fn paho_over_websocket() {
    all_is_well("paho-mqtt", "ws", |url| program("python3", "paho_client.py", url));
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
    all_is_well("rumqttc", "tcp", rumqttc_client::play);
}

#[test]
fn rumqttc_over_websocket() {
    all_is_well("rumqttc", "ws", rumqttc_client::play);
}

#[test]
fn mosquitto_over_tcp() {
    all_is_well("mosquitto_pub and mosquitto_sub", "tcp", mosquitto::play);
}
