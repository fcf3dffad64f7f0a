use super::*;
use report::{Finding, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const GIB: u64 = 1 << 30;

/// A directory laid out as /proc and /sys of a machine; gone at the end.
struct Machine(PathBuf);

impl Machine {
    /// A machine tuned for a million connections, but for the named files; a file without text is not there.
    fn new(name: &str, changes: &[(&str, &str)]) -> Self {
        let directory = std::env::temp_dir().join(format!("kittiwake-doctor-{}-{name}", std::process::id()));
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for setting in settings::all(MILLION) {
            let path = format!("proc/sys/{}", setting.key.replace('.', "/"));
            files.insert(path, settings::plain(&setting.values).replace(' ', "\t") + "\n");
        }
        let meminfo = format!("MemTotal: 9 kB\nMemAvailable:   {} kB\n", 24 * GIB / 1_024);
        let more = [
            ("proc/self/limits", limits_text(1_001_536, "unlimited")),
            ("proc/self/status", "Name:\tkittiwake\nCapEff:\t0000000000000000\n".to_owned()),
            ("proc/self/cgroup", "0::/\n".to_owned()),
            ("proc/meminfo", meminfo),
            ("proc/sys/kernel/osrelease", "6.18.44-test\n".to_owned()),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n".to_owned()),
            ("proc/sys/net/netfilter/nf_conntrack_count", "12\n".to_owned()),
        ];
        files.extend(more.map(|(path, text)| (path.to_owned(), text)));
        files.extend(changes.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())));
        for (path, text) in files.iter().filter(|(_, text)| !text.is_empty()) {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        }
        Self(directory)
    }

    fn examine(&self, plan: Plan, probed: Result<Choosing, String>) -> Report {
        examine(&Root::at(self.0.clone()), plan, probed)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("it was made here");
    }
}

const MILLION: Plan = Plan { connections: 1_000_000, shards: 2 };

fn limits_text(files: u64, locked: &str) -> String {
    format!(
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max open files            1024                 {files}              files     \n\
         Max locked memory         65536                {locked}             bytes     \n"
    )
}

fn io_uring() -> Result<Choosing, String> {
    Ok(Choosing { chosen: Chosen::Uring, fallback: None })
}

fn epoll() -> Result<Choosing, String> {
    Ok(Choosing { chosen: Chosen::Epoll, fallback: Some("setting up a ring: not permitted".to_owned()) })
}

fn finding<'r>(report: &'r Report, name: &str) -> &'r Finding {
    report.findings.iter().find(|finding| finding.name == name).unwrap_or_else(|| panic!("no finding is called {name}"))
}

fn verdicts(report: &Report, verdict: Verdict) -> Vec<&str> {
    report.findings.iter().filter(|finding| finding.verdict == verdict).map(|finding| finding.name).collect()
}

#[test]
fn a_machine_set_up_by_the_files_of_tuning_needs_nothing_more() {
    let machine = Machine::new("tuned", &[]);
    for probed in [io_uring(), Ok(Choosing { chosen: Chosen::Epoll, fallback: None })] {
        let report = machine.examine(MILLION, probed);
        assert_eq!(verdicts(&report, Verdict::Unknown), ["idle time of NATs and balancers"], "{}", report.text());
        assert_eq!(verdicts(&report, Verdict::Change), [""; 0], "{}", report.text());
        assert!(report.obstacles().is_empty());
        assert!(report.text().contains("1,000,000 connections would fit; 0 changes are advised"), "{}", report.text());
    }
}

#[test]
fn each_setting_that_is_too_low_is_told_with_what_to_set() {
    let changes = [
        ("proc/sys/net/core/somaxconn", "128\n"),
        ("proc/sys/net/ipv4/tcp_syncookies", "0\n"),
        ("proc/sys/net/ipv4/tcp_mem", "9\t600000\t9\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096 16384 4194304\n"),
        ("proc/sys/net/ipv4/tcp_max_tw_buckets", "262144\n"),
    ];
    let machine = Machine::new("untuned", &changes);
    let report = machine.examine(MILLION, io_uring());
    assert_eq!(verdicts(&report, Verdict::Change).len(), changes.len());
    let set = |name| finding(&report, name).set.as_deref();
    assert_eq!(set("accept queue"), Some("net.core.somaxconn = 4096"));
    assert_eq!(set("SYN cookies"), Some("net.ipv4.tcp_syncookies = 1"));
    assert_eq!(set("memory of TCP's buffers"), Some("net.ipv4.tcp_mem = 375000 600000 1000000"));
    assert_eq!(set("send buffer"), Some("net.ipv4.tcp_wmem = 4096 16384 409600"));
    assert_eq!(set("connections in TIME_WAIT"), Some("net.ipv4.tcp_max_tw_buckets = 1000000"));
    assert!(report.obstacles().is_empty(), "a slower machine still holds them");
}

