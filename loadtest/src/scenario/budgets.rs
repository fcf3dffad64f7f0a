//! Every row of the budgets that loadtest can measure, as a table: each is one or two runs of this program, whose
//! results are read and compared with the budget.
//!
//! A run that fails, is ended for its time or finds a fault makes its row not met: a figure without a check is none.

use super::Verdict;
use crate::Failure;
use crate::cli::{Budgets, Seconds};
use crate::interrupt::{self, Started};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a run.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a run that was told to end may take to say what it has measured, and for its server to end.
const END_TIMEOUT: Duration = Duration::from_secs(90);

/// How the value of a row comes about.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// What the one run says at this place.
    At(&'static str),
    /// What the first run says, divided by what the second one says, each at its place.
    Ratio(&'static str, &'static str),
    /// What the first run says beyond what the second says at that place, as a share of what the second says at the other,
    /// and 1.
    Beyond(&'static str, &'static str),
    /// 1 if the run found no fault.
    Passed,
}

/// A row and how it is measured.
struct Row {
    name: &'static str,
    budget: &'static str,
    unit: &'static str,
    /// Arguments of each run. `{N}` stands for a count that is divided as the command line says.
    runs: &'static [&'static str],
    value: Reading,
    bound: Bound,
}

/// What meets a budget.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

const FANOUT: &str = "/figures/ratio/median";

