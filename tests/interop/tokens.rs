//! Tokens: signed by our own command, shown by stock clients.

use crate::gateway::{Gateway, eventually};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

/// Connects with a password and prints what arrives, or why it may not.
const PAHO5: &str = r#"
import sys, paho.mqtt.client as mqtt
port, token = int(sys.argv[1]), sys.argv[2]
def on_connect(c, u, flags, reason, props):
    print("connected", reason, flush=True)
    c.subscribe("$inbox/#")
def on_subscribe(c, u, mid, reasons, props): print("subscribed", flush=True)
def on_message(c, u, m): print(m.topic, m.payload.decode(), flush=True)
c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho", protocol=mqtt.MQTTv5)
c.username_pw_set("anybody", token)
c.on_connect, c.on_subscribe, c.on_message = on_connect, on_subscribe, on_message
c.connect("127.0.0.1", port)
c.loop_forever(retry_first_connection=False)
"#;

/// A file with the secret, removed with it.
struct Secret(PathBuf);

impl Secret {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kittiwake-{}-{name}", std::process::id()));
        let secret = Self(path);
        secret.write('a');
        secret
    }

    /// 32 of these: as a file of its own, moved to where it is read, as careful operators do.
    fn write(&self, letter: char) {
        let beside = self.0.with_extension("new");
        std::fs::write(&beside, format!("{}\n", letter.to_string().repeat(32))).expect("the folder can be written to");
        std::fs::rename(&beside, &self.0).expect("it is in the same folder");
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("KITTIWAKE_AUTH_MODE", "jwt".to_owned()),
            ("KITTIWAKE_AUTH_KEYS", format!("HS256:default:file={}", self.0.display())),
        ]
    }

    fn token(&self, user: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kittiwake"));
        command.args(["token", "--user", user]).args(arguments).envs(self.environment());
        let output = command.output().expect("the binary was built for this test");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("a token is text").trim_end().to_owned()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// A gateway that asks for tokens of this secret.
fn start(driver: &str, shards: usize, environment: &[(&str, String)]) -> Gateway {
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Gateway::start_with(driver, shards, &environment)
}

/// What a request for an event stream is answered with.
fn status(gateway: &Gateway, token: &str) -> u16 {
    let mut stream = TcpStream::connect(gateway.edge).expect("it listens");
    let request = format!("GET /events?inbox=1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut line = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut line).expect("it answers");
    std::str::from_utf8(&line[9..]).ok().and_then(|code| code.parse().ok()).expect("it has a status")
}

#[test]
fn mosquitto_and_curl_show_tokens() {
    for (driver, shards) in [("epoll", 1), ("io_uring", 4)] {
        let secret = Secret::new(&format!("{driver}-{shards}"));
        let gateway = start(driver, shards, &secret.environment());
        let token = secret.token("alice", &["--subscribe", "$inbox/#"]);
        let mosquitto = gateway.mosquitto_sub(&["-t", "$inbox/#", "-u", "x", "-P", &token, "-i", "m", "-v"]);
        let paho = gateway.python(PAHO5, &[&token]);
        assert_eq!(paho.take(2), ["connected Success", "subscribed"]);
        let header = format!("Authorization: Bearer {token}");
        let curl = gateway.curl("inbox=1&device=c&format=raw", &["-H", &header]);
        let websocket = gateway.sub_over_websocket(&["--token", &token, "--device", "w", "$inbox/#"]);
        gateway.wait_for_gauge("subscriptions", 4);
        gateway.push(json!({"to": {"user": "alice"}, "payload": "hello", "qos": 0}));
        assert_eq!(mosquitto.next(), "$inbox/push hello");
        assert_eq!(paho.next(), "$inbox/push hello");
        assert!(websocket.next().contains("hello"));
        eventually("the event comes", || curl.next() == "data: hello");

        assert_eq!(gateway.python(PAHO5, &["no token"]).next(), "connected Bad user name or password");
        assert_eq!((status(&gateway, "no token"), status(&gateway, &token)), (401, 200));
    }
}

#[test]
fn a_short_token_ends_its_connection() {
    let secret = Secret::new("short");
    let mut environment = secret.environment();
    environment.push(("KITTIWAKE_AUTH_LEEWAY", "0s".to_owned()));
    let gateway = start("auto", 2, &environment);
    let token = secret.token("alice", &["--ttl", "2s"]);
    let _client = gateway.mosquitto_sub(&["-t", "$inbox/#", "-u", "x", "-P", &token, "-i", "m"]);
    gateway.wait_for_gauge("subscriptions", 1);
    // It comes back at once, and is refused.
    gateway.wait_for_gauge("sessions", 0);
}

#[test]
fn keys_are_read_again_when_they_change_and_on_sighup() {
    let secret = Secret::new("changing");
    let gateway = start("auto", 1, &secret.environment());
    let first = secret.token("alice", &[]);
    assert_eq!(status(&gateway, &first), 200);
    secret.write('b');
    let second = secret.token("alice", &[]);
    let pid = gateway.pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill is there").success());
    eventually("the second key counts", || status(&gateway, &second) == 200);
    assert_eq!(status(&gateway, &first), 401);
    secret.write('c');
    let third = secret.token("alice", &[]);
    eventually("the third key is found", || status(&gateway, &third) == 200);
    assert_eq!(status(&gateway, &second), 401);
}
