//! The child: blocking sockets, `accept`, `recv` and `send` in loops, nothing else.
//!
//! ```text
//!   accept N           takes N connections in
//!   refuse N           takes N connections in and closes each at once
//!   receive N BYTES    waits with epoll and receives until each of N sockets' BYTES have come
//!   echo N BYTES       the same, and sends back what has come
//!   greet N            takes N connections in and gives each two canned answers, CONNACK and SUBACK
//!   forget             closes all of them
//!   send BYTES ROUNDS  sends BYTES to every socket, ROUNDS times
//!   publisher          takes one connection in that is listened to
//!   fan BYTES ROUNDS A receives BYTES from it and sends them to every socket, ROUNDS times;
//!                      waits for A bytes of each socket after each round if A > 0
//!   post COUNT         takes one connection in and sends each of COUNT letters that come over it to the socket it names:
//!                      the socket's number and the letter's length, 4 bytes each, then the letter
//!   pairs N            slab memory of the later half of N connections to itself, both ends
//! ```

use super::Answer;
use crate::Failure;
use crate::cli;
use crate::server::{pin_this, slab_at_rest};
use rustix::event::epoll;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::{ClockId, clock_gettime};
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

/// Connections that wait to be accepted; the kernel's own bound is lower.
const BACKLOG: i32 = 4_096;
/// What one receive takes at most.
const BUFFER_BYTES: usize = 64 << 10;
/// Events of one wait.
const EVENTS_MAX: usize = 512;
/// CONNACK that accepts, and SUBACK for the fleet's only identifier at QoS 0.
const GREETINGS: [&[u8]; 2] = [&[0x20, 2, 0, 0], &[0x90, 3, 0, 1, 0]];

/// What stands before a letter.
const ADDRESS_BYTES: usize = 8;

struct Floor {
    listener: TcpListener,
    sockets: Vec<TcpStream>,
    publisher: Option<TcpStream>,
    /// Made at the first wait, over all sockets there are then.
    epoll: Option<rustix::fd::OwnedFd>,
    buffer: Vec<u8>,
}

/// Serves until the input ends.
pub fn run(arguments: &cli::FloorServer) -> Result<(), Failure> {
    if let Some(cpu) = arguments.cpu {
        pin_this(cpu)?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Listening again raises the bound that the standard library chose.
    rustix::net::listen(&listener, BACKLOG)?;
    println!("port {}", listener.local_addr()?.port());
    let buffer = vec![0x5a; BUFFER_BYTES];
    let mut floor = Floor { listener, sockets: Vec::new(), publisher: None, epoll: None, buffer };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (cpu, user) = (cpu_ns()?, user_ns());
        let (units, slab) = floor.obey(&words)?;
        let answer =
            Answer { units, cpu_ns: cpu_ns()? - cpu, user_ns: user_ns().saturating_sub(user), slab_bytes: slab };
        println!("ok {} {} {} {}", answer.units, answer.cpu_ns, answer.user_ns, answer.slab_bytes);
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// This process's CPU time.
fn cpu_ns() -> Result<u64, Failure> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Ok(u64::try_from(time.tv_sec)? * 1_000_000_000 + u64::try_from(time.tv_nsec)?)
}

/// User space's part, as the kernel divides it: exact in its share over many ticks, not over few.
fn user_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may hold spaces; user time is the twelfth word behind it, in hundredths of a second.
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_whitespace().nth(11).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0) * 10_000_000
}

/// The first letter and the socket it is for, if all of it is there.
fn addressed(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (address, rest) = bytes.split_first_chunk::<ADDRESS_BYTES>()?;
    let word =
        |at: usize| u32::from_be_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]]) as usize;
    Some((word(0), rest.get(..word(4))?))
}

