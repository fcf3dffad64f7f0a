//! `kittiwake sub`: a blocking MQTT client that prints what arrives, one line a message: topic, payload.

use super::cli::{Failure, SubArguments};
use super::subscriber::{End, Subscriber, Wish};
use crate::base::ids::Qos;
use crate::limits;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

/// Prints until the process is ended. The first connection must work; one that is lost later is made again.
pub(super) fn run(arguments: &SubArguments) -> Result<(), Failure> {
    let authority = authority(&arguments.url).map_err(Failure::Usage)?;
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
        let why = match converse(&authority, &mut subscriber) {
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

/// `HOST:PORT` of a URL.
fn authority(url: &str) -> Result<String, String> {
    let allowed = "allowed: mqtt://HOST:PORT";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("--url: `{url}` has no scheme; {allowed}"));
    };
    match scheme {
        "mqtt" => {}
        "ws" | "wss" | "mqtts" => return Err(format!("--url: {scheme} is not available yet; {allowed}")),
        _ => return Err(format!("--url: `{scheme}` is not known; {allowed}")),
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains(['/', '@', '?', '#', ' ']) {
        return Err(format!("--url: `{rest}` is not a host; {allowed}"));
    }
    // The last colon of `[::1]` is inside the brackets.
    let after_brackets = rest.rsplit(']').next().unwrap_or(rest);
    Ok(if after_brackets.contains(':') { rest.to_owned() } else { format!("{rest}:1883") })
}

/// One connection, from connect to its end. `Ok`: nobody reads what is printed any more.
fn converse(authority: &str, subscriber: &mut Subscriber) -> Result<(), End> {
    subscriber.start();
    let mut stream = connect(authority).map_err(retry)?;
    let mut block = vec![0; limits::RECEIVE_BLOCK_BYTES];
    loop {
        if !print(&mut subscriber.lines)? {
            return Ok(());
        }
        stream.write_all(&subscriber.outgoing).map_err(retry)?;
        subscriber.outgoing.clear();
        stream.set_read_timeout(Some(subscriber.patience())).map_err(retry)?;
        let handled = match stream.read(&mut block) {
            Ok(0) => Err(End::Retry("the server closed the connection".to_owned())),
            Ok(count) => subscriber.handle_bytes(&block[..count]),
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
    fn a_url_names_a_host_and_perhaps_a_port() {
        for (url, expected) in [
            ("mqtt://127.0.0.1:1884", "127.0.0.1:1884"),
            ("mqtt://example.org", "example.org:1883"),
            ("mqtt://example.org/", "example.org:1883"),
            ("mqtt://[::1]", "[::1]:1883"),
            ("mqtt://[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(authority(url).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn other_urls_are_refused_on_one_line() {
        for (url, error) in [
            ("ws://localhost/mqtt", "--url: ws is not available yet; allowed: mqtt://HOST:PORT"),
            ("localhost", "--url: `localhost` has no scheme; allowed: mqtt://HOST:PORT"),
            ("http://localhost", "--url: `http` is not known; allowed: mqtt://HOST:PORT"),
            ("mqtt://", "--url: `` is not a host; allowed: mqtt://HOST:PORT"),
            ("mqtt://a/b", "--url: `a/b` is not a host; allowed: mqtt://HOST:PORT"),
        ] {
            assert_eq!(authority(url), Err(error.to_owned()));
        }
    }
}
