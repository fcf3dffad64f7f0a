//! Somebody else is asked who a device is: what is said to them, and what their answer means. JSON both ways.

use super::UserTemplate;
use super::rights::{Lists, Pattern};
use super::token::{Fault, Grant, present};
use crate::base::ids::AppId;
use crate::base::secret::Secret;
use crate::limits::IDENTITY_BYTES_MAX;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its identifier; one that was drawn, if it has none.
    pub device: Box<str>,
    /// The user name it gives.
    pub username: Option<Box<str>>,
    /// The password, or the token, that it shows.
    pub password: Option<Secret>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What it speaks.
    pub protocol: &'static str,
}

/// How it is said.
#[derive(Serialize)]
struct Said<'a> {
    client_id: &'a str,
    username: Option<&'a str>,
    /// Where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    /// Where it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    address: SocketAddr,
    protocol: &'a str,
}

impl Introduction {
    /// The body of the question.
    pub fn to_json(&self) -> Vec<u8> {
        let shown = self.password.as_ref().map(Secret::bytes);
        let text = shown.and_then(|bytes| core::str::from_utf8(bytes).ok());
        let said = Said {
            client_id: &self.device,
            username: self.username.as_deref(),
            password: text,
            password_base64: shown.filter(|_| text.is_none()).map(|bytes| STANDARD.encode(bytes)),
            address: self.peer,
            protocol: self.protocol,
        };
        serde_json::to_vec(&said).expect("it is a struct of texts")
    }
}

/// What comes back. What is not known is an error: a list whose name is misspelt would refuse nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    result: Outcome,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    app: Option<String>,
    #[serde(default, deserialize_with = "present")]
    publish: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    subscribe: Option<Vec<String>>,
    /// Milliseconds from now until the connection is to end.
    #[serde(default)]
    expires_in_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Allow,
    Deny,
}

/// What an answer means. `apps` are the node's, by the index that is their id; who is named no user is whom the template
/// makes of what it says.
///
/// # Errors
/// It is not let in ([`Fault::Denied`]), or the answer is none ([`Fault::Unanswered`]).
pub fn answered(
    body: &[u8],
    who: &Introduction,
    template: &UserTemplate,
    apps: &[String],
    now_ms: u64,
) -> Result<Grant, Fault> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| Fault::Unanswered)?;
    if matches!(answer.result, Outcome::Deny) {
        return Err(Fault::Denied);
    }
    let user = answer.user.unwrap_or_else(|| template.user(who.username.as_deref(), &who.device));
    let is_user = (1..=IDENTITY_BYTES_MAX).contains(&user.len()) && !user.contains('\0');
    let app = match &answer.app {
        None => Some(AppId(0)),
        Some(name) => apps.iter().position(|app| app == name).and_then(|place| u16::try_from(place).ok()).map(AppId),
    };
    let app = app.filter(|_| is_user).ok_or(Fault::Unanswered)?;
    let lists =
        Lists { publish: patterns(answer.publish)?, subscribe: patterns(answer.subscribe)?, ..Lists::default() };
    let ends_ms = answer.expires_in_ms.map_or(u64::MAX, |ms| now_ms.saturating_add(ms));
    Ok(Grant { app, user: user.into(), ends_ms, lists })
}

fn patterns(texts: Option<Vec<String>>) -> Result<Option<Box<[Pattern]>>, Fault> {
    let Some(texts) = texts else { return Ok(None) };
    let patterns: Result<Box<[Pattern]>, _> = texts.iter().map(|text| Pattern::parse(text)).collect();
    patterns.map(Some).map_err(|_| Fault::Unanswered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn phone(password: &[u8]) -> Introduction {
        Introduction {
            device: "phone".into(),
            username: Some("ann".into()),
            password: Some(Secret::from(password)),
            peer: "192.0.2.1:7".parse().expect("an address"),
            protocol: "mqtt-5",
        }
    }

    fn judge(body: &Value) -> Result<Grant, Fault> {
        let apps = ["default".to_owned(), "shop".to_owned()];
        answered(body.to_string().as_bytes(), &phone(b"pw"), &UserTemplate::default(), &apps, 1_000)
    }

    #[test]
    fn what_a_device_says_is_passed_on_as_it_is() {
        let said: Value = serde_json::from_slice(&phone(b"p\"w").to_json()).expect("JSON");
        let expected = json!({ "client_id": "phone", "username": "ann", "password": "p\"w", "address": "192.0.2.1:7",
            "protocol": "mqtt-5" });
        assert_eq!(said, expected);
        let said: Value = serde_json::from_slice(&phone(&[0xff, 0]).to_json()).expect("JSON");
        assert_eq!((said.get("password"), &said["password_base64"]), (None, &json!("/wA=")));
    }

    #[test]
    fn an_answer_says_who_it_is_what_it_may_and_for_how_long() {
        let whole = json!({ "result": "allow", "user": "bob", "app": "shop", "publish": ["a/#"], "subscribe": [],
            "expires_in_ms": 5 });
        let grant = judge(&whole).expect("it is allowed");
        assert_eq!((grant.app, &*grant.user, grant.ends_ms), (AppId(1), "bob", 1_005));
        assert_eq!(grant.lists.publish.map(|list| list.len()), Some(1));
        assert_eq!(grant.lists.subscribe.map(|list| list.len()), Some(0), "an empty list is a list");
        let bare = judge(&json!({ "result": "allow" })).expect("it is allowed");
        assert_eq!((bare.app, &*bare.user, bare.ends_ms), (AppId(0), "ann", u64::MAX));
        assert!(bare.lists.is_empty());
    }

    #[test]
    fn what_is_no_answer_lets_nobody_in() {
        assert_eq!(judge(&json!({ "result": "deny" })), Err(Fault::Denied));
        for body in [
            json!({}),
            json!({ "result": "yes" }),
            json!({ "result": "allow", "publishes": [] }),
            json!({ "result": "allow", "publish": null }),
            json!({ "result": "allow", "publish": ["a/#/b"] }),
            json!({ "result": "allow", "app": "another" }),
            json!({ "result": "allow", "user": "" }),
            json!({ "result": "allow", "user": "u".repeat(IDENTITY_BYTES_MAX + 1) }),
            json!([]),
        ] {
            assert_eq!(judge(&body), Err(Fault::Unanswered), "{body}");
        }
        let apps = ["default".to_owned()];
        let nothing = answered(b"", &phone(b"pw"), &UserTemplate::default(), &apps, 0);
        assert_eq!(nothing, Err(Fault::Unanswered));
    }
}