/// The rows, in the order of the budgets.
const ROWS: &[Row] = &[
    Row {
        name: "M1",
        budget: "user-space memory of an idle connection ≤ 384 B",
        unit: "B",
        runs: &["hold --connections {200000} --handshakes 64 --push-everyone --expect-free"],
        value: Reading::At("/figures/rss_bytes_per_connection"),
        bound: Bound::AtMost(384.0),
    },
    Row {
        name: "M1-ws",
        budget: "the same over WebSocket ≤ 400 B",
        unit: "B",
        runs: &["hold --protocol mqtt-ws --connections {200000} --handshakes 64 --push-everyone --expect-free"],
        value: Reading::At("/figures/rss_bytes_per_connection"),
        bound: Bound::AtMost(400.0),
    },
    Row {
        name: "M2",
        budget: "kernel memory of an idle connection ≤ 1.10 × a bare accepted socket, the client's ends being the same",
        unit: "×",
        runs: &[
            "hold --connections {200000} --handshakes 64",
            "@floor --hold {200000} --connections {1000} --rounds 1 --repeats 1",
        ],
        value: Reading::Beyond("/figures/kernel_bytes_per_connection", "/figures/kernel_bytes_per_bare_socket"),
        bound: Bound::AtMost(1.1),
    },
    Row {
        name: "M4",
        budget: "1,000,000 connections reached by a broadcast and by unicast, dropped and back, nothing left behind",
        unit: "",
        runs: &["c1m --connections {1000000}"],
        value: Reading::Passed,
        bound: Bound::AtLeast(1.0),
    },
    Row {
        name: "P1",
        budget: "fan-out, one message at a time ≤ 1.15 × bare send",
        unit: "×",
        runs: &["fanout --connections {10000} --window 1 --stretch 1"],
        value: Reading::At(FANOUT),
        bound: Bound::AtMost(1.15),
    },
    Row {
        name: "P2",
        budget: "fan-out, 16 under way ≤ 1.25 × bare send of the same bytes",
        unit: "×",
        runs: &["fanout --connections {10000} --window 16 --stretch 1"],
        value: Reading::At(FANOUT),
        bound: Bound::AtMost(1.25),
    },
    Row {
        name: "P2-send",
        budget: "fan-out, 16 under way: ≥ 12 messages per send",
        unit: "",
        runs: &["fanout --connections {10000} --window 16 --stretch 1 --no-floor"],
        value: Reading::At("/figures/messages_per_send/median"),
        bound: Bound::AtLeast(12.0),
    },
    Row {
        name: "P3",
        budget: "QoS 1, one at a time ≤ 1.2 × (bare send + receive)",
        unit: "×",
        runs: &["fanout --connections {10000} --window 1 --qos 1 --stretch 1"],
        value: Reading::At(FANOUT),
        bound: Bound::AtMost(1.2),
    },
    Row {
        name: "P3-16",
        budget: "QoS 1, 16 under way ≤ 1.0 µs a delivery",
        unit: "µs",
        runs: &["fanout --connections {10000} --window 16 --qos 1 --stretch 1 --no-floor"],
        value: Reading::At("/figures/server_us/median"),
        bound: Bound::AtMost(1.0),
    },
    Row {
        name: "P4",
        budget: "keep-alive answered ≤ 1.2 × (bare receive + send)",
        unit: "×",
        runs: &["heartbeat --connections {10000} --stretch 1"],
        value: Reading::At("/result/cost/ratio/median"),
        bound: Bound::AtMost(1.2),
    },
    Row {
        name: "P5",
        budget: "connect and subscribe ≤ 1.3 × (bare accept + 2 receives + 2 sends)",
        unit: "×",
        runs: &["churn --connections {10000} --guests {5000} --rate 0"],
        value: Reading::At("/result/set_up/ratio/median"),
        bound: Bound::AtMost(1.3),
    },
    Row {
        name: "P5-flat",
        budget: "the same beside 200,000 and on one topic with them ≤ 1.15 × beside 10,000",
        unit: "×",
        runs: &["churn --connections {200000} --beside {10000} --guests {5000} --rate 0 --subscribe load/churn"],
        value: Reading::At("/result/beside/ratio/median"),
        bound: Bound::AtMost(1.15),
    },
    Row {
        name: "P5-1M",
        budget: "connect and subscribe beside 1,000,000 and on one topic with them ≤ 1.3 × (bare accept + 2 receives + 2 sends)",
        unit: "×",
        runs: &[
            "churn --connections {1000000} --guests {4000} --rate 0 --rounds 15 --subscribe load/churn --handshakes 512 --patience 120",
        ],
        value: Reading::At("/result/set_up/ratio/median"),
        bound: Bound::AtMost(1.3),
    },
    // At one rate: a client beside a million is slower itself, and a shard with less to do in a turn takes more for each.
    Row {
        name: "P5-1M-flat",
        budget: "the same at 15,000 a second beside 1,000,000 and on one topic with them ≤ 1.15 × beside 10,000",
        unit: "×",
        runs: &[
            "churn --connections {1000000} --beside {10000} --guests {4000} --rate 15000 --rounds 15 --subscribe load/churn --handshakes 512 --patience 120",
        ],
        value: Reading::At("/result/beside/ratio/median"),
        bound: Bound::AtMost(1.15),
    },
    Row {
        name: "P6",
        budget: "unicast by PushStream, 16 in a batch, all threads ≤ bare send + 3.5 µs",
        unit: "µs",
        runs: &["unicast --connections {10000} --batch 16 --window 512 --stretch 1"],
        value: Reading::At("/result/cost/difference_us/median"),
        bound: Bound::AtMost(3.5),
    },
    Row {
        name: "P7",
        budget: "a message beside 200,000 idle connections ≤ 1.15 × beside 10,000",
        unit: "×",
        runs: &[
            "fanout --connections {5000} --idle {195000} --window 1 --stretch 1 --no-floor",
            "fanout --connections {5000} --idle {5000} --window 1 --stretch 1 --no-floor",
        ],
        value: Reading::Ratio("/figures/server_us/median", "/figures/server_us/median"),
        bound: Bound::AtMost(1.15),
    },
    Row {
        name: "flood",
        budget: "a connection refused for its address's rate ≤ 1.5 × bare accept and close",
        unit: "×",
        runs: &["flood --connections {20000} --stretch 0.2"],
        value: Reading::At("/result/cost/ratio/median"),
        bound: Bound::AtMost(1.5),
    },
    Row {
        name: "flood-others",
        budget: "others' pings, p99, in such a flood ≤ 2 × beside the same flood at a bare sink",
        unit: "×",
        runs: &["flood --connections {1000} --stretch 2 --pairs 27"],
        value: Reading::At("/result/p99_ratio/median"),
        bound: Bound::AtMost(2.0),
    },
    Row {
        name: "P11",
        budget: "others' turn latency while a broadcast to 1,000,000 runs ≤ 2 ms (a client's pings, p99)",
        unit: "µs",
        runs: &["c1m --connections {1000000}"],
        value: Reading::At("/result/probe_during_broadcast/p99_us"),
        bound: Bound::AtMost(2_000.0),
    },
    Row {
        name: "P11-turns",
        budget: "of the server's turns meanwhile at most 1 % take more than 2 ms",
        unit: "%",
        runs: &["c1m --connections {1000000}"],
        value: Reading::At("/result/turns_during_broadcast/percent_longer_than_2_ms"),
        bound: Bound::AtMost(1.0),
    },
];

