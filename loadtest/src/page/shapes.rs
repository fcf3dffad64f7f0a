//! What is in a result: figures with their spread, latencies, pairs, by the names of their fields, wherever they are.

use super::numbers::{exact, microseconds};
use serde_json::Value;

/// A figure that was taken several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_f64();
        Some(Self { low: number("low")?, median: number("median")?, high: number("high")? })
    }
}

/// Server and floor in turns.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    pub unit: String,
    pub server: Option<Spread>,
    pub floor: Option<Spread>,
    pub ratio: Option<Spread>,
}

impl Pairs {
    fn of(value: &Value) -> Option<Self> {
        let unit = value.get("unit")?.as_str()?.to_owned();
        let [server, floor] = ["server_us", "floor_us"].map(|name| value.get(name).map(Spread::of));
        let (server, floor) = (server?, floor?);
        (server.is_some() || floor.is_some()).then(|| Self { unit, server, floor, ratio: Spread::of(&value["ratio"]) })
    }
}

/// Microseconds by quantile.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    pub curve: Vec<(f64, f64)>,
}

impl Latency {
    pub fn of(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_f64();
        let point = |point: &Value| Some((point.get(0)?.as_f64()?, point.get(1)?.as_f64()?));
        let curve = value.get("curve")?.as_array()?.iter().filter_map(point).collect();
        let count = value["count"].as_u64()?;
        Some(Self { count, p50: number("p50_us")?, p99: number("p99_us")?, max: number("max_us")?, curve })
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Name and text of each figure, for the table.
    pub rows: Vec<(String, String)>,
    pub pairs: Vec<(String, Pairs)>,
    pub latencies: Vec<(String, Latency)>,
    numbers: Vec<(String, f64)>,
}

impl Found {
    pub fn in_result(result: &Value) -> Self {
        let mut found = Self::default();
        found.look(&result["figures"], &mut Vec::new());
        // A comparison has its own table.
        if super::compared::of(result).is_none() {
            found.look(&result["result"], &mut Vec::new());
        }
        found
    }

    /// A figure by the last part of its name; the median of one with a spread.
    pub fn number(&self, name: &str) -> Option<f64> {
        let is_it = |known: &str| known == name || known.strip_suffix(name).is_some_and(|front| front.ends_with(' '));
        let whole = name.replace('_', " ");
        self.numbers.iter().find(|(known, _)| *known == whole || is_it(known)).map(|(_, value)| *value)
    }

    fn look(&mut self, value: &Value, path: &mut Vec<String>) {
        let name = || path.join(" · ").replace('_', " ");
        if let Some(latency) = Latency::of(value) {
            // No delivery, no latency.
            if latency.count > 0 {
                let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(microseconds);
                let count = exact(latency.count as f64);
                self.rows.push((name(), format!("p50 {p50}, p99 {p99}, max {max} ({count})")));
                self.latencies.push((name(), latency));
            }
            return;
        }
        if let Some(spread) = Spread::of(value) {
            let Spread { low, median, high } = spread;
            self.rows.push((name(), format!("{} [{} .. {}]", exact(median), exact(low), exact(high))));
            self.numbers.push((name(), median));
            return;
        }
        if let Some(pairs) = Pairs::of(value) {
            self.pairs.push((name(), pairs));
        }
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    path.push(field.clone());
                    self.look(value, path);
                    path.pop();
                }
            }
            Value::Array(items) => {
                for (item, number) in items.iter().zip(1..) {
                    path.push(item["name"].as_str().map_or_else(|| format!("{number}"), str::to_owned));
                    self.look(item, path);
                    path.pop();
                }
            }
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                self.rows.push((name(), exact(number)));
                self.numbers.push((name(), number));
            }
            Value::String(text) => self.rows.push((name(), text.clone())),
            Value::Bool(yes) => self.rows.push((name(), if *yes { "yes" } else { "no" }.to_owned())),
            Value::Null => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_found_wherever_they_are() {
        let spread = json!({ "low": 1.0, "median": 2.0, "high": 3.0, "all": [1.0, 2.0, 3.0] });
        let latency =
            json!({ "count": 2, "p50_us": 10, "p99_us": 1500, "max_us": 1600, "curve": [[0.5, 10], [0.99, 1500]] });
        let result = json!({
            "figures": { "set_up_us": 12.5, "ratio": spread },
            "result": { "rows": [{ "name": "P1", "cost": { "unit": "delivery", "server_us": spread, "floor_us": null } }], "late": latency },
        });
        let found = Found::in_result(&result);
        assert_eq!(
            (found.number("set_up_us"), found.number("ratio"), found.number("no")),
            (Some(12.5), Some(2.0), None)
        );
        assert_eq!(found.pairs.len(), 1);
        assert_eq!((found.pairs[0].0.as_str(), found.pairs[0].1.unit.as_str()), ("rows · P1 · cost", "delivery"));
        assert_eq!(found.latencies[0].1.curve, [(0.5, 10.0), (0.99, 1500.0)]);
        assert!(found.rows.contains(&("late".to_owned(), "p50 10 µs, p99 1.5 ms, max 1.6 ms (2)".to_owned())));
    }
}
