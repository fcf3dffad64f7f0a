//! Event streams with stock clients: curl, and the `EventSource` of a browser.

use crate::everywhere;
use crate::gateway::{Gateway, Lines, PATIENCE};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The next event as curl prints it: its id and its envelope.
fn event(curl: &Lines) -> (String, Value) {
    let mut id = String::new();
    loop {
        let line = curl.next();
        if let Some(value) = line.strip_prefix("id: ") {
            id = value.to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            return (id, serde_json::from_str(data).expect("it is JSON"));
        }
    }
}

#[test]
fn curl_prints_an_inbox_and_a_topic_and_goes_on_behind_its_last_event_id() {
    everywhere(|gateway| {
        let query = "inbox=1&user=alice&device=page";
        let curl = gateway.curl(query, &[]);
        gateway.wait_for_gauge("subscriptions", 1);
        let answer = gateway.push(json!({"to": {"user": "alice"}, "label": "orders/7", "payload": {"n": 1}}));
        let (id, envelope) = event(&curl);
        let at = &answer["results"][0];
        assert_eq!(id, format!("{}:{}", at["epoch"].as_str().expect("a text"), at["offset"]));
        assert_eq!((&envelope["topic"], &envelope["payload"]), (&json!("$inbox/orders/7"), &json!("{\"n\":1}")));
        drop(curl);
        gateway.wait_for_gauge("connections", 0);
        for n in 2..50 {
            gateway.push(json!({"to": {"user": "alice"}, "payload": format!("{n}")}));
        }
        let again = gateway.curl(query, &["-H", &format!("Last-Event-ID: {id}")]);
        for n in 2..50 {
            assert_eq!(event(&again).1["payload"], format!("{n}"));
        }
        let topics = gateway.curl("topic=rooms/%2B&format=raw&user=bob", &[]);
        gateway.wait_for_gauge("subscriptions", 2);
        gateway.push(json!({"to": {"topic": "rooms/1"}, "payload": "two\nlines", "qos": 0}));
        let lines = std::iter::repeat_with(|| topics.next()).filter(|line| line.starts_with("data"));
        assert_eq!(lines.take(2).collect::<Vec<_>>(), ["data: two", "data: lines"]);
    });
}

/// Reports each event, and that it has opened, in the order in which they happen.
const PAGE: &str = r#"<!doctype html><script>
let before = Promise.resolve();
const report = text => { before = before.then(() => fetch("/report", {method: "POST", body: text})); };
const source = new EventSource("http://EDGE/events?inbox=1&topic=rooms/1&user=alice&device=page");
source.onopen = () => report("open");
source.onmessage = event => {
    const {topic, payload} = JSON.parse(event.data);
    report([topic, payload, event.lastEventId.length > 0].join(" "));
};
source.addEventListener("close", event => report("close " + event.data));
source.addEventListener("gap", event => report("gap " + event.data));
</script>"#;

/// Serves the page and hands on what it reports.
fn serve(page: String) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("a bound listener has an address");
    let (sender, reports) = channel();
    // Ends with the test's process: a browser that is being killed may still connect.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (page, sender) = (page.clone(), sender.clone());
            std::thread::spawn(move || answer(stream, &page, &sender));
        }
    });
    (address, reports)
}

/// One request on one connection; none: the browser has gone.
fn answer(mut stream: TcpStream, page: &str, reports: &Sender<String>) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // Before the answer, at which the page goes on to its next report.
    if first.starts_with("POST /report ") {
        reports.send(String::from_utf8(body).ok()?).ok()?;
    }
    let content = if first.starts_with("GET / ") { page } else { "" };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n").ok()?;
    write!(stream, "Content-Length: {}\r\n\r\n{content}", content.len()).ok()?;
    Some(())
}

/// Headless Chromium; killed when dropped.
struct Browser {
    process: Child,
    profile: PathBuf,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = std::env::temp_dir().join(format!("kittiwake-browser-{}-{}", std::process::id(), url.len()));
        let process = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-extensions"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is needed by this test");
        Self { process, profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
        // Its helpers may still write; what is left is in the system's directory for such.
        let _left = std::fs::remove_dir_all(&self.profile);
    }
}

#[test]
fn a_browsers_event_source_opens_across_origins_and_misses_nothing_when_it_comes_back() {
    for driver in ["epoll", "io_uring"] {
        let gateway = Gateway::start(driver, 2);
        let (page, reports) = serve(PAGE.replace("EDGE", &gateway.edge.to_string()));
        let _browser = Browser::open(&format!("http://{page}/"));
        let next = || reports.recv_timeout(PATIENCE).expect("the page reports");
        assert_eq!(next(), "open");
        gateway.push(json!({"to": {"user": "alice"}, "payload": "one\ntwo"}));
        assert_eq!(next(), "$inbox/push one\ntwo true");
        gateway.push(json!({"to": {"topic": "rooms/1"}, "payload": "live", "qos": 0}));
        assert_eq!(next(), "rooms/1 live true");
        let (status, _) = gateway.post("/v1/users/alice/disconnect", &json!({}));
        assert_eq!(status, 200);
        assert_eq!(next(), "close {\"reason\":\"administrative\"}");
        for n in 0..20 {
            gateway.push(json!({"to": {"user": "alice"}, "payload": format!("away {n}")}));
        }
        assert_eq!(next(), "open", "it comes back by itself");
        for n in 0..20 {
            assert_eq!(next(), format!("$inbox/push away {n} true"));
        }
        gateway.push(json!({"to": {"user": "alice"}, "payload": "last"}));
        assert_eq!(next(), "$inbox/push last true");
    }
}
