//! The house's outer walls, as a test: who may import whom, where `unsafe`, clocks and tokio may be, how long files
//! are, that every file is somebody's, and that the documents tell the truth about paths and tests.
//!
//! It reads the sources as text. Comments and literals are blanked first (`tidy/source.rs`), so that prose never counts.

#[path = "tidy/source.rs"]
mod source;

use source::{Source, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines from which a file is asked to be split.
const FILE_LINES_MAX: usize = 600;
/// Lines from which a function is reported; it is no failure, since a long `match` can be the clearest form.
const FUNCTION_LINES_MAX: usize = 70;

/// What a module may import besides itself, `limits` and `base`. The longest prefix of a file's path decides.
/// Layers 4 and 5 are further bound by [`DOORS`].
const IMPORTS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("base", &[]),
    ("io", &[]),
    ("auth", &[]),
    ("wire", &[]),
    ("engine", &["io"]),
    // What a session may do is asked for each of its publishes and filters.
    ("session", &["auth"]),
    ("session/mqtt", &["auth", "wire"]),
    ("session/sse", &["auth", "wire"]),
    ("session/poll", &["auth", "wire"]),
    ("router", &[]),
    ("store", &[]),
    ("shard", &["io", "auth", "wire", "engine", "session", "router", "store"]),
    ("push", &["shard", "store"]),
    ("cluster", &["shard", "store"]),
    // Figures are answered through the same door as pushes, in the same words.
    ("admin", &["shard", "store", "push"]),
    // The fake data plane of the API's tests serves both rooms of the API.
    ("push/fake", &["shard", "store", "admin"]),
    ("config", EVERYTHING),
    ("node", EVERYTHING),
    ("main", EVERYTHING),
    ("lib", EVERYTHING),
];

const EVERYTHING: &[&str] = &[
    "io", "auth", "wire", "engine", "session", "router", "store", "shard", "push", "cluster", "admin", "config", "node",
];

/// Modules of layer 4: they see of the layers below only these.
const CONTROL_PLANE: &[&str] = &["push", "cluster", "admin"];
const DOORS: &[(&str, &[&str])] =
    &[("shard", &["Handle", "Command", "Event", "handle", "command", "event"]), ("store", &["Handle", "handle"])];

/// Layers 0 to 3: no async runtime, and time is an argument.
const PURE: &[&str] = &["limits", "base", "io", "auth", "wire", "engine", "session", "router", "store", "shard"];

/// Where `unsafe` may be, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("src/io/uring/", "system calls and shared rings"),
    ("src/io/epoll/", "system calls"),
    ("src/main.rs", "the name of the allocator's own call, whose language has no safe functions"),
    ("src/base/", "structures whose invariants the type system cannot state"),
    ("tests/alloc.rs", "a counting `GlobalAlloc` is unsafe to implement"),
    ("loadtest/src/floor", "the bare system call loop that the budgets are measured against"),
    ("benches/", "the same loop as a baseline"),
];

/// Where the real clock may be read below layer 4.
const CLOCKS: &[&str] = &["src/io/uring/", "src/io/epoll/"];

#[test]
fn imports_point_down_only() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        let Some(allowed) = allowed_imports(source) else {
            faults.push(format!("{}: the table of imports has no row for this module", source.path));
            continue;
        };
        let own = source.module();
        for import in source.imports() {
            let target = import.path.first().map_or("", String::as_str);
            let is_free = target == own || target == "limits" || target == "base" && own != "limits";
            let is_module = IMPORTS.iter().any(|(room, _)| *room == target);
            if is_module && !is_free && !allowed.contains(&target) {
                faults.push(format!("{}:{}: {own} must not import {target}", source.path, import.line));
            }
            let door = DOORS.iter().find(|(room, _)| *room == target).filter(|_| CONTROL_PLANE.contains(&own));
            if let (Some((_, door)), Some(item)) = (door, import.path.get(1))
                && !door.contains(&item.as_str())
            {
                faults.push(format!("{}:{}: {own} sees inside {target}: {item}", source.path, import.line));
            }
        }
    }
    none(&faults);
}

