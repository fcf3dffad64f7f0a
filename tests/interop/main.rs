//! Stock clients over real sockets, on both drivers, with one shard and with four.
//!
//! Needs `mosquitto_sub`/`mosquitto_pub` (mosquitto-clients), Python with paho-mqtt and grpcio, Node with what
//! `clients/package.json` names, curl, openssl and Chromium; `.ci/run` installs them.

mod dashboard;
mod events;
mod flood;
mod gateway;
mod grpc;
mod matrix;
mod mosquitto;
mod polling;
#[path = "../ports/mod.rs"]
mod ports;
mod rumqttc_client;
mod tls;
mod tokens;
mod websocket;

use gateway::Gateway;
use serde_json::json;

/// Subscribes with MQTT 5 and prints `topic payload qos` of what arrives.
const PAHO5: &str = r#"
import sys, paho.mqtt.client as mqtt
port, user, device, qos, filters = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:]
def on_connect(c, u, flags, reason, props):
    print("connected", reason, flush=True)
    c.subscribe([(f, mqtt.SubscribeOptions(qos=qos)) for f in filters])
def on_subscribe(c, u, mid, reasons, props): print("subscribed", flush=True)
def on_message(c, u, m): print(m.topic, m.payload.decode(), m.qos, flush=True)
c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
c.username_pw_set(user, "")
c.on_connect, c.on_subscribe, c.on_message = on_connect, on_subscribe, on_message
c.connect("127.0.0.1", port)
c.loop_forever()
"#;

fn everywhere(test: impl Fn(&Gateway)) {
    for driver in ["epoll", "io_uring"] {
        for shards in [1, 4] {
            println!("{driver}, {shards} shards");
            test(&Gateway::start(driver, shards));
        }
    }
}

#[test]
fn a_push_by_command_line_and_by_http_reaches_mosquitto_sub_and_paho() {
    everywhere(|gateway| {
        let mosquitto = gateway.mosquitto_sub(&["-t", "$inbox/#", "-u", "alice", "-i", "m", "-q", "1", "-v"]);
        let paho = gateway.python(PAHO5, &["alice", "p", "1", "$inbox/#"]);
        assert_eq!(paho.take(2), ["connected Success", "subscribed"]);
        gateway.wait_for_gauge("subscriptions", 2);

        let (code, reply, error) = gateway.push_by_command(&["--user", "alice", "--qos", "0", "hello"]);
        assert_eq!((code, error.as_str()), (0, ""), "{reply}");
        assert_eq!(mosquitto.next(), "$inbox/push hello");
        assert_eq!(paho.next(), "$inbox/push hello 0");

        let (code, reply, _) =
            gateway.push_by_command(&["--user", "alice", "--label", "orders/7", "--qos", "1", "shipped"]);
        assert_eq!(code, 0);
        assert!(reply.contains("\"offset\""), "{reply}");
        assert_eq!(mosquitto.next(), "$inbox/orders/7 shipped");
        assert_eq!(paho.next(), "$inbox/orders/7 shipped 1");

        let answer = gateway.push(json!({"to": {"user": "alice"}, "payload": {"n": 1.50}, "qos": 2}));
        assert_eq!(answer["results"][0]["online"], 2);
        assert_eq!(answer["results"][0]["offset"], 2);
        assert_eq!(mosquitto.next(), "$inbox/push {\"n\":1.5}");
        assert_eq!(paho.next(), "$inbox/push {\"n\":1.5} 1");
    });
}

