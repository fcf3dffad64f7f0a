//! A backend that is told of clients' publishes by HTTP, and is not always well: it answers late, wrongly or not at all.

use crate::ledger::Ledger;
use crate::random::Random;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Its name among the receivers.
pub const NAME: &str = "webhook";
const SECRET: &str = "a-secret-of-the-run";

/// See the module. It lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    address: SocketAddr,
}

impl Backend {
    pub fn start(ledger: &Arc<Ledger>, mut random: Random) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("a bound listener has an address");
        let ledger = Arc::clone(ledger);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a listener accepts");
                // The gateway has one request under way at a time; an end of its connection is its death, or ours.
                let _ended = serve(&stream, &ledger, &mut random);
            }
        });
        Self { address }
    }

    /// What the gateway has to know.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("KITTIWAKE_WEBHOOK_URL", format!("http://{}/events", self.address)),
            ("KITTIWAKE_WEBHOOK_SECRET", SECRET.to_owned()),
            ("KITTIWAKE_WEBHOOK_PUBLISHES", "c/#".to_owned()),
            ("KITTIWAKE_WEBHOOK_CONNECTIONS", "true".to_owned()),
        ]
    }
}

fn serve(stream: &TcpStream, ledger: &Ledger, random: &mut Random) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(length) = line.strip_prefix("content-length: ") {
                bytes = length.parse().expect("a number");
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; bytes];
        reader.read_exact(&mut body)?;
        let whim = random.below(8);
        // Without a word before it has looked at it, or after.
        if whim == 0 {
            return Ok(());
        }
        if whim != 1 {
            take(&serde_json::from_slice(&body).expect("JSON"), ledger);
        }
        if whim == 2 {
            return Ok(());
        }
        let status = if matches!(whim, 1 | 3) { "503 Service Unavailable" } else { "204 No Content" };
        (&mut &*stream).write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
}

fn take(body: &Value, ledger: &Ledger) {
    for event in body["events"].as_array().expect("events") {
        let position = event["position"].as_str().expect("each has a position").to_owned();
        match event["type"].as_str().expect("each has a type") {
            "published" => {
                let payload = event["payload"].as_str().expect("a text").to_owned();
                ledger.received(NAME, &payload);
                ledger.tell(|facts| facts.positions.entry(payload).or_default().insert(position));
            }
            "connected" | "disconnected" => ledger.tell(|facts| facts.comings += 1),
            other => panic!("{other}: {event}"),
        }
    }
}
