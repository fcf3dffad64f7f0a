//! What started us, as far as it wants to know and has something for us: systemd, or whoever speaks its protocols
//! (sd_notify(3), sd_listen_fds(3)). Without it nothing here does anything.

use super::cli::Failure;
use crate::io::passed::{self, Passed};
use crate::limits::PASSED_SOCKETS_MAX;
use crate::push::Control;
use core::time::Duration;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::Arc;
use tracing::warn;

/// Where our starter listens, and how often it wants to hear that we live.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says.
    pub(super) fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let socket = variable("NOTIFY_SOCKET").and_then(|path| match connected(path.as_bytes()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!("NOTIFY_SOCKET: nobody is told that this node is ready: {error}");
                None
            }
        });
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours =
            variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&micros| is_ours && micros > 0).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// Tells it something. It is our starter's affair whether it listens.
    pub(super) fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            let _unheard = socket.send(state.as_bytes());
        }
    }

    /// Serving.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// Ending, for at most this long.
    pub(super) fn stopping(&self, within: Duration) {
        let micros = within.as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=closing connections"));
    }

    /// Says that we live for as long as messages flow: one that does not get through is one that our starter misses, and
    /// it starts us anew.
    pub(super) async fn watch(self: Arc<Self>, control: Arc<Control>) {
        let Some(interval) = self.watchdog else { return };
        let mut beats = tokio::time::interval(interval / 3);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            match control.check_flow().await {
                Ok(()) => self.tell("WATCHDOG=1"),
                Err(failure) => warn!("the watchdog is not told that this node lives: {failure:?}"),
            }
        }
    }
}

/// A path, or with `@` a name of the abstract space.
fn connected(path: &[u8]) -> io::Result<UnixDatagram> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => UnixAddress::from_abstract_name(name)?,
        None => UnixAddress::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // It must not hold up the node.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The sockets that we were passed, each for an address of the configuration.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) edge: Vec<Passed>,
    pub(super) api: Option<Passed>,
}

impl Sockets {
    /// Takes them in, if they are for this process.
    pub(super) fn take(
        variable: impl Fn(&str) -> Option<OsString>,
        edge: &[SocketAddr],
        api: SocketAddr,
    ) -> Result<Self, Failure> {
        let Some((count, names)) = announced(variable)? else { return Ok(Self::default()) };
        let sockets = passed::take(count).map_err(|error| Failure::Usage(format!("LISTEN_FDS: {error}")))?;
        Self::sort(sockets, &names, edge, api)
    }

    fn sort(sockets: Vec<Passed>, names: &[String], edge: &[SocketAddr], api: SocketAddr) -> Result<Self, Failure> {
        let mut sorted = Self::default();
        for (number, socket) in sockets.into_iter().enumerate() {
            let address = socket.address();
            let is_api = match names.get(number).map(String::as_str) {
                Some("api") => true,
                Some("edge") => false,
                // systemd names a socket after its unit where nobody says otherwise.
                _ => address == api,
            };
            let (key, is_wanted) = if is_api {
                ("api.listen", address == api && sorted.api.is_none())
            } else {
                ("edge.listen", edge.contains(&address))
            };
            if !is_wanted {
                let what = format!("LISTEN_FDS: a socket that listens on {address} was passed");
                return Err(Failure::Usage(format!("{what}; allowed: one of {key}, with the same address")));
            }
            if is_api {
                sorted.api = Some(socket);
            } else {
                sorted.edge.push(socket);
            }
        }
        Ok(sorted)
    }

    /// None was passed.
    pub(super) fn is_empty(&self) -> bool {
        self.edge.is_empty() && self.api.is_none()
    }
}

