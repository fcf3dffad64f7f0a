//! The scripts in `tuning/`, run for real in a network namespace of their own, and `kittiwake doctor` as a command.
//! They need root or user namespaces, and shellcheck, iproute2 and nftables; `.ci/run` installs these.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SCRIPTS: [&str; 5] = ["check", "apply", "irq-rps", "settings.bash", "changes.bash"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory for one test, empty.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tuning-{}-{name}", std::process::id()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }
    std::fs::create_dir_all(&directory).expect("cargo made its parent");
    directory
}

/// Runs a script with namespaces of its own for the network and for mounts, which end with it. What is not the network's
/// is hidden from it: those settings are the whole machine's. `$T` is tuning/, `$S` a scratch directory.
fn in_namespace(name: &str, script: &str) -> String {
    const HIDE: &str = "
        set -eu
        mount -t tmpfs none /proc/sys/fs
        if [ -d /proc/sys/net/netfilter ]; then mount -t tmpfs none /proc/sys/net/netfilter; fi
        mount -t sysfs none /sys
        ip link set lo up
    ";
    let is_root = rustix::process::geteuid().is_root();
    let mut command = Command::new("unshare");
    command.args(if is_root { &["--net", "--mount"][..] } else { &["--user", "--map-root-user", "--net", "--mount"] });
    let scratch = scratch(name);
    command.args(["bash", "-c", &format!("{HIDE}\n{script}")]).env("T", root().join("tuning")).env("S", &scratch);
    let output = command.env("KITTIWAKE", env!("CARGO_BIN_EXE_kittiwake")).output().expect("unshare is there");
    let text = String::from_utf8(output.stdout).expect("scripts print text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the script failed: {}\n{text}\n{errors}", output.status);
    std::fs::remove_dir_all(&scratch).expect("it is ours");
    text
}

fn kittiwake(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kittiwake")).args(arguments).output().expect("the binary starts")
}

#[test]
fn the_scripts_of_tuning_pass_shellcheck() {
    let scripts = SCRIPTS.map(|script| format!("tuning/{script}"));
    let output = Command::new("shellcheck")
        .arg("--external-sources")
        .args(scripts)
        .current_dir(root())
        .output()
        .expect("shellcheck is installed; .ci/run does it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn apply_shows_then_sets_and_its_undo_file_puts_everything_back() {
    let text = in_namespace(
        "apply",
        r#"
        cd "$S"
        n=/proc/sys/net
        echo 128 > $n/core/somaxconn
        echo 0 > $n/ipv4/tcp_syncookies
        echo 8192 > $n/ipv4/tcp_max_syn_backlog
        echo "4096 16384 4194304" > $n/ipv4/tcp_wmem
        state() { echo "$1: $(cat $n/core/somaxconn $n/ipv4/tcp_syncookies $n/ipv4/tcp_max_syn_backlog $n/ipv4/tcp_wmem | xargs)"; }
        state before
        "$T"/apply | tail -n 1
        state shown
        "$T"/check > checked && echo "check: all is well" || echo "check: exit $?"
        grep somaxconn checked
        "$T"/apply --yes --undo-file undo > applied
        state applied
        "$T"/apply --yes | tail -n 1
        "$T"/apply --undo undo | tail -n 1
        state not-undone
        "$T"/apply --undo undo --yes > undone
        state undone
        "#,
    );
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let expected = [
        "before: 128 0 8192 4096 16384 4194304",
        "nothing was changed; --yes does it",
        "shown: 128 0 8192 4096 16384 4194304",
        "check: exit 1",
        "change   net.core.somaxconn = 128, at least 4096",
        "applied: 4096 1 8192 4096 16384 409600",
        "nothing to change",
        "nothing was changed; --yes does it",
        "not-undone: 4096 1 8192 4096 16384 409600",
        "undone: 128 0 8192 4096 16384 4194304",
    ];
    assert_eq!(lines, expected, "{text}");
}

#[test]
fn apply_installs_the_files_and_its_undo_file_restores_what_was_there() {
    let text = in_namespace(
        "install",
        r#"
        cd "$S"
        mkdir -p root/etc/sysctl.d
        echo "somebody = 1" > root/etc/sysctl.d/90-kittiwake.conf
        echo 65535 > /proc/sys/net/core/somaxconn
        "$T"/apply --install --prefix "$S/root" --undo-file undo --yes > applied
        (cd root && find . -type f | sort)
        grep somaxconn root/etc/sysctl.d/90-kittiwake.conf
        cmp "$T"/systemd/kittiwake.service root/etc/systemd/system/kittiwake.service && echo same
        "$T"/apply --install --prefix "$S/root" | tail -n 1
        "$T"/apply --undo undo --yes > undone
        (cd root && find . -type f | sort)
        cat root/etc/sysctl.d/90-kittiwake.conf
        "#,
    );
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        "./etc/nftables.d/kittiwake.nft",
        "./etc/security/limits.d/90-kittiwake.conf",
        "./etc/sysctl.d/90-kittiwake.conf",
        "./etc/sysctl.d/90-kittiwake.conf.before-kittiwake",
        "./etc/systemd/system/kittiwake.service",
        "./etc/systemd/system/kittiwake.service.d/connections.conf",
        "./etc/systemd/system/kittiwake.socket",
        // A larger value than is needed stays, in the file too.
        "net.core.somaxconn = 65535",
        "same",
        "nothing to change",
        "./etc/sysctl.d/90-kittiwake.conf",
        "somebody = 1",
    ];
    assert_eq!(lines, expected, "{text}");
}

