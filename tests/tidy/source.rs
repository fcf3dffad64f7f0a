//! A source file as `tidy` sees it: its text, and the same text with comments and literals blanked.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// A Rust file of the house.
pub struct Source {
    /// Relative to the package, with `/`.
    pub path: String,
    /// As it is.
    pub raw: String,
    /// Comments, strings and character literals are spaces; every line stands where it did.
    pub code: String,
}

/// A path that starts at the crate's root: `crate::io::Op` is `["io", "Op"]`.
pub struct Import {
    pub line: usize,
    pub path: Vec<String>,
}

/// Every Rust file of the package and its members, sorted.
pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for room in ["src", "tests", "benches", "examples", "loadtest"] {
        collect(root, &root.join(room), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(|source| source.path == "src/lib.rs"), "the package has a library");
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let raw = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let relative = path.strip_prefix(root).expect("the walk starts at the root");
            let path = relative.to_string_lossy().replace('\\', "/");
            found.push(Source { path, code: blank(&raw), raw });
        }
    }
}

impl Source {
    /// The top module it belongs to: `io` of `src/io/epoll/mod.rs`.
    pub fn module(&self) -> &str {
        let inside = self.path.split('/').nth(1).unwrap_or_default();
        inside.strip_suffix(".rs").unwrap_or(inside)
    }

    /// Lines from 1, comments and literals blanked.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }

    /// Comments that are not documentation.
    pub fn plain_comments(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.raw.lines()).filter_map(|(line, text)| {
            let comment = text.trim_start().strip_prefix("//")?;
            (!comment.starts_with(['/', '!'])).then_some((line, comment))
        })
    }

    /// Whether `word` stands in the line, or in the comment and statement just above it.
    pub fn comment_near(&self, line: usize, word: &str) -> bool {
        let from = line.saturating_sub(8);
        self.raw.lines().skip(from).take(line - from).any(|text| text.contains(word))
    }

    /// Whether the `allow` in this line has a `reason`, or a comment above it.
    pub fn allow_has_reason(&self, line: usize) -> bool {
        let from = line.saturating_sub(2);
        let above = self.raw.lines().nth(from).is_some_and(|text| text.trim_start().starts_with("// "));
        let attribute = self.code.lines().skip(line - 1).take(4).any(|text| text.contains("reason ="));
        attribute || above && line > 1
    }

    /// The name under which a file is a module, and the files that may declare it. None for a crate's root.
    pub fn parents(&self) -> Option<(String, Vec<String>)> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let inside = inside.strip_suffix("/mod").unwrap_or(inside);
        if matches!(inside, "lib" | "main") {
            return None;
        }
        Some(match inside.rsplit_once('/') {
            Some((directory, name)) => {
                (name.to_owned(), vec![format!("src/{directory}/mod.rs"), format!("src/{directory}.rs")])
            }
            None => (inside.to_owned(), vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()]),
        })
    }

    /// Whether it has `mod name;`.
    pub fn declares(&self, name: &str) -> bool {
        let declaration = format!("mod {name};");
        self.code.lines().any(|line| line.trim_end().ends_with(&declaration))
    }

    /// Name, first line and length of every function with a body.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut found = Vec::new();
        for (start, _) in self.code.match_indices("fn ") {
            let is_word = !self.code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let rest = &self.code[start + 3..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(open) = rest.find(['{', ';']).filter(|_| is_word && !name.is_empty()) else { continue };
            let Some(body) = rest[open..].starts_with('{').then(|| body_end(&rest[open..])).flatten() else { continue };
            let lines = rest[..open + body].matches('\n').count() + 1;
            found.push((name, self.line_at(start), lines));
        }
        found
    }

    /// Every path that names something from the crate's root, through `crate::` or enough `super::`.
    pub fn imports(&self) -> Vec<Import> {
        let mut found = Vec::new();
        for (start, prefix) in self.code.match_indices("crate::") {
            if !self.code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                self.add_paths(start, &self.code[start + prefix.len()..], &mut found);
            }
        }
        // An inline module, which here is a file's tests, is one level deeper.
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let depth = inside.split('/').count();
        let inline = self.inline_modules();
        for (start, _) in self.code.match_indices("super::") {
            if self.code[..start].ends_with("super::") {
                continue;
            }
            let mut rest = &self.code[start..];
            let mut count = 0;
            while let Some(after) = rest.strip_prefix("super::") {
                (rest, count) = (after, count + 1);
            }
            if count >= depth + inline.iter().filter(|module| module.contains(&start)).count() {
                self.add_paths(start, rest, &mut found);
            }
        }
        found
    }

    /// Where the bodies of modules written inside the file are.
    fn inline_modules(&self) -> Vec<Range<usize>> {
        let bodies = self.code.match_indices("mod ").filter_map(|(at, _)| {
            let open = at + self.code[at..].find(['{', ';'])?;
            let body = self.code[open..].starts_with('{').then(|| body_end(&self.code[open..]))??;
            let is_word = !ends_in_word(&self.code[..at]);
            is_word.then_some(open..open + body)
        });
        bodies.collect()
    }

    fn add_paths(&self, start: usize, tree: &str, found: &mut Vec<Import>) {
        let mut paths = Vec::new();
        read_tree(tree, &[], &mut paths);
        found.extend(paths.into_iter().map(|path| Import { line: self.line_at(start), path }));
    }

    fn line_at(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }
}

