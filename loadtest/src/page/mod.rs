//! Owns: `report.html`: one file with every figure and its charts.
//! In: what `result.json` holds. Out: a page, and the comparison's chart as a file of its own.
//! Must not: measure, judge, or refer to anything outside the page; no figure needs a script to be seen.
//! Invariants: what it does not know how to draw it still lists; text from a result is escaped.
//!
//! `shapes` finds what can be drawn · `charts` draws · `compared` the comparison · `markup` and `numbers` below them.

mod charts;
pub mod compared;
mod markup;
mod numbers;
mod shapes;

use crate::Failure;
use charts::{Bar, Bars, Series, Stage};
use markup::escape;
use serde_json::Value;
use shapes::{Found, Pairs};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const STYLE: &str = include_str!("style.css");
const CHART_STYLE: &str = include_str!("chart.css");

/// Figures that stand at the top where a run has them: name, what it says, unit.
const HEADLINES: &[(&str, &str, &str)] = &[
    ("connections", "connections", ""),
    ("rss_bytes_per_connection", "user space a connection", "B"),
    ("kernel_bytes_per_connection", "kernel memory a connection, both ends", "B"),
    ("set_up_us", "server CPU to set one up", "µs"),
    ("server_us", "server CPU a delivery", "µs"),
    ("ratio", "× the bare floor", ""),
    ("accept_us", "bare accept", "µs"),
    ("send_64_us", "bare send of 64 B", "µs"),
    ("receive_16_us", "bare receive of 16 B", "µs"),
];
/// Of them at most.
const HEADLINES_MAX: usize = 4;