/// A row as it came out.
#[derive(Debug, Serialize)]
pub struct Found {
    pub row: String,
    pub budget: String,
    pub figure: Option<f64>,
    pub unit: String,
    pub met: bool,
    pub commands: Vec<String>,
    /// Why there is no figure, or what was wrong on the way.
    pub remarks: Vec<String>,
}

pub fn run(arguments: &Budgets) -> Result<Verdict, Failure> {
    for name in &arguments.rows {
        if !ROWS.iter().any(|row| row.name == name) {
            let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            return Err(format!("--rows: there is no {name}; there are {}", known.join(", ")).into());
        }
    }
    if let Some(data_dir) = arguments.data_dir.as_ref().filter(|data_dir| data_dir.exists()) {
        return Err(
            format!("--data-dir: {} is there already; what it stores would be measured", data_dir.display()).into()
        );
    }
    let stop = interrupt::watch()?;
    let (mut played, mut found) = (Played::new(), Vec::new());
    for row in ROWS.iter().filter(|row| arguments.rows.is_empty() || arguments.rows.iter().any(|name| row.name == name))
    {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let one = measure(row, arguments, &mut played, &stop)?;
        print(&one);
        found.push(one);
    }
    println!("\n| row | budget | figure | met |\n|---|---|---|---|");
    for row in &found {
        let figure = row.figure.map_or_else(|| "none".to_owned(), |figure| format!("{figure:.3} {}", row.unit));
        println!("| {} | {} | {figure} | {} |", row.row, row.budget, if row.met { "yes" } else { "no" });
    }
    fs::create_dir_all(&arguments.report)?;
    let path = arguments.report.join("result.json");
    fs::write(&path, serde_json::to_string_pretty(&json!({ "scenario": "budgets", "result": found }))? + "\n")?;
    println!("{}", path.display());
    Ok(if found.iter().all(|row| row.met) { Verdict::Passed } else { Verdict::Failed })
}

fn print(found: &Found) {
    let figure = found.figure.map_or_else(|| "no figure".to_owned(), |figure| format!("{figure:.3} {}", found.unit));
    println!("{:<8} {:<9} {figure}: {}", found.row, if found.met { "met" } else { "NOT MET" }, found.budget);
    for remark in &found.remarks {
        println!("         {remark}");
    }
}

/// What runs have said, or why they have not. Rows that want the same run share it.
type Played = BTreeMap<&'static str, Result<Value, String>>;

