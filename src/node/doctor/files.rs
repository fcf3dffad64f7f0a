//! The files in `tuning/`, made of the same figures that the checks compare with.

use super::plan::Plan;
use super::report::{grouped, paragraph};
use super::settings::{self, plain};
use crate::limits;
use clap::ValueEnum;
use std::fmt::Write;

/// A file to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// tuning/sysctl.d/90-kittiwake.conf
    Sysctl,
    /// tuning/limits.d/90-kittiwake.conf
    Limits,
    /// tuning/systemd/kittiwake.service
    Unit,
    /// tuning/systemd/kittiwake.socket
    Socket,
    /// tuning/systemd/kittiwake.service.d/connections.conf
    DropIn,
    /// tuning/nftables/kittiwake.nft
    Nftables,
}

/// The file's text.
pub(super) fn print(part: Part, plan: Plan) -> String {
    match part {
        Part::Sysctl => sysctl(plan),
        Part::Limits => limits_d(plan),
        Part::Unit => unit(),
        Part::Socket => socket(),
        Part::DropIn => drop_in(plan),
        Part::Nftables => nftables(plan),
    }
}

/// Bytes of locked memory to allow, in whole MiB.
fn locked_mebibytes(plan: Plan) -> u64 {
    plan.locked_bytes().div_ceil(1 << 20)
}

fn head(text: &mut String, plan: Plan, part: &str, what: &str) {
    let connections = plan.connections;
    comment(text, &format!("kittiwake: {what} for N = {} connections on one machine.", grouped(connections)));
    comment(text, &format!("Made by: kittiwake doctor --connections {connections} --print {part}"));
}

