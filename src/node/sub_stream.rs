//! The socket of `sub`, plain or within TLS, and whom the clients of the command line trust.

use crate::config::token_keys::read_file;
use crate::wire::tls::{Client, Trust};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where distributions keep the certificates that everybody trusts.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom a client trusts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusting<'a> {
    /// The certificates of this file, else of `SSL_CERT_FILE`, else the system's.
    pub(super) ca: Option<&'a Path>,
    /// Whoever answers.
    pub(super) anybody: bool,
}

impl Trusting<'_> {
    /// Whom to trust is only asked where there is TLS: `urls` are those.
    pub(super) fn check(self, is_secure: bool, urls: &str) -> Result<(), String> {
        let flag = if self.ca.is_some() { "--ca" } else { "--insecure-tls" };
        if is_secure || self.ca.is_none() && !self.anybody {
            return Ok(());
        }
        Err(format!("{flag}: the URL is not of TLS; allowed: {urls}"))
    }

    /// The certificates, and the file that they are from. The error is one line.
    pub(super) fn roots(self) -> Result<(PathBuf, Vec<u8>), String> {
        let named = self.ca.map(Path::to_owned).or_else(|| std::env::var_os("SSL_CERT_FILE").map(Into::into));
        let path = named.or_else(|| SYSTEM.iter().map(Into::into).find(|path: &PathBuf| path.exists()));
        let path = path.ok_or("--ca: this system has no file with certificates that it trusts; name one")?;
        let pem = read_file(&path).map_err(|error| format!("--ca: {}: {error}", path.display()))?;
        Ok((path, pem))
    }
}

/// How `sub` speaks TLS. The error is one line.
pub(super) fn client(trusting: Trusting<'_>) -> Result<Client, String> {
    if trusting.anybody {
        return Client::new(&Trust::Anybody, true, None).map_err(|error| error.to_string());
    }
    let (path, pem) = trusting.roots()?;
    let wrong = |why: String| format!("--ca: {}: {why}", path.display());
    Client::new(&Trust::Roots(&pem), true, None).map_err(|error| wrong(error.to_string()))
}

/// One connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Within TLS, towards this `HOST:PORT`. The handshake follows with the first bytes.
    pub(super) fn secure(client: &Client, authority: &str, socket: TcpStream) -> io::Result<Self> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        let connection = ClientConnection::new(client.rustls(), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    pub(super) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.set_read_timeout(Some(timeout)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(timeout)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            // Without a close_notify the end is one all the same: what comes over it says itself when it is whole.
            Self::Tls(stream) => match stream.read(into) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
