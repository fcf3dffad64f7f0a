//! The fuzz targets without a fuzzer: each on its checked-in corpus, and on inputs drawn from a seed.

#![allow(missing_docs, reason = "a test")]

#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../conformance/client.rs"]
mod client;
#[path = "../../fuzz/entries/mod.rs"]
mod entries;
#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../conformance/node.rs"]
mod node;
#[allow(dead_code, reason = "the codec's own test uses the rest of it")]
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../packets/mod.rs"]
mod packets;
#[allow(dead_code, reason = "the conformance tests use the rest of it")]
#[path = "../conformance/websocket.rs"]
mod websocket;

use entries::{decode, http, session, shard, token};
use kittiwake::wire::mqtt::Version;
use std::fs;
use std::path::PathBuf;

/// Runs a target on its corpus, on the corpus with bytes changed, and on random bytes.
fn run(target: &str, random: usize, entry: impl Fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("each target has a corpus").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no corpus");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for file in &files {
        let mut bytes = fs::read(file).expect("readable");
        entry(&bytes);
        for _ in 0..2 {
            for _ in 0..1 + draw() % 4 {
                let at = draw() % bytes.len().max(1);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte = draw() as u8);
            }
            entry(&bytes);
        }
    }
    for _ in 0..random {
        let bytes: Vec<u8> = (0..draw() % 600).map(|_| draw() as u8).collect();
        entry(&bytes);
    }
}

#[test]
fn mqtt3_decode() {
    run("mqtt3_decode", 20_000, |bytes| decode::mqtt(Version::V311, bytes));
}

#[test]
fn mqtt5_decode() {
    run("mqtt5_decode", 20_000, |bytes| decode::mqtt(Version::V5, bytes));
}

#[test]
fn greeting() {
    run("greeting", 500, decode::greeting);
}

#[test]
fn detect() {
    run("detect", 5_000, decode::detection);
}

#[test]
fn codec_oracle() {
    run("codec_oracle", 20_000, oracle::judge);
}

#[test]
fn session() {
    run("session", 600, session::run);
}

#[test]
fn shard() {
    run("shard", 60, shard::run);
}

#[test]
fn http_head() {
    run("http_head", 20_000, http::head);
}

#[test]
fn http2_frames() {
    run("http2", 20_000, entries::http2::frames);
}

#[test]
fn websocket_stream() {
    run("websocket", 20_000, entries::websocket::stream);
}

#[test]
fn proxy_head() {
    run("proxy", 20_000, entries::proxy::head);
}

#[test]
fn tls_records() {
    run("tls", 300, entries::tls::records);
}

#[test]
fn tokens() {
    run("token", 20_000, token::check);
}
