"""What paho-mqtt must be able to do with the gateway: `python3 paho_client.py URL`, where URL is tcp://HOST:PORT or
ws://HOST:PORT/mqtt, or mqtts and wss for TLS, trusting the authority in the file that the variable CA names. Prints a line
for each feature."""

import os
import queue
import sys
import time
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

URL = urlsplit(sys.argv[1])
PATIENCE = 10
run = 0


class Client:
    """A connected client that collects what it gets."""

    def __init__(self, client_id, v5=True, clean=True, expiry=0, will=None, alias_maximum=0):
        transport = "websockets" if URL.scheme in ("ws", "wss") else "tcp"
        version = mqtt.MQTTv5 if v5 else mqtt.MQTTv311
        options = {} if v5 else {"clean_session": clean}
        self.c = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, transport=transport, **options
        )
        if transport == "websockets":
            self.c.ws_set_options(path=URL.path)
        if URL.scheme in ("mqtts", "wss"):
            self.c.tls_set(ca_certs=os.environ["CA"])
        self.c.username_pw_set("matrix", "")
        self.messages, self.done, self.goodbye = queue.Queue(), queue.Queue(), queue.Queue()
        self.c.on_connect = lambda c, u, flags, reason, properties: self.done.put((flags.session_present, reason, properties))
        self.c.on_message = lambda c, u, message: self.messages.put(message)
        self.c.on_subscribe = lambda c, u, mid, reasons, properties: self.done.put(reasons)
        self.c.on_disconnect = lambda c, u, flags, reason, properties: self.goodbye.put(reason)
        if will:
            self.c.will_set(*will)
        properties = None
        if v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            properties.TopicAliasMaximum = alias_maximum
            self.c.connect(URL.hostname, URL.port, clean_start=clean, properties=properties)
        else:
            self.c.connect(URL.hostname, URL.port)
        self.c.loop_start()
        self.session_present, self.reason, self.properties = self.done.get(timeout=PATIENCE)
        assert not self.reason.is_failure, self.reason

    def subscribe(self, topic, qos):
        self.c.subscribe(topic, qos)
        (reason,) = self.done.get(timeout=PATIENCE)
        assert reason.value == qos, f"granted {reason}"

    def publish(self, topic, payload, qos, retain=False, **properties):
        sent = None
        if properties:
            sent = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(sent, name, value)
        self.c.publish(topic, payload, qos, retain, properties=sent).wait_for_publish(PATIENCE)

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def text(self):
        return self.next().payload.decode()

    def end(self):
        self.c.disconnect()
        self.c.loop_stop()

    def vanish(self):
        """Closes the socket without a word, as a lost network does."""
        self.c.loop_stop()
        self.c._sock_close()


def equal(found, wanted, what):
    assert found == wanted, f"{what}: {found!r}, expected {wanted!r}"


def both_ways(v5, qos):
    here, there = Client(f"here-{run}", v5), Client(f"there-{run}", v5)
    for publisher, subscriber, topic in ((here, there, f"t/{run}/a"), (there, here, f"t/{run}/b")):
        subscriber.subscribe(topic, qos)
        for n in range(20):
            publisher.publish(topic, str(n), qos)
        for n in range(20):
            message = subscriber.next()
            equal((message.topic, message.payload.decode(), message.qos, message.dup), (topic, str(n), qos, False), "the message")
    here.end()
    there.end()


def connect():
    for v5 in (False, True):
        client = Client(f"c-{run}", v5)
        equal(client.session_present, False, "session present")
        client.end()
    nameless = Client("")
    assert nameless.properties.AssignedClientIdentifier, "no client id was assigned"
    nameless.end()


def qos0():
    both_ways(False, 0)
    both_ways(True, 0)


def qos1():
    both_ways(False, 1)
    both_ways(True, 1)


def qos2():
    both_ways(False, 2)
    both_ways(True, 2)


def will():
    for v5 in (False, True):
        watcher = Client(f"w-{run}", v5)
        watcher.subscribe(f"will/{run}", 1)
        Client(f"m-{run}", v5, will=(f"will/{run}", "gone", 1)).vanish()
        equal(watcher.text(), "gone", "the will")
        Client(f"m-{run}", v5, will=(f"will/{run}", "gone", 1)).end()
        watcher.publish(f"will/{run}", "end", 1)
        equal(watcher.text(), "end", "what follows a polite end")
        watcher.end()


