//! A server of the comparison as a child: its configuration in a directory of its own, its CPU, its end by pid.

use super::targets::{Place, Programs, Recipe, Target};
use crate::Failure;
use crate::server::{Process, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What is shown of what a server said when it did not start.
const SAID_BYTES_MAX: usize = 2_000;

/// A directory that is removed with all that is in it.
#[derive(Debug)]
pub struct Workplace(PathBuf);

impl Workplace {
    /// A new one for this process.
    pub fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("loadtest-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("loadtest: {}: {error}", self.0.display());
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    pub target: Target,
    pub address: SocketAddr,
    pub api: SocketAddr,
    /// What serves, to be measured.
    pub process: Process,
    pub server: Server,
}

/// Raises the number of files that this process and its children may have open to what is allowed.
pub fn raise_file_limit() -> Result<(), Failure> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Starts a server and waits until it listens.
pub fn start(target: Target, programs: &Programs, place: &Place, cpu: Option<usize>) -> Result<Running, Failure> {
    fs::create_dir_all(&place.directory)?;
    let recipe = target.recipe(programs, place).map_err(|missing| missing.what)?;
    for (name, text) in &recipe.files {
        fs::write(place.directory.join(name), text)?;
    }
    let said = place.directory.join("said");
    let output = fs::File::create(&said)?;
    let mut command = Command::new(&recipe.program);
    command.args(&recipe.arguments).envs(recipe.environment.iter().map(|(name, value)| (*name, value.as_str())));
    command.current_dir(&place.directory).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // Ctrl-C is this process's to answer: it ends its servers itself, when their clients have left.
    command.process_group(0);
    let child = spawn_on(cpu, &mut command).map_err(|error| format!("{}: {error}", recipe.program.display()))?;
    let pid = child.id();
    let mut server = Server::of_child(child)?;
    let process = wait_until_it_listens(&mut server, &recipe, pid, place).map_err(|failure| {
        let text = fs::read_to_string(&said).unwrap_or_default();
        let start = text.len().saturating_sub(SAID_BYTES_MAX);
        format!("{}: {failure}: {}", target.label(), text.get(start..).unwrap_or_default().trim())
    })?;
    Ok(Running { target, address: place.address, api: place.api, process, server })
}

fn wait_until_it_listens(server: &mut Server, recipe: &Recipe, pid: u32, place: &Place) -> Result<Process, Failure> {
    let until = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = server.has_ended()? {
            return Err(format!("ended at start: {status}").into());
        }
        let serving = if recipe.has_worker { worker_of(pid) } else { Some(pid) };
        if let Some(pid) = serving.filter(|_| TcpStream::connect(place.address).is_ok()) {
            return Ok(Process { pid });
        }
        if Instant::now() > until {
            return Err("did not listen in time".into());
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// The first child of a process.
fn worker_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Starts a child on one CPU from its first instruction on, so that it counts one CPU when it decides on threads.
fn spawn_on(cpu: Option<usize>, command: &mut Command) -> Result<Child, Failure> {
    let Some(cpu) = cpu else { return Ok(command.spawn()?) };
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).map_err(|error| format!("CPU {cpu}: {error}"))?;
    let child = command.spawn();
    sched_setaffinity(None, &before)?;
    Ok(child?)
}
