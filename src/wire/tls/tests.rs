//! A client and a server over bytes, with no socket between them.

use super::*;
use crate::base::transform::{Inbound, Passage, Reply, Shield, Transform};
use crate::wire::websocket::Carrier;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;

/// Whoever signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("it signs"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, names: &[&str], common_name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("they are names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.signed_by(&key, &self.0).expect("it signs").pem(), key.serialize_pem())
    }

    fn pair(&self, names: &[&str]) -> Pair {
        let (chain, key) = self.issue(names, "server");
        Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together")
    }

    fn trusted(&self, resumes: bool) -> Client {
        Client::new(&Trust::Roots(self.pem().as_bytes()), resumes, None).expect("it is a root")
    }
}

fn key(byte: u8) -> TicketKey {
    [byte; TICKET_KEY_BYTES].into()
}

fn serving(pairs: Vec<Pair>, peers: Option<Peers>, only_1_3: bool) -> Server {
    Server::new(&Identity { pairs, peers, only_1_3, protocols: &[] }, &[key(1)]).expect("it is complete")
}

/// One end, with what it has not read and what it has not sent.
struct Side {
    session: Session,
    unread: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
    heard: Heard,
}

impl Side {
    fn new(session: Session, out: Vec<u8>) -> Self {
        Self { session, unread: Vec::new(), plain: Vec::new(), out, heard: Heard::All }
    }

    fn takes(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let mut at = Passage::default();
        self.heard = self.session.read(&mut self.unread, &mut at, &mut self.out);
        self.plain.extend_from_slice(&self.unread[..at.write]);
        self.unread.drain(..at.read);
    }

    fn says(&mut self, plain: &[u8]) {
        let mut records = vec![0; Session::record_bytes_max(plain.len())];
        let made = self.session.write(plain, &mut records).expect("it is open");
        self.out.extend_from_slice(&records[..made]);
    }
}

struct Both {
    client: Side,
    server: Side,
}

impl Both {
    fn new(client: &Client, server: &Server, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("it is a name");
        let (client, hello) = Session::client(client, name).expect("there is randomness");
        let server = Session::server(server).expect("it was made by us");
        Self { client: Side::new(client, hello), server: Side::new(server, Vec::new()) }
    }

    /// Carries what both say, in pieces of so many bytes, until neither says anything.
    fn settle(&mut self, piece: usize) {
        while !self.client.out.is_empty() || !self.server.out.is_empty() {
            let (up, down) = (std::mem::take(&mut self.client.out), std::mem::take(&mut self.server.out));
            up.chunks(piece).for_each(|bytes| self.server.takes(bytes));
            down.chunks(piece).for_each(|bytes| self.client.takes(bytes));
        }
    }

    fn open(client: &Client, server: &Server, name: &str) -> Self {
        let mut both = Self::new(client, server, name);
        both.settle(usize::MAX);
        both
    }
}

#[test]
fn what_one_says_the_other_reads_however_the_bytes_come() {
    let authority = Authority::new();
    let server = serving(vec![authority.pair(&["edge.example"])], None, false);
    let client = authority.trusted(false);
    let long: Vec<u8> = (0..70_000_u32).map(|number| number as u8).collect();
    for piece in [1, 2, 3, 5, 7, 17, 100, 1_000, 16_389, usize::MAX] {
        let mut both = Both::new(&client, &server, "edge.example");
        assert!(both.client.session.is_handshaking() && !both.client.session.is_open());
        both.settle(piece);
        assert!(both.client.session.is_open() && both.server.session.is_open(), "in pieces of {piece}");
        for _ in 0..2 {
            both.client.says(b"up");
            both.server.says(b"down");
            both.server.says(&long);
            both.settle(piece);
        }
        assert_eq!(both.server.plain, b"upup");
        assert_eq!(both.client.plain.len(), 2 * (4 + long.len()));
        assert_eq!(both.client.plain[4..4 + long.len()], long);
        both.server.session.close(&mut both.server.out);
        both.settle(piece);
        assert_eq!((both.client.heard, both.server.heard), (Heard::End, Heard::All));
        both.client.session.close(&mut both.client.out);
        both.settle(piece);
        assert_eq!(both.server.heard, Heard::End);
        assert!(!both.server.session.is_open() && both.server.session.write(b"late", &mut [0; 99]).is_none());
    }
}

#[test]
fn records_fit_the_room_that_is_said_at_every_length_near_a_bound() {
    let authority = Authority::new();
    let server = serving(vec![authority.pair(&["a"])], None, false);
    let mut both = Both::open(&authority.trusted(false), &server, "a");
    for plain in [1, 2, 16_383, 16_384, 16_385, 32_768, 32_769, crate::limits::RECORDS_PLAIN_BYTES_MAX] {
        let room = Session::record_bytes_max(plain);
        let made = both.server.session.write(&vec![7; plain], &mut vec![0; room]).expect("there is room");
        assert!(made <= room && made > plain);
    }
    let largest = Session::record_bytes_max(crate::limits::RECORDS_PLAIN_BYTES_MAX);
    assert!(largest <= crate::limits::COALESCE_BYTES_MAX, "{largest}");
}

