//! `/v1/log`: what happens to the connections of a user, an app or an address is told in the log at once, for a while.

use super::Admin;
use crate::base::ids::AppId;
use crate::base::prefix::Prefix;
use crate::limits::{FOLLOW_FOR_MAX, FOLLOWED_MAX};
use crate::push::{Problem, json};
use crate::shard::command::Follow;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Whom to follow: who is all of what is said, of which there must be something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    app: Option<String>,
    user: Option<String>,
    address: Option<String>,
    /// From now on; 0: not any more.
    for_ms: u64,
}

#[derive(Serialize)]
struct Followed<'node> {
    followed: Vec<One<'node>>,
}

#[derive(Serialize)]
struct One<'node> {
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'node str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// How much longer.
    for_ms: u64,
}

impl Admin {
    /// Nobody panics while it is held: the value in it is whole.
    fn followed(&self) -> MutexGuard<'_, Vec<Follow>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, body: &[u8]) -> Result<Follow, Problem> {
        let wish: Wish = serde_json::from_slice(body).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is no wish to follow: {error}"))
        })?;
        let app = match &wish.app {
            None => None,
            Some(name) => {
                let place = self.apps.iter().position(|app| app == name).and_then(|place| u16::try_from(place).ok());
                Some(AppId(place.ok_or_else(|| Problem::field("app", "there is no such app"))?))
            }
        };
        let address = wish.address.as_deref().map(str::parse::<Prefix>).transpose();
        let address = address.map_err(|_| Problem::field("address", "it is no address and no ADDRESS/BITS"))?;
        if app.is_none() && wish.user.is_none() && address.is_none() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "it names no app, no user and no address"));
        }
        let most_ms = u64::try_from(FOLLOW_FOR_MAX.as_millis()).unwrap_or(u64::MAX);
        if wish.for_ms > most_ms {
            return Err(Problem::field("for_ms", format!("allowed: 0 to {most_ms}")));
        }
        let until_ms = (self.wall_ms)().saturating_add(wish.for_ms);
        Ok(Follow { app, user: wish.user.map(Into::into), address, until_ms })
    }

    fn told(&self, followed: &[Follow]) -> Response {
        let now_ms = (self.wall_ms)();
        let one = |follow: &Follow| One {
            app: follow.app.and_then(|app| self.apps.get(usize::from(app.0))).map(String::as_str),
            user: follow.user.clone(),
            address: follow.address.map(|address| address.to_string()),
            for_ms: follow.until_ms.saturating_sub(now_ms),
        };
        json(&Followed { followed: followed.iter().filter(|follow| follow.until_ms > now_ms).map(one).collect() })
    }
}

/// `GET /v1/log`: who is followed.
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Response {
    let followed = admin.followed().clone();
    admin.told(&followed)
}

/// `POST /v1/log`: follows somebody, for longer or for shorter if they are followed already.
pub(super) async fn follow(State(admin): State<Arc<Admin>>, body: Bytes) -> Result<Response, Problem> {
    let wish = admin.wish(&body)?;
    let now_ms = (admin.wall_ms)();
    let mut followed = admin.followed();
    let is_other = |follow: &Follow| (follow.app, &follow.user, follow.address) != (wish.app, &wish.user, wish.address);
    let mut next: Vec<Follow> =
        followed.iter().filter(|follow| follow.until_ms > now_ms && is_other(follow)).cloned().collect();
    if wish.until_ms > now_ms {
        if next.len() >= FOLLOWED_MAX {
            let detail = format!("{FOLLOWED_MAX} are followed already");
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail));
        }
        next.push(wish);
    }
    // They are told under the lock, so that the last list is the one that all of them have.
    admin.control.follow(&next.clone().into())?;
    *followed = next.clone();
    drop(followed);
    Ok(admin.told(&next))
}
