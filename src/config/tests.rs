use super::*;
use crate::shard::Protocols;
use std::path::Path;

fn flags() -> Flags {
    Flags::default()
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    parse(Some(text), [], &flags())
}

/// The error's line; it is one line whatever the input was.
fn line_of(result: Result<Config, ConfigError>) -> String {
    let line = result.expect_err("the configuration is wrong").to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn nothing_set_gives_the_defaults_of_the_contract() {
    let config = parse(None, [], &flags()).expect("defaults are valid");
    assert_eq!(config.edge_listen, ["127.0.0.1:1883".parse().expect("an address")]);
    assert_eq!(config.api_listen, "127.0.0.1:7700".parse().expect("an address"));
    assert_eq!((config.shards, config.driver, config.insecure), (None, Choice::Auto, false));
    assert_eq!(config.apps, ["default"]);
    assert_eq!(config.user_template, UserTemplate::parse("{username}").expect("valid"));
    assert_eq!(config.limits.packet_bytes, 256 << 10);
    assert_eq!(config.limits.outbox_bytes, 256 << 10);
    assert_eq!((config.limits.receive_maximum_out, config.limits.receive_maximum_in), (32, 128));
    assert_eq!(config.limits.subscriptions, 1_000);
    assert_eq!(config.limits.session_expiry_max, Duration::from_secs(7 * 24 * 3_600));
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(3_600));
    assert_eq!(config.limits.handshake_timeout, Duration::from_secs(10));
    assert_eq!(config.limits.max_connections, None);
}

#[test]
fn a_file_sets_every_kind_of_value() {
    let text = r#"
        [edge]
        listen = ["127.0.0.1:1", "[::1]:2"]
        [node]
        shards = 3
        driver = "epoll"
        insecure = true
        apps = ["default", "shop"]
        [auth]
        user = "u-{client_id}"
        [limits]
        handshake_timeout = "1500ms"
    "#;
    let config = from_file(text).expect("valid");
    assert_eq!(config.edge_listen.len(), 2);
    assert_eq!((config.shards, config.driver, config.insecure), (Some(3), Choice::Epoll, true));
    assert_eq!(config.apps, ["default", "shop"]);
    assert_eq!(config.user_template, UserTemplate::parse("u-{client_id}").expect("valid"));
    assert_eq!(config.limits.handshake_timeout, Duration::from_millis(1_500));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = "[node]\nshards = 1\ndriver = \"epoll\"\n[api]\nlisten = \"127.0.0.1:1\"";
    let environment =
        environment(&[("KITTIWAKE_NODE_SHARDS", "2"), ("KITTIWAKE_API_LISTEN", "127.0.0.1:2"), ("HOME", "/")]);
    let flags = Flags { shards: Some("3".to_owned()), ..flags() };
    let config = parse(Some(file), environment, &flags).expect("valid");
    assert_eq!(config.shards, Some(3));
    assert_eq!(config.api_listen.port(), 2);
    assert_eq!(config.driver, Choice::Epoll);
}