#[test]
fn the_certificate_is_the_names_or_its_wildcards_or_the_first() {
    let (first, second) = (Authority::new(), Authority::new());
    let pairs = vec![first.pair(&["a.example"]), second.pair(&["*.b.example", "c.example"])];
    let server = serving(pairs, None, false);
    let is_open = |authority: &Authority, name: &str| {
        let both = Both::open(&authority.trusted(false), &server, name);
        assert_eq!(both.server.session.is_open(), both.client.session.is_open());
        both.client.session.is_open()
    };
    assert!(is_open(&first, "a.example") && !is_open(&second, "a.example"));
    assert!(is_open(&second, "c.example") && is_open(&second, "X.B.example"));
    assert!(!is_open(&second, "b.example") && !is_open(&second, "x.y.b.example"), "a wildcard is one label");
    let unchecked = Client::new(&Trust::Anybody, false, None).expect("it needs nothing");
    assert!(Both::open(&unchecked, &server, "unknown.example").client.session.is_open());
}

#[test]
fn a_certificate_names_its_user_and_others_are_not_let_in() {
    let (servers, users, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let showing = |chain: &str, key: &str| {
        let (trust, chain) = (servers.pem(), (chain.as_bytes(), key.as_bytes()));
        Client::new(&Trust::Roots(trust.as_bytes()), true, Some(chain)).expect("they belong together")
    };
    let (chain, key) = users.issue(&["phone.ann.example"], "ann");
    let (other_chain, other_key) = strangers.issue(&[], "ann");
    for (required, from, user) in [(false, NameFrom::CommonName, "ann"), (true, NameFrom::Dns, "phone.ann.example")] {
        let peers = Peers::from_pem(users.pem().as_bytes(), required, from).expect("it is a root");
        let server = serving(vec![servers.pair(&["edge"])], Some(peers), false);
        let (ann, stranger) = (showing(&chain, &key), showing(&other_chain, &other_key));
        for is_resumed in [false, true] {
            let both = Both::open(&ann, &server, "edge");
            assert_eq!(both.server.session.user(), Some(user));
            assert_eq!(both.server.session.is_resumed(), is_resumed);
        }
        assert_eq!(Both::open(&stranger, &server, "edge").server.heard, Heard::Broken);
        let nobody = Both::open(&servers.trusted(false), &server, "edge");
        assert_eq!((nobody.server.session.is_open(), nobody.server.session.user()), (!required, None));
    }
}

#[test]
fn a_ticket_is_taken_by_any_server_with_its_key_and_the_same_roots() {
    let authority = Authority::new();
    let identity = |peers| Identity { pairs: vec![authority.pair(&["edge"])], peers, only_1_3: false, protocols: &[] };
    let server = |peers, keys: &[TicketKey]| Server::new(&identity(peers), keys).expect("it is complete");
    let resumes = |first: &Server, second: &Server| {
        let client = authority.trusted(true);
        Both::open(&client, first, "edge");
        let both = Both::open(&client, second, "edge");
        assert!(both.client.session.is_open() && both.server.session.is_open());
        both.server.session.is_resumed()
    };
    let (old, new) = (server(None, &[key(1)]), server(None, &[key(2), key(1)]));
    assert!(resumes(&old, &old) && resumes(&old, &new) && resumes(&new, &new));
    assert!(!resumes(&new, &old), "it has not the newer key");
    let peers = Peers::from_pem(authority.pem().as_bytes(), false, NameFrom::CommonName).expect("it is a root");
    assert!(!resumes(&old, &server(Some(peers), &[key(1)])), "whom it trusts is another matter");
    assert!(!resumes(&server(None, &[]), &server(None, &[])), "without keys there are no tickets");
}

#[test]
fn a_client_of_1_2_is_served_unless_only_1_3_is_spoken() {
    let authority = Authority::new();
    for only_1_3 in [false, true] {
        let server = serving(vec![authority.pair(&["edge"])], None, only_1_3);
        let client = Client::only_1_2(&Trust::Roots(authority.pem().as_bytes())).expect("it is a root");
        for is_resumed in [false, true] {
            let mut both = Both::open(&client, &server, "edge");
            assert_eq!(both.server.session.is_open(), !only_1_3);
            if only_1_3 {
                assert_eq!((both.server.heard, both.client.heard), (Heard::Broken, Heard::Broken));
                continue;
            }
            assert_eq!(both.server.session.is_resumed(), is_resumed);
            both.server.says(&[7; 40_000]);
            both.client.says(b"up");
            both.settle(999);
            assert_eq!((both.client.plain.len(), &both.server.plain[..]), (40_000, &b"up"[..]));
        }
    }
}

#[test]
fn what_breaks_the_rules_is_told_by_an_alert_and_nothing_is_said_after_it() {
    let authority = Authority::new();
    let server = serving(vec![authority.pair(&["edge"])], None, false);
    let mut both = Both::open(&authority.trusted(false), &server, "edge");
    both.client.says(b"fine");
    both.client.says(b"changed");
    let last = both.client.out.len() - 1;
    both.client.out[last] ^= 1;
    let up = std::mem::take(&mut both.client.out);
    both.server.takes(&up);
    assert_eq!((both.server.heard, &both.server.plain[..]), (Heard::Broken, &b"fine"[..]));
    assert!(both.server.unread.is_empty() && !both.server.out.is_empty());
    assert!(both.server.session.is_broken() && both.server.session.write(b"x", &mut [0; 99]).is_none());
    both.settle(usize::MAX);
    assert_eq!(both.client.heard, Heard::Broken, "it was told");
    for garbage in
        [&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..], b"\x16\x03\x01\xff\xff", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut side = Side::new(Session::server(&server).expect("it was made by us"), Vec::new());
        side.takes(garbage);
        assert_eq!(side.heard, Heard::Broken, "{garbage:x?}");
        side.session.close(&mut side.out);
    }
}

