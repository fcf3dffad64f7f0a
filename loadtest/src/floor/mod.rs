//! Owns: the floor: a server without protocol, in a process of its own, and the parent's hold on it.
//! In: commands, a line each, on its standard input. Out: answers, a line each.
//! Must not: use kittiwake's drivers or engine: it is what they are measured against.
//! Invariants: the child ends when its standard input does, or when the connection it listens to ends; every answer is
//! waited for a bounded time.

pub mod serve;

use crate::Failure;
use crate::server::Process;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The child, from its parent's side.
#[derive(Debug)]
pub struct FloorServer {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
    pub address: SocketAddr,
}

/// What a command did.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Accepts, receives or sends.
    pub units: u64,
    /// The child's CPU time for them, in nanoseconds.
    pub cpu_ns: u64,
    /// User space's part of it.
    pub user_ns: u64,
    /// Bytes of the kernel's slab for them, where that was asked.
    pub slab_bytes: i64,
}

impl Answer {
    /// Microseconds of CPU a unit.
    pub fn us(self) -> f64 {
        self.cpu_ns as f64 / 1_000.0 / self.units.max(1) as f64
    }
}

impl FloorServer {
    /// Starts the child and waits until it listens.
    pub fn start(cpu: Option<usize>) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("floor-server").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let mut child = command.spawn()?;
        let commands = child.stdin.take();
        let output = child.stdout.take().ok_or("the child's output is piped")?;
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { child, commands, answers, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = server.line()?;
        let port = line.strip_prefix("port ").and_then(|port| port.parse().ok());
        server.address.set_port(port.ok_or_else(|| format!("the floor said {line:?}"))?);
        Ok(server)
    }

    /// The process, to measure.
    pub fn process(&self) -> Process {
        Process { pid: self.child.id() }
    }

    /// Gives a command; its answer is waited for by [`FloorServer::answer`].
    pub fn ask(&mut self, command: &str) -> Result<(), Failure> {
        let commands = self.commands.as_mut().ok_or("the floor has ended")?;
        writeln!(commands, "{command}")?;
        commands.flush()?;
        Ok(())
    }

    /// What the last command did.
    pub fn answer(&mut self) -> Result<Answer, Failure> {
        let line = self.line()?;
        let mut words = line.split_whitespace();
        if words.next() != Some("ok") {
            return Err(format!("the floor said {line:?}").into());
        }
        let mut number = || -> Result<i64, Failure> { Ok(words.next().ok_or("the floor says too little")?.parse()?) };
        Ok(Answer {
            units: number()?.unsigned_abs(),
            cpu_ns: number()?.unsigned_abs(),
            user_ns: number()?.unsigned_abs(),
            slab_bytes: number()?,
        })
    }

    fn line(&mut self) -> Result<String, Failure> {
        self.answers.recv_timeout(ANSWER_TIMEOUT).map_err(|_| "the floor's server does not answer".into())
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        // The end of its input ends it, unless it is in the midst of something.
        drop(self.commands.take());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("loadtest: the floor's server: {error}");
        }
    }
}
