//! What a run found: lines for people as it goes, and one JSON file with the circumstances.

use crate::Failure;
use crate::figures::{Checked, Latency, Moment, Pairs};
use crate::page;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The figures of a run.
#[derive(Debug)]
pub struct Report {
    scenario: &'static str,
    started_unix_s: u64,
    figures: Map<String, Value>,
    /// The scenario's own result, as its struct says.
    result: Value,
    timeline: Vec<Moment>,
    faults: Vec<String>,
    /// The commit of the gateway's binary, where one was started.
    server_commit: Option<String>,
}

impl Report {
    pub fn new(scenario: &'static str) -> Self {
        let started_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Self {
            scenario,
            started_unix_s,
            figures: Map::new(),
            result: Value::Null,
            timeline: Vec::new(),
            faults: Vec::new(),
            server_commit: None,
        }
    }

    /// Notes a figure and prints it with its unit.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>, unit: &str) {
        let value = value.into();
        match value.as_f64().filter(|_| value.is_f64()) {
            Some(number) => println!("{name:<44} {number:>14.3} {unit}"),
            None => println!("{name:<44} {value:>14} {unit}"),
        }
        self.figures.insert(name.to_owned(), value);
    }

    /// Notes the gateway's binary. Its commit is known if it was built in this repository after the last commit.
    pub fn gateway(&mut self, program: &Path) {
        let newer = || {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.canonicalize().ok()?;
            let program = program.canonicalize().ok().filter(|program| program.starts_with(root))?;
            let built = fs::metadata(program).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            let committed: u64 = git(&["log", "-1", "--format=%ct"])?.parse().ok()?;
            (built.as_secs() >= committed).then(commit)
        };
        self.server_commit = Some(newer().unwrap_or_else(|| "unknown".to_owned()));
    }

    /// Notes what is too long to print.
    pub fn detail(&mut self, name: &str, value: Value) {
        self.figures.insert(name.to_owned(), value);
    }

    /// Keeps what the scenario found, whole.
    pub fn result(&mut self, result: &impl Serialize) {
        match serde_json::to_value(result) {
            Ok(value) => self.result = value,
            Err(error) => self.fault(format!("the result cannot be written: {error}")),
        }
    }

    /// Keeps how things stood in the course of the run.
    pub fn timeline(&mut self, moments: Vec<Moment>) {
        self.timeline = moments;
    }

    /// Notes deliveries, and a fault where one was wrong.
    pub fn checked(&mut self, what: &str, checked: &Checked) {
        println!("{what:<44} {:>14} of {} right", checked.right, checked.expected);
        if !checked.is_right() {
            self.fault(format!("{what}: {checked:?}"));
        }
    }

    /// Notes latencies.
    pub fn latency(&mut self, what: &str, latency: &Latency) {
        let Latency { p50_us, p99_us, max_us, .. } = latency;
        println!("{what:<44} p50 {p50_us} p99 {p99_us} max {max_us} µs");
    }

    /// Notes pairs of stretches and prints their medians.
    pub fn pairs(&mut self, name: &str, pairs: &Pairs) {
        for (part, spread, unit) in [
            ("server_us", &pairs.server_us, "µs server CPU"),
            ("floor_us", &pairs.floor_us, "µs, the floor's for the same"),
            ("ratio", &pairs.ratio, ""),
            ("difference_us", &pairs.difference_us, "µs above the floor"),
        ] {
            if let Some(spread) = spread {
                self.quartiles(&format!("{name}_{part}"), &spread.all, unit);
            }
        }
    }

    /// Notes that the run did not find what it should have.
    pub fn fault(&mut self, text: String) {
        println!("FAULT {text}");
        self.faults.push(text);
    }

    /// Whether nothing was wrong.
    pub fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    /// Writes `result.json` into a directory.
    pub fn write(&self, directory: Option<&Path>) -> Result<(), Failure> {
        let Some(directory) = directory else { return Ok(()) };
        fs::create_dir_all(directory)?;
        let path = directory.join("result.json");
        let result = self.json();
        fs::write(&path, serde_json::to_string_pretty(&result)? + "\n")?;
        println!("{}", path.display());
        page::write(&result, directory)
    }

    fn json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "passed": self.passed(),
            "faults": self.faults,
            "started_unix_s": self.started_unix_s,
            "command": without_secrets(std::env::args()),
            "commit": commit(),
            "server_commit": self.server_commit,
            "kernel": read_line("/proc/sys/kernel/osrelease"),
            "machine": machine(),
            "figures": self.figures,
            "result": self.result,
            "timeline": self.timeline,
        })
    }
}

/// A command line that can be shown: what must stay secret is replaced.
fn without_secrets(arguments: impl Iterator<Item = String>) -> Vec<String> {
    const SECRET: &[&str] = &["--password", "--api-key"];
    let mut follows = false;
    let shown = arguments.map(|argument| {
        let (name, value) =
            argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
        let is_secret = SECRET.contains(&name);
        let hidden = core::mem::replace(&mut follows, is_secret && value.is_none());
        match (hidden, is_secret && value.is_some()) {
            (true, _) => "***".to_owned(),
            (false, true) => format!("{name}=***"),
            (false, false) => argument,
        }
    });
    shown.collect()
}

fn machine() -> Value {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
    };
    json!({
        "cpu": field("/proc/cpuinfo", "model name"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field("/proc/meminfo", "MemTotal"),
    })
}

/// The commit this was built from, `+` when files differ from it; unknown outside a repository.
fn commit() -> String {
    let Some(hash) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    let differs = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if differs { hash + "+" } else { hash }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Median and quartiles of a few figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quartiles {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Quartiles {
    /// Between neighbours it takes the point in proportion. None of nothing.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |part: f64| {
            let place = part * last as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self { low: at(0.25), median: at(0.5), high: at(0.75) })
    }

    pub fn json(self) -> Value {
        json!({ "low": self.low, "median": self.median, "high": self.high })
    }
}

impl Report {
    /// Notes a figure that was taken several times: the median, with its quartiles, and every value.
    pub fn quartiles(&mut self, name: &str, figures: &[f64], unit: &str) {
        let Some(found) = Quartiles::of(figures) else { return };
        println!("{name:<44} {:>14.3} {unit} [{:.3} .. {:.3}]", found.median, found.low, found.high);
        let mut value = found.json();
        value["all"] = json!(figures);
        self.figures.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_keeps_secrets_to_itself() {
        let line = "loadtest hold --password hush --api-key=hush --username u --connections 5";
        let shown = without_secrets(line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(shown, "loadtest hold --password *** --api-key=*** --username u --connections 5");
    }

    #[test]
    fn quartiles_lie_where_the_figures_are() {
        let found = Quartiles::of(&[5.0, 1.0, 3.0, 2.0, 4.0]).expect("there are figures");
        assert_eq!(found, Quartiles { low: 2.0, median: 3.0, high: 4.0 });
        assert_eq!(Quartiles::of(&[]), None);
        assert_eq!(Quartiles::of(&[7.0]), Some(Quartiles { low: 7.0, median: 7.0, high: 7.0 }));
    }
}
