//! A gateway process under test, and the stock tools around it.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Nothing here takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// `kittiwake serve` on ports of its own; killed when dropped.
pub struct Gateway {
    process: Child,
    pub edge: SocketAddr,
    pub api: SocketAddr,
}

impl Gateway {
    /// Starts it with these in its environment, and does not wait.
    pub fn begin(driver: &str, shards: usize, environment: &[(&str, &str)]) -> Self {
        let [edge, api] = crate::ports::free();
        let process = Command::new(env!("CARGO_BIN_EXE_kittiwake"))
            .args(["serve", "--driver", driver, "--shards", &shards.to_string()])
            .args(["--listen", &edge.to_string(), "--api", &api.to_string(), "--data-dir", ""])
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary was built for this test");
        Self { process, edge, api }
    }

    /// Starts it and waits until `/readyz` says yes.
    pub fn start(driver: &str, shards: usize) -> Self {
        Self::start_with(driver, shards, &[])
    }

    /// The same, with these in its environment.
    pub fn start_with(driver: &str, shards: usize, environment: &[(&str, &str)]) -> Self {
        let gateway = Self::begin(driver, shards, environment);
        eventually("the gateway is ready", || gateway.get("/readyz").is_some_and(|(status, _)| status == 200));
        gateway
    }

    /// Process id, to signal.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().expect("the child is ours") {
                return status.code();
            }
            std::thread::yield_now();
        }
        panic!("the gateway did not end");
    }

    fn request(&self, head: &str, body: &[u8]) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(self.api).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let head =
            format!("{head}\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", self.api, body.len());
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let body = text.split_once("\r\n\r\n")?.1;
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// GET; none while it does not listen.
    pub fn get(&self, path: &str) -> Option<(u16, Value)> {
        self.request(&format!("GET {path} HTTP/1.1"), b"")
    }

    /// GET of what is no JSON.
    pub fn text(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.api).expect("the API listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.api);
        stream.write_all(request.as_bytes()).expect("the API reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the API answers");
        text
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        self.request(&format!("POST {path} HTTP/1.1\r\ncontent-type: application/json"), body.as_bytes())
            .expect("the API answers")
    }

    /// A push that must work.
    pub fn push(&self, body: Value) -> Value {
        let (status, answer) = self.post("/v1/push", &body);
        assert_eq!(status, 200, "{body} was answered with {answer}");
        answer
    }

    /// A gauge summed over shards.
    pub fn gauge(&self, name: &str) -> u64 {
        let (_, stats) = self.get("/v1/stats").expect("the API answers");
        stats["total"]["gauges"][name].as_u64().unwrap_or_else(|| panic!("no gauge {name} in {stats}"))
    }

    /// A counter summed over shards.
    pub fn counter(&self, name: &str) -> u64 {
        let (_, stats) = self.get("/v1/stats").expect("the API answers");
        stats["total"]["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {stats}"))
    }

    /// Waits for a gauge to have a value.
    pub fn wait_for_gauge(&self, name: &str, value: u64) {
        eventually(&format!("{name} is {value}"), || self.gauge(name) == value);
    }

    /// The command line client.
    pub fn push_by_command(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_kittiwake"))
            .args(["push", "--api", &format!("http://{}", self.api)])
            .args(arguments)
            .output()
            .expect("the binary was built for this test");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// `mosquitto_sub` with these arguments; reads its lines.
    pub fn mosquitto_sub(&self, arguments: &[&str]) -> Lines {
        let port = self.edge.port().to_string();
        Lines::of(Command::new("mosquitto_sub").args(["-h", "127.0.0.1", "-p", &port]).args(arguments))
    }

    /// `kittiwake sub` over WebSocket; reads its lines.
    pub fn sub_over_websocket(&self, arguments: &[&str]) -> Lines {
        let url = format!("ws://{}/mqtt", self.edge);
        Lines::of(Command::new(env!("CARGO_BIN_EXE_kittiwake")).args(["sub", "--url", &url]).args(arguments))
    }

    /// `curl -N` of an event stream; reads its lines.
    pub fn curl(&self, query: &str, arguments: &[&str]) -> Lines {
        let url = format!("http://{}/events?{query}", self.edge);
        Lines::of(Command::new("curl").args(["-sN", "--fail"]).args(arguments).arg(url))
    }

    /// `curl` of a poll; reads its one line, the answer.
    pub fn curl_poll(&self, query: &str) -> Lines {
        let url = format!("http://{}/poll?{query}", self.edge);
        Lines::of(Command::new("curl").args(["-s", "--fail", "-w", "\\n"]).arg(url))
    }

    /// A Python program that gets the edge port as its first argument.
    pub fn python(&self, program: &str, arguments: &[&str]) -> Lines {
        let port = self.edge.port().to_string();
        Lines::of(Command::new("python3").args(["-u", "-c", program, &port]).args(arguments))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself: that is some tests' point.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// A client process whose output lines are the test's facts; killed when dropped.
pub struct Lines {
    process: Child,
    lines: Receiver<String>,
}

impl Lines {
    /// Starts it.
    pub fn of(command: &mut Command) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} is needed by this test: {error}"));
        let stdout = process.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { process, lines }
    }

    /// The next line.
    pub fn next(&self) -> String {
        self.try_next().expect("a line was expected")
    }

    /// The next line; none if it ends before, or takes too long.
    pub fn try_next(&self) -> Option<String> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// All lines that are still to come until it ends by itself, and its exit code; none if it does not.
    pub fn end(mut self) -> Option<(Vec<String>, Option<i32>)> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return None,
            }
        }
        Some((lines, self.process.wait().expect("the child is ours").code()))
    }

    /// The next `count` lines.
    pub fn take(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Lines that are there already.
    pub fn rest(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// Asks again until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
