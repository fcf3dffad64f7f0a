use super::*;
use crate::wire::http::parse;
use proptest::prelude::*;

/// The answer to these lines; none: nothing is agreed to.
fn answered(lines: &[&str]) -> Option<String> {
    let lines: String = lines.iter().map(|line| format!("Sec-WebSocket-Extensions: {line}\r\n")).collect();
    let request = format!("GET /mqtt HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
    let head = parse(request.as_bytes()).expect("well formed").expect("whole");
    let mut out = Vec::new();
    Agreement::find(&head)?.encode(&mut out);
    let answer = String::from_utf8(out).expect("it is text");
    let answer = answer.strip_prefix("Sec-WebSocket-Extensions: permessage-deflate; ").expect("it names it").to_owned();
    let neither = "server_no_context_takeover; client_no_context_takeover";
    Some(answer.strip_prefix(neither).expect("neither side takes over its window").to_owned())
}

#[test]
fn rfc7692_7_1_offers_that_can_be_kept_are_agreed_to() {
    for (offer, answer) in [
        ("permessage-deflate", ""),
        ("Permessage-Deflate", ""),
        // What browsers send, and ws.
        ("permessage-deflate; client_max_window_bits", ""),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", ""),
        ("permessage-deflate;client_max_window_bits=15;server_max_window_bits=15", "; server_max_window_bits=15"),
        ("permessage-deflate; server_max_window_bits=8", "; server_max_window_bits=8"),
        ("permessage-deflate ; server_max_window_bits = \"10\" ", "; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=\"1\\2\"", "; server_max_window_bits=12"),
        ("permessage-deflate; client_max_window_bits=\"9\"", ""),
    ] {
        assert_eq!(answered(&[offer]).as_deref(), Some(answer), "{offer}");
    }
}

#[test]
fn rfc7692_7_1_offers_with_anything_else_are_declined() {
    for offer in [
        "",
        "permessage-bzip2",
        "x-webkit-deflate-frame",
        "permessage-deflate; unknown",
        "permessage-deflate; unknown=1; server_max_window_bits=10",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=115",
        "permessage-deflate; server_max_window_bits=ten",
        "permessage-deflate; server_max_window_bits=\"10x\"",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=+9",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=true",
        "permessage-deflate; SERVER_NO_CONTEXT_TAKEOVER",
        // Each name once.
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        // No list of offers.
        "permessage-deflate permessage-deflate",
        "permessage-deflate;",
        "permessage-deflate; =8",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=\"10",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; server_max_window_bits=\"1 0\"",
        "permessage-deflate; server_max_window_bits=\"10\\",
        "\"permessage-deflate\"",
    ] {
        assert_eq!(answered(&[offer]), None, "{offer}");
    }
}

#[test]
fn rfc7692_5_1_the_first_of_several_offers_that_can_be_kept_is_taken() {
    let narrow = "permessage-deflate; server_max_window_bits=9";
    for lines in [
        &["permessage-deflate; server_max_window_bits=9, permessage-deflate"][..],
        &["permessage-deflate; unknown, permessage-deflate; server_max_window_bits=9"],
        &["other; a=\"x\\\"y,;\"; b", narrow],
        &["x-other, , permessage-deflate;server_max_window_bits=9,permessage-deflate"],
        &["permessage-deflate; server_max_window_bits=99", narrow, "permessage-deflate"],
        &["", narrow],
    ] {
        let answer = answered(lines);
        // A value in quotes has to be a token too, so a line with another is none.
        assert_eq!(answer.as_deref(), Some("; server_max_window_bits=9"), "{lines:?}");
    }
    assert_eq!(answered(&["permessage-deflate, permessage-deflate; server_max_window_bits=9"]).as_deref(), Some(""));
}

/// An offer, and whether it is one that can be kept, as the standard says it.
fn offer() -> impl Strategy<Value = (String, bool)> {
    let bits = (0u8..20, any::<bool>()).prop_map(|(bits, quoted)| {
        let text = if quoted { format!("\"{bits}\"") } else { bits.to_string() };
        (Some(text), (8..=15).contains(&bits))
    });
    let absent = Just((None, true));
    let parameter = prop_oneof![
        (
            Just("server_no_context_takeover"),
            prop_oneof![4 => absent.clone(), 1 => Just((Some("1".to_owned()), false))]
        ),
        (Just("client_no_context_takeover"), absent.clone()),
        (Just("server_max_window_bits"), bits.clone()),
        (Just("client_max_window_bits"), prop_oneof![absent, bits]),
    ];
    proptest::collection::vec(parameter, 0..4).prop_map(|parameters| {
        let mut names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let fine = names.len() == parameters.len() && parameters.iter().all(|(_, (_, fine))| *fine);
        let text: String = parameters
            .into_iter()
            .map(|(name, (value, _))| match value {
                Some(value) => format!("; {name}={value}"),
                None => format!("; {name}"),
            })
            .collect();
        (format!("permessage-deflate{text}"), fine)
    })
}

proptest! {
    #[test]
    fn what_is_agreed_to_is_what_was_offered(offers in proptest::collection::vec(offer(), 1..4)) {
        let line: Vec<&str> = offers.iter().map(|(text, _)| text.as_str()).collect();
        let first = offers.iter().find(|(_, fine)| *fine);
        let answer = answered(&[&line.join(", ")]);
        prop_assert_eq!(answer.is_some(), first.is_some());
        if let (Some(answer), Some((offer, _))) = (answer, first) {
            let asked = offer.split("; ").find_map(|part| part.strip_prefix("server_max_window_bits="));
            let expected = asked.map(|bits| format!("; server_max_window_bits={}", bits.trim_matches('"')));
            prop_assert_eq!(answer, expected.unwrap_or_default());
        }
    }

    #[test]
    fn any_line_is_read_without_harm(line in "[ -~]{0,60}|(permessage-deflate|[;=,\" ]|server_max_window_bits|[0-9]{1,3}|\\\\){0,12}") {
        let _ = answered(&[&line]);
    }
}
