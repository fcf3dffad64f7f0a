//! The kernel settings: what each has to be for N connections, by which formula, and why. `doctor` compares with them
//! and prints them as `tuning/sysctl.d/90-kittiwake.conf`.

use super::plan::{PAGE_BYTES, Plan};
use super::report::grouped;
use crate::limits;

/// How a value is compared, and what applying it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A larger one is as well, and stays.
    AtLeast,
    /// A smaller one is as well, and stays.
    AtMost,
    /// No other.
    Exactly,
}

impl Rule {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::AtLeast => "at least",
            Self::AtMost => "at most",
            Self::Exactly => "exactly",
        }
    }

    fn allows(self, found: u64, wanted: u64) -> bool {
        match self {
            Self::AtLeast => found >= wanted,
            Self::AtMost => found <= wanted,
            Self::Exactly => found == wanted,
        }
    }

    fn towards(self, found: u64, wanted: u64) -> u64 {
        if self.allows(found, wanted) { found } else { wanted }
    }
}

/// One setting of the kernel.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// What people call it.
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    pub(super) rule: Rule,
    pub(super) values: Vec<u64>,
    pub(super) formula: String,
    pub(super) why: &'static str,
    /// Below this N connections are impossible, not only worse off.
    pub(super) impossible_below: Option<u64>,
    /// Kernels may be without it; then nothing is limited by it.
    pub(super) may_be_missing: bool,
}

impl Setting {
    /// Whether with the machine's values N connections are impossible.
    pub(super) fn forbids(&self, found: &[u64]) -> bool {
        matches!((self.impossible_below, found), (Some(least), &[found]) if found < least)
    }

    /// Whether the machine's values will do.
    pub(super) fn allows(&self, found: &[u64]) -> bool {
        found.len() == self.values.len()
            && found.iter().zip(&self.values).all(|(&found, &wanted)| self.rule.allows(found, wanted))
    }

    /// What to set, in place of what was found.
    pub(super) fn towards(&self, found: &[u64]) -> Vec<u64> {
        if found.len() != self.values.len() {
            return self.values.clone();
        }
        found.iter().zip(&self.values).map(|(&found, &wanted)| self.rule.towards(found, wanted)).collect()
    }
}

