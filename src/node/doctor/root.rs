//! Reading `/proc` and `/sys`, or a directory that is laid out like them.

use std::fs;
use std::path::{Path, PathBuf};

/// Where they are.
#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// A file's text, such as of `proc/meminfo`; none when it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(Path::new(path))).ok()
    }

    /// The number that a file begins with.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.split_whitespace().next()?.parse().ok()
    }

    /// The numbers of a kernel setting, such as of `net.ipv4.tcp_mem`. None when it is not there, or not all numbers.
    pub(super) fn setting(&self, key: &str) -> Option<Vec<u64>> {
        let text = self.text(&format!("proc/sys/{}", key.replace('.', "/")))?;
        let numbers = text.split_whitespace().map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
        (!numbers.is_empty()).then_some(numbers)
    }

    /// The hard limit of a resource of this process, by its name in `/proc/self/limits`; `u64::MAX` is unlimited.
    pub(super) fn hard_limit(&self, name: &str) -> Option<u64> {
        let text = self.text("proc/self/limits")?;
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        match rest.split_whitespace().nth(1)? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    }
}
