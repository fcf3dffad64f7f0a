//! A stock gRPC client, built from the shipped .proto, on both drivers.

use crate::gateway::Gateway;

/// Prints one line for each thing it has seen. Arguments: edge port, API address, folder of the .proto, folder for what
/// is generated.
const CLIENT: &str = r#"
import sys, os, grpc
from concurrent.futures import Future
from grpc_tools import protoc
import paho.mqtt.client as mqtt
port, api, protos, out = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
assert protoc.main(["", "-I" + protos, "--python_out=" + out, "--grpc_python_out=" + out, "kittiwake/v1/gateway.proto"]) == 0
sys.path.insert(0, out)
from kittiwake.v1 import gateway_pb2 as pb, gateway_pb2_grpc as rpc
channel = grpc.insecure_channel(api)
gateway = rpc.GatewayStub(channel)

from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
services = ProtoReflectionDescriptorDatabase(channel).get_services()
print("services", *sorted(services), flush=True)
from grpc_health.v1 import health_pb2, health_pb2_grpc
health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="kittiwake.v1.Gateway"))
print("health", health_pb2.HealthCheckResponse.ServingStatus.Name(health.status), flush=True)

events = gateway.Events(pb.EventsRequest(group="g", connections=True, publishes=["said/#"], receipts=True))
assert next(events).HasField("started")
subscribed, got = Future(), Future()
device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="phone", protocol=mqtt.MQTTv5)
device.username_pw_set("alice", "")
device.on_connect = lambda c, *_: c.subscribe("$inbox/#", qos=1)
device.on_subscribe = lambda *_: subscribed.set_result(None)
device.on_message = lambda c, u, m: got.done() or got.set_result((m.topic, m.payload))
device.connect("127.0.0.1", port)
device.loop_start()
subscribed.result(30)

def event():
    e = next(events).event
    return e.WhichOneof("event"), e.user, e.device, e

reply = gateway.Push(pb.PushRequest(user="alice", label="orders/7", payload=b"\x00\xff", wait=pb.WAIT_DELIVERED))
result = reply.results[0]
print("push", result.user, result.position.offset, result.online, *result.delivered, flush=True)
print("got", *got.result(30), flush=True)
print("event", *event()[:3], flush=True)
kind, user, name, e = event()
print("event", kind, user, name, e.receipt.topic, e.receipt.inbox.offset, flush=True)
device.publish("said/hello", b"hi", qos=1)
kind, user, name, e = event()
print("event", kind, user, name, e.published.topic, e.published.payload, pb.Qos.Name(e.published.qos), flush=True)
print("acked", gateway.AckEvents(pb.AckEventsRequest(group="g", position=e.position)).position.offset, flush=True)

user = gateway.GetUser(pb.GetUserRequest(user="alice"))
print("user", [(d.device, d.online, d.subscriptions) for d in user.devices], flush=True)

def batches():
    for start in range(0, 1000, 16):
        yield pb.PushBatch(pushes=[
            pb.TaggedPush(tag=tag, push=pb.PushRequest(user="user-%d" % tag, payload=b"x"))
            for tag in range(start, min(start + 16, 1000))])
tags, batches_out = {}, 0
for results in gateway.PushStream(batches()):
    batches_out += 1
    for result in results.results:
        assert result.tag not in tags and result.WhichOneof("result") == "reply", result
        tags[result.tag] = result.reply.results[0]
assert all(tags[tag].user == "user-%d" % tag and tags[tag].position.offset == 1 for tag in range(1000))
print("stream", len(tags), batches_out <= 1000, flush=True)

def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"
print("wrong", refused(gateway.Push, pb.PushRequest(user="", payload=b"x")), flush=True)
print("unknown app", refused(gateway.Push, pb.PushRequest(app="nobody", user="a")), flush=True)
history = gateway.GetHistory(pb.GetHistoryRequest(user="user-7", limit=5))
print("history", [(entry.position.offset, entry.payload) for entry in history.entries], history.last, flush=True)
silent = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="silent", protocol=mqtt.MQTTv5, manual_ack=True)
silent.username_pw_set("bob", "")
there = Future()
silent.on_connect = lambda c, *_: c.subscribe("$inbox/#", qos=1)
silent.on_subscribe = lambda *_: there.set_result(None)
silent.connect("127.0.0.1", port)
silent.loop_start()
there.result(30)
late = pb.PushRequest(user="bob", payload=b"x", wait=pb.WAIT_DELIVERED)
print("deadline", refused(gateway.Push, late, timeout=0.5), flush=True)
print("closed", gateway.Disconnect(pb.DisconnectRequest(user="bob")).disconnected, flush=True)
"#;

#[test]
fn a_stock_grpc_client_pushes_watches_and_is_told_what_is_wrong() {
    for (driver, shards) in [("epoll", 1), ("io_uring", 4)] {
        println!("{driver}, {shards} shards");
        let gateway = Gateway::start(driver, shards);
        let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
        let out = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("grpc-{driver}-{}", gateway.pid()));
        std::fs::create_dir_all(&out).expect("the target folder can be written");
        let api = gateway.api.to_string();
        let client = gateway.python(CLIENT, &[&api, protos, out.to_str().expect("an ordinary path")]);
        let services = client.next();
        for service in ["kittiwake.v1.Gateway", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"] {
            assert!(services.split(' ').any(|word| word == service), "{service}: {services}");
        }
        let expected = [
            "health SERVING",
            "push alice 1 1 phone",
            "got $inbox/orders/7 b'\\x00\\xff'",
            "event connected alice phone",
            "event receipt alice phone $inbox/orders/7 1",
            "event published alice phone said/hello b'hi' QOS_AT_LEAST_ONCE",
            "acked 3",
            "user [('phone', True, 1)]",
            "stream 1000 True",
            "wrong INVALID_ARGUMENT",
            "unknown app NOT_FOUND",
            "history [(1, b'x')] 1",
            "deadline DEADLINE_EXCEEDED",
            "closed 1",
        ];
        assert_eq!(client.take(expected.len()), expected);
        std::fs::remove_dir_all(out).expect("it was made for this test");
    }
}
