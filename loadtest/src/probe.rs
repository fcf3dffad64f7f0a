//! A few clients by themselves, each on a blocking socket in threads of its own: what others notice of the server while
//! something big goes on. Each pings at a steady rate, whether or not the answers keep up, and each answer's time counts
//! from when its ping was due. If one waited for each answer, one ping that takes longer than the period would make all
//! later ones late, and the time of the last would be as long as whatever goes on.

use crate::Failure;
use crate::clock::sleep_to_the_point;
use crate::fleet::orders::Pace;
use hdrhistogram::Histogram;
use kittiwake::wire::mqtt::{Connect, Disconnect, Encode, PingReq, Reason, Version};
use rustix::process::setpriority_process;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The version it speaks.
const VERSION: Version = Version::V311;

/// Longest wait for an answer: a server that is busy for long is what a probe is to find.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// The probe runs before the fleet that it shares CPUs with, where it may: it is to see the server's delays, not ours.
const NICENESS: i32 = -10;
/// Start of every client id and user name.
const PREFIX: &str = "load-probe-";

/// Clients that ping until they are ended.
#[derive(Debug)]
pub struct Probes(Vec<Probe>);

impl Probes {
    /// So many connect to an MQTT server and start to ping, each so many times a second.
    pub fn start(target: SocketAddr, count: u32, rate: u32) -> Result<Self, Failure> {
        Ok(Self((0..count).map(|number| Probe::start(target, number, rate)).collect::<Result<_, Failure>>()?))
    }

    /// Latencies in microseconds of the answers that have come since this was called last.
    pub fn take(&self) -> Histogram<u64> {
        let mut all = latencies();
        for probe in &self.0 {
            let mut answered = probe.answered.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(&*answered).expect("they are of one size");
            answered.reset();
        }
        all
    }

    /// Ends them when every ping has its answer; the latencies of the last ones.
    pub fn end(mut self) -> Result<Histogram<u64>, Failure> {
        self.0.iter().for_each(Probe::stop);
        for probe in &mut self.0 {
            if let Some(thread) = probe.thread.take() {
                thread.join().map_err(|_| "a probe's thread ended badly")??;
            }
        }
        Ok(self.take())
    }
}

/// One of them at work.
#[derive(Debug)]
struct Probe {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
    answered: Arc<Mutex<Histogram<u64>>>,
}

impl Probe {
    fn start(target: SocketAddr, number: u32, rate: u32) -> Result<Self, Failure> {
        let mut socket = TcpStream::connect_timeout(&target, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = format!("{PREFIX}{number}");
        let mut connect = Connect::new(VERSION, &name);
        connect.clean_start = true;
        connect.user_name = Some(&name);
        say(&mut socket, &connect)?;
        let mut connack = [0; 4];
        socket.read_exact(&mut connack)?;
        if connack != [0x20, 2, 0, 0] {
            return Err(format!("a probe was answered {connack:02x?}").into());
        }
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(latencies())));
        let (flag, latency) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = Some(spawn("probe", move || ping(socket, rate, &flag, latency))?);
        Ok(Self { stop, thread, answered })
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Probe {
    /// Whoever does not wait for a probe does not leave it pinging.
    fn drop(&mut self) {
        self.stop();
    }
}

/// None yet, in microseconds.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, 3).expect("three digits of a minute can be kept")
}

fn say(socket: &mut TcpStream, packet: &impl Encode) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    packet.encode_to(VERSION, &mut bytes);
    Ok(socket.write_all(&bytes)?)
}

/// Pings until it is stopped, while another thread takes the answers.
fn ping(
    mut socket: TcpStream,
    rate: u32,
    stop: &AtomicBool,
    latency: Arc<Mutex<Histogram<u64>>>,
) -> Result<(), String> {
    let told = |failure: &dyn core::fmt::Display| failure.to_string();
    let (asked, dues) = mpsc::channel();
    let answers = socket.try_clone().map_err(|failure| told(&failure))?;
    let hearing = spawn("probe-answers", move || hear(answers, &dues, &latency))?;
    // Without the right to it the probe is a thread like others.
    let _ = setpriority_process(None, NICENESS);
    sleep_to_the_point();
    let mut pace = Pace { started: Instant::now(), rate, issued: 0 };
    let mut asking = Ok(());
    while asking.is_ok() && !stop.load(Ordering::Relaxed) {
        let due = pace.due();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Who hears has gone only if it failed, and says why.
        if asked.send(due).is_err() {
            break;
        }
        asking = say(&mut socket, &PingReq);
        pace.issued += 1;
    }
    drop(asked);
    hearing.join().map_err(|_| "the probe's other thread ended badly")??;
    asking.and_then(|()| say(&mut socket, &Disconnect::new(Reason::Success))).map_err(|failure| told(&failure))
}

/// Takes an answer for each ping that was due.
fn hear(mut socket: TcpStream, dues: &Receiver<Instant>, latency: &Mutex<Histogram<u64>>) -> Result<(), String> {
    let _ = setpriority_process(None, NICENESS);
    for due in dues {
        let mut answer = [0; 2];
        socket.read_exact(&mut answer).map_err(|failure| failure.to_string())?;
        if answer != [0xd0, 0] {
            return Err(format!("a ping was answered {answer:02x?}"));
        }
        let micros = due.elapsed().as_micros() as u64;
        latency.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }
    Ok(())
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, String> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|failure| failure.to_string())
}