#[test]
fn with_epoll_each_connection_is_an_open_file_at_n_minus_one_n_and_n_plus_one() {
    for (files, fits) in [(11_535, false), (11_536, true), (11_537, true)] {
        let machine = Machine::new("epoll", &[("proc/self/limits", &limits_text(files, "unlimited"))]);
        let report = machine.examine(Plan { connections: 10_000, shards: 1 }, epoll());
        assert_eq!(report.obstacles(), if fits { vec![] } else { vec!["open files of the process"] }, "{files}");
        assert_eq!(report.holds, files - 1_536);
        assert_eq!(finding(&report, "driver").verdict, Verdict::Change);
    }
}

#[test]
fn with_io_uring_tables_bound_the_connections_and_files_do_not() {
    let machine = Machine::new("tables", &[("proc/self/limits", &limits_text(20_000, "unlimited"))]);
    let at = |connections| machine.examine(Plan { connections, shards: 1 }, io_uring());
    assert!(at(2_560_000).obstacles().iter().all(|name| *name != "slots of io_uring's tables"));
    assert!(at(2_560_001).obstacles().contains(&"slots of io_uring's tables"));
    let few_files = Machine::new("few", &[("proc/self/limits", &limits_text(4_096, "unlimited"))]);
    let report = few_files.examine(Plan { connections: 500_000, shards: 1 }, io_uring());
    assert_eq!(report.obstacles(), [""; 0], "128 tables of 4,096 slots are enough");
    assert_eq!(finding(&report, "open files of the process").verdict, Verdict::Change);
}

#[test]
fn memory_is_an_obstacle_when_the_idle_connections_do_not_fit() {
    let plan = Plan { connections: 100_000, shards: 1 };
    let with = |bytes: u64| {
        let meminfo = format!("MemAvailable: {} kB\n", bytes / 1_024);
        let machine = Machine::new("memory", &[("proc/meminfo", &meminfo)]);
        finding(&machine.examine(plan, io_uring()), "memory").verdict
    };
    assert_eq!(with(plan.memory_bytes() - 1_024), Verdict::Obstacle);
    assert_eq!(with(plan.memory_bytes()), Verdict::Change, "nothing is left for what is under way");
    assert_eq!(with(plan.memory_bytes() + plan.pool_bytes()), Verdict::Ok);
}

#[test]
fn a_control_group_bounds_the_memory() {
    let changes =
        [("proc/self/cgroup", "0::/system.slice/x.service\n"), ("sys/fs/cgroup/system.slice/memory.max", "1000000\n")];
    let report = Machine::new("group", &changes).examine(MILLION, io_uring());
    assert_eq!(report.memory.available, Some(1_000_000));
    assert_eq!(report.obstacles(), ["memory"]);
}

#[test]
fn rings_count_as_locked_memory_since_linux_6_14_unless_the_process_may_lock() {
    let limits = limits_text(1_001_536, "8388608");
    let with = |changes: &[(&str, &str)], shards| {
        let changes = [&[("proc/self/limits", limits.as_str())], changes].concat();
        let report = Machine::new("locked", &changes).examine(Plan { connections: 10_000, shards }, io_uring());
        finding(&report, "locked memory").verdict
    };
    assert_eq!((with(&[], 15), with(&[], 16)), (Verdict::Ok, Verdict::Obstacle));
    assert_eq!(with(&[("proc/self/status", "CapEff:\t0000000000004000\n")], 16), Verdict::Ok);
    assert_eq!(with(&[("proc/sys/kernel/osrelease", "6.13.9\n")], 16), Verdict::Ok);
    assert_eq!(with(&[("proc/sys/kernel/osrelease", "7.0.1\n")], 16), Verdict::Obstacle);
    assert_eq!(with(&[("proc/self/status", "")], 16), Verdict::Unknown);
}

