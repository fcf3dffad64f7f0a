//! What sessions that are away cost: the time of a start with many of them, their memory, and how fast they come back.
//!
//! A device makes a session with a real gateway, and its record is the pattern of all others, which are written into the
//! gateway's store while it is down. So all of it is what a gateway finds that had as many devices.

use kittiwake::base::clock::Now;
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{AppId, Qos};
use kittiwake::base::log::RecordChange;
use kittiwake::base::message::{Message, StreamKey};
use kittiwake::limits::READ_RECORDS_MAX;
use kittiwake::store::durable::Opening;
use kittiwake::store::{Address, DurableStore, Log, NewEntry, Record, Request, RequestToken, Retentions, Store};
use kittiwake::wire::mqtt::subscribe::{Filter, Filters, Subscribe};
use kittiwake::wire::mqtt::{Ack, AckKind, Connect, Encode, FrameLen, Packet, PacketId, Version, decode, frame_len};
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Messages that wait for each session that comes back.
const MESSAGES: usize = 10;
/// Devices that come back at a time.
const COMING: u64 = 64;
const VERSION: Version = Version::V5;
const PACKET_BYTES_MAX: usize = 1 << 20;
/// An idle gateway has given back what its start took from the allocator.
const REST: Duration = Duration::from_secs(5);
/// Nothing takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// All names have one length, as the pattern's: keys and records are the same but for them.
fn name(user: u64) -> String {
    format!("user-{user:08}")
}

/// A running gateway; killed when dropped.
struct Gateway {
    process: Child,
    edge: SocketAddr,
}

impl Gateway {
    /// Starts it over a directory; how long that took until it listened.
    fn start(data: &Path, sessions: u64) -> Result<(Self, Duration)> {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let (edge, api) = (free()?, free()?);
        let began = Instant::now();
        let mut process = Command::new(binary()?)
            .args(["serve", "--listen", &edge.to_string(), "--api", &api.to_string(), "--data-dir"])
            .arg(data)
            // A quarter of the sessions may be connected at a time; room is reserved for all of them.
            .env("KITTIWAKE_LIMITS_MAX_CONNECTIONS", sessions.to_string())
            .env("KITTIWAKE_NODE_INSECURE", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut banner = BufReader::new(process.stdout.take().ok_or("it has no output")?);
        let mut line = String::new();
        banner.read_line(&mut line)?;
        let took = began.elapsed();
        let gateway = Self { process, edge };
        if line.is_empty() {
            return Err("the gateway did not start".into());
        }
        // The rest of the banner must find a reader, or the process would end at a closed pipe.
        std::thread::spawn(move || std::io::copy(&mut banner, &mut std::io::sink()));
        Ok((gateway, took))
    }

    fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the kernel does not tell")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
    }

    /// CPU of all its threads, user and system.
    fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, rest) = stat.rsplit_once(')').ok_or("the kernel does not tell")?;
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on Linux.
        Ok(Duration::from_millis(ticks * 10))
    }

    fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the gateway ended with {status}").into()) }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// The gateway that was built with this example.
fn binary() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let built = here.parent().and_then(Path::parent).ok_or("this program is nowhere")?.join("kittiwake");
    if built.exists() { Ok(built) } else { Err(format!("build {} first", built.display()).into()) }
}

/// A device on a blocking socket.
struct Device {
    stream: TcpStream,
    intake: Vec<u8>,
}

impl Device {
    fn connect(edge: SocketAddr, user: &str) -> Result<(Self, bool)> {
        let stream = TcpStream::connect(edge)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut device = Self { stream, intake: Vec::new() };
        let mut connect = Connect::new(VERSION, user);
        connect.clean_start = false;
        connect.user_name = Some(user);
        connect.properties.session_expiry_seconds = Some(86_400);
        device.send(&connect)?;
        let frame = device.frame()?;
        match decode(VERSION, &frame) {
            Ok(Packet::ConnAck(connack)) if !connack.reason.is_error() => Ok((device, connack.session_present)),
            other => Err(format!("{other:?} instead of CONNACK").into()),
        }
    }

    fn send(&mut self, packet: &impl Encode) -> Result<()> {
        let mut bytes = Vec::new();
        packet.encode_to(VERSION, &mut bytes);
        Ok(self.stream.write_all(&bytes)?)
    }

