//! API keys: who may speak for which apps.

use super::problem::Problem;
use crate::base::ids::AppId;
use crate::limits::API_KEY_BYTES_MAX;
use axum::http::{HeaderMap, StatusCode, header};
use core::fmt;
use core::hint::black_box;
use std::sync::Arc;

/// For whom somebody may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apps {
    /// Everybody, and the node as a whole.
    All,
    /// These, at least one.
    Some(Arc<[AppId]>),
}

/// One key of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    apps: Apps,
    secret: Padded,
}

/// All keys of the node. None: whoever reaches the API may do everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeys(Vec<ApiKey>);

/// Whoever a request is from, as far as it has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    apps: Apps,
}

/// A secret in as many bytes as the longest may have, so that comparing takes the same time for all.
#[derive(Clone, PartialEq, Eq)]
struct Padded {
    bytes: [u8; API_KEY_BYTES_MAX],
    length: usize,
}

impl Padded {
    fn new(secret: &[u8]) -> Option<Self> {
        let mut bytes = [0; API_KEY_BYTES_MAX];
        bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        Some(Self { bytes, length: secret.len() })
    }

    /// Looks at every byte, wherever the first difference is.
    fn is(&self, other: &Self) -> bool {
        let mut difference = self.length ^ other.length;
        for (one, another) in self.bytes.iter().zip(&other.bytes) {
            difference = black_box(difference | usize::from(one ^ another));
        }
        difference == 0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("apps", &self.apps).finish_non_exhaustive()
    }
}

impl ApiKey {
    /// None: the secret is longer than `API_KEY_BYTES_MAX`.
    pub fn new(apps: Apps, secret: &str) -> Option<Self> {
        Some(Self { apps, secret: Padded::new(secret.as_bytes())? })
    }
}

impl ApiKeys {
    /// Those of the configuration.
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self(keys)
    }

    /// No key is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whoever sends this, by its `Authorization: Bearer KEY`.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.is_empty() {
            return Ok(Caller { apps: Apps::All });
        }
        let refused = || Problem::new(StatusCode::UNAUTHORIZED, "a valid `Authorization: Bearer KEY` is needed");
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(refused()) };
        let (scheme, secret) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused());
        }
        let presented = Padded::new(secret.trim().as_bytes()).ok_or_else(refused)?;
        // All of them are compared, so that the time does not tell which.
        let found = self.0.iter().fold(None, |found, key| if key.secret.is(&presented) { Some(key) } else { found });
        found.map(|key| Caller { apps: key.apps.clone() }).ok_or_else(refused)
    }
}

impl Caller {
    /// Whether it may speak for an app.
    pub fn may(&self, app: AppId) -> bool {
        match &self.apps {
            Apps::All => true,
            Apps::Some(apps) => apps.contains(&app),
        }
    }

    /// Whether it may see the node as a whole.
    pub fn may_see_all(&self) -> bool {
        self.apps == Apps::All
    }

    /// The app of a request that names none.
    pub fn first_app(&self) -> AppId {
        match &self.apps {
            Apps::All => AppId(0),
            Apps::Some(apps) => apps.first().copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
impl Caller {
    pub(super) fn anybody() -> Self {
        Self { apps: Apps::All }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_a_whole_key_is_the_key() {
        let secret = "k".repeat(API_KEY_BYTES_MAX);
        let keys = ApiKeys::new(vec![
            ApiKey::new(Apps::Some([AppId(1)].into()), "0123456789abcdef").expect("short"),
            ApiKey::new(Apps::All, &secret).expect("as long as may be"),
        ]);
        let ask = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("ASCII"));
            }
            keys.caller(&headers).map_err(|problem| problem.status)
        };
        let one = ask(&["Bearer 0123456789abcdef"]).expect("the key");
        assert!(one.may(AppId(1)) && !one.may(AppId(0)) && !one.may_see_all() && one.first_app() == AppId(1));
        let all = ask(&[&format!("bearer {secret}")]).expect("the key");
        assert!(all.may(AppId(7)) && all.may_see_all() && all.first_app() == AppId(0));
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"]
        {
            assert_eq!(ask(&[wrong]), Err(401), "{wrong}");
        }
        assert_eq!(ask(&[]), Err(401));
        assert_eq!(ask(&[&format!("Bearer {secret}k")]), Err(401));
        assert_eq!(ask(&["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"]), Err(401));
        assert!(ApiKey::new(Apps::All, &"k".repeat(API_KEY_BYTES_MAX + 1)).is_none());
        assert!(!format!("{keys:?}").contains("0123456789abcdef"), "keys are never printed");
    }
}