fn measure(row: &Row, arguments: &Budgets, played: &mut Played, stop: &AtomicBool) -> Result<Found, Failure> {
    let (mut results, mut commands, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for (at, &line) in row.runs.iter().enumerate() {
        let directory = arguments.report.join(format!("{}-{}", row.name, at + 1));
        let words = words(line, arguments, &directory);
        commands.push(format!("loadtest {}", words.join(" ")));
        let result = match played.entry(line) {
            Entry::Occupied(result) => result.into_mut(),
            Entry::Vacant(place) => place.insert(play(&words, &directory, arguments, stop)?),
        };
        match result {
            Ok(result) => {
                remarks.extend(faults(result));
                results.push(result.clone());
            }
            Err(remark) => remarks.push(remark.clone()),
        }
    }
    let figure = value(row.value, &results, row.runs.len());
    // What was wrong on the way spoils the row, whatever the figure.
    let met = remarks.is_empty() && figure.is_some_and(|figure| row.bound.holds(figure));
    let (name, budget, unit) = (row.name.to_owned(), row.budget.to_owned(), row.unit.to_owned());
    Ok(Found { row: name, budget, figure, unit, met, commands, remarks })
}

/// The words of a run: those of the row, with counts divided, and where the gateway is. A row that begins with `@`
/// needs no gateway.
fn words(line: &str, arguments: &Budgets, directory: &Path) -> Vec<String> {
    let bare = line.starts_with('@');
    let mut words: Vec<String> =
        line.trim_start_matches('@').split_whitespace().map(|word| count(word, arguments)).collect();
    let mut add = |name: &str, value: Option<String>| {
        words.push(name.to_owned());
        words.extend(value);
    };
    if !bare {
        add("--spawn", None);
        add("--gateway", Some(arguments.gateway.display().to_string()));
        add("--gateway-driver", Some(arguments.gateway_driver.name().to_owned()));
        if let Some(data_dir) = &arguments.data_dir {
            let own = data_dir.join(directory.file_name().unwrap_or_default());
            add("--gateway-env", Some(format!("KITTIWAKE_STORE_DATA_DIR={}", own.display())));
        }
        add("--target", Some(format!("127.0.0.1:{}", arguments.port)));
        add("--api", Some(format!("127.0.0.1:{}", arguments.port + 1)));
    }
    for (name, cpu) in [("--server-cpu", arguments.server_cpu), ("--client-cpu", arguments.client_cpu)] {
        if let Some(cpu) = cpu {
            add(name, Some(cpu.to_string()));
        }
    }
    add("--quiet", None);
    add("--report", Some(directory.display().to_string()));
    words
}

/// `{N}` divided as the command line says, and at least 100; any other word as it is.
fn count(word: &str, arguments: &Budgets) -> String {
    let number =
        word.strip_prefix('{').and_then(|word| word.strip_suffix('}')).and_then(|word| word.parse::<u32>().ok());
    number.map_or_else(|| word.to_owned(), |number| (number / arguments.divide).max(100).to_string())
}

/// Runs this program and reads its result; a remark where there is none.
fn play(
    words: &[String],
    directory: &Path,
    arguments: &Budgets,
    stop: &AtomicBool,
) -> Result<Result<Value, String>, Failure> {
    println!("loadtest {}", words.join(" "));
    let path = directory.join("result.json");
    if path.exists() {
        fs::remove_file(&path)?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    // Ctrl-C is ours to pass on: it would come twice, which ends a run at once.
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut child = command.spawn()?;
    let run = Started::new(child.id(), Signal::INT)?;
    let Seconds(timeout) = arguments.row_timeout;
    let (started, mut told) = (Instant::now(), None);
    while child.try_wait()?.is_none() {
        let patience_ends = told.map_or(timeout, |told| told + END_TIMEOUT);
        if started.elapsed() > patience_ends || (told.is_none() && stop.load(Ordering::Relaxed)) {
            // As Ctrl-C does: it ends with what was measured, and the second time at once.
            run.tell(Signal::INT)?;
            told = Some(started.elapsed());
        }
        thread::sleep(LOOK_AGAIN);
    }
    let Ok(text) = fs::read_to_string(&path) else { return Ok(Err("the run wrote no result".to_owned())) };
    Ok(serde_json::from_str(&text).map_err(|error| format!("the result cannot be read: {error}")))
}

fn faults(result: &Value) -> Vec<String> {
    let faults = result["faults"].as_array().into_iter().flatten();
    faults.map(|fault| fault.as_str().unwrap_or_default().to_owned()).collect()
}

/// None unless every run has the figure.
fn value(how: Reading, results: &[Value], runs: usize) -> Option<f64> {
    if results.len() != runs {
        return None;
    }
    let at = |run: usize, place: &str| results.get(run)?.pointer(place)?.as_f64();
    match how {
        Reading::At(place) => at(0, place),
        Reading::Ratio(first, second) => Some(at(0, first)? / at(1, second)?),
        Reading::Beyond(place, whole) => Some(1.0 + (at(0, place)? - at(1, place)?) / at(1, whole)?),
        Reading::Passed => Some(if results.iter().all(|result| result["passed"] == true) { 1.0 } else { 0.0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Arguments, Scenario};
    use clap::Parser;

    fn arguments(more: &[&str]) -> Budgets {
        let words = ["loadtest", "budgets"].iter().chain(more);
        match Arguments::try_parse_from(words).expect("it is well-formed").scenario {
            Scenario::Budgets(budgets) => budgets,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_row_is_a_command_that_this_program_takes() {
        let arguments = arguments(&["--server-cpu", "0", "--client-cpu", "1", "--data-dir", "data"]);
        for row in ROWS {
            for line in row.runs {
                let words = words(line, &arguments, Path::new("x"));
                let parsed = Arguments::try_parse_from(std::iter::once("loadtest".to_owned()).chain(words));
                assert!(parsed.is_ok(), "{}: {}", row.name, parsed.err().map(|e| e.to_string()).unwrap_or_default());
            }
        }
    }

    #[test]
    fn a_run_with_two_gateways_has_room_for_the_clients_of_both() {
        let words = "loadtest churn --spawn --connections 200000 --beside 10000 --guests 5000".split(' ');
        let arguments = Arguments::try_parse_from(words).expect("it is well-formed");
        assert_eq!(super::super::needs(&arguments.scenario).connections, 220_000);
    }

    #[test]
    fn each_run_stores_below_a_directory_of_its_own() {
        let arguments = arguments(&["--data-dir", "data"]);
        let stored = |line| words(line, &arguments, Path::new("report/M1-1")).join(" ");
        assert!(stored("hold").contains("--gateway-env KITTIWAKE_STORE_DATA_DIR=data/M1-1"));
        assert!(!stored("@floor").contains("--gateway-env"), "there is no gateway");
    }

    #[test]
    fn counts_are_divided_and_other_words_are_not() {
        let arguments = arguments(&["--divide", "100"]);
        assert_eq!(
            ["{200000}", "{1000}", "16", "fanout"].map(|word| count(word, &arguments)),
            ["2000", "100", "16", "fanout"]
        );
    }

    #[test]
    fn a_row_needs_all_its_runs_and_a_figure_on_the_right_side_of_its_bound() {
        let run = |number: f64| json!({ "passed": true, "result": { "x": number } });
        let ratio = Reading::Ratio("/result/x", "/result/x");
        assert_eq!(value(ratio, &[run(3.0), run(2.0)], 2), Some(1.5));
        assert_eq!(value(ratio, &[run(3.0)], 2), None);
        let both = |number: f64| json!({ "x": number, "y": 4.0 });
        assert_eq!(value(Reading::Beyond("/x", "/y"), &[both(9.0), both(8.0)], 2), Some(1.25));
        assert_eq!(value(Reading::At("/result/y"), &[run(3.0)], 1), None);
        assert_eq!(value(Reading::Passed, &[json!({ "passed": false })], 1), Some(0.0));
        assert!(Bound::AtMost(1.2).holds(1.2) && !Bound::AtMost(1.2).holds(1.21));
        assert!(Bound::AtLeast(12.0).holds(12.0) && !Bound::AtLeast(12.0).holds(11.9));
    }

    #[test]
    fn faults_of_a_run_are_remarks_of_its_row() {
        assert_eq!(faults(&json!({ "faults": ["lost"] })), ["lost"]);
        assert!(faults(&json!({})).is_empty());
    }
}