#[test]
fn apply_takes_another_number_of_connections_from_the_gateway() {
    let text = in_namespace(
        "number",
        r#"
        echo 1000 > /proc/sys/net/ipv4/tcp_max_tw_buckets
        "$T"/apply --connections 50000 --kittiwake "$KITTIWAKE" | grep tw_buckets
        "#,
    );
    assert_eq!(text.trim(), "/proc/sys/net/ipv4/tcp_max_tw_buckets: 1000 -> 50000");
}

#[test]
fn an_undo_file_that_is_not_from_us_is_refused_and_an_old_one_is_not_overwritten() {
    let text = in_namespace(
        "foreign",
        r#"
        cd "$S"
        for line in "write /etc/passwd x" "remove /etc/passwd" "write /proc/sys/../../etc/passwd x" "run /bin/true"; do
            echo "$line" > foreign
            "$T"/apply --undo foreign --yes > /dev/null 2>&1 && echo taken || echo "exit $?"
        done
        echo 128 > /proc/sys/net/core/somaxconn
        echo old > undo
        "$T"/apply --yes --undo-file undo > /dev/null 2>&1 && echo taken || echo "exit $?"
        cat undo /proc/sys/net/core/somaxconn
        "#,
    );
    assert_eq!(text.lines().collect::<Vec<_>>(), ["exit 2", "exit 2", "exit 2", "exit 2", "exit 2", "old", "128"]);
}

#[test]
fn irq_rps_spreads_a_queue_over_the_cpus_and_can_be_undone() {
    let text = in_namespace(
        "rps",
        r#"
        cd "$S"
        ip link add edge0 type veth peer name edge1
        queue=/sys/class/net/edge0/queues/rx-0
        echo 0 > $queue/rps_cpus
        getconf() { echo 40; }
        export -f getconf
        "$T"/irq-rps edge0 | grep rps_cpus
        unset -f getconf
        "$T"/irq-rps --yes --undo-file undo edge0 > applied
        echo "mask $((16#$(cat $queue/rps_cpus))) of $(getconf _NPROCESSORS_ONLN) CPUs"
        "$T"/apply --undo undo --yes > undone
        echo "mask $((16#$(cat $queue/rps_cpus)))"
        "#,
    );
    let cpus = std::thread::available_parallelism().expect("a machine has CPUs").get();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("-> ff,ffffffff"), "40 CPUs take two groups: {text}");
    if cpus > 1 {
        assert_eq!(lines[1], format!("mask {} of {cpus} CPUs", (1_u64 << cpus) - 1), "{text}");
    }
    assert_eq!(lines[2], "mask 0", "{text}");
}

#[test]
fn the_packet_filter_rules_load_and_load_again() {
    let text = in_namespace(
        "nft",
        r#"
        nft -f "$T"/nftables/kittiwake.nft
        nft -f "$T"/nftables/kittiwake.nft
        nft list table inet kittiwake | grep -c "counter packets 0"
        "#,
    );
    assert_eq!(text.trim(), "3", "one source over IPv4, one over IPv6, all of them");
}

#[test]
fn doctor_exits_with_0_when_the_connections_would_fit_and_with_1_when_not() {
    let output = kittiwake(&["doctor", "--connections", "100", "--shards", "1", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((output.status.code(), report["fits"].as_bool()), (Some(0), Some(true)), "{report:#}");
    let output = kittiwake(&["doctor", "--connections", "100000000"]);
    assert_eq!(output.status.code(), Some(1));
    let (text, line) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("\ndoes not fit  memory: "), "{text}");
    assert!(line.starts_with("kittiwake: 100,000,000 connections would not fit: "), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[test]
fn doctor_refuses_a_number_beyond_the_limits_with_2() {
    for arguments in [["--connections", "0"], ["--connections", "100000001"], ["--shards", "1025"], ["--print", "all"]]
    {
        let output = kittiwake(&[&["doctor"], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