#[test]
fn topic_device_everyone_and_a_list_of_ten_thousand_users_arrive() {
    everywhere(|gateway| {
        let phone = gateway.mosquitto_sub(&[
            "-t", "$inbox/#", "-t", "rooms/42", "-t", "news/+/#", "-u", "alice", "-i", "phone", "-q", "1", "-v",
        ]);
        let tablet = gateway.mosquitto_sub(&["-t", "$inbox/#", "-u", "alice", "-i", "tablet", "-q", "1", "-v"]);
        let bob =
            gateway.mosquitto_sub(&["-t", "$inbox/#", "-t", "rooms/42", "-u", "user-9999", "-i", "b", "-q", "1", "-v"]);
        gateway.wait_for_gauge("subscriptions", 6);

        for qos in [0, 1, 2] {
            gateway.push(json!({"to": {"topic": "rooms/42"}, "payload": format!("t{qos}"), "qos": qos}));
            let line = format!("rooms/42 t{qos}");
            assert_eq!((phone.next(), bob.next()), (line.clone(), line));

            gateway.push(json!({"to": {"topic": "news/a/b/c"}, "payload": format!("w{qos}"), "qos": qos}));
            assert_eq!(phone.next(), format!("news/a/b/c w{qos}"));

            let device = json!({"device": {"user": "alice", "device": "phone"}});
            gateway.push(json!({"to": device, "payload": format!("d{qos}"), "qos": qos}));
            assert_eq!(phone.next(), format!("$inbox/push d{qos}"));

            gateway.push(json!({"to": {"everyone": true}, "payload": format!("e{qos}"), "qos": qos}));
            let line = format!("$inbox/push e{qos}");
            assert_eq!([phone.next(), tablet.next(), bob.next()], [line.clone(), line.clone(), line]);

            let users: Vec<String> = (0..10_000).map(|user| format!("user-{user}")).collect();
            let answer = gateway
                .push(json!({"to": {"users": users}, "payload": format!("u{qos}"), "qos": qos, "wait": "stored"}));
            assert_eq!(bob.next(), format!("$inbox/push u{qos}"));
            let results = answer["results"].as_array().expect("a list");
            assert_eq!(
                (results.len(), &results[9_999]["online"], &results[0]["online"]),
                (10_000, &json!(1), &json!(0))
            );
        }
        assert_eq!(tablet.rest(), Vec::<String>::new());
    });
}

#[test]
fn a_session_that_was_away_gets_what_it_missed() {
    everywhere(|gateway| {
        let sub = ["-t", "$inbox/#", "-t", "rooms/1", "-u", "alice", "-i", "phone", "-q", "1", "-c", "-v"];
        let first = gateway.mosquitto_sub(&sub);
        gateway.wait_for_gauge("subscriptions", 2);
        drop(first);
        gateway.wait_for_gauge("connections", 0);
        for n in 0..100 {
            gateway.push(json!({"to": {"user": "alice"}, "payload": format!("i{n}")}));
            gateway.push(json!({"to": {"topic": "rooms/1"}, "payload": format!("t{n}"), "qos": 1}));
        }
        let second = gateway.mosquitto_sub(&sub);
        let lines = second.take(200);
        let of = |topic: &str| -> Vec<&str> { lines.iter().filter_map(|line| line.strip_prefix(topic)).collect() };
        assert_eq!(of("$inbox/push i"), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(of("rooms/1 t"), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn a_new_device_begins_behind_what_the_user_has_acknowledged() {
    everywhere(|gateway| {
        // It ends after one message, which it has acknowledged by then, and its session with it.
        let first = gateway.mosquitto_sub(&["-t", "$inbox/#", "-u", "alice", "-i", "a", "-q", "1", "-C", "1"]);
        gateway.wait_for_gauge("subscriptions", 1);
        gateway.push(json!({"to": {"user": "alice"}, "payload": "one"}));
        assert_eq!(first.next(), "one");
        gateway.wait_for_gauge("sessions", 0);
        gateway.push(json!({"to": {"user": "alice"}, "payload": "two"}));
        let second = gateway.mosquitto_sub(&["-t", "$inbox/#", "-u", "alice", "-i", "b", "-q", "1", "-c"]);
        assert_eq!(second.next(), "two");
    });
}

#[test]
fn clients_that_leave_leave_nothing_behind() {
    everywhere(|gateway| {
        let clients: Vec<_> = (0..20)
            .map(|n| gateway.mosquitto_sub(&["-t", "$inbox/#", "-t", "rooms/#", "-u", &format!("u{n}"), "-q", "1"]))
            .collect();
        gateway.wait_for_gauge("subscriptions", 40);
        drop(clients);
        for gauge in ["connections", "slots", "blocks", "timers", "sessions", "subscriptions", "filters", "outboxes"] {
            gateway.wait_for_gauge(gauge, 0);
        }
    });
}

#[test]
fn sigterm_ends_the_gateway_with_exit_code_zero() {
    for driver in ["epoll", "io_uring"] {
        let mut gateway = Gateway::start(driver, 2);
        let _client = gateway.mosquitto_sub(&["-t", "$inbox/#", "-u", "alice", "-q", "1"]);
        gateway.wait_for_gauge("subscriptions", 1);
        let pid = gateway.pid().to_string();
        let killed = std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(killed.success());
        assert_eq!(gateway.wait(), Some(0));
    }
}
