//! One client by itself, on a blocking socket in threads of its own: what others notice of the server while something
//! big goes on. It pings at a steady rate, whether or not the answers keep up, and each answer's time counts from when
//! its ping was due. If it waited for each answer, one ping that takes longer than the period would make all later
//! ones late, and the time of the last would be as long as whatever goes on.

use crate::Failure;
use hdrhistogram::Histogram;
use kittiwake::wire::mqtt::{Connect, Disconnect, Encode, PingReq, Reason, Version};
use rustix::process::setpriority_process;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
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
        let thread = spawn("probe", move || ping(socket, &flag))?;
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

/// Pings until it is stopped, while another thread takes the answers.
fn ping(mut socket: TcpStream, stop: &AtomicBool) -> Result<Histogram<u64>, String> {
    let told = |failure: &dyn core::fmt::Display| failure.to_string();
    let (asked, dues) = mpsc::channel();
    let answers = socket.try_clone().map_err(|failure| told(&failure))?;
    let hearing = spawn("probe-answers", move || hear(answers, &dues))?;
    // Without the right to it the probe is a thread like others.
    let _ = setpriority_process(None, NICENESS);
    let mut due = Instant::now();
    let mut asking = Ok(());
    while asking.is_ok() && !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Who hears has gone only if it failed, and says why.
        if asked.send(due).is_err() {
            break;
        }
        asking = say(&mut socket, &PingReq);
        due += PERIOD;
    }
    drop(asked);
    let heard = hearing.join().map_err(|_| "the probe's other thread ended badly")?;
    asking.and_then(|()| say(&mut socket, &Disconnect::new(Reason::Success))).map_err(|failure| told(&failure))?;
    heard
}

/// Takes an answer for each ping that was due.
fn hear(mut socket: TcpStream, dues: &Receiver<Instant>) -> Result<Histogram<u64>, String> {
    let _ = setpriority_process(None, NICENESS);
    let mut latency = Histogram::new_with_max(LATENCY_US_MAX, 3).map_err(|failure| failure.to_string())?;
    for due in dues {
        let mut answer = [0; 2];
        socket.read_exact(&mut answer).map_err(|failure| failure.to_string())?;
        if answer != [0xd0, 0] {
            return Err(format!("a ping was answered {answer:02x?}"));
        }
        latency.saturating_record(due.elapsed().as_micros() as u64);
    }
    Ok(latency)
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, String> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|failure| failure.to_string())
}
