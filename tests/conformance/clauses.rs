//! The table of clauses (`clauses.txt`) is whole, and tells the truth about the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("clauses.txt");

/// Of 100 statements that bind servers, so many may be without a test.
const UNTESTED_PERCENT_MAX: usize = 5;

/// The sections with numbered statements and how many each has; 2.2.1 begins with 2. Appendix B of MQTT 5.0 has 251.
const FIVE: &[(&str, u32)] = &[
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// Of 3.1.1. Its appendix B leaves some out that its body has (3.3.2-3, 3.3.4-1, 3.3.5, 3.6.1, 3.8.1, 3.8.3).
const THREE: &[(&str, u32)] = &[
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 1),
    ("7.1.2", 1),
];

/// A version as the table names it, and a clause.
type Clause<'a> = (&'a str, &'a str);

struct Row<'a> {
    clause: Clause<'a>,
    kind: &'a str,
    tests: BTreeSet<&'a str>,
}

fn rows() -> Vec<Row<'static>> {
    let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let columns: Vec<&str> = line.split(" | ").collect();
            let &[version, clause, says, kept] = &columns[..] else { panic!("four columns: {line}") };
            assert!(says.len() > 10, "what {clause} asks is not said");
            let (kind, rest) = kept.split_once(": ").unwrap_or((kept, ""));
            let tests: BTreeSet<&str> = match kind {
                "test" | "client" => rest.split(", ").filter(|name| !name.is_empty()).collect(),
                "refused" => BTreeSet::from_iter([]),
                _ => panic!("{clause}: {kind} is no way to keep it"),
            };
            assert!(kind != "test" || !tests.is_empty(), "{clause} names no test");
            assert!(kind != "refused" || rest.len() > 20, "{clause} gives no reason");
            Row { clause: (version, clause), kind, tests }
        })
        .collect()
}

/// All clauses there are.
fn clauses() -> Vec<(&'static str, String)> {
    let of = |version: &'static str, sections: &'static [(&str, u32)]| {
        sections.iter().flat_map(move |&(section, count)| {
            let first = if (version, section) == ("5", "2.2.1") { 2 } else { 1 };
            (first..=count).map(move |number| (version, format!("{section}-{number}")))
        })
    };
    let all: Vec<_> = of("5", FIVE).chain(of("3.1.1", THREE)).collect();
    assert_eq!((all.iter().filter(|clause| clause.0 == "5").count(), all.len()), (251, 251 + 141));
    all
}

/// Names of all test functions in the sources.
fn test_functions() -> BTreeSet<String> {
    fn read(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder of the sources") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                read(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                // Within proptest! blocks as well: an attribute, perhaps others, then the function.
                let mut is_test = false;
                for line in text.lines().map(str::trim_start) {
                    let name = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next());
                    match name {
                        Some(name) if is_test => {
                            names.insert(name.to_owned());
                            is_test = false;
                        }
                        Some(_) => is_test = false,
                        None => is_test |= line.starts_with("#[test]"),
                    }
                }
            }
        }
    }
    let mut names = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    read(&root.join("src"), &mut names);
    read(&root.join("tests"), &mut names);
    names
}

/// The clause that a test's name begins with: `mqtt5_3_3_4_7_…` is 3.3.4-7 of version 5. Fewer or more numbers name a
/// section.
fn named_clause(name: &str) -> Option<(&'static str, String)> {
    let (version, rest) = match name.split_once('_')? {
        ("mqtt5", rest) => ("5", rest),
        ("mqtt311", rest) => ("3.1.1", rest),
        _ => return None,
    };
    let numbers: Vec<&str> = rest.split('_').take_while(|part| part.parse::<u32>().is_ok()).collect();
    match numbers[..] {
        [a, b, c, number] => Some((version, format!("{a}.{b}.{c}-{number}"))),
        _ => None,
    }
}

#[test]
fn every_clause_is_proven_or_explained() {
    let rows = rows();
    let in_table: Vec<(&str, String)> = rows.iter().map(|row| (row.clause.0, row.clause.1.to_owned())).collect();
    assert_eq!(in_table, clauses(), "each clause stands in the table once, in the standard's order");

    let functions = test_functions();
    let unknown: Vec<_> = rows.iter().flat_map(|row| &row.tests).filter(|name| !functions.contains(**name)).collect();
    assert!(unknown.is_empty(), "no such tests: {unknown:#?}");

    let mut counts = BTreeMap::new();
    for row in &rows {
        *counts.entry(row.kind).or_insert(0) += 1;
    }
    println!("{} statements: {counts:?}", rows.len());
    let count = |kind| counts.get(kind).copied().unwrap_or(0_usize);
    let servers = rows.len() - count("client");
    assert!(
        count("refused") * 100 <= servers * UNTESTED_PERCENT_MAX,
        "{} of {servers} statements about servers have no test",
        count("refused")
    );
}

#[test]
fn a_test_named_after_a_clause_stands_in_its_row() {
    let rows = rows();
    let by_clause: BTreeMap<(&str, String), &BTreeSet<&str>> =
        rows.iter().map(|row| ((row.clause.0, row.clause.1.to_owned()), &row.tests)).collect();
    let faults: Vec<String> = test_functions()
        .into_iter()
        .filter(|name| {
            let row = named_clause(name).and_then(|clause| by_clause.get(&clause));
            row.is_some_and(|tests| !tests.contains(name.as_str()))
        })
        .collect();
    assert!(faults.is_empty(), "the rows of their clauses do not name these: {faults:#?}");
}
