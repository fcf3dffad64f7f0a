//! The findings, for people and as JSON.

use super::memory::Sum;
use super::plan::Plan;
use serde_json::{Value, json};
use std::fmt::Write;

/// Columns of a line.
const WIDTH: usize = 110;
/// Before the further lines of a paragraph.
const INDENT: &str = "              ";

/// What a finding comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It will do.
    Ok,
    /// N fit, but worse than they could.
    Change,
    /// N do not fit.
    Obstacle,
    /// It cannot be known here.
    Unknown,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Change => "change",
            Self::Obstacle => "does not fit",
            Self::Unknown => "unknown",
        }
    }
}

/// One limit.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) found: String,
    pub(super) needed: String,
    pub(super) formula: String,
    pub(super) verdict: Verdict,
    /// What to set; none where all is well or nothing can be set.
    pub(super) set: Option<String>,
    pub(super) why: String,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) plan: Plan,
    pub(super) driver: &'static str,
    /// Connections that the start-up message of `serve` would promise.
    pub(super) holds: u64,
    pub(super) memory: Sum,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    /// What keeps N from fitting.
    pub(super) fn obstacles(&self) -> Vec<&'static str> {
        let obstacles = self.findings.iter().filter(|finding| finding.verdict == Verdict::Obstacle);
        obstacles.map(|finding| finding.name).collect()
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let (plan, driver) = (self.plan, self.driver);
        let plural = if plan.shards == 1 { "" } else { "s" };
        line(
            &mut text,
            format_args!("{} connections, {} shard{plural}, {driver}", grouped(plan.connections), plan.shards),
        );
        for finding in &self.findings {
            let Finding { name, found, needed, formula, verdict, set, why } = finding;
            line(&mut text, format_args!("\n{:<13} {name}: {found}", verdict.word()));
            paragraph(&mut text, "    needs     ", INDENT, &format!("{needed} ({formula})"));
            if let Some(set) = set {
                paragraph(&mut text, "    set       ", INDENT, set);
            }
            paragraph(&mut text, "    because   ", INDENT, why);
        }
        let obstacles = self.obstacles();
        let verdict = if obstacles.is_empty() {
            format!("{} connections would fit", grouped(plan.connections))
        } else {
            format!("{} connections would not fit: {}", grouped(plan.connections), obstacles.join(", "))
        };
        let changes = self.findings.iter().filter(|finding| finding.verdict == Verdict::Change).count();
        let plural = if changes == 1 { " is" } else { "s are" };
        line(&mut text, format_args!("\n{verdict}; {changes} change{plural} advised"));
        let fewer = format_args!("memory, files and tables hold {} as the machine is", grouped(self.holds));
        line(&mut text, fewer);
        text
    }

    pub(super) fn json(&self) -> String {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "name": finding.name,
                "found": finding.found,
                "needed": finding.needed,
                "formula": finding.formula,
                "verdict": finding.verdict.word(),
                "set": finding.set,
                "why": finding.why,
            })
        });
        let sum = self.memory;
        let report = json!({
            "connections": self.plan.connections,
            "shards": self.plan.shards,
            "driver": self.driver,
            "fits": self.obstacles().is_empty(),
            "holds": self.holds,
            "memory": {
                "user_bytes_per_connection": sum.user_each,
                "kernel_bytes_per_connection": sum.kernel_each,
                "connections_bytes": sum.connections,
                "pools_bytes": sum.pools,
                "available_bytes": sum.available,
            },
            "findings": findings.collect::<Vec<Value>>(),
        });
        format!("{report:#}")
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a String takes everything");
}

/// Appends words on lines of at most [`WIDTH`] columns; each begins as told.
pub(super) fn paragraph(text: &mut String, first: &str, rest: &str, words: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in words.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            rest.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text.push_str(&line);
    text.push('\n');
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_break_between_words_at_the_width() {
        let mut text = String::new();
        let words = ["a".repeat(WIDTH - 4), "bc".to_owned(), "d".to_owned()].join(" ");
        paragraph(&mut text, "> ", "  ", &words);
        // The first line has room for one more column than the second word takes with its blank.
        assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [WIDTH - 2, 6]);
        assert!(text.ends_with("\n  bc d\n"), "{text}");
    }

    #[test]
    fn thousands_are_set_apart() {
        let numbers = [0, 999, 1_000, 123_456, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }
}
