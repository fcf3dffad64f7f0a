//! The binary's exit codes and error lines: 0 clean, 1 runtime failure, 2 bad usage or configuration; how the kernel
//! schedules its threads; how the file is laid out.

#[path = "ports/mod.rs"]
mod ports;

use kittiwake::auth::{Algorithm, Key, KeyApps, KeySet, Rules, verify};
use kittiwake::base::ids::AppId;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// The binary without whatever configuration the surroundings have.
fn kittiwake(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kittiwake"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KITTIWAKE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command that must fail with `code`; returns its one line on stderr. Nothing may be on stdout.
fn failure(mut command: Command, code: i32) -> String {
    line_of(&command.output().expect("the binary starts"), code)
}

fn line_of(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("errors are UTF-8");
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty());
    assert_eq!(text.lines().count(), 1, "{text}");
    let line = text.trim_end().strip_prefix("kittiwake: ").expect("the line says who speaks");
    line.to_owned()
}

#[test]
fn a_wrong_value_of_a_flag_exits_with_2() {
    assert_eq!(
        failure(kittiwake(&["serve", "--shards", "many"]), 2),
        "--shards: `many` is not allowed; allowed: 0 to 1024"
    );
}

#[test]
fn a_wrong_value_of_a_variable_exits_with_2() {
    let mut command = kittiwake(&["serve"]);
    command.env("KITTIWAKE_NODE_DRIVER", "kqueue");
    assert_eq!(failure(command, 2), "KITTIWAKE_NODE_DRIVER: `kqueue` is not allowed; allowed: auto, io_uring, epoll");
}

#[test]
fn an_unknown_variable_exits_with_2() {
    let mut command = kittiwake(&["serve"]);
    command.env("KITTIWAKE_NODE_THREADS", "1");
    assert!(failure(command, 2).starts_with("KITTIWAKE_NODE_THREADS: there is no such key; allowed: "));
}

#[test]
fn an_unknown_key_of_the_file_exits_with_2() {
    let path = std::env::temp_dir().join(format!("kittiwake-cli-{}.toml", std::process::id()));
    std::fs::write(&path, "[api]\nport = 1\n").expect("the temporary directory is writable");
    let mut command = kittiwake(&["serve", "--config"]);
    command.arg(&path);
    let line = failure(command, 2);
    std::fs::remove_file(&path).expect("it was written above");
    assert_eq!(
        line,
        "api.port: there is no such key; allowed: api.listen, api.tls, api.client_ca, api.keys, api.allow, api.push_rate"
    );
}

#[test]
fn a_missing_file_exits_with_2() {
    let line = failure(kittiwake(&["serve", "--config", "/nonexistent.toml"]), 2);
    assert!(line.starts_with("--config: cannot read /nonexistent.toml: "), "{line}");
}

#[test]
fn a_data_directory_of_somebody_else_or_of_a_later_version_exits_with_2() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let path = directory.path().to_str().expect("it is UTF-8");
    let serve = || kittiwake(&["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--data-dir", path]);
    std::fs::write(directory.path().join("diary"), "dear").expect("it is writable");
    let line = failure(serve(), 2);
    let expected = "this directory holds something else than a kittiwake store";
    assert_eq!(line, format!("store.data_dir (--data-dir) {path}: {expected}"));
    std::fs::write(directory.path().join("format"), "kittiwake store, format 2\n").expect("it is writable");
    let line = failure(serve(), 2);
    let expected = "a later version has made this store: format 2, here 1 is known";
    assert_eq!(line, format!("store.data_dir (--data-dir) {path}: {expected}"));
}

