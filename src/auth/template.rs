//! `auth.user`: how mode `none` names the user of a connection.

use std::fmt;

/// A parsed user template: text with `{username}` and `{client_id}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Username,
    ClientId,
}

/// What is wrong with a template; the operator's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A `{` without its `}`.
    Unclosed,
    /// A placeholder other than `{username}` and `{client_id}`.
    Unknown(String),
    /// Every client would be the same user.
    NoPlaceholder,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed => write!(f, "has a {{ without its }}"),
            Self::Unknown(name) => write!(f, "names {{{name}}}; allowed are {{username}} and {{client_id}}"),
            Self::NoPlaceholder => write!(f, "names neither {{username}} nor {{client_id}}"),
        }
    }
}

impl std::error::Error for TemplateError {}

impl Default for UserTemplate {
    fn default() -> Self {
        Self(vec![Part::Username])
    }
}

impl UserTemplate {
    /// Reads a template such as `{username}` or `dev-{client_id}`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Text(rest[..open].into()));
            }
            let close = rest[open..].find('}').ok_or(TemplateError::Unclosed)? + open;
            parts.push(match &rest[open + 1..close] {
                "username" => Part::Username,
                "client_id" => Part::ClientId,
                other => return Err(TemplateError::Unknown(other.to_owned())),
            });
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        if parts.iter().all(|part| matches!(part, Part::Text(_))) {
            return Err(TemplateError::NoPlaceholder);
        }
        Ok(Self(parts))
    }

    /// The user of a client. Where the client gave no user name, its identifier stands in.
    pub fn user(&self, username: Option<&str>, client_id: &str) -> String {
        let username = username.filter(|name| !name.is_empty()).unwrap_or(client_id);
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Username => username,
                Part::ClientId => client_id,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_user_name_and_else_the_client_id() {
        let template = UserTemplate::default();
        assert_eq!(template.user(Some("alice"), "phone"), "alice");
        assert_eq!(template.user(None, "phone"), "phone");
        assert_eq!(template.user(Some(""), "phone"), "phone");
    }

    #[test]
    fn text_and_both_placeholders_are_filled() {
        let template = UserTemplate::parse("u-{username}/{client_id}!").expect("it is valid");
        assert_eq!(template.user(Some("a"), "b"), "u-a/b!");
    }

    #[test]
    fn a_template_that_cannot_work_is_refused() {
        assert_eq!(UserTemplate::parse("{user"), Err(TemplateError::Unclosed));
        assert_eq!(UserTemplate::parse("{name}"), Err(TemplateError::Unknown("name".into())));
        assert_eq!(UserTemplate::parse("fixed"), Err(TemplateError::NoPlaceholder));
    }
}
