//! Instructions of the hot functions, counted by valgrind's callgrind: the same on a noisy machine as on a quiet one, so
//! that a regression shows. Compares with `benches/instructions.toml` and fails when a figure has grown by more than its
//! tolerance.
//!
//! ```text
//! cargo bench -p benches --bench instructions                 compare; exit 1 on a regression
//! cargo bench -p benches --bench instructions -- decode       only what has this in its name
//! cargo bench -p benches --bench instructions -- --bless      write what was counted as the new table
//! ```
//! The counts are those of the toolchain in use and of x86-64: another compiler gives others, and the table is made anew.

#![allow(missing_docs, reason = "a benchmark")]

mod cases;
#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../tests/conformance/client.rs"]
mod client;
#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../tests/conformance/node.rs"]
mod node;
#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../tests/conformance/websocket.rs"]
mod websocket;

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// As the gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs that are not counted, before the one that is.
const WARM_UP_RUNS: usize = 3;
/// The argument by which this program calls itself below valgrind.
const COUNTED: &str = "--counted";
/// Counting begins and ends with the measured function; what follows it writes a file and starts from zero. Whole names:
/// callgrind 3.19 confuses two patterns that begin alike.
const COUNT: &str = "--toggle-collect=instructions::cases::Case::measured_run";
const WRITE: &str = "--dump-before=instructions::cases::Case::written_down";
const TABLE: &str = "instructions.toml";

/// The table: instructions of one unit of each case.
#[derive(Deserialize)]
struct Table {
    /// What a figure may grow by where nothing else is said.
    tolerance_percent: f64,
    /// Where more is needed.
    tolerances_percent: BTreeMap<String, f64>,
    instructions: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (flags, filters): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|argument| argument.starts_with("--"));
    let filter = filters.first().map_or("", String::as_str);
    let result = match flags.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [COUNTED] => {
            run_cases(filter);
            return ExitCode::SUCCESS;
        }
        [] => count(filter).and_then(|counts| compare(&counts, filter)),
        ["--bless"] if filter.is_empty() => count(filter).and_then(|counts| bless(&counts)),
        _ => Err("usage: instructions [NAME], or instructions --bless".to_owned()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Below valgrind: each case once, its name on a line.
fn run_cases(filter: &str) {
    for make in cases::all() {
        let mut case = make();
        if case.name.contains(filter) {
            (0..WARM_UP_RUNS).for_each(|_| case.warm_up());
            case.prepare();
            case.measured_run();
            case.written_down();
            println!("{}\t{}", case.units, case.name);
        }
    }
}

/// Instructions of one unit of each case, in the order of the cases.
fn count(filter: &str) -> Result<Vec<(String, f64)>, String> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("instructions-{}", std::process::id()));
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let counts = count_in(&directory, filter);
    // It only holds valgrind's files; one that stays behind harms nobody.
    let _ = fs::remove_dir_all(&directory);
    counts
}

fn count_in(directory: &Path, filter: &str) -> Result<Vec<(String, f64)>, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let files = directory.join("count");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--combine-dumps=no", COUNT, WRITE])
        .arg(format!("--callgrind-out-file={}", files.display()))
        .arg(this)
        .args([COUNTED, filter])
        .output()
        .map_err(|error| format!("valgrind: {error}; it comes with the package of that name"))?;
    if !output.status.success() {
        return Err(format!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let names = String::from_utf8(output.stdout).map_err(|error| format!("the names: {error}"))?;
    let mut counts = Vec::new();
    for (number, line) in names.lines().enumerate() {
        let (units, name) = line.split_once('\t').ok_or("a case printed something")?;
        let units: f64 = units.parse().map_err(|error| format!("{line}: {error}"))?;
        let path = PathBuf::from(format!("{}.{}", files.display(), number + 1));
        let total = total(&path).ok_or_else(|| format!("{name}: no total in {}", path.display()))?;
        counts.push((name.to_owned(), total / units));
    }
    if counts.is_empty() { Err("no case has such a name".to_owned()) } else { Ok(counts) }
}

/// The sum in a file of callgrind's.
fn total(path: &Path) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals:"))?;
    line.split_whitespace().next()?.parse().ok().filter(|&total: &f64| total > 0.0)
}

fn table_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE)
}

fn read_table() -> Result<Table, String> {
    let text = fs::read_to_string(table_path()).map_err(|error| format!("{TABLE}: {error}"))?;
    toml::from_str(&text).map_err(|error| format!("{TABLE}: {error}"))
}

/// Prints each figure beside the table's; false when one has grown too much, or the table lacks one or has one too many.
fn compare(counts: &[(String, f64)], filter: &str) -> Result<bool, String> {
    let table = read_table()?;
    let mut held = true;
    println!("{:<48} {:>12} {:>12} {:>8}", "instructions of", "table", "now", "change");
    for (name, now) in counts {
        let Some(&before) = table.instructions.get(name) else {
            println!("{name:<48} {:>12} {now:>12.1}          NOT IN THE TABLE", "");
            held = false;
            continue;
        };
        let tolerance = table.tolerances_percent.get(name).copied().unwrap_or(table.tolerance_percent);
        let change = (now / before - 1.0) * 100.0;
        let word = if change > tolerance {
            held = false;
            "  REGRESSION"
        } else if change < -tolerance {
            "  better: bless it"
        } else {
            ""
        };
        println!("{name:<48} {before:>12.1} {now:>12.1} {change:>+7.2}%{word}");
    }
    let is_counted = |name: &String| counts.iter().any(|(counted, _)| counted == name);
    for name in table.instructions.keys().filter(|name| filter.is_empty() && !is_counted(name)) {
        println!("{name:<48} is in the table, and is no case");
        held = false;
    }
    Ok(held)
}

/// Writes the table; tolerances stay.
fn bless(counts: &[(String, f64)]) -> Result<bool, String> {
    let text = table_text(&read_table()?, counts).expect("a String takes everything");
    fs::write(table_path(), text).map_err(|error| format!("{TABLE}: {error}"))?;
    println!("{TABLE} has {} figures", counts.len());
    Ok(true)
}

fn table_text(old: &Table, counts: &[(String, f64)]) -> Result<String, std::fmt::Error> {
    let mut text = String::from(
        "# Instructions of one unit of each case in benches/cases, counted by valgrind's callgrind on x86-64.\n\
         # Made by: cargo bench -p benches --bench instructions -- --bless\n",
    );
    writeln!(text, "\n# How much a figure may grow before the comparison fails.")?;
    writeln!(text, "tolerance_percent = {:?}", old.tolerance_percent)?;
    writeln!(text, "\n[tolerances_percent]")?;
    for (name, percent) in &old.tolerances_percent {
        writeln!(text, "{name:?} = {percent:?}")?;
    }
    writeln!(text, "\n[instructions]")?;
    for (name, count) in counts {
        writeln!(text, "{name:?} = {count:.1}")?;
    }
    Ok(text)
}
