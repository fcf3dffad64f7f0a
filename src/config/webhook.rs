//! `webhook.*`: where events go by HTTP, and which.

use super::layers::{Values, one_line};
use super::{ConfigError, app_ids, size};
use crate::base::secret::Secret;
use crate::limits::{API_KEY_BYTES_MAX, API_KEY_BYTES_MIN, EVENTS_FILTERS_MAX};
use crate::push::webhook::Settings;
use crate::shard::command::{AppWatch, check_filter};
use axum::http::Uri;
use std::sync::Arc;

/// Reads all of them; none: no address is set. No error repeats the secret, or the address, which may hold one.
pub(super) fn parse(values: &Values, apps: &[String]) -> Result<Option<Settings>, ConfigError> {
    let text = values.text("webhook.url");
    if text.is_empty() {
        return Ok(None);
    }
    let allowed = "an address such as https://example.com/events";
    let url: Option<Uri> = text.parse().ok();
    let is_whole = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    let url = url.filter(is_whole).ok_or_else(|| ConfigError::new("webhook.url", "it is no such address", allowed))?;
    let secret = values.text("webhook.secret");
    if !(API_KEY_BYTES_MIN..=API_KEY_BYTES_MAX).contains(&secret.len()) {
        let wrong = format!("it has {} bytes", secret.len());
        let allowed = format!("{API_KEY_BYTES_MIN} to {API_KEY_BYTES_MAX} bytes");
        return Err(ConfigError::new("webhook.secret", wrong, allowed));
    }
    let wants = wants(values)?;
    let app = match app_ids(values.text("webhook.app"), apps) {
        Ok(Some(ids)) if ids.len() == 1 => ids[0],
        Ok(_) => return Err(ConfigError::new("webhook.app", "it names more than one app", "an app of node.apps")),
        Err(wrong) => return Err(ConfigError::new("webhook.app", wrong, "an app of node.apps")),
    };
    let (events, timeout) = (size(values, "webhook.batch"), values.duration("webhook.timeout"));
    Ok(Some(Settings { url, secret: Secret::from(secret), app, wants, events, timeout }))
}

fn wants(values: &Values) -> Result<AppWatch, ConfigError> {
    let allowed = format!("at most {EVENTS_FILTERS_MAX} topic filters");
    let error = |wrong: String| ConfigError::new("webhook.publishes", wrong, allowed.clone());
    let filters = values.list("webhook.publishes");
    if filters.len() > EVENTS_FILTERS_MAX {
        return Err(error(format!("{} are too many", filters.len())));
    }
    let one = |text: &String| match check_filter(text) {
        true => Ok(Arc::from(text.as_str())),
        false => Err(error(format!("`{}` is not a topic filter", one_line(text)))),
    };
    let publishes: Vec<Arc<str>> = filters.iter().map(one).collect::<Result<_, _>>()?;
    let (connections, receipts) = (values.bool("webhook.connections"), values.bool("webhook.receipts"));
    if !connections && !receipts && publishes.is_empty() {
        let wrong = "nothing is to be sent there";
        let allowed = "with one of webhook.connections, webhook.receipts, webhook.publishes";
        return Err(ConfigError::new("webhook.url", wrong, allowed));
    }
    Ok(AppWatch { connections, receipts, publishes })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Flags};
    use super::*;
    use crate::base::ids::AppId;
    use core::time::Duration;

    fn config(text: &str) -> Result<Config, ConfigError> {
        super::super::parse(Some(text), [], &Flags::default())
    }

    const WHOLE: &str = "[node]\napps = [\"default\", \"shop\"]\n[webhook]\nurl = \"https://hooks.example/a?b\"\n\
        secret = \"0123456789abcdef\"\napp = \"shop\"\nreceipts = true\npublishes = [\"rooms/+\"]\nbatch = 7\n\
        timeout = \"3s\"\n";

    #[test]
    fn a_webhook_is_read_in_its_parts() {
        let webhook = config(WHOLE).expect("it is well").webhook.expect("it is set");
        assert_eq!(webhook.url.to_string(), "https://hooks.example/a?b");
        assert_eq!(webhook.secret.bytes(), b"0123456789abcdef");
        assert_eq!((webhook.app, webhook.events, webhook.timeout), (AppId(1), 7, Duration::from_secs(3)));
        let wants = AppWatch { connections: false, receipts: true, publishes: vec!["rooms/+".into()] };
        assert_eq!(webhook.wants, wants);
        assert_eq!(config("").expect("it is well").webhook, None);
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_said_without_its_secret() {
        let changes = [
            ("url = \"https://hooks.example/a?b\"", "url = \"ftp://hooks.example\"", "webhook.url: "),
            ("url = \"https://hooks.example/a?b\"", "url = \"/events\"", "webhook.url: "),
            ("secret = \"0123456789abcdef\"", "secret = \"0123456789abcde\"", "webhook.secret: "),
            ("app = \"shop\"", "app = \"*\"", "webhook.app: "),
            ("app = \"shop\"", "app = \"other\"", "webhook.app: "),
            ("publishes = [\"rooms/+\"]", "publishes = [\"a/#/b\"]", "webhook.publishes: "),
            ("receipts = true\npublishes = [\"rooms/+\"]\n", "", "webhook.url: nothing"),
            ("batch = 7", "batch = 0", "webhook.batch: "),
        ];
        for (from, to, begins) in changes {
            let text = WHOLE.replace(from, to);
            assert_ne!(text, WHOLE, "{from}");
            let error = config(&text).expect_err(to).to_string();
            assert!(error.starts_with(begins) && !error.contains("0123456789abcde"), "{error}");
        }
    }
}
