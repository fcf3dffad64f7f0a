//! Processes: the gateway as a child, and what /proc says of any server.

use crate::Failure;
use crate::api::Api;
use crate::cli::Common;
use crate::interrupt::Started;
use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a child may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a child may take to end when asked to, with a million connections to close; then it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between looks at a child that starts or stops.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Between two looks at the slab.
const SLAB_REST_LOOK: Duration = Duration::from_millis(300);
/// What it changes by in that time when it is at rest.
const SLAB_REST_BYTES: u64 = 128 << 10;
/// Longest wait for that.
const SLAB_REST_MAX: Duration = Duration::from_secs(9);
/// Longest wait for connections to be forgotten: the kernel takes a minute.
const FORGOTTEN_MAX: Duration = Duration::from_secs(75);
/// So many that the kernel has not forgotten do not count.
const TIME_WAITS_FEW: u64 = 100;

/// A process whose cost is measured.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub pid: u32,
}

/// Memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident pages of all kinds.
    pub rss_bytes: u64,
    /// Those of them that are no file's. How much of the binary itself is resident differs from one process to the next.
    pub anonymous_bytes: u64,
}

impl Process {
    /// CPU time of its threads so far, in nanoseconds: user, kernel, and the interrupts that ran in their place.
    pub fn cpu_ns(self) -> Result<u64, Failure> {
        let mut total = 0;
        for task in self.tasks()? {
            // A thread may end between the listing and the look.
            let Ok(text) = fs::read_to_string(format!("/proc/{}/task/{task}/schedstat", self.pid)) else { continue };
            total += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(total)
    }

    /// Microseconds of it a unit, since it was so much.
    pub fn us_each(self, before_ns: u64, units: u64) -> Result<f64, Failure> {
        Ok(self.cpu_ns()?.saturating_sub(before_ns) as f64 / 1_000.0 / units.max(1) as f64)
    }

    /// Its memory now, counted page by page (the counters in `status` may be off by some pages a thread).
    pub fn memory(self) -> Result<Memory, Failure> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let field = |name: &str| field_kib(&text, name).ok_or_else(|| format!("{path}: no {name}"));
        Ok(Memory { rss_bytes: field("Rss:")?, anonymous_bytes: field("Anonymous:")? })
    }

    /// Its resident memory by the kernel's counters: good to some pages a thread, and cheap.
    pub fn rss_bytes(self) -> Result<u64, Failure> {
        let path = format!("/proc/{}/statm", self.pid);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        Ok(pages.ok_or_else(|| format!("{path}: no resident pages"))? * rustix::param::page_size() as u64)
    }

    /// The most resident memory it ever had.
    pub fn peak_rss_bytes(self) -> Result<u64, Failure> {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        field_kib(&text, "VmHWM:").ok_or_else(|| format!("{path}: no VmHWM").into())
    }

    /// Binds all its threads, and those they start later, to one CPU.
    pub fn pin(self, cpu: usize) -> Result<(), Failure> {
        let mut set = CpuSet::new();
        set.set(cpu);
        for task in self.tasks()? {
            let pid = Pid::from_raw(task).ok_or("a task without a number")?;
            sched_setaffinity(Some(pid), &set).map_err(|error| format!("CPU {cpu}: {error}"))?;
        }
        Ok(())
    }

    fn tasks(self) -> Result<Vec<i32>, Failure> {
        let path = format!("/proc/{}/task", self.pid);
        let entries = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }
}

/// Binds this process to one CPU.
pub fn pin_this(cpu: usize) -> Result<(), Failure> {
    Process { pid: std::process::id() }.pin(cpu)
}

/// The kernel's slab memory in bytes: where sockets, files and poll entries are. Without what it keeps of files in /proc,
/// as far as this process may know: whoever lists a process's descriptors makes it keep 900 bytes for each.
pub fn slab_bytes() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let all = field_kib(&text, "Slab:").ok_or("/proc/meminfo: no Slab")?;
    // Only root may read it.
    let listed = fs::read_to_string("/proc/slabinfo").map_or(0, |text| listed_bytes(&text));
    Ok(all.saturating_sub(listed))
}

/// What files in /proc take: their inodes, and as many names and labels.
fn listed_bytes(slabinfo: &str) -> u64 {
    // Objects in use, and the bytes of pages that one takes.
    let cache = |name: &str| -> Option<(u64, u64)> {
        let mut lines = slabinfo.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let numbers: Vec<u64> = lines.next()?.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let &[used, _all, _bytes, in_slab, pages] = numbers.as_slice() else { return None };
        Some((used, pages * rustix::param::page_size() as u64 / in_slab.max(1)))
    };
    let Some((files, _)) = cache("proc_inode_cache") else { return 0 };
    let each = ["proc_inode_cache", "dentry", "lsm_inode_cache"].into_iter().filter_map(cache);
    files * each.map(|(_, bytes)| bytes).sum::<u64>()
}