/// Reads `a::b`, `a::{b, c::d}` or `{a, b}` and returns what follows it.
fn read_tree<'a>(text: &'a str, prefix: &[String], paths: &mut Vec<Vec<String>>) -> &'a str {
    let mut rest = text.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            let after = read_tree(rest, prefix, paths).trim_start();
            // Whatever else stands between two trees (a comma, `as name`) is passed over.
            rest = after.find([',', '}']).map_or("", |at| after[at..].trim_start_matches(',')).trim_start();
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (name, after) = rest.split_at(length);
    let mut path = prefix.to_vec();
    path.extend((!name.is_empty()).then(|| name.to_owned()));
    match after.strip_prefix("::") {
        Some(tree) if tree.trim_start().starts_with(|c: char| c == '{' || c == '_' || c.is_alphabetic()) => {
            read_tree(tree, &path, paths)
        }
        _ => {
            paths.push(path);
            after
        }
    }
}

/// Bytes up to the brace that closes the one at the start.
fn body_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Replaces comments, strings and character literals by spaces.
fn blank(raw: &str) -> String {
    let mut code = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !ends_in_word(&code)) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            character(rest)
        } else {
            0
        };
        let (literal, after) = rest.split_at(length);
        code.extend(literal.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        match text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

/// Length of `r"…"`, `r#"…"#` or the same with `b` in front.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = after.bytes().take_while(|&byte| byte == b'#').count();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - body.len();
    Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal; 0 when the quote begins a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text, '\''),
        _ => 0,
    }
}

#[test]
fn comments_and_literals_are_blanked_and_lifetimes_are_not() {
    let raw = "a/*x/*y*/z*/b \"s\\\"t\" 'c' '\\'' r#\"q\"q\"# &'static str // tail\nnext";
    assert_eq!(blank(raw).split_whitespace().collect::<Vec<_>>(), ["a", "b", "&'static", "str", "next"]);
    assert_eq!(blank(raw).lines().count(), raw.lines().count());
}

#[test]
fn imports_are_found_in_groups_and_through_super() {
    let source = |path: &str, raw: &str| Source { path: path.to_owned(), raw: raw.to_owned(), code: blank(raw) };
    let targets =
        |source: &Source| source.imports().into_iter().map(|import| import.path.join("::")).collect::<Vec<_>>();
    let file = source(
        "src/io/epoll/mod.rs",
        "use crate::{base::ids as i, limits::{A, B}};\nuse super::super::wire::X;\nuse super::Op;",
    );
    assert_eq!(targets(&file), ["base::ids", "limits::A", "limits::B", "wire::X"]);
    let tests = source(
        "src/io/mod.rs",
        "use super::wire;\nmod tests {\n    use super::Op;\n    use super::super::engine;\n}\nuse super::session;",
    );
    assert_eq!(targets(&tests), ["wire", "engine", "session"]);
}
