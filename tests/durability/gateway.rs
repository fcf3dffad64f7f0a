//! `kittiwake serve` over one data directory, started and killed many times.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing here takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a process is started with besides its ports and its directory.
#[derive(Clone, Debug, Default)]
pub struct Start {
    pub shards: usize,
    pub failpoint: Option<String>,
    /// Further variables.
    pub environment: Vec<(&'static str, String)>,
    /// Further arguments.
    pub arguments: Vec<&'static str>,
    /// Largest file it may write, in bytes.
    pub file_bytes_max: Option<u64>,
    /// It may not write what is read-only, also where the tests are run by root.
    pub obeys_permissions: bool,
}

/// A process; killed when dropped.
pub struct Gateway {
    process: Child,
    said: Option<std::thread::JoinHandle<String>>,
}

/// Where it lives: the same for all processes of a test.
#[derive(Clone, Debug)]
pub struct Place {
    pub edge: SocketAddr,
    pub api: SocketAddr,
    pub data: PathBuf,
    /// Listening sockets that all processes are passed.
    pub held: Option<Arc<[OwnedFd; 2]>>,
}

impl Place {
    pub fn new(data: &Path) -> Self {
        let [edge, api] = crate::ports::free();
        Self { edge, api, data: data.to_owned(), held: None }
    }

    /// Listens itself, for all processes to come, as a supervisor does.
    pub fn held(data: &Path) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback has ports"));
        let [edge, api] = [0, 1].map(|number| listeners[number].local_addr().expect("it is bound"));
        let inheritable = |listener: TcpListener| {
            // Beyond the descriptors that the shell puts them to.
            let fd = rustix::io::fcntl_dupfd_cloexec(&listener, 50).expect("there are descriptors left");
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).expect("it is open");
            fd
        };
        Self { edge, api, data: data.to_owned(), held: Some(Arc::new(listeners.map(inheritable))) }
    }

    fn command(&self, start: &Start) -> Command {
        let binary = env!("CARGO_BIN_EXE_kittiwake");
        let mut command = match (start.file_bytes_max, self.held.as_deref()) {
            (None, None) if start.obeys_permissions && rustix::process::geteuid().is_root() => {
                let mut command = Command::new("setpriv");
                command.args(["--bounding-set=-dac_override,-dac_read_search", binary]);
                command
            }
            (None, None) => Command::new(binary),
            (None, Some([edge, api])) => {
                let mut command = Command::new("bash");
                let (edge, api) = (edge.as_raw_fd(), api.as_raw_fd());
                let passed = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=edge:api";
                let script = format!("exec 3<&{edge} 4<&{api} {edge}<&- {api}<&-; {passed} exec \"$0\" \"$@\"");
                command.args(["-c", &script, binary]);
                command
            }
            (Some(bytes), _) => {
                // The shell's limit is in blocks of 512 bytes; SIGXFSZ is ignored, so a write fails as on a full disk.
                let mut command = Command::new("sh");
                let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes.div_ceil(512));
                command.args(["-c", &script, binary]);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KITTIWAKE_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--driver", "epoll", "--shards", &start.shards.max(1).to_string()]);
        command.args(["--listen", &self.edge.to_string(), "--api", &self.api.to_string()]);
        command.arg("--data-dir").arg(&self.data).args(&start.arguments);
        command.envs(start.environment.iter().map(|(name, value)| (*name, value)));
        if let Some(failpoint) = &start.failpoint {
            command.env("FAILPOINT", failpoint);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it listens; none when it ended before that, as a failpoint may have it.
    pub fn start(&self, start: &Start) -> Option<Gateway> {
        let mut process = self.command(start).spawn().expect("the binary was built for this test");
        let mut banner = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut stderr = process.stderr.take().expect("it is piped");
        let said = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).expect("a pipe can be read");
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut line = String::new();
        banner.read_line(&mut line).expect("a pipe can be read");
        let mut gateway = Gateway { process, said: Some(said) };
        if line.is_empty() {
            gateway.wait();
            return None;
        }
        // The rest of the banner must find a reader, or the process would end at a closed pipe.
        std::thread::spawn(move || std::io::copy(&mut banner, &mut std::io::sink()));
        Some(gateway)
    }

    /// Starts it where it must end by itself; the code and its lines.
    pub fn fails(&self, start: &Start) -> (Option<i32>, String) {
        let output = self.command(start).output().expect("the binary was built for this test");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A request on a connection of its own; an error while nobody listens, or when the process dies.
    pub fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect(self.api)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        );
        stream.write_all(text.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
        let (_, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
        let value = if body.is_empty() { Value::Null } else { serde_json::from_str(body).map_err(|_| broken())? };
        Ok((status, value))
    }

    pub fn push(&self, body: &Value) -> std::io::Result<(u16, Value)> {
        self.request("POST", "/v1/push", &body.to_string())
    }
}

impl Gateway {
    /// kill -9, unless a failpoint was faster: it must not have ended in any other way.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let code = self.wait();
        assert_eq!(code, None, "it ended by itself: {}", self.said());
    }

    /// SIGTERM, and its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.wait()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("the child is ours").is_some()
    }

    /// Waits for its end; the exit code, none when a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        let status = self.process.wait().expect("the child is ours");
        assert!(status.code().is_some() || status.signal() == Some(9), "it ended with {status}: {}", self.said());
        status.code()
    }

    /// What it said on stderr. It has ended.
    pub fn said(&mut self) -> String {
        self.said.take().map(|said| said.join().expect("the reader does not panic")).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks again until it says yes.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
