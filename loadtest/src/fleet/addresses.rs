//! Where connections come from and go to. A connect costs ten times as much when one source uses 20,000 ports towards
//! one destination as while it uses fewer than 7,000 (22 µs), so loopback connections spread over 127.1.0.0/16.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connections of one source address to one target.
const PORTS_OF_A_PAIR_MAX: u32 = 7_000;

/// The way from this machine to the targets for a number of connections.
#[derive(Clone, Debug)]
pub struct Routes {
    targets: Vec<SocketAddr>,
    /// Before the first one that is used.
    skipped: u32,
    sources: u32,
}

impl Routes {
    /// For so many connections, over at least one target.
    pub fn new(targets: Vec<SocketAddr>, connections: u32) -> Self {
        assert!(!targets.is_empty(), "there is a default target");
        let targets_count = u32::try_from(targets.len()).expect("targets are few");
        let sources = connections.div_ceil(targets_count).div_ceil(PORTS_OF_A_PAIR_MAX).max(1);
        assert!(sources <= u32::from(u16::MAX), "127.1.0.0/16 has room for 450 million connections");
        Self { targets, skipped: 0, sources }
    }

    /// With sources that these routes do not use: to other targets a source's ports are used again, and the kernel keeps
    /// less of each.
    pub fn apart_from(self, others: &Self) -> Self {
        let skipped = others.skipped + others.sources;
        assert!(skipped + self.sources <= u32::from(u16::MAX), "127.1.0.0/16 has room for 450 million connections");
        Self { skipped, ..self }
    }

    /// Source and target of a connection. The source's port is chosen by the kernel at connect, by the four-tuple; a
    /// target that is not on loopback gets the source address that the kernel routes from.
    pub fn of(&self, number: u32) -> (Option<SocketAddr>, SocketAddr) {
        let count = u32::try_from(self.targets.len()).expect("targets are few");
        let target = self.targets[(number % count) as usize];
        let source = self.skipped + (number / count) % self.sources + 1;
        let local = match target.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                Some(SocketAddr::from((Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + source), 0)))
            }
            _ => None,
        };
        (local, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn no_pair_of_source_and_target_has_too_many_connections() {
        let targets = vec![SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2))];
        for connections in [1, 7_000, 14_000, 14_001, 200_000] {
            let routes = Routes::new(targets.clone(), connections);
            let mut pairs: HashMap<_, u32> = HashMap::new();
            for number in 0..connections {
                *pairs.entry(routes.of(number)).or_default() += 1;
            }
            assert!(pairs.values().all(|&ports| ports <= PORTS_OF_A_PAIR_MAX), "{connections}");
        }
    }

    #[test]
    fn routes_apart_share_no_source() {
        let target = vec![SocketAddr::from(([127, 0, 0, 1], 1))];
        let first = Routes::new(target.clone(), 14_000);
        let second = Routes::new(target.clone(), 7_000).apart_from(&first);
        let third = Routes::new(target, 7_000).apart_from(&second);
        let sources = |routes: &Routes| (0..14_000).map(|number| routes.of(number).0).collect::<HashSet<_>>();
        assert_eq!([&first, &second, &third].map(|routes| sources(routes).len()), [2, 1, 1]);
        let all: HashSet<_> = [&first, &second, &third].into_iter().flat_map(sources).collect();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn only_loopback_targets_get_a_source() {
        let routes = Routes::new(vec![SocketAddr::from(([192, 0, 2, 1], 1))], 10);
        assert_eq!(routes.of(3).0, None);
    }
}