    fn frame(&mut self) -> Result<Vec<u8>> {
        loop {
            let known = frame_len(&self.intake, PACKET_BYTES_MAX).map_err(|error| format!("{error:?}"))?;
            if let FrameLen::Known { total_bytes, .. } = known
                && self.intake.len() >= total_bytes
            {
                return Ok(self.intake.drain(..total_bytes).collect());
            }
            let mut bytes = [0; 4_096];
            match self.stream.read(&mut bytes)? {
                0 => return Err("the gateway has closed".into()),
                count => self.intake.extend_from_slice(&bytes[..count]),
            }
        }
    }

    fn subscribe(&mut self) -> Result<()> {
        let filters = [Filter::new("$inbox/#", Qos::AtLeastOnce)];
        let filters = Filters::borrowed(&filters);
        self.send(&Subscribe { packet_id: PacketId::MIN, properties: Default::default(), filters })?;
        while !matches!(decode(VERSION, &self.frame()?), Ok(Packet::SubAck(_))) {}
        Ok(())
    }

    /// Takes and acknowledges so many messages, and leaves.
    fn take(mut self, messages: usize) -> Result<()> {
        let mut acks = Vec::new();
        for _ in 0..messages {
            let frame = self.frame()?;
            let Ok(Packet::Publish(publish)) = decode(VERSION, &frame) else { return Err("no message".into()) };
            let id = publish.packet_id.ok_or("it came at QoS 0")?;
            Ack::success(AckKind::PubAck, id).encode_to(VERSION, &mut acks);
        }
        acks.extend([0xe0, 0]);
        self.stream.write_all(&acks)?;
        // Its end is the gateway's, which has all acknowledgements by then.
        let _end = self.stream.read(&mut [0; 16]);
        Ok(())
    }
}

fn open(path: &Path) -> Result<DurableStore> {
    let (retentions, hash) = (Retentions::default(), KeyedHash::new(1));
    let opening = Opening { path, retentions, hash, seed: 1, accept_loss: false };
    DurableStore::open(opening).map_err(|error| error.to_string().into())
}

/// The records of one session.
fn pattern(path: &Path) -> Result<Vec<Record>> {
    let store = open(path)?;
    let records = store.read_records(b"s", &[], 16).map_err(|fault| fault.reason.to_string())?;
    if records.is_empty() { Err("the pattern left no record".into()) } else { Ok(records) }
}

/// The pattern's record under another user's name.
fn renamed(record: &Record, from: &str, to: &str) -> RecordChange {
    let (key, value) = record;
    let at = key.windows(from.len()).position(|window| window == from.as_bytes());
    let at = at.expect("a session's key names its user");
    let key = [&key[..at], to.as_bytes(), &key[at + from.len()..]].concat();
    RecordChange { key: key.into(), value: Some(value.clone()) }
}

/// Commits requests of so many items each, and says how many of them a second.
fn commit_all(
    log: &mut Log<DurableStore>,
    items: u64,
    each: u64,
    mut request: impl FnMut(Range<u64>) -> Request,
) -> Result<f64> {
    let began = Instant::now();
    for from in (0..items).step_by(each as usize) {
        let request = request(from..(from + each).min(items));
        log.submit(Address::Control, RequestToken(0), request).map_err(|(_, error)| format!("{error:?}"))?;
        let now_ms = u64::try_from(began.elapsed().as_millis())?;
        let committed = log.commit(Now { monotonic_ms: now_ms, wall_ms: wall_ms()? });
        if committed.dones.iter().any(|(_, done)| done.result.is_err()) {
            return Err("the store failed".into());
        }
    }
    Ok(items as f64 / began.elapsed().as_secs_f64())
}

fn wall_ms() -> Result<u64> {
    Ok(u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())?)
}

fn message() -> Result<Arc<Message>> {
    Ok(Arc::new(Message {
        app: AppId(0),
        topic: "$inbox/orders/7".into(),
        only_device: None,
        payload: vec![b'x'; super::PAYLOAD_BYTES].into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        created_ms: wall_ms()?,
        expires_ms: None,
        publisher: None,
        properties: None,
    }))
}

fn reopen(data: &Path) -> Result<Log<DurableStore>> {
    Log::open(open(data)?, wall_ms()?).map_err(|fault| fault.reason.to_string().into())
}

/// Puts sessions into the gateway's store while it is down.
fn add_sessions(data: &Path, pattern: &[Record], users: Range<u64>) -> Result<()> {
    let (first, count) = (users.start, users.end - users.start);
    let rate = commit_all(&mut reopen(data)?, count, 1_000, |part| {
        let of = |user: u64| pattern.iter().map(move |record| renamed(record, &name(0), &name(first + user)));
        Request::Append { key: None, entries: Vec::new(), records: part.flat_map(of).collect() }
    })?;
    println!("filled   {count} sessions, {rate:.0} a second");
    Ok(())
}

