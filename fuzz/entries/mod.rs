//! What the fuzz targets run, apart from the fuzzer, so that `tests/fuzz_smoke` runs the same.

pub mod decode;
mod draw;
pub mod http;
pub mod http2;
pub mod proxy;
pub mod session;
pub mod shard;
pub mod tls;
pub mod token;
pub mod websocket;