/// A setting's values as the kernel writes them.
pub(super) fn plain(values: &[u64]) -> String {
    values.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

fn at_least(name: &'static str, key: &'static str, value: u64, formula: String, why: &'static str) -> Setting {
    let values = vec![value];
    let rule = Rule::AtLeast;
    Setting { name, key, rule, values, formula, why, impossible_below: None, may_be_missing: false }
}

/// All of them, for so many connections.
pub(super) fn all(plan: Plan) -> Vec<Setting> {
    let mut all = files(plan);
    all.extend(arrivals());
    all.extend(memory(plan));
    all.extend(endings(plan));
    all.extend(packets(plan));
    all.extend(tracking(plan));
    all
}

fn files(plan: Plan) -> Vec<Setting> {
    let (reserved, others) = (limits::FDS_RESERVED as u64, limits::FDS_OF_OTHERS);
    vec![
        Setting {
            impossible_below: Some(plan.files()),
            ..at_least(
                "open files of the machine",
                "fs.file-max",
                plan.files_of_machine(),
                format!("N + {} of the gateway + {} of all else", grouped(reserved), grouped(others)),
                "Every connection is an open file of the machine, in a table of io_uring as well. Beyond it accepting \
                 fails with ENFILE, for every process but root's.",
            )
        },
        at_least(
            "ceiling of the open files limit",
            "fs.nr_open",
            plan.files(),
            format!("N + {}", grouped(reserved)),
            "The limit of a process's open files cannot be raised above it.",
        ),
    ]
}

fn arrivals() -> Vec<Setting> {
    let backlog = u64::from(limits::LISTEN_BACKLOG.unsigned_abs());
    vec![
        at_least(
            "accept queue",
            "net.core.somaxconn",
            backlog,
            "whatever N".to_owned(),
            "Each shard's listener asks for so long a queue and the kernel cuts it to this. When all come back at once, \
             a full queue drops handshakes, and those clients wait a second or more before they try again.",
        ),
        at_least(
            "half-open connections",
            "net.ipv4.tcp_max_syn_backlog",
            backlog,
            "whatever N".to_owned(),
            "As long as the accept queue. Without SYN cookies, a handshake beyond three quarters of it is dropped.",
        ),
        Setting {
            rule: Rule::Exactly,
            may_be_missing: true,
            ..at_least(
                "SYN cookies",
                "net.ipv4.tcp_syncookies",
                1,
                "whatever N".to_owned(),
                "A queue full of half-open connections then keeps nobody out. 2 would give every connection a cookie, \
                 and with it no window scaling where a client sends no timestamps.",
            )
        },
        Setting {
            rule: Rule::Exactly,
            ..at_least(
                "reset on a full accept queue",
                "net.ipv4.tcp_abort_on_overflow",
                0,
                "whatever N".to_owned(),
                "With 1 a client that finds the queue full is told that nobody listens, and most give up for longer.",
            )
        },
    ]
}

fn memory(plan: Plan) -> Vec<Setting> {
    let buffer = Plan::socket_buffer_bytes();
    let formula = format!("third number: 100 pages of {} bytes", grouped(PAGE_BYTES));
    let why = "What one client that does not read, or does not stop sending, may tie up: with so much, one connection in \
               a hundred may do so before all TCP's pages are taken. The first two are the kernel's own.";
    let buffers = |name, key, usual| Setting {
        rule: Rule::AtMost,
        values: vec![PAGE_BYTES, usual, buffer],
        ..at_least(name, key, 0, formula.clone(), why)
    };
    vec![
        Setting {
            values: plan.tcp_pages().to_vec(),
            ..at_least(
                "memory of TCP's buffers",
                "net.ipv4.tcp_mem",
                0,
                "N × 3/8, N / 2, N pages".to_owned(),
                "An idle connection has no buffers, but one page is counted for a connection as soon as a single byte of \
                 it is not acknowledged (measured on Linux 6.18), and a broadcast sends to all. Above the second number \
                 windows shrink, at the third sends fail. It is an allowance, not a reservation.",
            )
        },
        buffers("receive buffer", "net.ipv4.tcp_rmem", 131_072),
        buffers("send buffer", "net.ipv4.tcp_wmem", 16_384),
    ]
}

fn endings(plan: Plan) -> Vec<Setting> {
    let connections = plan.connections;
    vec![
        at_least(
            "connections in TIME_WAIT",
            "net.ipv4.tcp_max_tw_buckets",
            connections,
            "N".to_owned(),
            "A stop closes all connections from this side, and each then stays for a minute with 0.3 KB in place of \
             4 KB. Beyond the limit they are forgotten at once and late packets are answered with a reset.",
        ),
        at_least(
            "connections without a process",
            "net.ipv4.tcp_max_orphans",
            connections,
            "N".to_owned(),
            "What is closed before the client has acknowledged everything belongs to no process. Beyond the limit such \
             connections are reset, and what was on its way is lost.",
        ),
    ]
}

fn packets(plan: Plan) -> Vec<Setting> {
    let sends = limits::TURN_SENDS_MAX as u64;
    vec![
        at_least(
            "packets waiting for a CPU",
            "net.core.netdev_max_backlog",
            2 * sends,
            format!("2 × {}, whatever N", grouped(sends)),
            "A shard sends up to that many packets in a turn, and their acknowledgements come back together; where they \
             are handed to another CPU (RPS, loopback, veth), what exceeds this is dropped and sent again 200 ms later.",
        ),
        Setting {
            may_be_missing: true,
            ..at_least(
                "flows whose reader's CPU is known",
                "net.core.rps_sock_flow_entries",
                plan.flow_entries(),
                "N rounded up to a power of two, from 32,768 to 1,048,576; 4 bytes each".to_owned(),
                "Only with RFS, which tuning/irq-rps turns on where the network card has fewer queues than there are \
                 CPUs: packets are handled on the CPU that runs the connection's shard.",
            )
        },
    ]
}

fn tracking(plan: Plan) -> Vec<Setting> {
    let settings = [
        (
            "tracked connections",
            "net.netfilter.nf_conntrack_max",
            plan.tracked(),
            "N × 5/4 + 65,536",
            Some(plan.connections),
            "Where connection tracking is loaded, each connection is an entry of some 260 bytes, and a full table drops \
             new ones (\"nf_conntrack: table full\"). Better still: tuning/nftables leaves the port untracked.",
        ),
        (
            "buckets of connection tracking",
            "net.netfilter.nf_conntrack_buckets",
            plan.tracking_buckets(),
            "a quarter of the tracked connections; 8 bytes each",
            None,
            "Each packet walks the chain of its bucket, which holds four entries on average then.",
        ),
    ];
    let setting = |(name, key, value, formula, impossible_below, why): (_, _, _, &str, _, _)| Setting {
        impossible_below,
        may_be_missing: true,
        ..at_least(name, key, value, formula.to_owned(), why)
    };
    settings.into_iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { connections: 1_000_000, shards: 2 };

    #[test]
    fn each_rule_allows_its_side_and_moves_only_what_it_does_not_allow() {
        let of = |key: &str| all(PLAN).into_iter().find(|setting| setting.key == key).expect("it is there");
        let pages = of("net.ipv4.tcp_mem");
        assert!(pages.allows(&[375_000, 500_000, 1_000_000]) && !pages.allows(&[375_000, 499_999, 1_000_000]));
        assert_eq!(pages.towards(&[1, 600_000, 1]), [375_000, 600_000, 1_000_000]);
        let buffer = of("net.ipv4.tcp_wmem");
        assert!(buffer.allows(&[4_096, 16_384, 409_600]) && !buffer.allows(&[4_096, 16_384, 409_601]));
        assert_eq!(buffer.towards(&[2_048, 87_380, 4_194_304]), [2_048, 16_384, 409_600]);
        let cookies = of("net.ipv4.tcp_syncookies");
        assert!(cookies.allows(&[1]) && !cookies.allows(&[0]) && !cookies.allows(&[2]));
    }

    #[test]
    fn a_setting_with_another_shape_than_expected_is_replaced() {
        let pages = all(PLAN).into_iter().find(|setting| setting.values.len() == 3).expect("there is one");
        assert!(!pages.allows(&[9_000_000]));
        assert_eq!(pages.towards(&[9_000_000]), pages.values);
    }

    #[test]
    fn each_setting_is_there_once() {
        let mut keys: Vec<_> = all(PLAN).iter().map(|setting| setting.key).collect();
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
