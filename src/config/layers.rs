//! The layers a value can come from, each stronger than the one before: default, file, environment, flag.

use super::keys::{self, Default, KEYS, Key, Kind};
use super::{ConfigError, ENVIRONMENT_PREFIX};
use core::time::Duration;

/// A value of a key's kind, within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(u64),
    Duration(Duration),
    Bool(bool),
    Text(String),
    List(Vec<String>),
}

/// One value per entry of [`KEYS`].
pub(super) struct Values(Vec<Value>);

impl Values {
    /// Nothing set.
    pub(super) fn defaults() -> Self {
        Self(KEYS.iter().map(|key| default_of(key.default)).collect())
    }

    /// Lays a TOML document over what is there.
    pub(super) fn lay_file(&mut self, text: &str) -> Result<(), ConfigError> {
        let document: toml::Table = toml::from_str(text).map_err(|error| ConfigError::file(text, &error))?;
        for (section, content) in &document {
            let toml::Value::Table(table) = content else {
                return Err(unknown(section));
            };
            for (name, value) in table {
                let name = format!("{section}.{name}");
                let index = index_of(&name).ok_or_else(|| unknown(&name))?;
                self.0[index] = from_toml(&KEYS[index], value)?;
            }
            if table.is_empty() && !KEYS.iter().any(|key| section_of(key) == section) {
                return Err(unknown(section));
            }
        }
        Ok(())
    }

    /// Lays the variables that start with the prefix over what is there; others are not ours.
    pub(super) fn lay_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, text) in variables {
            if !name.starts_with(ENVIRONMENT_PREFIX) {
                continue;
            }
            let index = KEYS.iter().position(|key| key.environment() == name).ok_or_else(|| ConfigError {
                key: name.clone(),
                wrong: "there is no such key".to_owned(),
                allowed: format!("{ENVIRONMENT_PREFIX}SECTION_KEY of a known key"),
            })?;
            self.0[index] = from_text(&KEYS[index], &name, &text)?;
        }
        Ok(())
    }

    /// Lays a flag's text over what is there. `flag` is its name in error lines.
    pub(super) fn lay_flag(&mut self, name: &str, flag: &str, text: &str) -> Result<(), ConfigError> {
        let index = index_of(name).expect("flags name keys of the table");
        self.0[index] = from_text(&KEYS[index], flag, text)?;
        Ok(())
    }

    pub(super) fn integer(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Integer(number) => *number,
            other => unreachable!("{name} is declared as an integer, not {other:?}"),
        }
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Value::Duration(duration) => *duration,
            other => unreachable!("{name} is declared as a duration, not {other:?}"),
        }
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(flag) => *flag,
            other => unreachable!("{name} is declared as a bool, not {other:?}"),
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            other => unreachable!("{name} is declared as a text, not {other:?}"),
        }
    }

    pub(super) fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::List(texts) => texts,
            other => unreachable!("{name} is declared as a list, not {other:?}"),
        }
    }

    fn value(&self, name: &str) -> &Value {
        &self.0[index_of(name).expect("callers name keys of the table")]
    }
}

fn index_of(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

fn section_of(key: &Key) -> &str {
    key.name.split('.').next().unwrap_or(key.name)
}

fn unknown(name: &str) -> ConfigError {
    let section = name.split('.').next().unwrap_or(name);
    let siblings: Vec<&str> = KEYS.iter().filter(|key| section_of(key) == section).map(|key| key.name).collect();
    let allowed = if siblings.is_empty() {
        let mut sections: Vec<String> = KEYS.iter().map(|key| format!("[{}]", section_of(key))).collect();
        sections.dedup();
        sections.join(", ")
    } else {
        siblings.join(", ")
    };
    ConfigError { key: name.to_owned(), wrong: "there is no such key".to_owned(), allowed }
}

fn default_of(default: Default) -> Value {
    match default {
        Default::Integer(number) => Value::Integer(number),
        Default::Duration(duration) => Value::Duration(duration),
        Default::Bool(flag) => Value::Bool(flag),
        Default::Text(text) => Value::Text(text.to_owned()),
        Default::List(texts) => Value::List(texts.iter().map(|&text| text.to_owned()).collect()),
    }
}

/// A file's value: of the kind's own TOML type, durations and choices as strings.
fn from_toml(key: &Key, value: &toml::Value) -> Result<Value, ConfigError> {
    match (key.kind, value) {
        (Kind::Integer { .. }, toml::Value::Integer(number)) => from_text(key, key.name, &number.to_string()),
        (Kind::Bool, toml::Value::Boolean(flag)) => Ok(Value::Bool(*flag)),
        (Kind::Duration { .. } | Kind::Choice(_) | Kind::Text, toml::Value::String(text)) => {
            from_text(key, key.name, text)
        }
        (Kind::List, toml::Value::Array(values)) => {
            let texts: Option<Vec<String>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
            texts.map(Value::List).ok_or_else(|| wrong(key, key.name, "not every element is a string".to_owned()))
        }
        (_, other) => Err(wrong(key, key.name, format!("a value of type {} does not fit", other.type_str()))),
    }
}

/// A value as text, from the environment, a flag, or inside a file's string. `name` is how its author wrote the key.
fn from_text(key: &Key, name: &str, text: &str) -> Result<Value, ConfigError> {
    let value = match key.kind {
        Kind::Integer { min, max } => {
            text.parse().ok().filter(|number| (min..=max).contains(number)).map(Value::Integer)
        }
        Kind::Duration { min, max } => {
            keys::parse_duration(text).filter(|duration| (min..=max).contains(duration)).map(Value::Duration)
        }
        Kind::Bool => text.parse().ok().map(Value::Bool),
        Kind::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
        Kind::Text => Some(Value::Text(text.to_owned())),
        Kind::List => Some(Value::List(text.split(',').map(|part| part.trim().to_owned()).collect())),
    };
    value.ok_or_else(|| wrong(key, name, format!("`{}` is not allowed", one_line(text))))
}

fn wrong(key: &Key, name: &str, wrong: String) -> ConfigError {
    ConfigError { key: name.to_owned(), wrong, allowed: key.allowed() }
}

/// An error is one line whatever was in the file.
pub(super) fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
