//! A flood over real sockets: one address of loopback, which is made to count, and another one that goes on.

use crate::gateway::{Gateway, PATIENCE, eventually};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

const ABUSER: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 1);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
/// MQTT 5, client id `phone`, keep alive 60.
const CONNECT: &[u8] = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x05phone";

fn dial(gateway: &Gateway, from: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("all of 127/8 is ours");
    socket.connect(&gateway.edge.into()).expect("the kernel accepts for the gateway");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// The code of its CONNACK; none: it was closed without one.
fn greet(gateway: &Gateway, from: Ipv4Addr) -> Option<u8> {
    let mut stream = dial(gateway, from);
    stream.write_all(CONNECT).ok()?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    Some(head[3])
}

#[test]
fn a_flood_from_one_address_is_turned_away_and_banned_and_another_address_connects() {
    for driver in ["epoll", "io_uring"] {
        let gateway = Gateway::start_with(
            driver,
            1,
            &[
                ("KITTIWAKE_LIMITS_ALLOW", "192.0.2.1"),
                ("KITTIWAKE_LIMITS_CONNECT_RATE", "10"),
                ("KITTIWAKE_LIMITS_BAN_WEIGHT", "200"),
            ],
        );
        // A hundred at once and a few that flow in meanwhile; the others find their socket closed.
        let greeted = (0..500).filter(|_| greet(&gateway, ABUSER) == Some(0)).count();
        assert!((100..450).contains(&greeted), "{greeted}, {driver}");
        assert_eq!(greet(&gateway, HONEST), Some(0), "{driver}");
        eventually("the abuser is banned", || {
            let (_, list) = gateway.get("/v1/bans").expect("the API answers");
            list["bans"].as_array().is_some_and(|bans| bans.iter().any(|ban| ban["source"] == "127.0.66.1"))
        });
        assert_eq!(greet(&gateway, ABUSER), None, "{driver}");
        assert_eq!(greet(&gateway, HONEST), Some(0), "{driver}");
        // An operator bans a network, which closes who is there.
        let mut there = dial(&gateway, HONEST);
        there.write_all(CONNECT).expect("it is open");
        assert_eq!(there.read(&mut [0; 1]).expect("a CONNACK begins"), 1);
        assert_eq!(gateway.post("/v1/bans", &json!({ "source": "127.0.7.0/24" })).0, 200);
        let mut rest = Vec::new();
        there.read_to_end(&mut rest).expect("it is closed in order");
        assert!(rest.windows(2).any(|bytes| bytes[0] == 0xe0) && rest.contains(&0x98), "it was told why: {rest:?}");
        assert_eq!(greet(&gateway, HONEST), None, "{driver}");
    }
}