#[test]
fn keys_that_cannot_be_read_exit_with_2() {
    let mut command = kittiwake(&["serve", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    command.env("KITTIWAKE_AUTH_MODE", "jwt").env("KITTIWAKE_AUTH_KEYS", "RS256:default:file=/nowhere/key.pem");
    let line = failure(command, 2);
    assert!(line.starts_with("auth.keys: entry 1: /nowhere/key.pem: ") && line.contains("; allowed: "), "{line}");
}

#[test]
fn a_token_is_signed_with_the_configured_secret_or_a_private_key() {
    let secret = "0123456789abcdef0123456789abcdef";
    let signed = |arguments: &[&str]| {
        let mut command = kittiwake(&[&["token", "--user", "ann"], arguments].concat());
        command.env("KITTIWAKE_AUTH_MODE", "jwt").env("KITTIWAKE_NODE_APPS", "default,shop");
        command.env("KITTIWAKE_AUTH_KEYS", format!("EdDSA:*:file=tests/keys/ed.pub.pem,HS256/a:shop:secret={secret}"));
        command
    };
    let apps: std::sync::Arc<[String]> = ["default", "shop"].map(str::to_owned).into();
    let shop = KeyApps::Some([AppId(1)].into());
    let keys = KeySet::new(
        vec![
            Key::secret(Some("a".into()), shop, secret.as_bytes()).expect("it is long enough"),
            Key::pem(Algorithm::EdDsa, None, KeyApps::All, include_bytes!("keys/ed.pub.pem")).expect("a public key"),
        ],
        apps,
    );
    let keys = keys.expect("they are few");
    let now_ms = std::time::UNIX_EPOCH.elapsed().expect("it is later").as_millis() as u64;
    for (arguments, app) in [
        (&["--app", "shop", "--ttl", "5m", "--subscribe", "a/#"][..], 1),
        (&[], 1),
        (&["--key", "tests/keys/ed.pem", "--app", "default", "--publish", "b"], 0),
    ] {
        let output = signed(arguments).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let token = String::from_utf8(output.stdout).expect("it is text");
        let grant = verify(token.trim_end().as_bytes(), &keys, &Rules::default(), now_ms).expect("it is good");
        assert_eq!((&*grant.user, grant.app), ("ann", AppId(app)), "{arguments:?}");
        assert_eq!(grant.lists.is_empty(), arguments.is_empty());
    }
    let line = failure(signed(&["--app", "default"]), 2);
    assert!(line.starts_with("auth.keys: there is no HS256 key of that app"), "{line}");
    let line = failure(signed(&["--app", "other"]), 2);
    assert_eq!(line, "--app: there is no such app; allowed: a name of node.apps");
    let line = failure(signed(&["--key", "tests/keys/ed.pub.pem"]), 2);
    assert!(line.starts_with("--key: tests/keys/ed.pub.pem holds no key to sign with"), "{line}");
    let line = failure(kittiwake(&["token", "--user", "ann"]), 2);
    assert_eq!(line, "auth.mode: it is none, so nobody is asked for a token; allowed: jwt");
}

#[test]
fn an_address_that_other_hosts_reach_exits_with_2_without_insecure() {
    let line = failure(kittiwake(&["serve", "--listen", "0.0.0.0:0", "--api", "127.0.0.1:0"]), 2);
    let end = "auth.mode jwt or http, tls=true with tls.client_certificates required, or --insecure";
    assert!(line.ends_with(end), "{line}");
    let line = failure(kittiwake(&["serve", "--listen", "127.0.0.1:0", "--api", "[::]:0"]), 2);
    assert!(line.starts_with("api.listen (--api): [::]:0 "), "{line}");
}

#[test]
fn bad_usage_is_one_line_and_exits_with_2() {
    for arguments in [
        &["serve", "--verbose"][..],
        &["fly"],
        &[],
        &["push", "hello"],
        &["push", "--user", "a", "--topic", "b", "hello"],
        &["push", "--user", "a", "--qos", "3", "hello"],
        &["push", "--user", "a", "--ttl", "soon", "hello"],
        &["push", "--device", "a", "hello"],
        &["sub"],
        &["sub", "--url", "ftp://localhost/mqtt", "#"],
    ] {
        failure(kittiwake(arguments), 2);
    }
}

#[test]
fn without_a_command_the_line_names_the_commands() {
    assert_eq!(
        failure(kittiwake(&[]), 2),
        "no command; allowed: serve, push, sub, token, key, doctor (see kittiwake --help)"
    );
}

#[test]
fn help_and_version_exit_with_0() {
    let commands = ["serve", "push", "sub", "doctor"].map(|command| [command, "--help"]);
    for arguments in [&["--help"][..], &["--version"]].into_iter().chain(commands.iter().map(|command| &command[..])) {
        let output = kittiwake(arguments).output().expect("the binary starts");
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
}

/// A port on loopback that nobody listens on.
fn closed_port() -> u16 {
    let [closed] = ports::free();
    closed.port()
}

#[test]
fn clients_without_a_server_exit_with_1() {
    let api = format!("http://127.0.0.1:{}", closed_port());
    let line = failure(kittiwake(&["push", "--user", "alice", "--api", &api, "hello"]), 1);
    assert!(line.starts_with(&format!("{api}/v1/push: ")), "{line}");
    let url = format!("mqtt://127.0.0.1:{}", closed_port());
    failure(kittiwake(&["sub", "--url", &url, "#"]), 1);
}

#[test]
fn an_address_in_use_exits_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let api = taken.local_addr().expect("it is bound").to_string();
    let line = failure(kittiwake(&["serve", "--listen", "127.0.0.1:0", "--api", &api]), 1);
    assert!(line.starts_with(&format!("cannot listen on {api} (api.listen): ")), "{line}");
}

#[test]
fn push_sends_stdin_and_prints_the_reply_or_the_problem() {
    for (status, reply, code) in [
        ("200 OK", r#"{"id":"1","results":[],"duplicate":false}"#, 0),
        ("404 Not Found", r#"{"status":404,"detail":"there is no such app"}"#, 1),
        ("400 Bad Request", r#"{"status":400,"detail":"must be 0, 1 or 2","field":"qos"}"#, 1),
        ("502 Bad Gateway", "<html>", 1),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let api = format!("http://{}", listener.local_addr().expect("it is bound"));
        let server = std::thread::spawn(move || serve_once(&listener, status, reply));
        let mut command =
            kittiwake(&["push", "--device", "a/b/phone", "--ttl", "1h", "--qos", "0", "--api", &api, "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        child.stdin.take().expect("it is piped").write_all(&[0, 255]).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let sent = server.join().expect("the server saw a request");
        let body =
            r#"{"payload_base64":"AP8=","qos":0,"to":{"device":{"device":"phone","user":"a/b"}},"ttl_ms":3600000}"#;
        let (head, sent) = sent.split_once("\r\n\r\n").expect("a request has a head");
        assert!(head.starts_with("POST /v1/push HTTP/1.1\r\n"), "{head}");
        // The order of an object's members says nothing, and depends on what else is built.
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("it is JSON");
        assert_eq!(parsed(sent), parsed(body));
        match code {
            0 => {
                assert!(output.status.success(), "{output:?}");
                assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{reply}\n"));
            }
            _ => {
                let line = line_of(&output, code);
                let expected = match status {
                    "404 Not Found" => "404: there is no such app",
                    "400 Bad Request" => "400: qos: must be 0, 1 or 2",
                    _ => "the API answered 502",
                };
                assert_eq!(line, expected);
            }
        }
    }
}

/// Answers one request; returns it.
fn serve_once(listener: &std::net::TcpListener, status: &str, reply: &str) -> String {
    use std::io::Read;
    let (mut stream, _) = listener.accept().expect("a client comes");
    let mut request = String::new();
    let mut block = [0; 4_096];
    loop {
        let count = stream.read(&mut block).expect("the client sends");
        assert!(count > 0, "the request is not whole: {request}");
        request.push_str(std::str::from_utf8(&block[..count]).expect("UTF-8"));
        let Some((head, body)) = request.split_once("\r\n\r\n") else {
            continue;
        };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if length == Some(body.len()) {
            break;
        }
    }
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", reply.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(reply.as_bytes())).expect("the client reads");
    request
}

/// A gateway that runs, with what it says on stderr; killed when dropped.
struct Serving {
    process: std::process::Child,
    said: std::io::Lines<std::io::BufReader<std::process::ChildStderr>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself: that is the test's point.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

impl Serving {
    /// Comes back when it says what is listening.
    fn start(mut command: Command) -> Self {
        use std::io::BufRead;
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut process = spawned.expect("the binary starts");
        let mut banner = std::io::BufReader::new(process.stdout.take().expect("it is piped"));
        banner.read_line(&mut String::new()).expect("it says what listens");
        let said = std::io::BufReader::new(process.stderr.take().expect("it is piped")).lines();
        Self { process, said }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill is there").success());
    }

    /// Its next line with these words.
    fn wait_for(&mut self, words: &str) {
        let found = self.said.by_ref().map_while(Result::ok).any(|line| line.contains(words));
        assert!(found, "it never said: {words}");
    }
}

/// Who does not read holds a drain up for as long as a close lingers, which is seconds; nothing here waits for that.
#[test]
fn a_second_signal_while_draining_exits_with_1() {
    use std::io::Read;
    let edge = format!("127.0.0.1:{}", closed_port());
    let api = format!("127.0.0.1:{}", closed_port());
    for second in ["-TERM", "-INT"] {
        let mut command = kittiwake(&["serve", "--listen", &edge, "--api", &api, "--driver", "epoll", "--shards", "1"]);
        command.args(["--data-dir", ""]);
        let mut serving = Serving::start(command);
        let mut stuck = std::net::TcpStream::connect(&edge).expect("it listens");
        // CONNECT of `c`, clean session, keep alive 0; SUBSCRIBE to `t` at QoS 0.
        stuck.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c\x82\x06\0\x01\0\x01t\0").expect("it is read");
        let mut answers = [0; 9];
        stuck.read_exact(&mut answers).expect("CONNACK and SUBACK");
        assert_eq!(answers, [0x20, 2, 0, 0, 0x90, 3, 0, 1, 0]);
        // It hears itself and does not read, until nothing more fits between it and the gateway.
        let body = [b'x'; 250_000];
        let mut publish = b"\x30\x93\xa1\x0f\0\x01t".to_vec();
        publish.extend_from_slice(&body);
        for _ in 0..100 {
            stuck.write_all(&publish).expect("the gateway reads on");
        }
        serving.signal("-TERM");
        serving.wait_for("a second signal stops at once");
        serving.signal(second);
        let status = serving.process.wait().expect("it ends");
        assert_eq!(status.code(), Some(1), "{second}");
        let signal = if second == "-TERM" { "SIGTERM" } else { "SIGINT" };
        serving.wait_for(&format!("a second signal, {signal}, cut connections off"));
        drop(stuck);
    }
}

/// A push passes through both: where one of them waits for the CPU, the message does.
#[test]
fn shards_and_the_control_plane_have_short_time_slices_and_the_log_has_not() {
    let slice = |of: &std::path::Path| {
        let said = std::fs::read_to_string(of.join("sched")).expect("the thread runs");
        said.lines().find_map(|line| line.strip_prefix("se.slice")?.trim_start_matches([' ', ':']).parse::<u64>().ok())
    };
    if slice("/proc/self".as_ref()).is_none() {
        eprintln!("this kernel says nothing of slices (before Linux 6.12)");
        return;
    }
    let api = format!("127.0.0.1:{}", closed_port());
    let mut command = kittiwake(&["serve", "--listen", "127.0.0.1:0", "--api", &api, "--shards", "2"]);
    command.args(["--data-dir", ""]);
    let serving = Serving::start(command);
    let mut slices = std::collections::BTreeMap::<String, Vec<u64>>::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", serving.process.id())).expect("it runs") {
        let thread = thread.expect("it runs").path();
        let name = std::fs::read_to_string(thread.join("comm")).expect("it runs").trim_end().to_owned();
        slices.entry(name).or_default().extend(slice(&thread));
    }
    assert_eq!(slices["shard-0"], [100_000], "{slices:?}");
    assert_eq!(slices["shard-1"], [100_000], "{slices:?}");
    assert!(slices["kittiwake-contr"].iter().all(|slice| *slice == 100_000), "{slices:?}");
    assert!(slices["log"].iter().all(|slice| *slice > 100_000), "{slices:?}");
}

/// A disk that has died under a commit keeps the log's thread, and the process must end all the same.
#[cfg(debug_assertions)]
#[test]
fn a_commit_that_never_ends_is_an_exit_1_at_the_drain_timeout() {
    let folder = tempfile::tempdir().expect("there is room");
    let api = format!("127.0.0.1:{}", closed_port());
    let mut command = kittiwake(&["serve", "--listen", "127.0.0.1:0", "--api", &api, "--driver", "epoll"]);
    command.arg("--data-dir").arg(folder.path());
    command.env("FAILPOINT", "any:hang:1").env("KITTIWAKE_NODE_DRAIN_TIMEOUT", "2s");
    let mut serving = Serving::start(command);
    let pushed = kittiwake(&["push", "--api", &format!("http://{api}"), "--user", "ann", "--wait", "accepted", "x"])
        .output()
        .expect("the binary starts");
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    serving.signal("-TERM");
    assert_eq!(serving.process.wait().expect("it ends").code(), Some(1));
    serving.wait_for("did not end within node.drain_timeout");
}

#[test]
fn files_of_tls_that_cannot_be_used_exit_with_2() {
    let folder = tempfile::tempdir().expect("there is room");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is ours");
        path.to_str().expect("the folder of tests has a plain name").to_owned()
    };
    let made = || rcgen::generate_simple_self_signed(vec!["edge".to_owned()]).expect("it signs");
    let (one, other) = (made(), made());
    let (chain, key) = (write("chain", &one.cert.pem()), write("key", &one.signing_key.serialize_pem()));
    let (wrong, text) = (write("other", &other.signing_key.serialize_pem()), write("text", "hello"));
    let good = format!("{chain}:{key}");
    let serve = |variables: &[(&str, &str)]| {
        let mut command = kittiwake(&["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--data-dir", ""]);
        command.envs(variables.iter().copied());
        failure(command, 2)
    };
    for (certificate, why) in [
        (format!("{chain}:{wrong}"), "the key is not the certificate's"),
        (format!("{text}:{key}"), "there is no PEM certificate in it"),
        (format!("{chain}:{text}"), "there is no PEM private key in it"),
        (format!("{chain}:{chain}.nowhere"), "No such file"),
    ] {
        let line = serve(&[("KITTIWAKE_TLS_CERTIFICATES", &certificate)]);
        assert!(line.starts_with("tls.certificates: ") && line.contains(why) && line.contains("allowed: "), "{line}");
    }
    let line = serve(&[
        ("KITTIWAKE_TLS_CERTIFICATES", &good),
        ("KITTIWAKE_TLS_CLIENT_CERTIFICATES", "required"),
        ("KITTIWAKE_TLS_CLIENT_CA", &text),
    ]);
    assert!(line.starts_with("tls.client_ca: ") && line.contains("there is no PEM certificate"), "{line}");
    let secret = write("tickets", &format!("{}\n{}\n", "0".repeat(96), "1".repeat(95)));
    let line = serve(&[("KITTIWAKE_TLS_CERTIFICATES", &good), ("KITTIWAKE_TLS_TICKET_KEYS", &secret)]);
    assert!(
        line.starts_with("tls.ticket_keys: ") && line.contains("line 2 is no key") && !line.contains("111"),
        "{line}"
    );
}

/// Which pages of the binary the kernel maps beside one that is read is then the same in each process.
#[test]
fn segments_begin_at_64_kib() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_kittiwake")).expect("it was built");
    let number = |at: usize, bytes: usize| {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(&binary[at..at + bytes]);
        usize::try_from(u64::from_le_bytes(number)).expect("files are shorter than memory")
    };
    assert_eq!((&binary[..4], binary[4], binary[5]), (&b"\x7fELF"[..], 2, 1), "a file of 64 bits, little endian");
    // e_phoff, e_phentsize, e_phnum; of a program header p_type and p_align.
    let (headers, header_bytes, count) = (number(32, 8), number(54, 2), number(56, 2));
    let headers = (0..count).map(|index| headers + index * header_bytes);
    let loaded: Vec<usize> = headers.filter(|&at| number(at, 4) == 1).map(|at| number(at + 48, 8)).collect();
    assert!(loaded.len() > 1 && loaded.iter().all(|&align| align == 64 << 10), "{loaded:?}");
}
