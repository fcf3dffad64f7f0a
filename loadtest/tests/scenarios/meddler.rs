//! What stands between the clients and the gateway in these tests and does one thing wrong: it loses, doubles or swaps
//! one packet on its way to a client.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// First byte's upper half of what is meddled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Publish = 3,
    PingResp = 13,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Lose,
    Double,
    /// It comes after the next of its kind.
    Swap,
}

/// What is done, once: to the packet of this kind that has so many of its kind before it on its connection.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub before: usize,
    pub fault: Fault,
    /// So many connections are spared, those that came first: what is on its way to a client that drops is lost anyway,
    /// and sent again.
    pub spared: usize,
}

/// A listener whose connections lead to the gateway.
pub struct Meddler {
    pub address: SocketAddr,
    done: Arc<AtomicBool>,
}

impl Meddler {
    /// Its threads end with their connections, the listener's with the test's process.
    pub fn start(gateway: SocketAddr, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("a bound listener has an address");
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let strikes = number >= plan.spared;
                let Ok(server) = TcpStream::connect(gateway) else { continue };
                let ends = (client.try_clone().expect("it is open"), server.try_clone().expect("it is open"));
                let flag = Arc::clone(&flag);
                thread::spawn(move || upward(ends.0, ends.1));
                thread::spawn(move || downward(server, client, plan, strikes, &flag));
            }
        });
        Self { address, done }
    }

    /// Whether it has done what it was to do.
    pub fn has_meddled(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
}

/// Everything, as it is.
fn upward(mut client: TcpStream, mut server: TcpStream) {
    // An end in the midst is what clients that drop make.
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
}

/// Packet by packet.
fn downward(mut server: TcpStream, mut client: TcpStream, plan: Plan, strikes: bool, done: &AtomicBool) {
    let (mut bytes, mut chunk, mut seen, mut held) = (Vec::new(), [0; 16 << 10], 0, None::<Vec<u8>>);
    while let Ok(count @ 1..) = server.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
        while let Some(length) = packet_length(&bytes) {
            let packet: Vec<u8> = bytes.drain(..length).collect();
            let ours = packet[0] >> 4 == plan.kind as u8;
            let now = ours && strikes && seen == plan.before && !done.swap(true, Ordering::SeqCst);
            seen += usize::from(ours);
            let mut out = packet.clone();
            match plan.fault {
                Fault::Lose if now => out.clear(),
                Fault::Double if now => out.extend_from_slice(&packet),
                Fault::Swap if now => {
                    out.clear();
                    held = Some(packet);
                }
                _ if ours => out.extend(held.take().into_iter().flatten()),
                _ => {}
            }
            if client.write_all(&out).is_err() {
                let _ = server.shutdown(Shutdown::Both);
                return;
            }
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// Bytes of the first packet, if it is whole.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (at, &byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let total = length + at + 2;
            return (bytes.len() >= total).then_some(total);
        }
    }
    None
}