impl Floor {
    fn obey(&mut self, words: &[&str]) -> Result<(u64, i64), Failure> {
        let number = |at: usize| -> Result<usize, Failure> {
            Ok(words.get(at).ok_or("a command with too few numbers")?.parse()?)
        };
        match words.first().copied() {
            Some("accept") => self.accept(number(1)?).map(|units| (units, 0)),
            Some("refuse") => self.refuse(number(1)?).map(|units| (units, 0)),
            Some("receive") => self.receive(number(1)? * number(2)?, false).map(|units| (units, 0)),
            Some("echo") => self.receive(number(1)? * number(2)?, true).map(|units| (units, 0)),
            Some("greet") => self.greet(number(1)?).map(|units| (units, 0)),
            Some("forget") => {
                self.sockets.clear();
                self.epoll = None;
                Ok((0, 0))
            }
            Some("send") => self.send(number(1)?, number(2)?).map(|units| (units, 0)),
            Some("publisher") => {
                self.publisher = Some(self.listener.accept()?.0);
                Ok((1, 0))
            }
            Some("fan") => self.fan(number(1)?, number(2)?, number(3)?).map(|units| (units, 0)),
            Some("post") => self.post(number(1)?).map(|units| (units, 0)),
            Some("pairs") => self.pairs(number(1)?),
            _ => Err(format!("unknown command {words:?}").into()),
        }
    }

    fn accept(&mut self, count: usize) -> Result<u64, Failure> {
        for _ in 0..count {
            let (socket, _) = self.listener.accept()?;
            self.sockets.push(socket);
        }
        Ok(count as u64)
    }

    fn refuse(&self, count: usize) -> Result<u64, Failure> {
        for _ in 0..count {
            drop(self.listener.accept()?);
        }
        Ok(count as u64)
    }

