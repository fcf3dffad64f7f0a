//! One client by itself, on a blocking socket in a thread of its own: what others notice of the server while something
//! big goes on. It pings at a steady rate, and each answer's time counts from when its ping was due.

use crate::Failure;
use hdrhistogram::Histogram;
use kittiwake::wire::mqtt::{Connect, Disconnect, Encode, PingReq, Reason, Version};
use rustix::process::setpriority_process;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The version it speaks.
const VERSION: Version = Version::V311;

/// Between two pings.
const PERIOD: Duration = Duration::from_millis(2);
/// Longest wait for an answer: a server that is busy for long is what a probe is to find.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// The probe runs before the fleet that it shares CPUs with, where it may: it is to see the server's delays, not ours.
const NICENESS: i32 = -10;
const CLIENT_ID: &str = "load-probe";

/// A probe at work.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Histogram<u64>, String>>,
}

impl Probe {
    /// Connects to an MQTT server and starts to ping.
    pub fn start(target: SocketAddr) -> Result<Self, Failure> {
        let mut socket = TcpStream::connect_timeout(&target, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut connect = Connect::new(VERSION, CLIENT_ID);
        connect.clean_start = true;
        connect.user_name = Some(CLIENT_ID);
        say(&mut socket, &connect)?;
        let mut connack = [0; 4];
        socket.read_exact(&mut connack)?;
        if connack != [0x20, 2, 0, 0] {
            return Err(format!("the probe was answered {connack:02x?}").into());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || ping(&mut socket, &flag).map_err(|failure| failure.to_string()))?;
        Ok(Self { stop, thread })
    }

    /// Ends it; latencies in microseconds.
    pub fn end(self) -> Result<Histogram<u64>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the probe's thread ended badly")??)
    }
}

fn say(socket: &mut TcpStream, packet: &impl Encode) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    packet.encode_to(VERSION, &mut bytes);
    Ok(socket.write_all(&bytes)?)
}

fn ping(socket: &mut TcpStream, stop: &AtomicBool) -> Result<Histogram<u64>, Failure> {
    // Without the right to it the probe is a thread like others.
    let _ = setpriority_process(None, NICENESS);
    let mut latency = Histogram::new_with_max(LATENCY_US_MAX, 3)?;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        say(socket, &PingReq)?;
        let mut answer = [0; 2];
        socket.read_exact(&mut answer)?;
        if answer != [0xd0, 0] {
            return Err(format!("a ping was answered {answer:02x?}").into());
        }
        latency.saturating_record(due.elapsed().as_micros() as u64);
        due += PERIOD;
    }
    say(socket, &Disconnect::new(Reason::Success))?;
    Ok(latency)
}
