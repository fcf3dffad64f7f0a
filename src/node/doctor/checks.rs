//! Comparing what is there with what N needs.

use super::plan::Plan;
use super::report::{Finding, Verdict, grouped};
use super::root::Root;
use super::settings::{Setting, plain};
use crate::limits;

/// What is asked, of which machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'a> {
    pub(super) root: &'a Root,
    pub(super) plan: Plan,
    pub(super) io_uring: bool,
}

fn all_grouped(values: &[u64]) -> String {
    values.iter().map(|&value| grouped(value)).collect::<Vec<_>>().join(" ")
}

/// A kernel setting; none where this kernel has no such limit.
pub(super) fn setting(situation: &Situation<'_>, setting: &Setting) -> Option<Finding> {
    let found = situation.root.setting(setting.key);
    if found.is_none() && setting.may_be_missing {
        return None;
    }
    let verdict = match &found {
        None => Verdict::Unknown,
        Some(found) if setting.allows(found) => Verdict::Ok,
        Some(found) if setting.forbids(found) && is_in_use(situation, setting) => Verdict::Obstacle,
        Some(_) => Verdict::Change,
    };
    let set = match &found {
        Some(found) if verdict != Verdict::Ok => Some(format!("{} = {}", setting.key, plain(&setting.towards(found)))),
        _ => None,
    };
    Some(Finding {
        name: setting.name,
        found: found.map_or_else(|| format!("{} cannot be read", setting.key), |found| all_grouped(&found)),
        needed: format!("{} {}", setting.rule.words(), all_grouped(&setting.values)),
        formula: setting.formula.clone(),
        verdict,
        set,
        why: setting.why.to_owned(),
    })
}

/// Connection tracking that is loaded tracks nothing until a rule asks for it; entries show that one does.
fn is_in_use(situation: &Situation<'_>, setting: &Setting) -> bool {
    !setting.key.starts_with("net.netfilter.nf_conntrack")
        || situation.root.number("proc/sys/net/netfilter/nf_conntrack_count").is_some_and(|count| count > 0)
}

/// Ports matter to who connects, not to who accepts.
pub(super) fn ports(situation: &Situation<'_>) -> Finding {
    let found = situation.root.setting("net.ipv4.ip_local_port_range");
    let ports = found.as_deref().and_then(|range| match range {
        &[first, last] => (last + 1).checked_sub(first).filter(|&ports| ports > 0),
        _ => None,
    });
    let formula = "N / ports of the range, address pairs".to_owned();
    let why =
        "Accepting takes no port. But one source address has so many connections to one address and port: behind a \
               proxy or a load balancer, and for a load generator on this machine, N need as many pairs of addresses."
            .to_owned();
    let pairs = ports.map(|ports| situation.plan.connections.div_ceil(ports));
    Finding {
        name: "ports of outgoing connections",
        found: found.map_or_else(|| "cannot be read".to_owned(), |found| all_grouped(&found)),
        needed: pairs
            .map_or_else(|| "none".to_owned(), |pairs| format!("none here; {} address pairs there", grouped(pairs))),
        formula,
        verdict: if ports.is_some() { Verdict::Ok } else { Verdict::Unknown },
        set: None,
        why,
    }
}

/// What the gateway sets itself on each socket, and what nobody on this machine can see.
pub(super) fn what_is_our_own() -> Vec<Finding> {
    let idle = limits::TCP_KEEPALIVE_IDLE.as_secs();
    let interval = limits::TCP_KEEPALIVE_INTERVAL.as_secs();
    let nat_seconds = limits::NAT_IDLE_ASSUMED.as_secs();
    vec![
        Finding {
            name: "TCP keepalive",
            found: format!("set on each socket: after {idle} s, every {interval} s"),
            needed: "nothing".to_owned(),
            formula: "whatever N".to_owned(),
            verdict: Verdict::Ok,
            set: None,
            why:
                "net.ipv4.tcp_keepalive_time and its like do not matter here. It finds clients that vanished and whose \
                  protocol has no keep alive."
                    .to_owned(),
        },
        Finding {
            name: "largest buffers by request",
            found: "not asked for".to_owned(),
            needed: "nothing".to_owned(),
            formula: "whatever N".to_owned(),
            verdict: Verdict::Ok,
            set: None,
            why: "net.core.rmem_max and wmem_max bound what a program asks for; the gateway leaves buffers to \
                  net.ipv4.tcp_rmem and tcp_wmem."
                .to_owned(),
        },
        Finding {
            name: "idle time of NATs and balancers",
            found: "cannot be seen from here".to_owned(),
            needed: format!("keep alive of clients at most {nat_seconds} s"),
            formula: "below the shortest idle time on the way".to_owned(),
            verdict: Verdict::Unknown,
            set: None,
            why:
                "RFC 5382 asks NATs to keep an idle connection for over two hours; mobile networks and cloud balancers \
                  drop it after 4 to 30 minutes, without a word to either end. MQTT's keep alive, or an event stream's \
                  heartbeat, has to be more frequent than that."
                    .to_owned(),
        },
    ]
}
