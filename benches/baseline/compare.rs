//! The same load against the baseline and against the gateway, in turns, and the figures side by side.

use clap::Args;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to run.
#[derive(Args)]
pub struct Compare {
    /// Connections that are held, and subscribers of the fan-out. The baseline's are open files.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    connections: u32,
    /// Rounds, each against both.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    /// Length of a stretch of fan-out, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    stretch: u32,
    /// Where the servers listen, one after the other.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:21883")]
    target: SocketAddr,
    /// The server's CPU.
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    server_cpu: usize,
    /// The load generator's.
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    client_cpu: usize,
    /// The load generator, built by `cargo build --release --workspace`.
    #[arg(long, value_name = "PATH", default_value = "target/release/loadtest")]
    loadtest: PathBuf,
    /// The gateway.
    #[arg(long, value_name = "PATH", default_value = "target/release/kittiwake")]
    gateway: PathBuf,
    /// Where reports of the runs go.
    #[arg(long, value_name = "DIR", default_value = "loadtest-report")]
    report: PathBuf,
}

/// A figure of a run.
struct Row {
    what: &'static str,
    unit: &'static str,
    scenario: &'static [&'static str],
    figure: &'static str,
}

const HOLD: &[&str] = &[
    "hold",
    "--clean",
    "--qos",
    "0",
    "--subscribe",
    "bench/all",
    "--push-topic",
    "bench/all",
    "--push-qos",
    "0",
    "--hold",
    "2",
];
const ONE_BY_ONE: &[&str] = &["fanout", "--qos", "0", "--window", "1", "--no-floor", "--pairs", "1"];
const COALESCED: &[&str] = &["fanout", "--qos", "0", "--window", "16", "--no-floor", "--pairs", "1"];

const ROWS: [Row; 6] = [
    Row { what: "memory of the process", unit: "B a connection", scenario: HOLD, figure: "rss_bytes_per_connection" },
    Row {
        what: "memory of the kernel, both ends",
        unit: "B a connection",
        scenario: HOLD,
        figure: "kernel_bytes_per_connection",
    },
    Row { what: "connect and subscribe", unit: "µs CPU", scenario: HOLD, figure: "set_up_us" },
    Row { what: "one message to all", unit: "µs CPU a delivery", scenario: HOLD, figure: "push_us" },
    Row { what: "fan-out, one at a time", unit: "µs CPU a delivery", scenario: ONE_BY_ONE, figure: "server_us" },
    Row { what: "fan-out, 16 under way", unit: "µs CPU a delivery", scenario: COALESCED, figure: "server_us" },
];

/// Runs everything and prints medians.
pub fn run(arguments: &Compare) -> Result<(), String> {
    let this = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let servers = [("tokio-uring, a task per connection", this), ("kittiwake, one shard", arguments.gateway.clone())];
    let mut figures: Vec<[Vec<f64>; 2]> = ROWS.iter().map(|_| Default::default()).collect();
    for round in 1..=arguments.rounds {
        for scenario in [HOLD, ONE_BY_ONE, COALESCED] {
            for (index, (name, path)) in servers.iter().enumerate() {
                println!("round {round} of {}: {}, {name}", arguments.rounds, scenario[0]);
                let found = load(arguments, scenario, path)?;
                for (row, into) in ROWS.iter().zip(&mut figures) {
                    if row.scenario == scenario {
                        // Quartiles of several stretches, or one number.
                        let figure = found
                            .get(row.figure)
                            .and_then(|figure| figure.as_f64().or_else(|| figure.get("median")?.as_f64()));
                        into[index].push(figure.ok_or_else(|| format!("{}: no figure {}", scenario[0], row.figure))?);
                    }
                }
            }
        }
    }
    println!("\n{} connections, medians of {} rounds", arguments.connections, arguments.rounds);
    println!("{:<34} {:>14} {:>14}", "", "task each", "kittiwake");
    for (row, [baseline, gateway]) in ROWS.iter().zip(&mut figures) {
        println!("{:<34} {:>14.2} {:>14.2}  {}", row.what, median(baseline), median(gateway), row.unit);
    }
    Ok(())
}

/// One run of the load generator, which starts the server, and its figures.
fn load(arguments: &Compare, scenario: &[&str], server: &Path) -> Result<Value, String> {
    let report = arguments.report.join("baseline");
    let mut command = Command::new(&arguments.loadtest);
    command.args(scenario).arg("--spawn").arg("--gateway").arg(server);
    command.args(["--gateway-driver", "io_uring", "--gateway-shards", "1", "--quiet", "--handshakes", "64"]);
    command.args(["--connections", &arguments.connections.to_string(), "--target", &arguments.target.to_string()]);
    command.args([
        "--server-cpu",
        &arguments.server_cpu.to_string(),
        "--client-cpu",
        &arguments.client_cpu.to_string(),
    ]);
    command.arg("--report").arg(&report);
    if scenario[0] == "fanout" {
        command.args(["--stretch", &arguments.stretch.to_string()]);
    }
    let output = command.output().map_err(|error| format!("{}: {error}", arguments.loadtest.display()))?;
    let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("the load generator: {}\n{}", output.status, said()));
    }
    let path = report.join("result.json");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut result: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(result["figures"].take())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
