//! MQTT over WebSocket with stock clients.

use crate::everywhere;
use serde_json::json;

/// Over WebSocket, with the version given: prints `topic length-or-text qos` of what arrives, and publishes at each QoS
/// to itself once it has subscribed; a last will is left behind when it is told to `die`.
const PAHO: &str = r#"
import sys, os, paho.mqtt.client as mqtt
port, version, user, device = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
properties = None
def on_connect(c, u, flags, reason, props=None):
    print("connected", reason, flush=True)
    c.subscribe([("$inbox/#", 2), ("mine/" + device, 2), ("gone/#", 1)])
def on_subscribe(c, u, mid, reasons, props=None):
    print("subscribed", flush=True)
    for qos in range(3):
        c.publish("mine/" + device, "own %d" % qos, qos=qos)
    c.publish("mine/" + device, b"x" * 200000, qos=1)
def on_message(c, u, m):
    text = m.payload.decode()
    if text == "die":
        os._exit(0)
    print(m.topic, text if len(text) < 100 else len(text), m.qos, flush=True)
c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=version, transport="websockets")
c.username_pw_set(user, "")
c.ws_set_options(path="/mqtt")
c.will_set("gone/" + device, "gone", qos=1)
c.on_connect, c.on_subscribe, c.on_message = on_connect, on_subscribe, on_message
c.connect("127.0.0.1", port)
c.loop_forever()
"#;

#[test]
fn paho_speaks_both_versions_over_websocket() {
    everywhere(|gateway| {
        for version in ["4", "5"] {
            let device = format!("paho{version}");
            let paho = gateway.python(PAHO, &[version, &device, &device]);
            assert_eq!(paho.take(2), ["connected Success", "subscribed"]);
            let mut own = paho.take(4);
            own.sort_unstable();
            let topic = format!("mine/{device}");
            let of = |text: &str, qos: u8| format!("{topic} {text} {qos}");
            assert_eq!(own, [of("200000", 1), of("own 0", 0), of("own 1", 1), of("own 2", 2)]);

            for qos in [0, 1, 2] {
                gateway.push(json!({"to": {"user": &device}, "payload": format!("p{qos}"), "qos": qos}));
                assert_eq!(paho.next(), format!("$inbox/push p{qos} {qos}"));
            }
            let large = "y".repeat(150_000);
            gateway.push(json!({"to": {"user": &device}, "payload": large}));
            assert_eq!(paho.next(), "$inbox/push 150000 1");

            // It breaks off without a word, and its will reaches somebody over TCP.
            let mosquitto = gateway.mosquitto_sub(&["-t", "gone/#", "-u", "w", "-i", "w", "-q", "1", "-v"]);
            gateway.wait_for_gauge("connections", 2);
            gateway.wait_for_gauge("subscriptions", 4);
            gateway.push(json!({"to": {"user": &device}, "payload": "die"}));
            assert_eq!(mosquitto.next(), format!("gone/{device} gone"));
            drop((paho, mosquitto));
            for gauge in ["connections", "transforms", "blocks", "outboxes"] {
                gateway.wait_for_gauge(gauge, 0);
            }
        }
    });
}

#[test]
fn our_own_sub_prints_what_arrives_over_websocket() {
    everywhere(|gateway| {
        let sub = gateway.sub_over_websocket(&["--user", "alice", "--device", "cli", "--qos", "2", "$inbox/#", "t"]);
        gateway.wait_for_gauge("subscriptions", 2);
        assert_eq!(gateway.gauge("transforms"), 1);
        for qos in [0, 1, 2] {
            gateway.push(json!({"to": {"user": "alice"}, "payload": format!("p{qos}"), "qos": qos}));
            assert_eq!(sub.next(), format!("$inbox/push p{qos}"));
        }
        let large = "z".repeat(100_000);
        gateway.push(json!({"to": {"topic": "t"}, "payload": &large, "qos": 1}));
        assert_eq!(sub.next(), format!("t {large}"));
    });
}