/// Writes `report.html`, and of a comparison `chart.svg`, beside a result.
pub fn write(result: &Value, directory: &Path) -> Result<(), Failure> {
    let mut files = vec![("report.html", render(result))];
    if let Some(compared) = compared::of(result) {
        files.push(("chart.svg", compared.svg()));
    }
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The page of a result.
pub fn render(result: &Value) -> String {
    let found = Found::in_result(result);
    let mut page = Page::default();
    page.header(result);
    if let Some(compared) = compared::of(result) {
        page.raw(&compared.html());
    } else {
        page.tiles(&found);
    }
    page.course(result);
    page.memory(&found);
    page.pairs(&found.pairs);
    page.latencies(&found);
    page.tables(&found);
    page.origin(result);
    let name = escape(text(result, "scenario"));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>loadtest {name}</title>\n\
         <style>\n{STYLE}{CHART_STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
        page.body
    )
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[derive(Debug, Default)]
struct Page {
    body: String,
}

/// A drawing with its caption.
fn figure(title: &str, about: &str, drawing: &markup::Drawing) -> String {
    let about = if about.is_empty() { String::new() } else { format!("<span>{}</span>", escape(about)) };
    format!("<figure><figcaption>{}{about}</figcaption>{}</figure>\n", escape(title), drawing.inline(title))
}

impl Page {
    fn raw(&mut self, html: &str) {
        self.body.push_str(html);
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.body.write_fmt(arguments).expect("a string takes what is written to it");
    }

    /// A titled grid of charts, if there are any.
    fn charts(&mut self, title: &str, about: &str, figures: &[String]) {
        if !figures.is_empty() {
            let (title, about, figures) = (escape(title), escape(about), figures.concat());
            self.put(format_args!(
                "<h2>{title}</h2>\n<p class=\"quiet\">{about}</p>\n<div class=\"charts\">\n{figures}</div>\n"
            ));
        }
    }

    fn header(&mut self, result: &Value) {
        let name = escape(text(result, "scenario"));
        let date = numbers::date(result["started_unix_s"].as_u64().unwrap_or(0));
        let (class, verdict) = if result["passed"] == true { ("passed", "passed") } else { ("failed", "failed") };
        let machine = &result["machine"];
        let about =
            escape(&format!("{}, {} CPUs, Linux {}", text(machine, "cpu"), machine["cpus"], text(result, "kernel")));
        self.put(format_args!(
            "<header>\n<h1>loadtest {name}</h1>\n<p><span class=\"verdict {class}\">{verdict}</span> \
             <span class=\"quiet\">{date} UTC · {about}</span></p>\n</header>\n"
        ));
        let faults: Vec<&str> = result["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !faults.is_empty() {
            let items: String = faults.iter().map(|fault| format!("<li>{}</li>", escape(fault))).collect();
            self.put(format_args!(
                "<div class=\"faults\"><p>What was not as it should be:</p><ul>{items}</ul></div>\n"
            ));
        }
    }

    fn tiles(&mut self, found: &Found) {
        let mut tiles = String::new();
        let known = HEADLINES.iter().filter_map(|(name, says, unit)| Some((found.number(name)?, says, unit)));
        for (value, says, unit) in known.take(HEADLINES_MAX) {
            let value = numbers::short(value);
            write!(tiles, "<div><b>{value} {unit}</b><span>{says}</span></div>").expect("a string takes it");
        }
        if !tiles.is_empty() {
            self.put(format_args!("<div class=\"tiles\">{tiles}</div>\n"));
        }
    }

    /// What happened over time.
    fn course(&mut self, result: &Value) {
        let moments = result["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
        if moments.len() < 2 {
            return;
        }
        let stages = stages_of(moments);
        let line = |name: &str, scale: f64| -> Vec<(f64, f64)> {
            let at = |moment: &Value| Some((moment["seconds"].as_f64()?, moment[name].as_f64()? * scale));
            moments.iter().filter_map(at).collect()
        };
        let rise = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            let step =
                |pair: &[(f64, f64)]| (pair[1].0, (pair[1].1 - pair[0].1).max(0.0) / (pair[1].0 - pair[0].0).max(1e-3));
            points.windows(2).map(step).collect()
        };
        let (ready, cpu) = (line("ready", 1.0), line("server_cpu_seconds", 1.0));
        let mut figures = Vec::new();
        for (title, about, unit, points) in [
            ("Connections", "connected and, where they are to be, subscribed", "", ready.clone()),
            ("Rate", "new connections a second", "/s", rise(&ready)),
            ("Server memory", "resident, MB", "MB", line("server_rss_bytes", 1e-6)),
            ("Kernel memory", "slab of both ends, MB", "MB", line("slab_bytes", 1e-6)),
            ("Server CPU", "CPUs in use", "CPUs", rise(&cpu)),
        ] {
            if points.len() > 1 {
                let series = [Series { name: title.to_owned(), points }];
                figures.push(figure(title, about, &charts::over_time(unit, &series, &stages)));
            }
        }
        self.charts("The run", "Stages alternate in shade.", &figures);
    }

    fn memory(&mut self, found: &Found) {
        let names = [
            ("rss_bytes_per_connection", "user space", true),
            ("anonymous_bytes_per_connection", "without files", true),
            ("kernel_bytes_per_connection", "kernel, both ends", false),
            ("kernel_bytes_per_bare_socket", "kernel, bare", false),
        ];
        let bar = |&(name, says, ours): &(&str, &str, bool)| {
            Some(Bar { name: says.to_owned(), value: Some(found.number(name)?), ours, ..Bar::default() })
        };
        let bars: Vec<Bar> = names.iter().filter_map(bar).collect();
        if !bars.is_empty() {
            let bars = Bars { unit: "bytes".to_owned(), bars, floor: None };
            let about = "resident memory with all connections less that of a fresh process; the kernel's is its slab";
            self.charts("Memory of a connection", "", &[figure("Bytes a connection", about, &bars.draw())]);
        }
    }

    fn pairs(&mut self, pairs: &[(String, Pairs)]) {
        let mut figures = Vec::new();
        for (name, pair) in pairs {
            let bar = |name: &str, spread: &shapes::Spread, ours| Bar {
                name: name.to_owned(),
                value: Some(spread.median),
                range: Some((spread.low, spread.high)),
                ours,
                note: String::new(),
            };
            let sides = [("server", &pair.server, true), ("floor", &pair.floor, false)];
            let bars =
                sides.iter().filter_map(|(name, spread, ours)| Some(bar(name, spread.as_ref()?, *ours))).collect();
            let about = pair.ratio.as_ref().map_or_else(String::new, |ratio| {
                let [low, median, high] = [ratio.low, ratio.median, ratio.high].map(|value| format!("{value:.2}"));
                format!("{median} × the floor [{low} .. {high}]")
            });
            let floor = pair.floor.as_ref().map(|floor| floor.median);
            let unit = format!("µs of server CPU a {}", pair.unit);
            figures.push(figure(name, &about, &Bars { unit, bars, floor }.draw()));
        }
        let about = "Medians and quartiles of stretches taken in turns with bare sockets doing the same.";
        self.charts("CPU", about, &figures);
    }

    fn latencies(&mut self, found: &Found) {
        let mut figures = Vec::new();
        for (name, latency) in &found.latencies {
            let series = [Series { name: name.clone(), points: latency.curve.clone() }];
            let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(numbers::microseconds);
            let about = format!("half within {p50}, 99 % within {p99}, all within {max}");
            figures.push(figure(name, &about, &charts::percentiles(&series)));
        }
        let about = "From when a message was due, not from when it could be sent. The scale is logarithmic both ways.";
        self.charts("Latency", about, &figures);
    }

    fn tables(&mut self, found: &Found) {
        if found.rows.is_empty() {
            return;
        }
        let mut rows = String::new();
        for (name, value) in &found.rows {
            let (name, value) = (escape(name), escape(value));
            writeln!(rows, "<tr><td>{name}</td><td class=\"words\">{value}</td></tr>").expect("a string takes it");
        }
        self.put(format_args!(
            "<h2>All figures</h2>\n<div class=\"scroll\"><table><tbody>\n{rows}</tbody></table></div>\n"
        ));
    }

    /// Where it was measured and how to do it again.
    fn origin(&mut self, result: &Value) {
        let machine = &result["machine"];
        let command: Vec<String> =
            result["command"].as_array().into_iter().flatten().filter_map(Value::as_str).map(quoted).collect();
        let mut facts = String::new();
        for (name, value) in [
            ("CPU", format!("{} × {}", machine["cpus"], text(machine, "cpu"))),
            ("Memory", text(machine, "memory").to_owned()),
            ("Kernel", text(result, "kernel").to_owned()),
            ("loadtest's commit", text(result, "commit").to_owned()),
            ("Server's commit", text(result, "server_commit").to_owned()),
        ] {
            if !value.is_empty() {
                writeln!(facts, "<dt>{name}</dt><dd>{}</dd>", escape(&value)).expect("a string takes it");
            }
        }
        let whole = serde_json::to_string_pretty(result).unwrap_or_default();
        self.put(format_args!(
            "<h2>Where and how</h2>\n<dl class=\"facts\">{facts}</dl>\n<pre>{}</pre>\n\
             <details><summary>result.json</summary><pre>{}</pre></details>\n",
            escape(&command.join(" ")),
            escape(&whole)
        ));
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Runs of moments with one stage.
fn stages_of(moments: &[Value]) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for moment in moments {
        let (name, at) = (text(moment, "stage"), moment["seconds"].as_f64().unwrap_or(0.0));
        match stages.last_mut() {
            Some(last) if last.name == name => last.to = at,
            last => {
                let from = last.map_or(at, |last| {
                    last.to = at;
                    at
                });
                stages.push(Stage { name: name.to_owned(), from, to: at });
            }
        }
    }
    stages
}

#[cfg(test)]
mod tests;