/// How many were passed to this process, and their names.
fn announced(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<(u32, Vec<String>)>, Failure> {
    let number = |name| variable(name).and_then(|text| text.to_str()?.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    let Some(count) = number("LISTEN_FDS").filter(|&count| count > 0) else { return Ok(None) };
    if count > PASSED_SOCKETS_MAX {
        return Err(Failure::Usage(format!("LISTEN_FDS: {count} are too many; allowed: at most {PASSED_SOCKETS_MAX}")));
    }
    let names = variable("LISTEN_FDNAMES").and_then(|names| names.into_string().ok()).unwrap_or_default();
    Ok(Some((count, names.split(':').map(str::to_owned).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn environment<'a>(pairs: &'a [(&'a str, String)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    #[test]
    fn whoever_started_us_is_told_by_a_datagram_and_nobody_where_there_is_none() {
        let name = format!("kittiwake-test-{}-notify", std::process::id());
        let address = UnixAddress::from_abstract_name(name.as_bytes()).expect("a name");
        let listener = UnixDatagram::bind_addr(&address).expect("nobody else has it");
        let us = std::process::id().to_string();
        let pairs =
            [("NOTIFY_SOCKET", format!("@{name}")), ("WATCHDOG_USEC", "3000000".to_owned()), ("WATCHDOG_PID", us)];
        let supervisor = Supervisor::new(environment(&pairs));
        assert_eq!(supervisor.watchdog, Some(Duration::from_secs(3)));
        supervisor.ready("serving");
        supervisor.stopping(Duration::from_secs(30));
        let mut told = [0; 256];
        let mut next = || {
            let count = listener.recv(&mut told).expect("it was told");
            String::from_utf8(told[..count].to_vec()).expect("text")
        };
        assert_eq!(next(), "READY=1\nSTATUS=serving");
        assert_eq!(next(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=closing connections");
        let nobody = Supervisor::new(environment(&[]));
        assert!(nobody.socket.is_none() && nobody.watchdog.is_none());
        nobody.ready("serving");
        let another = [pairs[0].clone(), pairs[1].clone(), ("WATCHDOG_PID", "1".to_owned())];
        assert_eq!(Supervisor::new(environment(&another)).watchdog, None, "it is another process that is watched");
    }

    #[test]
    fn sockets_are_taken_when_they_are_for_this_process() {
        let pairs = |pid: u32, count: &str| {
            let pid = ("LISTEN_PID", pid.to_string());
            [pid, ("LISTEN_FDS", count.to_owned()), ("LISTEN_FDNAMES", "edge:api".to_owned())]
        };
        let us = std::process::id();
        let told = |pid, count: &str| announced(environment(&pairs(pid, count))).map_err(|_| ());
        assert_eq!(told(us, "2"), Ok(Some((2, vec!["edge".to_owned(), "api".to_owned()]))));
        assert_eq!((told(us + 1, "2"), told(us, "0"), told(us, "x")), (Ok(None), Ok(None), Ok(None)));
        assert!(told(us, &PASSED_SOCKETS_MAX.to_string()).is_ok());
        assert_eq!(told(us, &(PASSED_SOCKETS_MAX + 1).to_string()), Err(()));
    }

    #[test]
    fn a_socket_stands_in_for_the_address_that_it_listens_on() {
        let listen = || Passed::new(TcpListener::bind("127.0.0.1:0").expect("a port").into()).expect("it listens");
        let (edge, api, other) = (listen(), listen(), listen());
        let (at_edge, at_api) = (edge.address(), api.address());
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let sorted = Sockets::sort(vec![api, edge], &names(&["kittiwake.socket"]), &[at_edge], at_api);
        let sorted = sorted.unwrap_or_else(|_| panic!("both are configured"));
        assert_eq!(sorted.api.map(|socket| socket.address()), Some(at_api));
        assert_eq!(sorted.edge.len(), 1);
        assert!(Sockets::sort(vec![other], &[], &[at_edge], at_api).is_err(), "nobody asked for it");
        assert!(Sockets::sort(sorted.edge, &names(&["api"]), &[at_edge], at_api).is_err(), "its name says otherwise");
    }
}