/// The same once it changes no more, or after `SLAB_REST_MAX`: what was closed before is given back a while later.
pub fn slab_at_rest() -> Result<u64, Failure> {
    let started = Instant::now();
    let mut last = slab_bytes()?;
    loop {
        thread::sleep(SLAB_REST_LOOK);
        let before = std::mem::replace(&mut last, slab_bytes()?);
        if last.abs_diff(before) <= SLAB_REST_BYTES || started.elapsed() > SLAB_REST_MAX {
            return Ok(last);
        }
    }
}

/// Waits until the kernel has forgotten the connections that have ended, each of which it remembers for a minute
/// (TIME_WAIT), or for `FORGOTTEN_MAX`; then for the slab to be at rest.
pub fn slab_forgetful() -> Result<u64, Failure> {
    let (started, remembered) = (Instant::now(), time_waits()?);
    if remembered > TIME_WAITS_FEW {
        eprintln!(
            "loadtest: waiting until the kernel has forgotten {remembered} connections, which takes up to a minute"
        );
    }
    while time_waits()? > TIME_WAITS_FEW && started.elapsed() < FORGOTTEN_MAX {
        thread::sleep(SLAB_REST_LOOK);
    }
    slab_at_rest()
}

/// Connections that have ended and that the kernel still remembers.
fn time_waits() -> Result<u64, Failure> {
    waiting(&fs::read_to_string("/proc/net/sockstat")?).ok_or_else(|| "/proc/net/sockstat: no tw".into())
}

/// The number behind `tw` in the line of TCP.
fn waiting(text: &str) -> Option<u64> {
    let mut words = text.lines().find(|line| line.starts_with("TCP:"))?.split_whitespace();
    words.find(|word| *word == "tw")?;
    words.next()?.parse().ok()
}

/// Packets that the kernel dropped so far because a CPU's queue of them was full (`net.core.netdev_max_backlog`). On
/// loopback that is easily so when both ends are busy, and each costs a retransmission, 200 ms later at the earliest.
pub fn packets_dropped() -> Result<u64, Failure> {
    Ok(dropped(&fs::read_to_string("/proc/net/softnet_stat")?))
}

