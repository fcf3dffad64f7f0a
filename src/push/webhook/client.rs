//! The HTTP client of the webhook: one connection that is kept, over TLS where the address says so.

use super::{Carry, Post, Posted};
use crate::limits::WEBHOOK_ANSWER_BYTES_MAX;
use axum::http::{HeaderValue, Request, Uri, header};
use bytes::Bytes;
use core::time::Duration;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::io;

/// See the module.
pub(in crate::push) struct Client {
    inner: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    timeout: Duration,
}

impl Client {
    /// Trusts whom the system trusts.
    ///
    /// # Errors
    /// The system's certificates cannot be read.
    pub(in crate::push) fn new(url: Uri, timeout: Duration) -> io::Result<Self> {
        let connector = HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1().build();
        let inner = HyperClient::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(Self { inner, url, timeout })
    }

    async fn send(&self, post: Post) -> Posted {
        let text = |text: String| HeaderValue::try_from(text).expect("digits and letters are header values");
        let request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-kittiwake-timestamp", text(post.timestamp))
            .header("x-kittiwake-signature", text(post.signature))
            .body(Full::from(post.body))
            .expect("the address was checked when it was configured");
        let answer = match self.inner.request(request).await {
            Ok(answer) => answer,
            Err(error) => return Posted::Failed(reason(&error)),
        };
        let status = answer.status();
        // Read to its end, so that the connection can be used again; a longer one costs the connection.
        let _unused = Limited::new(answer.into_body(), WEBHOOK_ANSWER_BYTES_MAX).collect().await;
        Posted::Answered(status)
    }
}

impl Carry for Client {
    async fn post(&self, post: Post) -> Posted {
        match tokio::time::timeout(self.timeout, self.send(post)).await {
            Ok(posted) => posted,
            Err(_) => Posted::Failed(format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// The error with what it came from: hyper's own words do not say that.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