#[test]
fn a_tracking_table_that_is_too_small_matters_where_something_is_tracked() {
    let table = ("proc/sys/net/netfilter/nf_conntrack_max", "999999\n");
    let with = |changes: &[(&str, &str)]| {
        let report = Machine::new("tracking", changes).examine(MILLION, io_uring());
        finding(&report, "tracked connections").verdict
    };
    assert_eq!(with(&[table]), Verdict::Obstacle);
    assert_eq!(with(&[table, ("proc/sys/net/netfilter/nf_conntrack_count", "0\n")]), Verdict::Change);
    assert_eq!(with(&[("proc/sys/net/netfilter/nf_conntrack_max", "1000000\n")]), Verdict::Change);
    let without =
        [("proc/sys/net/netfilter/nf_conntrack_max", ""), ("proc/sys/net/netfilter/nf_conntrack_buckets", "")];
    let report = Machine::new("untracked", &without).examine(MILLION, io_uring());
    assert!(
        report.findings.iter().all(|finding| !finding.name.contains("track")),
        "a kernel without it limits nothing"
    );
}

#[test]
fn what_cannot_be_read_is_unknown_and_never_well() {
    let machine = Machine::new("blind", &[]);
    fs::remove_dir_all(machine.0.join("proc")).expect("it is there");
    fs::create_dir_all(machine.0.join("proc")).expect("it can be made");
    let report = machine.examine(MILLION, io_uring());
    let well = ["driver", "slots of io_uring's tables", "TCP keepalive", "largest buffers by request"];
    assert_eq!(verdicts(&report, Verdict::Ok), well, "{}", report.text());
    assert!(verdicts(&report, Verdict::Unknown).len() > 12, "{}", report.text());
    assert!(report.obstacles().is_empty());
}

#[test]
fn io_uring_that_was_insisted_on_and_is_disabled_is_an_obstacle_that_says_how_to_enable_it() {
    let machine = Machine::new("disabled", &[("proc/sys/kernel/io_uring_disabled", "2\n")]);
    let report = machine.examine(MILLION, Err("setting up a ring: not permitted".to_owned()));
    assert_eq!(report.obstacles(), ["driver"]);
    assert_eq!(finding(&report, "driver").set.as_deref(), Some("kernel.io_uring_disabled = 0"));
    let falls_back = machine.examine(MILLION, epoll());
    assert!(falls_back.obstacles().is_empty() && falls_back.driver == "epoll");
}

#[test]
fn json_has_every_finding_with_its_reason_and_the_sum_of_memory() {
    let machine = Machine::new("json", &[("proc/sys/fs/file-max", "1000000\n")]);
    let report = machine.examine(MILLION, io_uring());
    let json: Value = serde_json::from_str(&report.json()).expect("it is JSON");
    assert_eq!((json["connections"].as_u64(), json["fits"].as_bool()), (Some(1_000_000), Some(false)));
    assert_eq!(json["memory"]["connections_bytes"].as_u64(), Some(4_608_000_000));
    let findings = json["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), report.findings.len());
    let files = findings.iter().find(|finding| finding["name"] == "open files of the machine").expect("it is there");
    assert_eq!((files["verdict"].as_str(), files["found"].as_str()), (Some("does not fit"), Some("1,000,000")));
    assert_eq!(files["set"].as_str(), Some("fs.file-max = 1067072"));
    for finding in findings {
        for field in ["name", "found", "needed", "formula", "verdict", "why"] {
            assert!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        }
    }
}

#[test]
fn the_files_in_tuning_are_the_ones_that_are_printed() {
    let files = [
        (Part::Sysctl, "sysctl.d/90-kittiwake.conf"),
        (Part::Limits, "limits.d/90-kittiwake.conf"),
        (Part::Unit, "systemd/kittiwake.service"),
        (Part::Socket, "systemd/kittiwake.socket"),
        (Part::DropIn, "systemd/kittiwake.service.d/connections.conf"),
        (Part::Nftables, "nftables/kittiwake.nft"),
    ];
    let plan = Plan { connections: limits::DOCTOR_CONNECTIONS, shards: limits::TUNING_SHARDS };
    for (part, path) in files {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tuning").join(path);
        let checked_in = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let printed = files::print(part, plan);
        let mut lines = printed.lines().zip(checked_in.lines());
        let first = lines.find(|(printed, checked_in)| printed != checked_in);
        assert!(checked_in == printed, "{} is not what doctor --print says, first in {first:?}", path.display());
    }
}

#[test]
fn this_machine_can_be_examined() {
    let report = examine(&Root::at("/".into()), Plan { connections: 100, shards: 1 }, probe::choose(Choice::Auto));
    assert!(report.memory.available.is_some() && report.findings.len() > 12, "{}", report.text());
}