/// The second column of each CPU's line.
fn dropped(text: &str) -> u64 {
    let columns = text.lines().filter_map(|line| line.split_whitespace().nth(1));
    columns.filter_map(|column| u64::from_str_radix(column, 16).ok()).sum()
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The server of a run: ours to start and stop, or somebody's, or unknown.
#[derive(Debug)]
pub struct Server {
    child: Option<(Child, Started)>,
    process: Option<Process>,
}

impl Server {
    /// What the command line says: a child, a process to look at, or nothing to measure.
    pub fn of(common: &Common, connections_max: u32) -> Result<Self, Failure> {
        if common.server.spawn {
            return Self::spawn(common, connections_max);
        }
        let process = common.server.server_pid.map(|pid| Process { pid });
        if let (Some(process), Some(cpu)) = (process, common.server_cpu) {
            process.pin(cpu)?;
        }
        Ok(Self { child: None, process })
    }

    /// Starts a gateway for so many connections and waits until it is ready.
    pub fn spawn(common: &Common, connections_max: u32) -> Result<Self, Failure> {
        let choice = &common.server;
        for &address in common.target.iter().chain(&common.api) {
            is_free(address)?;
        }
        let mut command = Command::new(&choice.gateway);
        // Messages live in memory unless a scenario's environment names a directory.
        command.arg("serve").env("KITTIWAKE_STORE_DATA_DIR", "");
        for target in &common.target {
            command.args(["--listen", &target.to_string()]);
        }
        if let Some(api) = common.api {
            command.args(["--api", &api.to_string()]);
        }
        command.args(["--shards", &choice.gateway_shards.to_string(), "--driver", choice.gateway_driver.name()]);
        command.env("KITTIWAKE_LIMITS_MAX_CONNECTIONS", connections_max.to_string());
        for pair in &choice.gateway_env {
            let (name, value) = pair.split_once('=').ok_or("--gateway-env wants NAME=VALUE")?;
            command.env(name, value);
        }
        // Ctrl-C is for us: the child is ended when the run has been.
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let child = command.spawn().map_err(|error| format!("{}: {error}", choice.gateway.display()))?;
        let process = Process { pid: child.id() };
        let mut server = Self::of_child(child)?;
        if let Some(cpu) = common.server_cpu {
            process.pin(cpu)?;
        }
        server.wait_until_ready(common)?;
        if let Some(cpu) = common.server_cpu {
            // Threads that started before the first pinning reached the main thread.
            process.pin(cpu)?;
        }
        Ok(server)
    }

    /// Takes charge of a child that has been started.
    pub fn of_child(child: Child) -> Result<Self, Failure> {
        let process = Process { pid: child.id() };
        let started = Started::new(child.id(), Signal::TERM)?;
        Ok(Self { child: Some((child, started)), process: Some(process) })
    }

    /// How a child has ended, if it has.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        Ok(self.child.as_mut().map(|(child, _)| child.try_wait()).transpose()?.flatten())
    }

    /// The process to measure, if one is known.
    pub fn process(&self) -> Option<Process> {
        self.process
    }

    /// Asks a child to end and waits for it; kills it if it does not.
    pub fn stop(mut self) -> Result<(), Failure> {
        self.end()
    }

    fn wait_until_ready(&mut self, common: &Common) -> Result<(), Failure> {
        let until = Instant::now() + START_TIMEOUT;
        let target = common.target.first().ok_or("no target")?;
        loop {
            if let Some(status) = self.has_ended()? {
                return Err(format!("the gateway ended at start: {status}").into());
            }
            let ready = match common.api {
                Some(address) => Api::new(address, common.api_key.clone()).ready(),
                None => TcpStream::connect(target).is_ok(),
            };
            if ready {
                return Ok(());
            }
            if Instant::now() > until {
                return Err("the gateway was not ready in time".into());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        let Some((mut child, started)) = self.child.take() else { return Ok(()) };
        started.tell(Signal::TERM)?;
        let until = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < until {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(LOOK_AGAIN);
        }
        child.kill()?;
        child.wait()?;
        Err("the server did not end when asked to, and was killed".into())
    }
}

/// Two ports that nobody uses now.
pub fn free_addresses() -> Result<[SocketAddr; 2], Failure> {
    let listeners = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
}

/// Nobody listens there: else it would be somebody else's server that is measured.
fn is_free(address: SocketAddr) -> Result<(), Failure> {
    TcpListener::bind(address).map(drop).map_err(|error| format!("--spawn: {address}: {error}").into())
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            eprintln!("loadtest: {failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_proc_are_told_from_the_rest_of_the_slab() {
        let text = "slabinfo - version: 2.1\n\
            proc_inode_cache   100 230 696 23 4 : tunables 0 0 0 : slabdata 10 10 0\n\
            sock_inode_cache  9000 9000 832 39 8 : tunables 0 0 0 : slabdata 10 10 0\n\
            dentry            9999 9999 192 21 1 : tunables 0 0 0 : slabdata 10 10 0\n";
        let page = rustix::param::page_size() as u64;
        assert_eq!(listed_bytes(text), 100 * (4 * page / 23 + page / 21));
        assert_eq!(listed_bytes("dentry 9999 9999 192 21 1 : tunables"), 0);
    }

    #[test]
    fn connections_that_have_ended_are_counted() {
        let text = "sockets: used 73\nTCP: inuse 4 orphan 0 tw 1234 alloc 7 mem 1\nUDP: inuse 1 mem 0\n";
        assert_eq!((waiting(text), waiting("UDP: inuse 1 tw 2\n")), (Some(1_234), None));
    }

    #[test]
    fn dropped_packets_are_the_second_columns_of_all_cpus() {
        assert_eq!(dropped("0cf722dd 0003a6e2 00000018 0\n084d1e2c 00000010 00000059 0\n"), 0x3a6e2 + 0x10);
        assert_eq!(dropped(""), 0);
        assert!(packets_dropped().is_ok());
    }

    #[test]
    fn an_address_at_which_somebody_listens_is_not_free() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it has an address");
        let said = is_free(address).expect_err("somebody listens").to_string();
        assert!(said.starts_with(&format!("--spawn: {address}: ")), "{said}");
        drop(listener);
        assert!(is_free(address).is_ok());
    }

    #[test]
    fn this_process_has_memory_and_uses_cpu() {
        let this = Process { pid: std::process::id() };
        let memory = this.memory().expect("smaps_rollup is there");
        assert!(memory.anonymous_bytes > 10_000 && memory.rss_bytes > memory.anonymous_bytes);
        assert!(this.cpu_ns().expect("schedstat is there") > 0);
        assert!(slab_bytes().expect("meminfo is there") > 1_000_000);
        assert!(time_waits().is_ok());
    }
}