/// A paragraph of comment lines.
fn comment(text: &mut String, words: &str) {
    paragraph(text, "# ", "# ", words);
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn sysctl(plan: Plan) -> String {
    let mut text = String::new();
    head(&mut text, plan, "sysctl", "kernel settings");
    comment(
        &mut text,
        "tuning/apply reads this file and keeps a value that its rule (the line with `#:`) allows, so that nothing that \
         is better already gets worse; what it installs in /etc/sysctl.d has the values that result. Settings with a \
         dash in front are left out by kernels without them.",
    );
    for setting in settings::all(plan) {
        text.push('\n');
        comment(&mut text, &format!("{}: {}", setting.name, setting.why));
        comment(&mut text, &format!("Formula: {}.", setting.formula));
        push(&mut text, &format!("#: {}", setting.rule.words()));
        let dash = if setting.may_be_missing { "-" } else { "" };
        push(&mut text, &format!("{dash}{} = {}", setting.key, plain(&setting.values)));
    }
    text
}

fn limits_d(plan: Plan) -> String {
    let (reserved, locked) = (grouped(limits::FDS_RESERVED as u64), locked_mebibytes(plan) * 1_024);
    let mut text = String::new();
    head(&mut text, plan, "limits", "limits of whoever starts the gateway from a login");
    comment(&mut text, "A service gets them from the unit's drop-in instead: pam_limits is not asked there.");
    text.push('\n');
    let files = format!(
        "Open files. Formula: N + {reserved}, so that epoll, where each connection is one, holds as many as io_uring."
    );
    comment(&mut text, &files);
    push(&mut text, &format!("* soft nofile {}", plan.files()));
    push(&mut text, &format!("* hard nofile {}", plan.files()));
    text.push('\n');
    comment(&mut text, &locked_words(plan, "KiB"));
    push(&mut text, &format!("* soft memlock {locked}"));
    push(&mut text, &format!("* hard memlock {locked}"));
    text
}

fn locked_words(plan: Plan, unit: &str) -> String {
    format!(
        "Locked memory in {unit}: since Linux 6.14 the queues of io_uring are charged to it. Formula: 544,768 bytes for each \
         of {} shards and 139,264 for each further ring; a ring holds {} of N, and shards have room for an eighth more \
         than their share.",
        plan.shards,
        grouped(limits::RING_SLOTS_MAX as u64)
    )
}

fn unit() -> String {
    // A second more than everything a stop waits for, so that the process says itself what was left.
    let stop = limits::DRAIN_TIMEOUT + limits::API_DRAIN_TIMEOUT + core::time::Duration::from_secs(1);
    format!(
        "# kittiwake as a service. Made by: kittiwake doctor --print unit
# What depends on the number of connections is in kittiwake.service.d/connections.conf.
[Unit]
Description=kittiwake push gateway
After=network-online.target
Wants=network-online.target

[Service]
# It says when it serves, that messages flow, and that it ends.
Type=notify
# Whoever does not say so for this long is started anew: a shard or the log is stuck.
WatchdogSec={watchdog}
# Read by root and handed on: it may hold keys, and the service has a user of its own.
LoadCredential=kittiwake.toml:/etc/kittiwake.toml
ExecStart=/usr/local/bin/kittiwake serve --config %d/kittiwake.toml
# 2 is a wrong configuration, which another start does not mend.
Restart=on-failure
RestartPreventExitStatus=2
# After a crash every device comes back: not at once, and not in a loop.
RestartSec=1
# node.drain_timeout ({drain} s) and what follows it.
TimeoutStopSec={stop}
DynamicUser=yes
StateDirectory=kittiwake
WorkingDirectory=/var/lib/kittiwake
# A gateway that is killed costs every device a reconnect; others first.
OOMScoreAdjust=-500
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
LockPersonality=yes
SystemCallArchitectures=native
# The group does not have io_uring in all versions of systemd.
SystemCallFilter=@system-service io_uring_setup io_uring_enter io_uring_register

[Install]
WantedBy=multi-user.target
",
        drain = limits::DRAIN_TIMEOUT.as_secs(),
        stop = stop.as_secs(),
        watchdog = limits::WATCHDOG.as_secs(),
    )
}

fn socket() -> String {
    format!(
        "# kittiwake's listening sockets, held by systemd: while the service is started anew, who connects waits and nobody
# is refused. Made by: kittiwake doctor --print socket
[Unit]
Description=kittiwake push gateway, its sockets

[Socket]
# Each is an address of edge.listen, or that of api.listen, written as there.
ListenStream=0.0.0.0:1883
ListenStream=127.0.0.1:7700
# As many as a restart of a busy node keeps waiting; net.core.somaxconn bounds it.
Backlog={backlog}

[Install]
WantedBy=sockets.target
",
        backlog = limits::LISTEN_BACKLOG,
    )
}

fn drop_in(plan: Plan) -> String {
    let mut text = String::new();
    head(&mut text, plan, "drop-in", "limits of the service");
    push(&mut text, "[Service]");
    let reserved = grouped(limits::FDS_RESERVED as u64);
    comment(
        &mut text,
        &format!(
            "Open files. Formula: N + {reserved}, so that epoll, where each connection is one, holds as many as io_uring."
        ),
    );
    push(&mut text, &format!("LimitNOFILE={}", plan.files()));
    comment(&mut text, &locked_words(plan, "bytes"));
    push(&mut text, &format!("LimitMEMLOCK={}", locked_mebibytes(plan) << 20));
    comment(
        &mut text,
        "Without it the gateway counts on the machine's free memory. The configured maximum refuses what would not fit.",
    );
    push(&mut text, &format!("Environment=KITTIWAKE_LIMITS_MAX_CONNECTIONS={}", plan.connections));
    text
}

fn nftables(plan: Plan) -> String {
    let (all, each) = (plan.arrivals_per_second(), plan.arrivals_per_source());
    let mut text = String::from("#!/usr/sbin/nft -f\n");
    head(&mut text, plan, "nftables", "packet filter rules");
    comment(
        &mut text,
        "They concern the edge port alone and leave every other packet as it is. Change the ports to those of edge.listen.",
    );
    let rules = format!(
        "
define edge_ports = {{ 1883 }}

# Replaces what an earlier run has made.
table inet kittiwake
delete table inet kittiwake

table inet kittiwake {{
    # Source addresses that are opening connections, forgotten after a minute of silence. As many as N / 10, from 4,096
    # to 1,048,576; when the set is full, further sources are bound by the common rate alone.
    set sources4 {{
        type ipv4_addr
        size {sources}
        flags dynamic, timeout
        timeout 1m
    }}
    # An IPv6 host has a whole /64 to choose addresses from.
    set sources6 {{
        type ipv6_addr
        size {sources}
        flags dynamic, timeout
        timeout 1m
    }}

    # No entry of connection tracking for each connection: that would be 260 bytes and a look-up for every packet.
    chain untracked_in {{
        type filter hook prerouting priority raw; policy accept;
        tcp dport $edge_ports notrack
    }}
    chain untracked_out {{
        type filter hook output priority raw; policy accept;
        tcp sport $edge_ports notrack
    }}

    chain arrivals {{
        type filter hook input priority filter - 10; policy accept;
        tcp dport $edge_ports tcp flags & (fin | syn | rst | ack) == syn jump opening
    }}

    # A handshake that is dropped here is tried again by its client after a second, three, seven.
    chain opening {{
        # One source: a hundredth of what all may open in a second, at least 50, since many devices may share an address.
        # The burst is three seconds of it.
        update @sources4 {{ ip saddr limit rate over {each}/second burst {each_burst} packets }} counter drop
        update @sources6 {{ ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over {each}/second burst {each_burst} packets }} counter drop
        # All sources: N / 60, at least 1,000, so that everybody is back within a minute. The burst is a second of it.
        limit rate over {all}/second burst {all} packets counter drop
    }}
}}
",
        sources = plan.sources(),
        each_burst = 3 * each,
    );
    text.write_str(&rules).expect("a String takes everything");
    text
}
