//! `kittiwake sub`: a blocking MQTT client that prints what arrives, one line a message: topic, payload.

use super::cli::{Failure, SubArguments};
use super::sub_stream::{self, Stream, Trusting};
use super::sub_websocket::WebSocket;
use super::subscriber::{End, Subscriber, Wish};
use crate::base::ids::Qos;
use crate::limits;
use crate::wire::tls::Client;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

/// Prints until the process is ended. The first connection must work; one that is lost later is made again.
pub(super) fn run(arguments: &SubArguments) -> Result<(), Failure> {
    let url = Url::parse(&arguments.url).map_err(Failure::Usage)?;
    let authority = &url.authority;
    let trusting = Trusting { ca: arguments.ca.as_deref(), anybody: arguments.insecure_tls };
    trusting.check(url.secure, "mqtts://HOST:PORT, wss://HOST:PORT/PATH").map_err(Failure::Usage)?;
    let client = url.secure.then(|| sub_stream::client(trusting)).transpose();
    let client = client.map_err(Failure::Usage)?;
    let mut subscriber = Subscriber::new(Wish {
        user: arguments.user.clone(),
        device: arguments.device.clone(),
        token: arguments.token.clone(),
        qos: Qos::from_bits(arguments.qos).expect("the command line takes 0 to 2"),
        filters: arguments.filters.clone(),
    });
    let (shortest, longest) = limits::SUB_BACKOFF;
    let mut pause = shortest;
    let mut worked_once = false;
    loop {
        let why = match converse(&url, client.as_ref(), &mut subscriber) {
            Ok(()) => return Ok(()),
            Err(End::GiveUp(why)) => return Err(Failure::Runtime(why)),
            Err(End::Retry(why)) => why,
        };
        if subscriber.is_open() {
            worked_once = true;
            pause = shortest;
        }
        if !worked_once {
            return Err(Failure::Runtime(format!("{authority}: {why}")));
        }
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(io::stderr(), "kittiwake: {authority}: {why}; connecting again in {} ms", pause.as_millis());
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}

/// Where to connect, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    /// `HOST:PORT`.
    authority: String,
    /// Over WebSocket, at this path.
    path: Option<String>,
    /// Within TLS.
    secure: bool,
}

impl Url {
    fn parse(url: &str) -> Result<Self, String> {
        let allowed = "allowed: mqtt://HOST:PORT, mqtts://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH";
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("--url: `{url}` has no scheme; {allowed}"));
        };
        let secure = matches!(scheme, "mqtts" | "wss");
        let (host, path, port) = match scheme {
            "mqtt" | "mqtts" => (rest.strip_suffix('/').unwrap_or(rest), None, if secure { 8883 } else { 1883 }),
            "ws" | "wss" => {
                let (host, path) = rest.find('/').map_or((rest, "/mqtt"), |at| rest.split_at(at));
                (host, Some(if path == "/" { "/mqtt" } else { path }), if secure { 443 } else { 80 })
            }
            _ => return Err(format!("--url: `{scheme}` is not known; {allowed}")),
        };
        if host.is_empty() || host.contains(|c: char| "/@?# ".contains(c) || c.is_control()) {
            return Err(format!("--url: `{host}` is not a host; {allowed}"));
        }
        if let Some(path) = path.filter(|path| path.contains(|c: char| c == '#' || !c.is_ascii_graphic())) {
            return Err(format!("--url: `{path}` is not a path; {allowed}"));
        }
        // The last colon of `[::1]` is inside the brackets.
        let after_brackets = host.rsplit(']').next().unwrap_or(host);
        let authority = if after_brackets.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Self { authority, path: path.map(str::to_owned), secure })
    }
}

/// One connection, from connect to its end. `Ok`: nobody reads what is printed any more.
fn converse(url: &Url, client: Option<&Client>, subscriber: &mut Subscriber) -> Result<(), End> {
    subscriber.start();
    let socket = connect(&url.authority).map_err(retry)?;
    let mut stream = match client {
        None => Stream::Plain(socket),
        Some(client) => Stream::secure(client, &url.authority, socket).map_err(retry)?,
    };
    let start = |path: &String| WebSocket::start(&url.authority, path).map_err(retry);
    let mut websocket = url.path.as_ref().map(start).transpose()?;
    let mut block = vec![0; limits::RECEIVE_BLOCK_BYTES];
    loop {
        if !print(&mut subscriber.lines)? {
            return Ok(());
        }
        let outgoing = match &mut websocket {
            Some(websocket) => {
                websocket.wrap(&mut subscriber.outgoing).map_err(retry)?;
                &mut websocket.outgoing
            }
            None => &mut subscriber.outgoing,
        };
        stream.write_all(outgoing).and_then(|()| stream.flush()).map_err(retry)?;
        outgoing.clear();
        stream.set_read_timeout(subscriber.patience()).map_err(retry)?;
        let handled = match stream.read(&mut block) {
            Ok(0) => Err(End::Retry("the server closed the connection".to_owned())),
            Ok(count) => match &mut websocket {
                Some(websocket) => websocket.handle_bytes(&block[..count], subscriber),
                None => subscriber.handle_bytes(&block[..count]),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                subscriber.handle_silence()
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(retry(error)),
        };
        if let Err(end) = handled {
            // What came before the end is printed all the same.
            return if print(&mut subscriber.lines)? { Err(end) } else { Ok(()) };
        }
    }
}

/// Tries the addresses of a name one after the other.
fn connect(authority: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limits::SUB_CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(limits::SUB_CONNECT_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Prints and forgets the lines. `false`: the reader has gone, as `head` does.
fn print(lines: &mut String) -> Result<bool, End> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
    lines.clear();
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(End::GiveUp(format!("cannot print: {error}"))),
    }
}

fn retry(error: io::Error) -> End {
    End::Retry(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_perhaps_a_port_and_a_path() {
        for (url, authority, path) in [
            ("mqtt://127.0.0.1:1884", "127.0.0.1:1884", None),
            ("mqtt://example.org", "example.org:1883", None),
            ("mqtt://example.org/", "example.org:1883", None),
            ("mqtt://[::1]", "[::1]:1883", None),
            ("mqtt://[::1]:7", "[::1]:7", None),
            ("ws://localhost:1883", "localhost:1883", Some("/mqtt")),
            ("ws://localhost/", "localhost:80", Some("/mqtt")),
            ("ws://[::1]/edge/mqtt?x=y", "[::1]:80", Some("/edge/mqtt?x=y")),
            ("mqtts://example.org", "example.org:8883", None),
            ("wss://example.org", "example.org:443", Some("/mqtt")),
        ] {
            let secure = url.starts_with("mqtts") || url.starts_with("wss");
            let expected = Url { authority: authority.to_owned(), path: path.map(str::to_owned), secure };
            assert_eq!(Url::parse(url), Ok(expected));
        }
    }

    #[test]
    fn other_urls_are_refused_on_one_line() {
        let allowed = "allowed: mqtt://HOST:PORT, mqtts://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH";
        for (url, wrong) in [
            ("wss://", "`` is not a host"),
            ("localhost", "`localhost` has no scheme"),
            ("http://localhost", "`http` is not known"),
            ("mqtt://", "`` is not a host"),
            ("mqtt://a/b", "`a/b` is not a host"),
            ("ws://a b/mqtt", "`a b` is not a host"),
            ("ws://a/m q", "`/m q` is not a path"),
        ] {
            assert_eq!(Url::parse(url), Err(format!("--url: {wrong}; {allowed}")));
        }
    }
}
