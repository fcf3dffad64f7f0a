//! What `serve` says once it listens.

use super::capacity::{Bound, Capacity};
use core::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// The facts of the start-up message.
pub(super) struct Banner<'facts> {
    pub(super) edge: &'facts [SocketAddr],
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
        for address in self.edge {
            writeln!(f, "  devices   mqtt://{address}")?;
        }
        writeln!(f, "  API       http://{}", self.api)?;
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
        let (edge, api) = (self.edge.iter().find(|edge| edge.port() != 0), self.api);
        let url = match edge {
            Some(edge) if edge.to_string() != "127.0.0.1:1883" => format!("--url mqtt://{} ", reachable(*edge)),
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
        write!(f, "  kittiwake push {to}--user alice --qos 0 hello")
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
}
