//! What `serve` says once it listens.

use super::capacity::{Bound, Capacity};
use crate::shard::{Door, TlsUse};
use core::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// The facts of the start-up message.
pub(super) struct Banner<'facts> {
    pub(super) edge: &'facts [SocketAddr],
    /// What is spoken there, in their order.
    pub(super) doors: &'facts [Door],
    /// There is a certificate.
    pub(super) tls: bool,
    /// The API speaks TLS.
    pub(super) api_tls: bool,
    pub(super) api: SocketAddr,
    pub(super) driver: &'facts str,
    /// Why it is not the driver that was preferred.
    pub(super) notice: Option<&'facts str>,
    pub(super) shards: usize,
    pub(super) capacity: Capacity,
    pub(super) insecure: bool,
    /// None: messages live in memory.
    pub(super) data_dir: Option<&'facts Path>,
    /// Devices show tokens.
    pub(super) tokens: bool,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kittiwake {}", env!("CARGO_PKG_VERSION"))?;
        for (address, tls) in self.edge.iter().zip(self.uses_of_tls()) {
            match tls {
                TlsUse::Never => writeln!(f, "  devices   mqtt://{address}")?,
                TlsUse::Detected => writeln!(f, "  devices   mqtt://{address}, with TLS mqtts://{address}")?,
                TlsUse::Always => writeln!(f, "  devices   mqtts://{address}")?,
            }
        }
        writeln!(f, "  API       {}://{}", if self.api_tls { "https" } else { "http" }, self.api)?;
        write!(f, "  driver    {}, {} shard{}", self.driver, self.shards, if self.shards == 1 { "" } else { "s" })?;
        match self.notice {
            Some(reason) => writeln!(f, " ({reason})")?,
            None => writeln!(f)?,
        }
        let bound = match self.capacity.bound {
            Bound::Files => "open files (ulimit -n)",
            Bound::Rings => "slots of the io_uring tables (ulimit -n, more shards)",
            Bound::Memory => "memory",
            Bound::Configured => "limits.max_connections",
        };
        writeln!(f, "  holds     up to {} connections, bounded by {bound}", self.capacity.connections)?;
        match self.data_dir {
            Some(path) => writeln!(f, "  messages  are stored in {}", path.display())?,
            None => writeln!(f, "  messages  live in memory: a restart forgets them")?,
        }
        if self.insecure {
            writeln!(f, "  insecure  nobody is authenticated")?;
        }
        writeln!(f, "Try, in two other terminals:")?;
        let api = self.api;
        let edge = self.edge.iter().zip(self.uses_of_tls()).find(|(edge, _)| edge.port() != 0);
        let url = match edge {
            Some((edge, TlsUse::Always)) => format!("--url mqtts://{} ", reachable(*edge)),
            Some((edge, _)) if edge.to_string() != "127.0.0.1:1883" => format!("--url mqtt://{} ", reachable(*edge)),
            _ => String::new(),
        };
        let to = if api.to_string() == "127.0.0.1:7700" {
            String::new()
        } else {
            format!("--api http://{} ", reachable(api))
        };
        if self.tokens {
            writeln!(f, "  kittiwake sub {url}--token \"$(kittiwake token --config FILE --user alice)\" '$inbox/#'")?;
        } else {
            writeln!(f, "  kittiwake sub {url}--user alice '$inbox/#'")?;
        }
        if self.api_tls {
            return write!(f, "  curl --cacert FILE https://{}/readyz", reachable(api));
        }
        write!(f, "  kittiwake push {to}--user alice --qos 0 hello")
    }
}

impl Banner<'_> {
    /// Of each address.
    fn uses_of_tls(&self) -> impl Iterator<Item = TlsUse> {
        let doors = self.doors.iter().map(|door| door.tls).chain(core::iter::repeat(TlsUse::default()));
        doors.map(|tls| if self.tls { tls } else { TlsUse::Never })
    }
}

/// An address that listens on all interfaces is reached on loopback from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let loopback: std::net::IpAddr = match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(edge: &[SocketAddr], api: &str, notice: Option<&str>) -> String {
        let capacity = Capacity { connections: 17_952, bound: Bound::Files };
        let api = api.parse().expect("an address");
        Banner {
            edge,
            doors: &[],
            tls: false,
            api_tls: false,
            api,
            driver: "epoll",
            notice,
            shards: 2,
            capacity,
            insecure: false,
            data_dir: None,
            tokens: false,
        }
        .to_string()
    }

    #[test]
    fn the_default_addresses_need_no_flags_in_the_commands_to_try() {
        let text = banner(&["127.0.0.1:1883".parse().expect("an address")], "127.0.0.1:7700", None);
        assert!(text.contains("mqtt://127.0.0.1:1883\n"), "{text}");
        assert!(text.contains("epoll, 2 shards\n"), "{text}");
        assert!(text.contains("live in memory"), "{text}");
        assert!(text.contains("kittiwake sub --user alice '$inbox/#'\n"), "{text}");
        assert!(text.ends_with("kittiwake push --user alice --qos 0 hello"), "{text}");
    }

    #[test]
    fn other_addresses_and_the_reason_of_a_fall_back_are_named() {
        let edge = ["0.0.0.0:2883".parse().expect("an address")];
        let text = banner(&edge, "[::]:7701", Some("io_uring: not permitted"));
        assert!(text.contains("epoll, 2 shards (io_uring: not permitted)\n"), "{text}");
        assert!(text.contains("sub --url mqtt://127.0.0.1:2883 --user"), "{text}");
        assert!(text.contains("push --api http://[::1]:7701 --user"), "{text}");
    }

    #[test]
    fn where_tls_is_spoken_the_banner_says_so() {
        let edge = ["127.0.0.1:1883", "127.0.0.1:8883", "127.0.0.1:1884"].map(|text| text.parse().expect("an address"));
        let door = |tls| Door { tls, ..Door::OPEN };
        let doors = [door(TlsUse::Detected), door(TlsUse::Always), door(TlsUse::Never)];
        let capacity = Capacity { connections: 1, bound: Bound::Files };
        let banner = |tls, edge| Banner {
            edge,
            doors: &doors,
            tls,
            api_tls: tls,
            api: "127.0.0.1:7700".parse().expect("an address"),
            driver: "epoll",
            notice: None,
            shards: 1,
            capacity,
            insecure: false,
            data_dir: None,
            tokens: false,
        };
        let text = banner(true, &edge).to_string();
        assert!(text.contains("mqtt://127.0.0.1:1883, with TLS mqtts://127.0.0.1:1883\n"), "{text}");
        assert!(text.contains(" mqtts://127.0.0.1:8883\n") && text.contains(" mqtt://127.0.0.1:1884\n"), "{text}");
        assert!(text.contains("https://127.0.0.1:7700"), "{text}");
        assert!(!banner(false, &edge).to_string().contains("mqtts"));
    }
}