def retained():
    for v5 in (False, True):
        publisher, late = Client(f"p-{run}", v5), Client(f"l-{run}", v5)
        publisher.publish(f"kept/{run}/a", "old", 1, True)
        publisher.publish(f"kept/{run}/a", "new", 1, True)
        publisher.publish(f"kept/{run}/b", "other", 2, True)
        late.subscribe(f"kept/{run}/+", 2)
        got = sorted((message.topic, message.payload.decode(), message.retain) for message in (late.next(), late.next()))
        equal(got, [(f"kept/{run}/a", "new", True), (f"kept/{run}/b", "other", True)], "the retained messages")
        publisher.publish(f"kept/{run}/a", "", 1, True)
        publisher.publish(f"kept/{run}/b", "", 1, True)
        equal([late.text(), late.text()], ["", ""], "their removal")
        later = Client(f"l2-{run}", v5)
        later.subscribe(f"kept/{run}/+", 1)
        publisher.publish(f"kept/{run}/a", "live", 1)
        live = later.next()
        equal((live.payload.decode(), live.retain), ("live", False), "nothing was kept")
        for client in (publisher, late, later):
            client.end()


def take_over():
    first = Client(f"same-{run}", expiry=60)
    second = Client(f"same-{run}", clean=False, expiry=60)
    equal(first.goodbye.get(timeout=PATIENCE).value, 0x8E, "the reason")
    equal(second.session_present, True, "session present")
    first.c.loop_stop()
    second.end()


def resume():
    for v5 in (False, True):
        lasting = {"v5": v5, "clean": False, "expiry": 60}
        publisher = Client(f"p-{run}", v5)
        for qos in (1, 2):
            away = Client(f"away-{v5}-{run}", **lasting)
            away.subscribe(f"resume/{run}", qos)
            away.vanish()
            for n in range(50):
                publisher.publish(f"resume/{run}", str(n), qos)
            back = Client(f"away-{v5}-{run}", **lasting)
            equal(back.session_present, True, "session present")
            equal([back.text() for _ in range(50)], [str(n) for n in range(50)], "what was missed")
            back.end()
        publisher.end()


def shared():
    members = [Client(f"s1-{run}"), Client(f"s2-{run}", v5=False)]
    for member in members:
        member.subscribe(f"$share/group/shared/{run}", 1)
    publisher = Client(f"p-{run}")
    for n in range(40):
        publisher.publish(f"shared/{run}", str(n), 1)
    until = time.monotonic() + PATIENCE
    while sum(member.messages.qsize() for member in members) < 40:
        assert time.monotonic() < until, "not all shared messages came"
        time.sleep(0.02)
    time.sleep(0.2)
    got = [[int(member.text()) for _ in range(member.messages.qsize())] for member in members]
    equal(sorted(got[0] + got[1]), list(range(40)), "each message once in the group")
    assert all(got), "one member got everything"
    for client in (*members, publisher):
        client.end()


def aliases():
    subscriber = Client(f"s-{run}", alias_maximum=8)
    subscriber.subscribe(f"alias/{run}/#", 1)
    publisher = Client(f"p-{run}")
    assert publisher.properties.TopicAliasMaximum >= 2, "the gateway takes no aliases"
    publisher.publish(f"alias/{run}/a", "1", 1, TopicAlias=1)
    publisher.publish(f"alias/{run}/b", "2", 1, TopicAlias=2)
    publisher.publish("", "3", 1, TopicAlias=1)
    publisher.publish("", "4", 1, TopicAlias=2)
    publisher.publish(f"alias/{run}/c", "5", 1, TopicAlias=1)
    publisher.publish("", "6", 1, TopicAlias=1)
    got = []
    for _ in range(6):
        message = subscriber.next()
        got.append(message.topic[-1:] + message.payload.decode())
    equal(got, ["a1", "b2", "a3", "b4", "c5", "c6"], "topics by alias")
    subscriber.end()
    publisher.end()


def expiry():
    lasting = {"clean": False, "expiry": 60}
    away = Client(f"away-{run}", **lasting)
    away.subscribe(f"expiry/{run}", 1)
    away.end()
    publisher = Client(f"p-{run}")
    publisher.publish(f"expiry/{run}", "short", 1, MessageExpiryInterval=1)
    publisher.publish(f"expiry/{run}", "long", 1, MessageExpiryInterval=100)
    time.sleep(1.5)
    back = Client(f"away-{run}", **lasting)
    message = back.next()
    equal(message.payload.decode(), "long", "what has not expired")
    left = message.properties.MessageExpiryInterval
    assert 97 <= left <= 99, f"{left} s are left of 100"
    back.end()
    publisher.end()


for feature in (connect, qos0, qos1, qos2, will, retained, take_over, resume, shared, aliases, expiry):
    run += 1
    try:
        feature()
        print("ok", feature.__name__, flush=True)
    except Exception as error:
        print(f"failed {feature.__name__}: {error!r}", flush=True)
print("end", flush=True)
