//! `kittiwake push`: a thin client of the API.

use super::cli::{Failure, PushArguments};
use super::sub_stream::Trusting;
use crate::limits;
use crate::wire::tls::provider;
use serde_json::{Map, Value, json};
use std::io::{Read, Write};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

/// Pushes, prints the reply.
pub(super) fn run(arguments: &PushArguments) -> Result<(), Failure> {
    let body = body(arguments, payload(arguments.payload.as_deref())?)?;
    let reply = send(arguments, &body)?;
    writeln!(std::io::stdout(), "{reply}").map_err(|error| Failure::Runtime(format!("cannot write the reply: {error}")))
}

fn payload(argument: Option<&str>) -> Result<Vec<u8>, Failure> {
    match argument {
        None => Ok(Vec::new()),
        Some("-") => {
            let mut bytes = Vec::new();
            let mut stdin = std::io::stdin().lock().take(limits::CLI_PAYLOAD_BYTES_MAX as u64 + 1);
            stdin
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::Runtime(format!("cannot read the payload from stdin: {error}")))?;
            if bytes.len() > limits::CLI_PAYLOAD_BYTES_MAX {
                let line = format!("PAYLOAD: stdin is too long; allowed: {} bytes", limits::CLI_PAYLOAD_BYTES_MAX);
                return Err(Failure::Usage(line));
            }
            Ok(bytes)
        }
        Some(text) => Ok(text.as_bytes().to_vec()),
    }
}

/// The request's JSON. What the API can check is left to the API.
fn body(arguments: &PushArguments, payload: Vec<u8>) -> Result<String, Failure> {
    let to = match (&arguments.user, &arguments.topic, &arguments.device) {
        (Some(user), _, _) => json!({ "user": user }),
        (_, Some(topic), _) => json!({ "topic": topic }),
        (_, _, Some(both)) => {
            // The user is everything before the last slash: client ids rarely have one.
            let (user, device) = both
                .rsplit_once('/')
                .ok_or_else(|| Failure::Usage(format!("--device: `{both}` names no device; allowed: USER/DEVICE")))?;
            json!({ "device": { "user": user, "device": device } })
        }
        (None, None, None) => json!({ "everyone": true }),
    };
    let mut body = Map::new();
    body.insert("to".to_owned(), to);
    match String::from_utf8(payload) {
        Ok(text) => body.insert("payload".to_owned(), Value::from(text)),
        Err(error) => {
            let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, error.as_bytes());
            body.insert("payload_base64".to_owned(), Value::from(text))
        }
    };
    let texts =
        [("app", &arguments.app), ("label", &arguments.label), ("key", &arguments.key), ("wait", &arguments.wait)];
    for (name, text) in texts {
        if let Some(text) = text {
            body.insert(name.to_owned(), Value::from(text.as_str()));
        }
    }
    if let Some(qos) = arguments.qos {
        body.insert("qos".to_owned(), Value::from(qos));
    }
    if let Some(ttl) = arguments.ttl {
        body.insert("ttl_ms".to_owned(), Value::from(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
    }
    Ok(Value::Object(body).to_string())
}

fn send(arguments: &PushArguments, body: &str) -> Result<String, Failure> {
    let url = format!("{}/v1/push", arguments.api.trim_end_matches('/'));
    let mut config = ureq::Agent::config_builder()
        // A problem's body says more than its status.
        .http_status_as_error(false)
        .timeout_global(Some(limits::PUSH_TIMEOUT_MAX));
    let is_secure = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let trusting = Trusting { ca: arguments.ca.as_deref(), anybody: arguments.insecure_tls };
    trusting.check(is_secure, "https://HOST:PORT").map_err(Failure::Usage)?;
    if is_secure {
        config = config.tls_config(tls(trusting).map_err(Failure::Usage)?);
    }
    let agent: ureq::Agent = config.build().into();
    let mut request = agent.post(&url).header("Content-Type", "application/json");
    if let Some(key) = &arguments.api_key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let failure = |error: ureq::Error| Failure::Runtime(format!("{url}: {error}"));
    let mut response = request.send(body).map_err(failure)?;
    let text = response.body_mut().read_to_string().map_err(failure)?;
    if response.status().is_success() {
        return Ok(text);
    }
    Err(Failure::Runtime(explain(response.status().as_u16(), &text)))
}

/// How the API is spoken to within TLS. The error is one line.
fn tls(trusting: Trusting<'_>) -> Result<TlsConfig, String> {
    let config = TlsConfig::builder().unversioned_rustls_crypto_provider(provider());
    if trusting.anybody {
        return Ok(config.disable_verification(true).root_certs(RootCerts::new_with_certs(&[])).build());
    }
    let (path, pem) = trusting.roots()?;
    let certificates: Result<Vec<Certificate<'static>>, _> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect();
    let certificates = certificates.map_err(|error| format!("--ca: {}: {error}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("--ca: {}: there is no PEM certificate in it", path.display()));
    }
    Ok(config.root_certs(RootCerts::new_with_certs(&certificates)).build())
}

/// A problem as one line.
fn explain(status: u16, text: &str) -> String {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    let Some(detail) = problem.get("detail").and_then(Value::as_str) else {
        return format!("the API answered {status}");
    };
    match problem.get("field").and_then(Value::as_str) {
        Some(field) => format!("{status}: {field}: {detail}"),
        None => format!("{status}: {detail}"),
    }
}