/// The same with messages.
fn add_messages(data: &Path, users: u64) -> Result<()> {
    let message = message()?;
    let rate = commit_all(&mut reopen(data)?, users, 1_000 / MESSAGES as u64, |part| {
        let entries = part.flat_map(|user| {
            let stream = StreamKey::Inbox(AppId(0), name(user).into());
            let entry = NewEntry { stream, message: Arc::clone(&message) };
            std::iter::repeat_n(entry, MESSAGES)
        });
        Request::Append { key: None, entries: entries.collect(), records: Vec::new() }
    })?;
    println!("filled   {MESSAGES} messages for each of {users} users, {:.0} a second", rate * MESSAGES as f64);
    Ok(())
}

/// Has sessions come back, take what waits, and leave; how long that took.
fn resume(edge: SocketAddr, resuming: u64) -> Result<Duration> {
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let come = || -> Result<()> {
        loop {
            let user = next.fetch_add(1, Ordering::Relaxed);
            if user >= resuming {
                return Ok(());
            }
            let (device, is_present) = Device::connect(edge, &name(user))?;
            if !is_present {
                return Err(format!("the session of {} is gone", name(user)).into());
            }
            device.take(MESSAGES)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..COMING).map(|_| scope.spawn(come)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    Ok(began.elapsed())
}

/// What a start took and left.
struct Started {
    took: Duration,
    /// Of that, the store's: until it was open, and until all sessions' records were read.
    opened: Duration,
    read: Duration,
    resident_bytes: u64,
    /// Of that, the store's, which has its bounds: blocks and tables.
    store_bytes: u64,
}

/// Starts and stops it, and looks at its store alone.
fn weigh(data: &Path, sessions: u64) -> Result<Started> {
    let (gateway, took) = Gateway::start(data, sessions)?;
    std::thread::sleep(REST);
    let resident_bytes = gateway.resident_bytes()?;
    gateway.stop()?;
    let began = Instant::now();
    let store = open(data)?;
    let opened = began.elapsed();
    let mut last: Box<[u8]> = Box::default();
    loop {
        let page = store.read_records(b"s", &last, READ_RECORDS_MAX).map_err(|fault| fault.reason.to_string())?;
        match page.into_iter().next_back() {
            Some((key, _)) => last = key,
            None => break,
        }
    }
    Ok(Started { took, opened, read: began.elapsed() - opened, resident_bytes, store_bytes: store.memory_bytes() })
}

/// All of it. At least two sessions, and no more that come back than there are.
pub fn measure(data: &Path, sessions: u64, resuming: u64) -> Result<()> {
    let (gateway, _) = Gateway::start(data, sessions)?;
    let (mut device, _) = Device::connect(gateway.edge, &name(0))?;
    device.subscribe()?;
    device.take(0)?;
    gateway.stop()?;
    let pattern = pattern(data)?;
    // Between half of them and all, what is held besides sessions and by the store is alike.
    let half = sessions / 2;
    add_sessions(data, &pattern, 0..half)?;
    let less = weigh(data, sessions)?;
    add_sessions(data, &pattern, half..sessions)?;
    let all = weigh(data, sessions)?;
    println!(
        "started  with {sessions} offline sessions in {:.2} s; the store alone: opened in {:.2} s, records read in {:.2} s",
        all.took.as_secs_f64(),
        all.opened.as_secs_f64(),
        all.read.as_secs_f64()
    );
    let own = |started: &Started| started.resident_bytes.saturating_sub(started.store_bytes);
    let each = own(&all).saturating_sub(own(&less)) as f64 / (sessions - half) as f64;
    let with_store = all.resident_bytes.saturating_sub(less.resident_bytes) as f64 / (sessions - half) as f64;
    println!(
        "memory   {each:.0} bytes for each offline session ({with_store:.0} with the store's blocks and tables, which are \
         bounded); {} MiB in all, {} of them the store's",
        all.resident_bytes >> 20,
        all.store_bytes >> 20
    );
    add_messages(data, resuming)?;
    let (gateway, _) = Gateway::start(data, sessions)?;
    let before = gateway.cpu()?;
    let took = resume(gateway.edge, resuming)?;
    let cpu = gateway.cpu()?.saturating_sub(before);
    println!(
        "resumed  {resuming} sessions with {MESSAGES} messages each in {:.1} s: {:.0} sessions and {:.0} messages a \
         second, {:.1} µs of the gateway's CPU for each session",
        took.as_secs_f64(),
        resuming as f64 / took.as_secs_f64(),
        (resuming * MESSAGES as u64) as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / resuming as f64,
    );
    gateway.stop()
}