/// A client whose records are made here, so that they may be what no library says.
struct Forger {
    key: aws_lc_rs::aead::LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Forger {
    /// A server's end with which a client of TLS 1.3 has agreed, and that client's keys.
    fn with(authority: &Authority, server: &Server) -> (Side, Self) {
        let config = Client::extracting(&Trust::Roots(authority.pem().as_bytes())).expect("it is a root").rustls();
        let mut client = rustls::client::UnbufferedClientConnection::new(config, "edge".try_into().expect("a name"))
            .expect("there is randomness");
        let mut side = Side::new(Session::server(server).expect("it was made by us"), Vec::new());
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let mut at = Passage::default();
            assert_eq!(session::tests_read(&mut client, &mut down, &mut at, &mut up), Heard::All);
            down.drain(..at.read);
            side.takes(&std::mem::take(&mut up));
            down.append(&mut side.out);
        }
        assert!(side.session.is_open());
        let (secrets, _) = client.dangerous_into_kernel_connection().expect("it is agreed");
        let (sequence, secret) = secrets.tx;
        let rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secret else { panic!("another suite") };
        let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, key.as_ref()).expect("a key");
        let iv = iv.as_ref().try_into().expect("twelve bytes");
        (side, Self { key: aws_lc_rs::aead::LessSafeKey::new(key), iv, sequence })
    }

    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        for (byte, digit) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= digit;
        }
        self.sequence += 1;
        let length = u16::try_from(content.len() + 17).expect("it is short").to_be_bytes();
        let head = [23, 3, 3, length[0], length[1]];
        let mut sealed = [content, &[kind]].concat();
        let (nonce, aad) = (aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce), aws_lc_rs::aead::Aad::from(head));
        self.key.seal_in_place_append_tag(nonce, aad, &mut sealed).expect("it seals");
        [&head[..], &sealed].concat()
    }
}

#[test]
fn half_a_message_after_the_handshake_stops_nobody_from_speaking_or_ending() {
    let authority = Authority::new();
    let server = serving(vec![authority.pair(&["edge"])], None, false);
    // A key update, RFC 8446 §4.6.3, in two records or three.
    let update: &[u8] = &[24, 0, 0, 1, 0];
    for cuts in [&[2][..], &[1, 4], &[4]] {
        for extra in [0, 3, 5, 9] {
            let (mut side, mut forger) = Forger::with(&authority, &server);
            let mut start = 0;
            for &end in cuts {
                side.takes(&forger.record(22, &update[start..end]));
                start = end;
                assert_eq!(side.heard, Heard::All);
                side.says(b"while it waits");
            }
            let last = forger.record(22, &update[start..]);
            side.takes(&last[..extra]);
            side.says(b"while it waits");
            side.takes(&last[extra..]);
            assert_eq!((side.heard, side.unread.len()), (Heard::All, 0));
            side.says(b"afterwards");
        }
        let (mut side, mut forger) = Forger::with(&authority, &server);
        side.takes(&forger.record(22, &update[..cuts[0]]));
        side.out.clear();
        side.session.close(&mut side.out);
        assert!(!side.out.is_empty());
        side.takes(&forger.record(23, b"between the halves of a message"));
        assert_eq!(side.heard, Heard::Broken);
    }
}