    /// Receives until so many bytes have come, and sends them back if told to; the receives that brought some.
    fn receive(&mut self, bytes: usize, echo: bool) -> Result<u64, Failure> {
        let epoll = match self.epoll.take() {
            Some(epoll) => epoll,
            None => self.watch_all()?,
        };
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let (mut left, mut receives) = (bytes, 0);
        while left > 0 {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in &events {
                let socket = &self.sockets[usize::try_from(event.data.u64())?];
                let (got, _) = recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT)?;
                if got == 0 {
                    return Err("a client has ended".into());
                }
                if echo && send(socket, &self.buffer[..got], SendFlags::NOSIGNAL)? != got {
                    return Err("an answer of a few bytes was cut".into());
                }
                left = left.saturating_sub(got);
                receives += 1;
            }
        }
        self.epoll = Some(epoll);
        Ok(receives)
    }

    /// Accepts, receives, answers, receives, answers: what a connection with one subscription asks of any server.
    fn greet(&mut self, count: usize) -> Result<u64, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let door = epoll::EventData::new_u64(u64::MAX);
        epoll::add(&epoll, &self.listener, door, epoll::EventFlags::IN)?;
        self.listener.set_nonblocking(true)?;
        let (first, mut answered) = (self.sockets.len(), vec![0_u8; count]);
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let mut left = count;
        while left > 0 {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in &events {
                if event.data.u64() == u64::MAX {
                    self.admit(&epoll, first + count)?;
                    continue;
                }
                let at = usize::try_from(event.data.u64())?;
                let answers = &mut answered[at - first];
                let (got, _) = recv(&self.sockets[at], &mut self.buffer[..], RecvFlags::DONTWAIT)?;
                let answer = GREETINGS.get(usize::from(*answers)).filter(|_| got > 0);
                send(&self.sockets[at], answer.ok_or("a client did not keep to the greeting")?, SendFlags::NOSIGNAL)?;
                *answers += 1;
                left -= usize::from(usize::from(*answers) == GREETINGS.len());
            }
        }
        self.listener.set_nonblocking(false)?;
        Ok(count as u64)
    }

    /// Accepts all that wait, up to so many sockets in all.
    fn admit(&mut self, epoll: &rustix::fd::OwnedFd, sockets_max: usize) -> Result<(), Failure> {
        while self.sockets.len() < sockets_max {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let data = epoll::EventData::new_u64(self.sockets.len() as u64);
                    epoll::add(epoll, &socket, data, epoll::EventFlags::IN)?;
                    self.sockets.push(socket);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn watch_all(&self) -> Result<rustix::fd::OwnedFd, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (socket, number) in self.sockets.iter().zip(0..) {
            epoll::add(&epoll, socket, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        }
        Ok(epoll)
    }

    fn send(&mut self, bytes: usize, rounds: usize) -> Result<u64, Failure> {
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0x5a);
        }
        for _ in 0..rounds {
            self.send_to_all(bytes)?;
        }
        Ok((rounds * self.sockets.len()) as u64)
    }

    fn send_to_all(&self, bytes: usize) -> Result<(), Failure> {
        for socket in &self.sockets {
            let mut sent = 0;
            while sent < bytes {
                sent += send(socket, &self.buffer[sent..bytes], SendFlags::NOSIGNAL)?;
            }
        }
        Ok(())
    }

    fn fan(&mut self, bytes: usize, rounds: usize, answer_bytes: usize) -> Result<u64, Failure> {
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        for _ in 0..rounds {
            let publisher = self.publisher.as_ref().ok_or("there is no publisher")?;
            let mut got = 0;
            while got < bytes {
                let (more, _) = recv(publisher, &mut self.buffer[got..bytes], RecvFlags::empty())?;
                if more == 0 {
                    return Err("the publisher has ended".into());
                }
                got += more;
            }
            self.send_to_all(bytes)?;
            if answer_bytes > 0 {
                self.receive(answer_bytes * self.sockets.len(), false)?;
            }
        }
        Ok((rounds * self.sockets.len()) as u64)
    }

    fn post(&mut self, count: usize) -> Result<u64, Failure> {
        let (source, _) = self.listener.accept()?;
        let (mut left, mut kept) = (count, 0);
        while left > 0 {
            let (got, _) = recv(&source, &mut self.buffer[kept..], RecvFlags::empty())?;
            if got == 0 {
                return Err("who posts has ended".into());
            }
            let end = kept + got;
            let mut at = 0;
            while let Some((socket, letter)) = addressed(&self.buffer[at..end]) {
                if send(&self.sockets[socket], letter, SendFlags::NOSIGNAL)? != letter.len() {
                    return Err("a letter of a few bytes was cut".into());
                }
                at += ADDRESS_BYTES + letter.len();
                left -= 1;
            }
            self.buffer.copy_within(at..end, 0);
            kept = end - at;
            if kept == self.buffer.len() {
                return Err("a letter is too long".into());
            }
        }
        Ok(count as u64)
    }

    /// Both ends are bare sockets of this process, so half of what the slab grows is one end's. The first half of them
    /// fills the gaps that earlier sockets have left in it, and is not counted.
    fn pairs(&self, count: usize) -> Result<(u64, i64), Failure> {
        let mut ends = Vec::with_capacity(2 * count);
        self.open_pairs(count / 2, &mut ends)?;
        let (before, uncounted) = (slab_at_rest()?, ends.len());
        self.open_pairs(count - count / 2, &mut ends)?;
        // Closed without a trace: others look at the slab next.
        ends.iter().try_for_each(|end| set_socket_linger(end, Some(Duration::ZERO)))?;
        Ok(((ends.len() - uncounted) as u64, i64::try_from(slab_at_rest()?)? - i64::try_from(before)?))
    }

    fn open_pairs(&self, count: usize, ends: &mut Vec<TcpStream>) -> Result<(), Failure> {
        let address = self.listener.local_addr()?;
        for _ in 0..count {
            ends.push(TcpStream::connect(address)?);
            ends.push(self.listener.accept()?.0);
        }
        Ok(())
    }
}
