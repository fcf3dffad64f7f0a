//! PINGREQ and PINGRESP: MQTT 5 §3.12, §3.13.

use super::bytes::Sink;
use super::{Encode, PINGREQ, PINGRESP, Version};

/// The client's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingReq;

/// The server's answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingResp;

impl Encode for PingReq {
    fn first_byte(&self) -> u8 {
        PINGREQ << 4
    }
    fn write_body<S: Sink>(&self, _version: Version, _sink: &mut S) {}
}

impl Encode for PingResp {
    fn first_byte(&self) -> u8 {
        PINGRESP << 4
    }
    fn write_body<S: Sink>(&self, _version: Version, _sink: &mut S) {}
}