#[test]
fn layers_take_websocket_off_what_tls_has_turned_wherever_the_bytes_are_cut() {
    let authority = Authority::new();
    let server = serving(vec![authority.pair(&["edge"])], None, false);
    let stream = b"\x02\x82\0\0\0\0ab\x89\x81\0\0\0\0p\x80\x81\0\0\0\0c\x82\x83\0\0\0\0def\x88\x82\0\0\0\0\x03\xe8";
    for step in 1..stream.len() {
        let mut both = Both::open(&authority.trusted(false), &server, "edge");
        let records: Vec<u8> = stream
            .chunks(step)
            .flat_map(|piece| {
                both.client.says(piece);
                std::mem::take(&mut both.client.out)
            })
            .collect();
        for piece in [1, 2, 29, 64, usize::MAX] {
            let mut other = Both::open(&authority.trusted(false), &server, "edge");
            stream.chunks(step).for_each(|piece| other.client.says(piece));
            let records_here =
                if piece == usize::MAX { records.clone() } else { std::mem::take(&mut other.client.out) };
            let session = if piece == usize::MAX { &mut both.server } else { &mut other.server };
            let session = std::mem::replace(&mut session.session, Session::server(&server).expect("it was made by us"));
            let mut layers = Layers::secured(session);
            layers.carry(Carrier::default());
            assert!(layers.has_websocket() && layers.shield() == Shield::Up && !layers.is_costly());
            let (mut unread, mut plain, mut pongs) = (Vec::new(), Vec::new(), 0);
            let mut last = Inbound::Done;
            for bytes in records_here.chunks(piece) {
                unread.extend_from_slice(bytes);
                let (mut at, mut reply) = (Passage::default(), Reply::default());
                last = loop {
                    match layers.inbound(&mut unread, &mut at, &mut reply) {
                        Inbound::Reply => {
                            pongs += usize::from(reply.bytes() == b"\x8A\x01p");
                            reply.clear();
                        }
                        done => break done,
                    }
                };
                plain.extend_from_slice(&unread[..at.write]);
                unread.drain(..at.read);
            }
            assert_eq!((&plain[..], pongs, last), (&b"abcdef"[..], 1, Inbound::End { fault: false }));
        }
    }
}

#[test]
fn what_a_handler_leaves_is_websockets_once_it_is_agreed_on() {
    let authority = Authority::new();
    let server = serving(vec![authority.pair(&["edge"])], None, false);
    let mut both = Both::open(&authority.trusted(false), &server, "edge");
    both.client.says(b"GET\x82\x82\0\0\0\0ab\x82\x81\0");
    both.client.says(b"\0\0\0c");
    let mut unread = std::mem::take(&mut both.client.out);
    let mut layers = Layers::secured(both.server.session);
    let (mut at, mut reply) = (Passage::default(), Reply::default());
    assert_eq!(layers.inbound(&mut unread, &mut at, &mut reply), Inbound::Done);
    assert_eq!((at.write, at.read), (18, unread.len()));
    layers.carry(Carrier::default());
    // Three bytes were the request; the others are unread again, as the engine has it.
    let mut unread = unread[3..18].to_vec();
    layers.put_back(15);
    let mut at = Passage::default();
    assert_eq!(layers.inbound(&mut unread, &mut at, &mut reply), Inbound::Done);
    assert_eq!((&unread[..at.write], at.read), (&b"abc"[..], 15));
}

#[test]
fn an_idle_connection_keeps_less_than_four_kilobytes() {
    // The parts that this crate adds; with rustls' own it is measured by `loadtest hold --tls`.
    assert!(size_of::<Session>() < 2_048, "{}", size_of::<Session>());
    assert_eq!(size_of::<Layers<Carrier>>(), 12);
}

#[test]
fn what_is_no_certificate_or_no_key_of_it_is_said_so() {
    let authority = Authority::new();
    let ((chain, key), (other, _)) = (authority.issue(&["a"], "a"), authority.issue(&["a"], "a"));
    let refused = |chain: &str, key: &str| Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect_err("it is refused");
    assert_eq!(refused("", &key), IdentityError::NoCertificate);
    assert_eq!(refused(&key, &key), IdentityError::NoCertificate);
    assert_eq!(refused(&chain, &chain), IdentityError::NoKey);
    assert_eq!(refused(&other, &key), IdentityError::OtherKey);
    let rotten = chain.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nAAAA");
    assert!(matches!(refused(&rotten, &key), IdentityError::Malformed(_)));
    assert!(Peers::from_pem(b"", true, NameFrom::Dns).is_err());
    let both = format!("{key}{chain}");
    assert!(Pair::from_pem(both.as_bytes(), both.as_bytes()).is_ok(), "one file with both");
}
