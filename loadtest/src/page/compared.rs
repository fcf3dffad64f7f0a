//! The comparison: a chart for each row, a table of all, and what could not be measured.

use super::charts::{Bar, Bars, Series, WIDTH, percentiles};
use super::markup::{Anchor, Drawing, escape};
use super::numbers::{microseconds, short};
use super::shapes::{Latency, Spread};
use super::{CHART_STYLE, figure, text};
use serde_json::Value;
use std::fmt::Write;

/// Between charts in the file, and around them.
const GAP: f64 = 24.0;
/// Above a chart in the file: its title and what it says.
const TITLE_HEIGHT: f64 = 40.0;

/// A comparison's part of a result.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    result: &'a Value,
    targets: &'a [Value],
    rows: &'a [Value],
}

/// It, if the result is a comparison's.
pub fn of(result: &Value) -> Option<Compared<'_>> {
    let found = &result["result"];
    let (targets, rows) = (found["targets"].as_array()?, found["rows"].as_array()?);
    let whole = rows.iter().all(|row| row["cells"].is_array());
    whole.then_some(Compared { result: found, targets, rows })
}

impl Compared<'_> {
    /// Its part of the page.
    pub fn html(&self) -> String {
        let mut html = format!("<p>{}</p>\n<div class=\"charts\">\n", escape(text(self.result, "about")));
        for row in self.rows {
            html += &figure(text(row, "title"), text(row, "about"), &self.bars(row).draw());
        }
        html += "</div>\n";
        html += &self.table();
        html += &self.latencies();
        html += &self.left_out();
        html
    }

    /// Its charts as one file.
    pub fn svg(&self) -> String {
        let drawings: Vec<(&Value, Drawing)> = self.rows.iter().map(|row| (row, self.bars(row).draw())).collect();
        let heights = drawings.chunks(2).map(|pair| pair.iter().map(|(_, drawing)| drawing.height).fold(0.0, f64::max));
        let height = heights.map(|height| height + TITLE_HEIGHT + GAP).sum::<f64>() + GAP;
        let mut sheet = Drawing::new(2.0 * WIDTH + 3.0 * GAP, height);
        let mut y = GAP;
        for pair in drawings.chunks(2) {
            for ((row, drawing), column) in pair.iter().zip(0_u32..) {
                let x = GAP + f64::from(column) * (WIDTH + GAP);
                sheet.text("strong", (x, y + 12.0), Anchor::Start, text(row, "title"));
                sheet.text("tick", (x, y + 28.0), Anchor::Start, text(row, "about"));
                sheet.place((x, y + TITLE_HEIGHT), drawing);
            }
            y += pair.iter().map(|(_, drawing)| drawing.height).fold(0.0, f64::max) + TITLE_HEIGHT + GAP;
        }
        sheet.standalone("kittiwake beside other servers", &format!("{}{CHART_STYLE}", variables()))
    }

    fn bars(&self, row: &Value) -> Bars {
        let bar = |target: &Value| {
            let cell = cell_of(row, target)?;
            let spread = Spread::of(&cell["spread"]);
            Some(Bar {
                name: text(target, "label").to_owned(),
                value: spread.as_ref().map(|spread| spread.median),
                range: spread.map(|spread| (spread.low, spread.high)),
                note: text(cell, "note").to_owned(),
                ours: target["ours"] == true,
            })
        };
        let floor = Spread::of(&row["floor"]).map(|floor| floor.median);
        Bars { unit: text(row, "unit").to_owned(), bars: self.targets.iter().filter_map(bar).collect(), floor }
    }

    fn table(&self) -> String {
        let head: String = self
            .rows
            .iter()
            .map(|row| format!("<th>{}<small>{}</small></th>", escape(text(row, "title")), escape(text(row, "unit"))))
            .collect();
        let mut body = String::new();
        for target in self.targets {
            let class = if target["ours"] == true { " class=\"ours\"" } else { "" };
            let (label, version) = (escape(text(target, "label")), escape(text(target, "version")));
            write!(body, "<tr{class}><td>{label}<small>{version}</small></td>").expect("a string takes it");
            for row in self.rows {
                let cell = cell_of(row, target).unwrap_or(&Value::Null);
                let best = if self.best(row) == Some(text(target, "name")) { " class=\"best\"" } else { "" };
                write!(body, "<td{best}>{}</td>", spread_cell(&cell["spread"], text(cell, "note")))
                    .expect("it takes it");
            }
            body += "</tr>\n";
        }
        let floor: String =
            self.rows.iter().map(|row| format!("<td>{}</td>", spread_cell(&row["floor"], ""))).collect();
        format!(
            "<h2>All rows</h2>\n<p class=\"quiet\">Medians with their quartiles.</p>\n<div class=\"scroll\"><table>\
             <thead><tr><th>server</th>{head}</tr></thead>\n<tbody>{body}<tr class=\"floor\"><td>floor</td>{floor}</tr>\n\
             </tbody></table></div>\n"
        )
    }

    /// The target with the lowest median.
    fn best<'a>(&self, row: &'a Value) -> Option<&'a str> {
        let cells = row["cells"].as_array()?.iter();
        let with = cells.filter_map(|cell| Some((text(cell, "target"), Spread::of(&cell["spread"])?.median)));
        with.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(target, _)| target)
    }

    fn latencies(&self) -> String {
        let mut html = String::new();
        for group in self.result["latencies"].as_array().into_iter().flatten() {
            let mut series = Vec::new();
            let mut rows = String::new();
            for item in group["items"].as_array().into_iter().flatten() {
                let Some(latency) = Latency::of(&item["latency"]) else { continue };
                let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(microseconds);
                let name = text(item, "name");
                let ratio = |name: &str| {
                    Spread::of(&item[name]).map_or_else(String::new, |ratio| format!("{:.2}", ratio.median))
                };
                let (to_p50, to_p99) = (ratio("p50_ratio"), ratio("p99_ratio"));
                writeln!(
                    rows,
                    "<tr><td>{}</td><td>{p50}</td><td>{to_p50}</td><td>{p99}</td><td>{to_p99}</td><td>{max}</td></tr>",
                    escape(name)
                )
                .expect("a string takes it");
                if item["drawn"] == true {
                    series.push(Series { name: name.to_owned(), points: latency.curve });
                }
            }
            let chart = figure(text(group, "title"), text(group, "about"), &percentiles(&series));
            write!(
                html,
                "<div class=\"charts\">{chart}<div class=\"scroll\"><table><thead><tr><th>server</th><th>p50</th><th>×</th>\
                 <th>p99</th><th>×</th><th>max</th></tr></thead><tbody>\n{rows}</tbody></table></div></div>\n"
            )
            .expect("a string takes it");
        }
        if html.is_empty() {
            html
        } else {
            format!(
                "<h2>Latency</h2>\n<p class=\"quiet\">From when a message was due; × is to mosquitto in the same round.</p>\n{html}"
            )
        }
    }

    fn left_out(&self) -> String {
        let mut items = String::new();
        for missing in self.result["missing"].as_array().into_iter().flatten() {
            let [label, what, get] = ["label", "what", "get"].map(|name| escape(text(missing, name)));
            let get = if get.is_empty() { String::new() } else { format!(": <code>{get}</code>") };
            writeln!(items, "<li>{label}: {what}{get}</li>").expect("a string takes it");
        }
        if items.is_empty() { items } else { format!("<h2>Left out</h2>\n<ul>\n{items}</ul>\n") }
    }
}

fn cell_of<'a>(row: &'a Value, target: &Value) -> Option<&'a Value> {
    row["cells"].as_array()?.iter().find(|cell| cell["target"] == target["name"])
}

fn spread_cell(spread: &Value, note: &str) -> String {
    match Spread::of(spread) {
        Some(Spread { low, median, high }) if low < high => {
            format!("{}<small>{} .. {}</small>", short(median), short(low), short(high))
        }
        Some(spread) => short(spread.median),
        None => format!("<small>{}</small>", escape(note)),
    }
}

/// The colours alone, from the page's style: a file of its own has no page around it.
fn variables() -> &'static str {
    super::STYLE.split_once("* {").map_or("", |(colours, _)| colours)
}
