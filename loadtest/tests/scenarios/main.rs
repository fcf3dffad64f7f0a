//! Every scenario, small, against a real gateway process on both drivers: it passes as things are, and it fails when
//! something between the gateway and its clients loses, doubles or swaps one packet.
//!
//! Needs the gateway's binary beside loadtest's: `cargo build --workspace` makes it, and a test run of the workspace does.

mod meddler;
#[path = "../../../tests/ports/mod.rs"]
mod ports;

use meddler::{Fault, Kind, Meddler, Plan};
use rustix::process::Signal;
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const DRIVERS: [&str; 2] = ["io_uring", "epoll"];
/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

fn gateway_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("kittiwake");
    assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
    path
}

/// A gateway that outlives the runs of a test.
struct Gateway {
    process: Child,
    edge: SocketAddr,
    api: SocketAddr,
}

impl Gateway {
    fn start() -> Self {
        let [edge, api] = ports::free();
        let process = Command::new(gateway_binary())
            .args([
                "serve",
                "--shards",
                "1",
                "--data-dir",
                "",
                "--listen",
                &edge.to_string(),
                "--api",
                &api.to_string(),
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("the gateway starts");
        let gateway = Self { process, edge, api };
        let started = Instant::now();
        while TcpStream::connect(api).is_err() || TcpStream::connect(edge).is_err() {
            assert!(started.elapsed() < PATIENCE, "the gateway does not listen");
            std::thread::yield_now();
        }
        gateway
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a run said.
struct Ran {
    passed: bool,
    result: Value,
    output: String,
}

impl Ran {
    fn faults(&self) -> String {
        self.result["faults"].to_string()
    }

    /// Deliveries of a kind: at least one, and all right.
    fn all_right(&self, place: &str) {
        let checked = self.result["result"].pointer(place).unwrap_or_else(|| panic!("no {place}: {}", self.output));
        assert!(checked["expected"].as_u64().is_some_and(|count| count > 0), "{place}: {checked}");
        assert_eq!(checked["expected"], checked["right"], "{place}: {checked}");
    }
}

fn loadtest(words: &str, more: &[String]) -> Ran {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = format!("scenario-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(run);
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(words.split_whitespace())
        .args(more)
        .args(["--quiet", "--report"])
        .arg(&report)
        .stdin(Stdio::null())
        .output()
        .expect("loadtest starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let result = std::fs::read_to_string(report.join("result.json")).unwrap_or_default();
    let result = serde_json::from_str(&result).unwrap_or_else(|error| panic!("{error} in {result:?}: {text}"));
    Ran { passed: output.status.success(), result, output: text }
}

/// Runs a scenario against a gateway of its own on each driver; it must pass.
fn passes(words: &str) -> Vec<Ran> {
    let ran = DRIVERS.map(|driver| {
        let [edge, api] = ports::free();
        let more = [
            ["--driver", driver, "--gateway-driver", driver].map(str::to_owned).to_vec(),
            vec!["--target".to_owned(), edge.to_string(), "--api".to_owned(), api.to_string()],
            vec!["--spawn".to_owned(), "--gateway".to_owned(), gateway_binary().display().to_string()],
        ];
        let ran = loadtest(words, &more.concat());
        assert!(ran.passed, "{driver}: {}\n{}", ran.faults(), ran.output);
        ran
    });
    ran.into()
}

/// Runs a scenario through a meddler; it must fail, and say so in these words.
fn finds(words: &str, plan: Plan, said: &str) {
    finds_either(words, plan, &[said]);
}

/// The same where chance decides whom it strikes.
fn finds_either(words: &str, plan: Plan, said: &[&str]) {
    let gateway = Gateway::start();
    let meddler = Meddler::start(gateway.edge, plan);
    let more = ["--target", &meddler.address.to_string(), "--api", &gateway.api.to_string(), "--patience", "2"];
    let ran = loadtest(words, &more.map(str::to_owned));
    assert!(meddler.has_meddled(), "{plan:?} never came about: {}", ran.output);
    assert!(!ran.passed, "{plan:?} went unnoticed: {}", ran.output);
    assert!(said.iter().any(|said| ran.faults().contains(said)), "{plan:?}, {said:?}: {}", ran.faults());
}

const PUBLISH: Plan = Plan { kind: Kind::Publish, before: 1, fault: Fault::Lose, spared: 0 };
const LOST: Plan = PUBLISH;
const DOUBLED: Plan = Plan { fault: Fault::Double, ..PUBLISH };
const SWAPPED: Plan = Plan { fault: Fault::Swap, ..PUBLISH };
/// For those who get one message only.
const ONLY_LOST: Plan = Plan { before: 0, ..LOST };
const ONLY_DOUBLED: Plan = Plan { before: 0, ..DOUBLED };

#[test]
fn heartbeats_are_answered_and_cost_something_beside_the_floor() {
    for ran in passes("heartbeat --connections 200 --pairs 2 --stretch 0.2") {
        ran.all_right("/heartbeats");
        assert!(ran.result["result"]["cost"]["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0));
    }
}

#[test]
fn a_heartbeat_without_an_answer_and_one_with_two_are_found() {
    let words = "heartbeat --connections 20 --pairs 1 --stretch 0.5 --window 4 --no-floor";
    let answer = Plan { kind: Kind::PingResp, before: 3, ..LOST };
    finds(words, answer, "missing: 1,");
    finds(words, Plan { fault: Fault::Double, ..answer }, "foreign: 1,");
}

#[test]
fn unicasts_arrive_through_the_push_stream_over_http_and_from_a_publisher() {
    for via in ["grpc", "http --qos 1 --batch 4", "mqtt", "grpc --qos 1 --push-rate 500"] {
        for ran in passes(&format!("unicast --connections 200 --pairs 2 --stretch 0.2 --verify --via {via}")) {
            ran.all_right("/letters");
            assert!(ran.result["result"]["cost"]["difference_us"]["median"].is_f64(), "{via}");
        }
    }
}

#[test]
fn a_unicast_that_is_lost_doubled_or_swapped_is_found() {
    let words = "unicast --connections 4 --pairs 1 --stretch 0.3 --no-floor --qos 1";
    finds(words, LOST, "skipped: 1,");
    finds(words, DOUBLED, "repeated: 1,");
    finds(words, SWAPPED, "skipped: 1,");
}

#[test]
fn guests_come_and_go_while_those_who_stay_get_their_message() {
    for ran in passes("churn --connections 200 --guests 100 --rounds 2 --rate 0") {
        ran.all_right("/push/deliveries");
        assert!(ran.result["result"]["set_up"]["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0));
    }
}

#[test]
fn guests_of_two_gateways_come_and_go_in_turns() {
    for ran in passes("churn --connections 200 --beside 50 --guests 100 --rounds 2 --rate 0") {
        ran.all_right("/push/deliveries");
        let beside = &ran.result["result"]["beside"];
        assert_eq!((&beside["connections"], beside["ratio"]["all"].as_array().map(Vec::len)), (&50.into(), Some(2)));
        assert!(beside["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{beside}");
    }
}

#[test]
fn a_message_to_all_that_is_lost_or_doubled_is_found_after_guests_have_gone() {
    let words = "churn --connections 20 --guests 10 --rounds 1 --rate 0 --no-floor";
    finds(words, ONLY_LOST, "missing: 1,");
    finds(words, ONLY_DOUBLED, "repeated: 1,");
}

#[test]
fn all_return_from_a_storm_and_get_what_was_pushed_meanwhile() {
    for ran in passes("storm --connections 300 --storms 2") {
        ran.all_right("/deliveries");
        let storms = ran.result["result"]["storms"].as_array().expect("there are storms");
        assert_eq!(storms.len(), 2);
        for storm in storms {
            let push = &storm["push"]["deliveries"];
            assert_eq!((&push["expected"], &push["right"]), (&300.into(), &300.into()), "{push}");
            assert!(storm["pings"]["count"].as_u64().is_some_and(|count| count > 0), "{storm}");
        }
        assert!(ran.result["result"]["free_after_seconds"].is_f64(), "{}", ran.output);
    }
}

#[test]
fn what_a_storm_loses_doubles_or_swaps_is_found() {
    // The four that stand by come first, and those who are to drop after them.
    let (words, spared) = ("storm --connections 20 --storms 1", 24);
    finds(words, Plan { spared, ..LOST }, "skipped: 1,");
    finds(words, Plan { spared, ..DOUBLED }, "repeated: 1,");
    finds(words, Plan { spared, ..SWAPPED }, "skipped: 1,");
}

#[test]
fn a_message_to_all_that_is_lost_or_doubled_is_found_when_all_are_back() {
    // Without messages while they are away, the first one that comes is the one to all.
    let words = "storm --connections 20 --storms 1 --messages 0";
    finds(words, ONLY_LOST, "missing: 1,");
    finds(words, ONLY_DOUBLED, "repeated: 1,");
}

#[test]
fn a_session_too_many_after_a_storm_is_found() {
    let gateway = Gateway::start();
    let more = ["--target", &gateway.edge.to_string(), "--api", &gateway.api.to_string()].map(str::to_owned);
    let words = "storm --connections 20 --storms 1 --messages 0 --standing 0";
    let ran = loadtest(words, &more);
    assert!(ran.passed, "{}", ran.output);
    // The same clients again: their sessions are there already, so they leave none.
    let ran = loadtest(words, &more);
    assert!(!ran.passed && ran.faults().contains("sessions of 20 clients"), "{}", ran.output);
}

#[test]
fn a_flood_from_one_address_is_refused_beside_a_bare_sink_while_others_are_answered() {
    for ran in passes("flood --connections 200 --pairs 2 --stretch 0.3 --rate 500 --standing 2") {
        let result = &ran.result["result"];
        assert!(result["cost"]["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{result}");
        assert!(result["p99_ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{result}");
        let count = |name: &str| result[name].as_u64().unwrap_or_else(|| panic!("no {name}: {result}"));
        // Three stretches of 200 with the one that warms up, and two of 150.
        assert_eq!(count("closed") + count("let_in"), 900);
        assert!(count("counted") >= count("closed") && count("let_in") > 0, "{result}");
        assert!(result["pings_flooded"]["count"].as_u64().is_some_and(|count| count > 0), "{result}");
    }
}

#[test]
fn a_flood_that_is_let_in_is_found() {
    let [edge, api] = ports::free();
    let words = "flood --connections 60 --pairs 1 --stretch 0.1 --rate 100";
    let more = [
        ["--gateway-env", "KITTIWAKE_LIMITS_CONNECT_RATE=0", "--gateway"].map(str::to_owned).to_vec(),
        vec![gateway_binary().display().to_string(), "--target".to_owned(), edge.to_string()],
        vec!["--api".to_owned(), api.to_string()],
    ];
    let ran = loadtest(words, &more.concat());
    assert!(!ran.passed && ran.faults().contains("were let in"), "{}", ran.output);
}

#[test]
fn who_reads_is_not_held_up_by_who_does_not_and_what_those_miss_is_counted() {
    // More bytes for one connection than the kernel and the gateway keep.
    for ran in passes("slow --connections 20 --messages 300 --publish-rate 1000 --payload 65536 --window 3") {
        ran.all_right("/healthy");
        let (missed, dropped) = (&ran.result["result"]["behind"]["missing"], &ran.result["result"]["dropped"]);
        assert!(
            missed == dropped && dropped.as_u64().is_some_and(|count| count > 0),
            "{missed} {dropped} {}",
            ran.output
        );
    }
}

#[test]
fn who_reads_slowly_gets_everything_at_qos_1() {
    for ran in passes("slow --connections 60 --stretch 2 --publish-rate 100 --qos 1") {
        ran.all_right("/healthy");
        ran.all_right("/behind");
    }
}

#[test]
fn what_slow_readers_lose_without_the_server_counting_it_is_found() {
    // Whoever it strikes, those who read or those who do not: a loss is a fault.
    let words = "slow --connections 20 --stretch 1 --publish-rate 50";
    finds_either(words, LOST, &["skipped: 1,", "missed 1 messages"]);
    finds(words, DOUBLED, "repeated: 1,");
}

#[test]
fn everything_at_once_arrives() {
    for ran in passes("mixed --connections 200 --subscribers 100 --guests 50 --stretch 2") {
        for place in ["/fanout", "/unicasts", "/heartbeats"] {
            ran.all_right(place);
        }
        assert!(ran.result["result"]["visits"].as_u64().is_some_and(|visits| visits > 0));
    }
}

#[test]
fn a_message_that_is_lost_or_swapped_among_everything_is_found() {
    let words = "mixed --connections 20 --subscribers 10 --guests 5 --stretch 1 --publish-rate 50 --push-rate 0";
    finds(words, LOST, "skipped: 1,");
    finds(words, SWAPPED, "skipped: 1,");
}

#[test]
fn a_small_million_is_reached_dropped_back_and_gone() {
    for ran in passes("c1m --connections 500 --heartbeats 1 --unicasts 100") {
        for place in ["/broadcast/deliveries", "/broadcast_again/deliveries", "/unicasts", "/heartbeats"] {
            ran.all_right(place);
        }
        assert_eq!(ran.result["result"]["back"]["dropped"], 50);
        assert!(ran.result["result"]["free_after_seconds"].is_f64(), "{}", ran.output);
        assert!(ran.result["timeline"].as_array().is_some_and(|moments| !moments.is_empty()));
    }
}

#[test]
fn one_of_a_small_million_that_is_not_reached_or_twice_is_found() {
    // The gateway is the test's own here, so the scenario is told that there is one.
    let words = format!("c1m --connections 40 --heartbeats 0 --unicasts 0 --server-pid {}", std::process::id());
    finds(&words, ONLY_LOST, "missing: 1,");
    finds(&words, ONLY_DOUBLED, "repeated: 1,");
}

#[test]
fn fan_out_among_idle_clients_is_measured_and_what_it_loses_doubles_or_swaps_is_found() {
    passes("fanout --connections 100 --idle 100 --pairs 2 --stretch 0.2 --window 4");
    let words = "fanout --connections 10 --pairs 1 --messages 40 --window 4 --no-floor";
    finds(words, LOST, "skipped: 1,");
    finds(words, DOUBLED, "repeated: 1,");
    finds(words, SWAPPED, "skipped: 1,");
}

#[test]
fn a_message_to_those_who_are_held_that_is_lost_or_doubled_is_found() {
    passes("hold --connections 200 --hold 0.2 --push-everyone --expect-free");
    finds("hold --connections 20 --hold 0.1 --push-everyone", ONLY_LOST, "did not reach everybody");
    finds("hold --connections 20 --hold 0.1 --push-everyone", ONLY_DOUBLED, "repeated: 1,");
}

/// A run that goes on for minutes unless it is told to end.
struct Long {
    child: Child,
    edge: SocketAddr,
    report: PathBuf,
}

impl Long {
    /// Its gateway listens, so the run is under way; an interrupt before it has connected is as good.
    fn start(name: &str) -> Self {
        let [edge, api] = ports::free();
        let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let guests = ["--connections", "50", "--subscribers", "10", "--guests", "5", "--stretch", "600", "--quiet"];
        let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .arg("mixed")
            .args(guests)
            .args(["--spawn", "--gateway"])
            .arg(gateway_binary())
            .args(["--target", &edge.to_string(), "--api", &api.to_string(), "--report"])
            .arg(&report)
            .stdout(Stdio::null())
            .spawn()
            .expect("loadtest starts");
        until("the run starts", || TcpStream::connect(edge).is_ok());
        Self { child, edge, report }
    }

    fn tell(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a child has a number"), signal).expect("it is ours");
    }

    fn ends_with(mut self, code: i32) -> PathBuf {
        until("it ends", || self.child.try_wait().expect("it is ours").is_some());
        assert_eq!(self.child.wait().expect("it is ours").code(), Some(code));
        until("its gateway ends", || TcpStream::connect(self.edge).is_err());
        self.report
    }
}

fn until(what: &str, is_so: impl FnMut() -> bool) {
    let (started, mut is_so) = (Instant::now(), is_so);
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupt_or_a_request_to_end_ends_a_run_with_what_was_measured() {
    for signal in [Signal::INT, Signal::TERM] {
        let run = Long::start(&format!("interrupted-{}", signal.as_raw()));
        run.tell(signal);
        // An interrupted run is not a passed one.
        let result =
            std::fs::read_to_string(run.ends_with(1).join("result.json")).expect("what was measured is written");
        let result: Value = serde_json::from_str(&result).expect("it is JSON");
        assert!(result["faults"].to_string().contains("Interrupted"), "{result}");
    }
}

#[test]
fn a_second_interrupt_ends_a_run_at_once_with_its_gateway() {
    let mut run = Long::start("twice");
    // Two that come together are one; a run that has ended by the first is none to interrupt.
    let mut tell = || {
        run.tell(Signal::INT);
        run.child.try_wait().expect("it is ours").map(|status| status.code())
    };
    let code = loop {
        if let Some(code) = tell() {
            break code;
        }
    };
    assert_eq!(code, Some(130));
    run.ends_with(130);
}

#[test]
fn a_gateway_is_not_started_where_somebody_listens() {
    let somebody = Gateway::start();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["hold", "--connections", "10", "--quiet", "--spawn", "--gateway"])
        .arg(gateway_binary())
        .args(["--target", &somebody.edge.to_string(), "--api", &somebody.api.to_string()])
        .output()
        .expect("loadtest starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&format!("--spawn: {}: ", somebody.edge)), "{said}");
}

#[test]
fn a_table_of_budgets_has_a_row_for_each_that_was_asked_for() {
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("budgets-{}", std::process::id()));
    // The gateway's API is on the port behind that.
    let [edge, _api] = ports::free();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["budgets", "--rows", "P4,P5", "--divide", "100", "--port", &edge.port().to_string(), "--gateway"])
        .arg(gateway_binary())
        .arg("--report")
        .arg(&report)
        .output()
        .expect("loadtest starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result = std::fs::read_to_string(report.join("result.json")).expect("the table is written");
    let result: Value = serde_json::from_str(&result).expect("it is JSON");
    let rows = result["result"].as_array().expect("there are rows");
    assert_eq!(rows.iter().map(|row| row["row"].as_str()).collect::<Vec<_>>(), [Some("P4"), Some("P5")]);
    for row in rows {
        assert!(row["figure"].as_f64().is_some_and(|figure| figure > 0.0), "{row} {text}");
        assert!(text.contains(row["budget"].as_str().expect("it has words")), "{text}");
    }
}