#[test]
fn unsafe_stays_where_it_is_allowed_and_says_why_it_is_sound() {
    let mut faults = Vec::new();
    for source in &sources() {
        for (line, code) in source.code_lines().filter(|(_, code)| has_word(code, "unsafe")) {
            if !UNSAFE.iter().any(|(place, _)| source.path.starts_with(place)) {
                faults.push(format!("{}:{line}: unsafe is not allowed here", source.path));
            } else if (code.contains("unsafe {") || code.contains("unsafe impl"))
                && !source.comment_near(line, "SAFETY:")
            {
                faults.push(format!("{}:{line}: unsafe without a SAFETY comment", source.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn the_data_plane_reads_no_clock_and_knows_no_runtime() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("src/") && PURE.contains(&source.module())) {
        for (line, code) in source.code_lines() {
            if has_word(code, "tokio") {
                faults.push(format!("{}:{line}: tokio below layer 4", source.path));
            }
            let reads_clock =
                code.contains("Instant::now") || has_word(code, "SystemTime") || code.contains("clock_gettime");
            if reads_clock && !CLOCKS.iter().any(|place| source.path.starts_with(place)) {
                faults.push(format!("{}:{line}: time is an argument below layer 4", source.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_source_file_is_declared_by_its_parent() {
    let all = sources();
    let by_path: BTreeMap<&str, &Source> = all.iter().map(|source| (source.path.as_str(), source)).collect();
    let mut faults = Vec::new();
    for source in all.iter().filter(|source| source.path.starts_with("src/")) {
        let Some((name, parents)) = source.parents() else { continue };
        let file = Path::new(&source.path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let directory = source.path.strip_suffix(file).unwrap_or_default();
        let by_name = parents.iter().filter_map(|path| by_path.get(path.as_str())).any(|parent| parent.declares(&name));
        let by_attribute = all
            .iter()
            .any(|other| other.path.starts_with(directory) && other.raw.contains(&format!("#[path = \"{file}\"]")));
        if !by_name && !by_attribute {
            faults.push(format!("{}: no module declares this file", source.path));
        }
    }
    none(&faults);
}

#[test]
fn files_are_short_and_long_functions_are_reported() {
    let mut faults = Vec::new();
    for source in &sources() {
        let lines = source.raw.lines().count();
        if lines >= FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines; split it where its meaning splits", source.path));
        }
        for (name, line, lines) in source.functions().into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX) {
            println!("{}:{line}: `{name}` has {lines} lines", source.path);
        }
    }
    none(&faults);
}

#[test]
fn every_module_says_what_it_owns_takes_gives_and_must_not_do() {
    let mut faults = Vec::new();
    // A module that is only announced, without any code, has nothing to say yet.
    for source in sources().iter().filter(|source| source.path.ends_with("/mod.rs") && !source.code.trim().is_empty()) {
        let is_room = source.path.starts_with("src/");
        let header: String = source.raw.lines().take_while(|line| line.starts_with("//!")).collect();
        for word in ["Owns", "In", "Out", "Must not"].iter().filter(|_| is_room) {
            if !header.contains(&format!("{word}:")) {
                faults.push(format!("{}: the header does not say `{word}:`", source.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn nothing_is_left_for_later_or_commented_out() {
    let mut faults = Vec::new();
    for source in &sources() {
        for (line, code) in source.code_lines() {
            for left in ["todo!", "unimplemented!", "dbg!", "#[ignore]"].iter().filter(|left| code.contains(**left)) {
                faults.push(format!("{}:{line}: {left}", source.path));
            }
            if code.contains("[allow(") && !source.allow_has_reason(line) {
                faults.push(format!("{}:{line}: `allow` without a reason", source.path));
            }
        }
        for (line, text) in source.plain_comments().filter(|(_, text)| looks_like_code(text)) {
            faults.push(format!("{}:{line}: commented-out code: {text}", source.path));
        }
    }
    none(&faults);
}

#[test]
fn paths_in_the_documents_exist() {
    let mut faults = Vec::new();
    for document in documents() {
        let text = read(&document);
        let directory = document.parent().expect("a document is in a directory");
        for target in links(&text) {
            if !directory.join(&target).exists() {
                faults.push(format!("{}: link to {target}", document.display()));
            }
        }
        for path in quoted(&text).into_iter().filter(|word| is_house_path(word)) {
            if !root().join(path.trim_end_matches('*')).exists() {
                faults.push(format!("{}: `{path}` is not there", document.display()));
            }
        }
    }
    none(&faults);
}

#[test]
fn every_promise_names_a_test_that_exists_or_is_pending() {
    let all = sources();
    let functions: BTreeSet<String> = all.iter().flat_map(Source::functions).map(|(name, _, _)| name).collect();
    let text = read(&root().join("docs/SPECIFICATION.md"));
    let (mut faults, mut promises, mut pending) = (Vec::new(), 0, 0);
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let proof = cells.last().copied().unwrap_or_default();
        let names = quoted(proof);
        promises += 1;
        pending += usize::from(names.is_empty());
        if names.is_empty() && proof.trim() != "pending" {
            faults.push(format!("neither a test nor `pending`: {row}"));
        }
        for name in names.iter().filter(|name| !functions.contains(*name)) {
            faults.push(format!("no test is called `{name}`: {row}"));
        }
    }
    println!("{promises} promises, {pending} of them pending");
    assert!(promises > 0, "the specification has no rows");
    none(&faults);
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn allowed_imports(source: &Source) -> Option<&'static [&'static str]> {
    let inside = source.path.strip_prefix("src/").unwrap_or_default().trim_end_matches(".rs");
    let covers = |room: &str| inside == room || inside.strip_prefix(room).is_some_and(|rest| rest.starts_with('/'));
    IMPORTS.iter().filter(|(room, _)| covers(room)).max_by_key(|(room, _)| room.len()).map(|(_, allowed)| *allowed)
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

/// Whether a comment ends or begins as a statement does. Prose may end in a semicolon, but not after a bracket.
fn looks_like_code(text: &str) -> bool {
    let text = text.trim();
    let statement = ["let ", "use ", "pub ", "fn ", "return ", "impl ", "struct ", "match ", "self."];
    [");", ")?;", "};", "),", ") {"].iter().any(|end| text.ends_with(end)) && text.contains('(') && !text.contains(". ")
        || statement.iter().any(|start| text.starts_with(start)) && (text.ends_with(';') || text.ends_with('{'))
        || text == "}"
}

/// `README.md` and the like, and everything in `docs/`.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in [root().to_path_buf(), root().join("docs")] {
        let entries = fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    found.sort();
    found
}

/// Relative targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let paths = targets.map(|target| target.split('#').next().unwrap_or_default());
    paths.filter(|path| !path.is_empty() && !path.contains("://")).map(str::to_owned).collect()
}

/// What stands between single backticks, line by line, outside fenced blocks.
fn quoted(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut words = Vec::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced {
            words.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    words
}

fn is_house_path(word: &str) -> bool {
    let rooms = ["src/", "tests/", "docs/", "benches/", "loadtest/", "tuning/", "examples/", "fuzz/", ".ci/"];
    rooms.iter().any(|room| word.starts_with(room)) && !word.contains(|c: char| c.is_whitespace() || "<>{}".contains(c))
}