#[test]
fn every_flag_reaches_its_key() {
    let flags = Flags {
        config: None,
        listen: vec!["127.0.0.1:1".to_owned(), "0.0.0.0:2".to_owned()],
        api: Some("127.0.0.1:3".to_owned()),
        data_dir: Some("/data".to_owned()),
        shards: Some("4".to_owned()),
        driver: Some("io_uring".to_owned()),
        insecure: true,
        accept_loss: true,
    };
    let config = parse(None, [], &flags).expect("valid");
    assert_eq!(config.edge_listen.iter().map(SocketAddr::port).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((config.api_listen.port(), config.shards, config.driver), (3, Some(4), Choice::IoUring));
    assert!(config.insecure && config.accept_loss);
    assert_eq!(config.data_dir.as_deref(), Some(Path::new("/data")));
}

#[test]
fn a_list_in_the_environment_is_separated_by_commas() {
    let environment = environment(&[("KITTIWAKE_EDGE_LISTEN", "127.0.0.1:1, 127.0.0.1:2")]);
    assert_eq!(parse(None, environment, &flags()).expect("valid").edge_listen.len(), 2);
}

#[test]
fn unknown_keys_are_errors_wherever_they_come_from() {
    assert_eq!(
        line_of(from_file("[api]\nport = 1")),
        "api.port: there is no such key; allowed: api.listen, api.tls, api.client_ca, api.keys, api.allow, api.push_rate",
    );
    assert_eq!(
        line_of(from_file("[nodes]")),
        "nodes: there is no such key; allowed: [edge], [tls], [api], [node], [log], [topics], [store], [events], [webhook], [auth], [limits]",
    );
    assert_eq!(
        line_of(from_file("shards = 1")),
        "shards: there is no such key; allowed: [edge], [tls], [api], [node], [log], [topics], [store], [events], [webhook], [auth], [limits]",
    );
    assert_eq!(
        line_of(parse(None, environment(&[("KITTIWAKE_NODE_SHARD", "1")]), &flags())),
        "KITTIWAKE_NODE_SHARD: there is no such key; allowed: KITTIWAKE_SECTION_KEY of a known key",
    );
}

#[test]
fn values_out_of_bounds_name_key_value_and_bounds() {
    assert_eq!(
        line_of(from_file("[limits]\npacket_bytes = 12")),
        "limits.packet_bytes: `12` is not allowed; allowed: 1024 to 1048576",
    );
    assert_eq!(
        line_of(parse(None, environment(&[("KITTIWAKE_LIMITS_IDLE_TIMEOUT", "ten")]), &flags())),
        "KITTIWAKE_LIMITS_IDLE_TIMEOUT: `ten` is not allowed; allowed: 1s to 366d, such as 500ms, 10s, 5m, 1h or 7d",
    );
    let flags = Flags { driver: Some("kqueue".to_owned()), ..flags() };
    assert_eq!(line_of(parse(None, [], &flags)), "--driver: `kqueue` is not allowed; allowed: auto, io_uring, epoll",);
}

#[test]
fn an_integers_bounds_are_included() {
    for (number, valid) in [(1_023, false), (1_024, true), (1_025, true), (262_144, true), (262_145, false)] {
        // 262,145 is within the key's own bounds, but the default outbox cannot hold it.
        assert_eq!(from_file(&format!("[limits]\npacket_bytes = {number}")).is_ok(), valid, "{number}");
    }
    for (number, valid) in [(0, true), (1_024, true), (1_025, false), (-1, false)] {
        assert_eq!(from_file(&format!("[node]\nshards = {number}")).is_ok(), valid, "{number}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_an_error() {
    assert_eq!(
        line_of(from_file("[node]\nshards = \"two\"")),
        "node.shards: a value of type string does not fit; allowed: 0 to 1024",
    );
    assert_eq!(
        line_of(from_file("[edge]\nlisten = [1]")),
        "edge.listen: not every element is a string; allowed: a list of texts",
    );
    assert_eq!(
        line_of(from_file("[limits]\nidle_timeout = 10")),
        "limits.idle_timeout: a value of type integer does not fit; allowed: 1s to 366d, such as 500ms, 10s, 5m, 1h or 7d",
    );
}

#[test]
fn a_file_that_is_not_toml_names_the_line() {
    let line = line_of(from_file("[node]\nshards = = 1\n"));
    assert!(line.starts_with("--config: line 2: "), "{line}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let flags = Flags { config: Some(PathBuf::from("/nonexistent/kittiwake.toml")), ..flags() };
    let line = line_of(load(&flags, []));
    assert!(line.starts_with("--config: cannot read /nonexistent/kittiwake.toml: "), "{line}");
}

#[test]
fn an_address_needs_ip_and_port() {
    for text in ["localhost:1883", "127.0.0.1", "127.0.0.1:99999", ""] {
        let flags = Flags { listen: vec![text.to_owned()], ..flags() };
        let line = line_of(parse(None, [], &flags));
        assert_eq!(
            line,
            format!(
                "edge.listen (--listen): `{text}` is not an address; allowed: IP:PORT, such as 127.0.0.1:1883 or [::1]:1883"
            ),
        );
    }
    assert_eq!(line_of(from_file("[edge]\nlisten = []")), "edge.listen: it is empty; allowed: at least one IP:PORT");
}

#[test]
fn messages_live_in_memory_only_where_the_data_directory_is_empty() {
    let config = |text: Option<&str>| {
        let flags = Flags { data_dir: text.map(str::to_owned), ..flags() };
        parse(None, [], &flags).expect("valid").data_dir
    };
    assert_eq!(config(None).as_deref(), Some(Path::new("kittiwake-data")));
    assert_eq!(config(Some("")), None);
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn keys_of_tokens_are_read_from_the_list_and_from_files() {
    let keys = |keys: &str| {
        from_file(&format!("[node]\napps = [\"default\", \"shop\"]\n[auth]\nmode = \"jwt\"\nkeys = [{keys}]"))
    };
    let good = format!("\"HS256:default+shop:secret={SECRET}:=\", \"EdDSA/a:*:file=tests/keys/ed.pub.pem\"");
    let tokens = keys(&good).expect("they are good").tokens.expect("the mode is jwt");
    assert_eq!(tokens.keys.read().map(|set| set.len()), Ok(2));
    let files: Vec<_> = tokens.keys.files().map(|path| path.display().to_string()).collect();
    assert_eq!(files, ["tests/keys/ed.pub.pem"]);
    for wrong in [
        "",
        "\"HS256\"",
        "\"none:*:secret=x\"",
        "\"HS512:*:secret=x\"",
        "\"HS256:other:secret=x\"",
        "\"HS256:*:x\"",
        "\"HS256:*:file=\"",
        "\"RS256:*:secret=x\"",
        "\"JWKS/a:*:file=x\"",
    ] {
        let line = line_of(keys(wrong));
        assert!(line.starts_with("auth.keys: "), "{wrong}: {line}");
    }
    for unreadable in [
        format!("\"HS256:*:secret={}\"", &SECRET[1..]),
        "\"RS256:*:file=tests/keys/ed.pub.pem\"".to_owned(),
        "\"EdDSA:*:file=tests/keys/ed.pem\"".to_owned(),
        "\"JWKS:*:file=tests/keys/ed.pub.pem\"".to_owned(),
        "\"HS256:*:file=tests/keys/nothing\"".to_owned(),
    ] {
        let tokens = keys(&unreadable).expect("it is not read yet").tokens.expect("the mode is jwt");
        let line = tokens.keys.read().expect_err("it is no key").to_string();
        assert!(line.starts_with("auth.keys: entry 1: ") && !line.contains(&SECRET[1..]), "{line}");
    }
    let without_mode = format!("[auth]\nkeys = [{good}]").replace("+shop", "");
    assert!(line_of(from_file(&without_mode)).starts_with("auth.keys: auth.mode is not jwt"));
}

#[test]
fn lists_of_rights_are_topic_filters() {
    let config = from_file("[auth]\npublish = [\"a/{user}/#\"]\nsubscribe = []").expect("they are");
    assert_eq!(config.rights.publish.map(|list| list.len()), Some(1));
    assert_eq!(config.rights.subscribe, None);
    let line = line_of(from_file("[auth]\nsubscribe = [\"a/#/b\"]"));
    assert!(line.starts_with("auth.subscribe: `a/#/b` is not a topic filter"), "{line}");
}

#[test]
fn the_bounds_of_sessions_can_be_set_within_bounds_of_their_own() {
    for (key, largest) in [
        ("receive_maximum_out", limits::RECEIVE_MAXIMUM_OUT_MAX as usize),
        ("receive_maximum_in", limits::RECEIVE_MAXIMUM_IN_MAX as usize),
        ("subscriptions", limits::SUBSCRIPTIONS_MAX_MAX),
        ("devices_per_user", limits::DEVICES_PER_USER_MAX_MAX),
    ] {
        let set = |number: usize| from_file(&format!("[limits]\n{key} = {number}"));
        for number in [1, 2, largest - 1, largest] {
            let limits = set(number).expect("it is within its bounds").limits;
            let taken = match key {
                "receive_maximum_out" => limits.receive_maximum_out.into(),
                "receive_maximum_in" => limits.receive_maximum_in.into(),
                "subscriptions" => limits.subscriptions,
                _ => limits.devices_per_user,
            };
            assert_eq!(taken, number, "{key}");
        }
        for number in [0, largest + 1] {
            let line = line_of(set(number));
            assert_eq!(line, format!("limits.{key}: `{number}` is not allowed; allowed: 1 to {largest}"));
        }
    }
    for (text, seconds) in [("0s", Some(0)), ("1s", Some(1)), ("366d", Some(366 * 24 * 3_600)), ("367d", None)] {
        let set = from_file(&format!("[limits]\nsession_expiry_max = \"{text}\""));
        assert_eq!(set.ok().map(|config| config.limits.session_expiry_max.as_secs()), seconds, "{text}");
    }
}

#[test]
fn other_hosts_are_not_served_without_authentication() {
    for listen in ["0.0.0.0:1883", "192.0.2.1:1883", "[::]:1883", "[::ffff:192.0.2.1]:1883"] {
        let flags = Flags { listen: vec!["127.0.0.1:1883".to_owned(), listen.to_owned()], ..flags() };
        assert_eq!(
            line_of(parse(None, [], &flags)),
            format!(
                "edge.listen (--listen): {listen} is reachable from other hosts and nobody is authenticated; \
                 allowed: a loopback address, auth.mode jwt or http, tls=true with tls.client_certificates required, or --insecure"
            ),
        );
        assert!(parse(None, [], &Flags { insecure: true, ..flags }).is_ok());
    }
    let flags = Flags { api: Some("0.0.0.0:7700".to_owned()), ..flags() };
    assert!(line_of(parse(None, [], &flags)).starts_with("api.listen (--api): 0.0.0.0:7700 is reachable"));
    assert!(parse(None, environment(&[("KITTIWAKE_NODE_INSECURE", "true")]), &flags).is_ok());
    let keyed = environment(&[("KITTIWAKE_API_KEYS", "*:0123456789abcdef")]);
    assert!(parse(None, keyed.clone(), &flags).is_ok(), "whoever calls is authenticated");
    let devices = Flags { listen: vec!["0.0.0.0:1883".to_owned()], ..flags.clone() };
    assert!(line_of(parse(None, keyed, &devices)).starts_with("edge.listen"), "devices are not");
    let tokens = format!("HS256:default:secret={SECRET}");
    let tokens = environment(&[("KITTIWAKE_AUTH_MODE", "jwt"), ("KITTIWAKE_AUTH_KEYS", &tokens)]);
    let api = Flags { api: None, ..devices };
    assert!(parse(None, tokens, &api).is_ok(), "devices are authenticated");
    let loopback = Flags { listen: vec!["[::1]:1".to_owned(), "127.9.9.9:1".to_owned()], ..Flags::default() };
    assert!(parse(None, [], &loopback).is_ok());
}

#[test]
fn the_user_template_must_say_who_the_user_is() {
    for text in ["alice", "", "{user}", "{username}{", "{{username}}", &"x".repeat(300)] {
        let line = line_of(from_file(&format!("[auth]\nuser = \"{text}\"")));
        assert!(line.starts_with(&format!("auth.user: `{text}` ")), "{line}");
    }
    for text in ["{username}", "{client_id}", "{username}-{client_id}", "site/{username}"] {
        assert!(from_file(&format!("[auth]\nuser = \"{text}\"")).is_ok(), "{text}");
    }
}

#[test]
fn apps_begin_with_the_default_and_are_distinct_names() {
    for list in ["[]", "[\"shop\"]", "[\"default\", \"default\"]", "[\"default\", \"a b\"]", "[\"default\", \"\"]"] {
        let line = line_of(from_file(&format!("[node]\napps = {list}")));
        assert!(line.starts_with("node.apps: "), "{line}");
    }
}

#[test]
fn an_outbox_must_hold_a_packet() {
    let text = "[limits]\npacket_bytes = 65536\noutbox_bytes = ";
    assert!(from_file(&format!("{text}65536")).is_ok());
    assert_eq!(
        line_of(from_file(&format!("{text}65535"))),
        "limits.outbox_bytes: 65535 cannot hold a packet of limits.packet_bytes; allowed: at least 65536",
    );
}

#[test]
fn keys_of_the_api_name_their_apps_and_no_error_repeats_a_secret() {
    let keys = |list: &str| from_file(&format!("[node]\napps = [\"default\", \"shop\"]\n[api]\nkeys = {list}"));
    assert!(from_file("").expect("valid").api_keys.is_empty());
    let config = keys("[\"*:0123456789abcdef\", \"shop:0123456789abcdeg\", \"default+shop:0123456789:abcdef\"]");
    assert_eq!(config.expect("valid").api_keys.len(), 3);
    let long = "k".repeat(limits::API_KEY_BYTES_MAX);
    assert!(keys(&format!("[\"*:{long}\"]")).is_ok());
    for (list, wrong) in [
        ("[\"0123456789abcdef\"]".to_owned(), "entry 1 has no `:` between its apps and its key"),
        ("[\"*:0123456789abcde\"]".to_owned(), "the key of entry 1 is too short, too long, or has other characters"),
        (format!("[\"*:{long}k\"]"), "the key of entry 1 is too short, too long, or has other characters"),
        ("[\"*:0123456789 abcdef\"]".to_owned(), "the key of entry 1 is too short, too long, or has other characters"),
        ("[\"*:0123456789abcdef\", \"shop:0123456789abcdef\"]".to_owned(), "the key of entry 2 is there twice"),
        ("[\"shops:0123456789abcdef\"]".to_owned(), "`shops` is not an app of node.apps"),
        ("[\":0123456789abcdef\"]".to_owned(), "`` is not an app of node.apps"),
    ] {
        let line = line_of(keys(&list));
        assert!(line.starts_with(&format!("api.keys: {wrong}; allowed: ")), "{line}");
        assert!(!line.contains("0123456789"), "{line}");
    }
    let many = |count: usize| {
        let entries: Vec<String> = (0..count).map(|number| format!("\"*:{number:016}\"")).collect();
        keys(&format!("[{}]", entries.join(","))).is_ok()
    };
    assert!(many(limits::API_KEYS_MAX - 1) && many(limits::API_KEYS_MAX) && !many(limits::API_KEYS_MAX + 1));
}

#[test]
fn keys_of_the_api_are_hashed_or_sign_and_say_what_they_are_good_for() {
    let keys = |entry: &str| from_file(&format!("[node]\napps = [\"default\", \"shop\"]\n[api]\nkeys = [\"{entry}\"]"));
    let hash = "0123456789abcdef".repeat(4);
    for good in [
        format!("*:sha256:{hash}"),
        format!("default+shop/push+events@10.0.0.0/8+[2001:db8::]/32:sha256:{hash}"),
        "shop@[::1]:hmac:backend-1:0123456789abcdef".to_owned(),
        "*/read:0123456789abcdef".to_owned(),
    ] {
        assert_eq!(keys(&good).map(|config| config.api_keys.len()), Ok(1), "{good}");
    }
    for (wrong, why) in [
        (format!("*:sha256:{}", &hash[1..]), "the hash of entry 1 is no SHA-256"),
        (format!("*/pushes:sha256:{hash}"), "entry 1 is for `pushes`, which is no scope"),
        (format!("*/:sha256:{hash}"), "entry 1 is for ``, which is no scope"),
        (format!("*@10.0.0.0/40:sha256:{hash}"), "`10.0.0.0/40` is none"),
        (format!("*@[::1:sha256:{hash}"), "entry 1 has no `:` between its apps and its key"),
        ("*:hmac::0123456789abcdef".to_owned(), "entry 1 does not name its key with letters, digits, -, _ and ."),
        ("*:hmac:a:0123456789".to_owned(), "the key of entry 1 is too short, too long, or has other characters"),
    ] {
        let line = line_of(keys(&wrong));
        assert!(line.starts_with(&format!("api.keys: {why}; allowed: ")), "{line}");
    }
    let twice = format!("*:sha256:{hash}\", \"shop:sha256:{hash}");
    assert!(line_of(keys(&twice)).contains("the key of entry 2 is there twice"));
    let allow = |list: &str| from_file(&format!("[api]\nallow = [{list}]")).map(|config| config.api_allow.len());
    assert_eq!(allow("\"10.0.0.0/8\", \"::1\""), Ok(2));
    assert!(allow("\"localhost\"").is_err_and(|error| error.to_string().starts_with("api.allow: `localhost` is none")));
    let many = |count: usize| allow(&vec!["\"10.0.0.1\""; count].join(",")).is_ok();
    assert!(many(limits::API_NETWORKS_MAX) && !many(limits::API_NETWORKS_MAX + 1));
}

#[test]
fn a_server_reference_is_bounded_and_nothing_is_none() {
    let most = crate::limits::SERVER_REFERENCE_BYTES_MAX;
    for bytes in [1, most - 1, most] {
        let text = "s".repeat(bytes);
        let config = from_file(&format!("[node]\nserver_reference = \"{text}\"")).expect("it is within the bound");
        assert_eq!(config.server_reference.as_deref(), Some(text.as_str()));
    }
    let text = "s".repeat(most + 1);
    let line = line_of(from_file(&format!("[node]\nserver_reference = \"{text}\"")));
    assert!(line.starts_with("node.server_reference: it is too long"), "{line}");
    assert_eq!(from_file("").expect("the defaults are right").server_reference, None);
}

#[test]
fn origins_are_checked_by_form() {
    let origins = |value: &str| {
        parse(None, [("KITTIWAKE_EDGE_ORIGINS".to_owned(), value.to_owned())], &Flags::default())
            .map(|config| config.origins)
    };
    let listed = origins("https://a.example,http://localhost:3000").expect("they are origins");
    assert!(listed.allow(Some(b"http://localhost:3000"), None) && !listed.allow(Some(b"http://a.example"), None));
    let error = origins("a.example").expect_err("it has no scheme");
    assert_eq!((error.key.as_str(), error.wrong.as_str()), ("edge.origins", "`a.example` is not an origin"));
}

#[test]
fn listeners_are_addresses_with_what_is_spoken_there() {
    let flags = Flags {
        listen: vec![
            "127.0.0.1:1".to_owned(),
            "127.0.0.1:2 tls=false protocols=mqtt".to_owned(),
            " [::1]:3  proxy=10.0.0.0/8+192.0.2.1 protocols=websocket+sse+poll tls=detect".to_owned(),
        ],
        ..flags()
    };
    let config = parse(None, [], &flags).expect("valid");
    let ports: Vec<u16> = config.edge_listen.iter().map(|address| address.port()).collect();
    assert_eq!(ports, [1, 2, 3]);
    let none = Protocols { mqtt: false, websocket: false, sse: false, poll: false };
    assert_eq!(config.doors[0], Door::OPEN);
    let plain = Door { tls: TlsUse::Never, protocols: Protocols { mqtt: true, ..none }, proxies: Vec::new() };
    assert_eq!(config.doors[1], plain);
    assert_eq!(config.doors[2].protocols, Protocols { mqtt: false, ..Protocols::ALL });
    let proxies: Vec<String> = config.doors[2].proxies.iter().map(ToString::to_string).collect();
    assert_eq!((config.doors[2].tls, proxies), (TlsUse::Detected, vec!["10.0.0.0/8".into(), "192.0.2.1".into()]));
    let secured = "[edge]\nlisten = [\"0.0.0.0:1 tls=true\"]\n[tls]\ncertificates = [\"a.pem:b.pem\", \"c.pem\"]\n";
    let required = "client_ca = \"d.pem\"\nclient_certificates = \"required\"\n";
    let config = from_file(&format!("{secured}{required}")).expect("everybody shows a certificate");
    let files = config.tls.expect("there is a certificate");
    let files: Vec<_> = files.files().map(|path| path.display().to_string()).collect();
    assert_eq!(files, ["a.pem", "b.pem", "c.pem", "c.pem", "d.pem"]);
    let line = line_of(from_file(&format!("{secured}{}", required.replace("required", "optional"))));
    assert!(line.contains("nobody is authenticated"), "{line}");
}

#[test]
fn an_entry_of_the_listeners_that_means_nothing_is_refused() {
    for word in ["tls", "tls=maybe", "protocols=", "protocols=mqtt+http", "proxy=10.0.0.1/8", "proxy=", "mqtt=true"] {
        let flags = Flags { listen: vec![format!("127.0.0.1:1 {word}")], ..flags() };
        let line = line_of(parse(None, [], &flags));
        assert!(line.starts_with(&format!("edge.listen (--listen): 127.0.0.1:1: `{word}` is not allowed; ")), "{line}");
    }
    let line = line_of(from_file("[edge]\nlisten = [\"127.0.0.1:1 tls=true\"]"));
    assert!(line.contains("there is no certificate"), "{line}");
    for (file, key) in [
        ("[tls]\nclient_ca = \"a\"", "tls.client_ca"),
        ("[tls]\nticket_keys = \"a\"", "tls.ticket_keys"),
        ("[tls]\ncertificates = [\"a\"]\nclient_certificates = \"optional\"", "tls.client_certificates"),
        ("[tls]\ncertificates = [\"a:b:c\"]", "tls.certificates"),
        ("[tls]\ncertificates = [\":b\"]", "tls.certificates"),
    ] {
        assert!(line_of(from_file(file)).starts_with(&format!("{key}: ")), "{file}");
    }
}
