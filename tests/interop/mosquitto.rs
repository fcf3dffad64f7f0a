//! What `mosquitto_pub` and `mosquitto_sub` must be able to do with the gateway, each feature in MQTT 3.1.1 and in 5 where
//! both have it: a line for each feature. Both are run with `-d`, so that every packet they see is a line as well.

use crate::gateway::{Lines, PATIENCE};
use crate::matrix::{At, Failure, equal};
use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// As the option `-V` names them.
const VERSIONS: [&str; 2] = ["311", "5"];

/// Begins the line of a message: topic, QoS, retain flag, what is left of its expiry, payload.
const MESSAGE: &str = "message ";
const FORMAT: &str = "message %t %q %r %E %p";

/// Where, and for which run.
#[derive(Clone, Copy)]
struct Place<'a> {
    port: &'a str,
    ca: Option<&'a Path>,
    run: u32,
}

/// Plays all features, one after the other.
pub fn play(at: At<'_>) -> Vec<String> {
    let port = at.url.rsplit(':').next().expect("the test made the address");
    let at = |run| Place { port, ca: at.ca, run };
    vec![
        line("connect", connect(at(1))),
        line("qos0", both_ways(at(2), 0)),
        line("qos1", both_ways(at(3), 1)),
        line("qos2", both_ways(at(4), 2)),
        line("will", will(at(5))),
        line("retained", retained(at(6))),
        line("take_over", take_over(at(7))),
        line("resume", resume(at(8))),
        line("shared", shared(at(9))),
        line("aliases", aliases(at(10))),
        line("expiry", expiry(at(11))),
    ]
}

fn line(name: &str, result: Result<(), Failure>) -> String {
    match result {
        Ok(()) => format!("ok {name}"),
        Err(failure) => format!("failed {name}: {failure}"),
    }
}

impl Place<'_> {
    /// One of the two programs, its output line by line.
    fn command(self, program: &str, version: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-h", "127.0.0.1", "-p", self.port, "-u", "matrix", "-d", "-V", version]);
        if let Some(ca) = self.ca {
            command.arg("--cafile").arg(ca);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Publishes, and ends well; all that it said.
    fn publish(self, version: &str, arguments: &[&str]) -> Result<Vec<String>, Failure> {
        ended(Lines::of(&mut self.command("mosquitto_pub", version, arguments)))
    }

    /// Publishes each payload over one connection.
    fn publish_all(self, version: &str, arguments: &[&str], payloads: &[String]) -> Result<Vec<String>, Failure> {
        let (reader, mut writer) = std::io::pipe().map_err(|error| error.to_string())?;
        let mut command = self.command("mosquitto_pub", version, arguments);
        let lines = Lines::of(command.arg("-l").stdin(reader));
        // The command has a copy of the end to read from.
        drop(command);
        for payload in payloads {
            writeln!(writer, "{payload}").map_err(|error| error.to_string())?;
        }
        drop(writer);
        ended(lines)
    }

    /// Subscribes, and is granted what it asks for.
    fn subscriber(
        self,
        version: &str,
        name: &str,
        filter: &str,
        qos: u8,
        more: &[&str],
    ) -> Result<Subscriber, Failure> {
        let asked = ["-i", name, "-t", filter, "-q", &qos.to_string()];
        self.start(version, &[&asked, more].concat(), &format!("Subscribed (mid: 1): {qos}"))
    }

    /// Comes back to its session, for `count` messages: all may come, and it end, before it is granted anything.
    fn returned(self, version: &str, name: &str, filter: &str, qos: u8, count: usize) -> Result<Subscriber, Failure> {
        let asked = ["-i", name, "-t", filter, "-q", &qos.to_string(), "-C", &count.to_string()];
        self.start(version, &[&asked[..], lasting(version)].concat(), &format!("Client {name} received CONNACK (0)"))
    }

    /// Starts a `mosquitto_sub` and waits for a line.
    fn start(self, version: &str, arguments: &[&str], until: &str) -> Result<Subscriber, Failure> {
        let arguments = [&["-F", FORMAT], arguments].concat();
        let lines = Lines::of(&mut self.command("mosquitto_sub", version, &arguments));
        let mut subscriber = Subscriber { lines, early: VecDeque::new(), repeated: 0 };
        subscriber.wait(until)?;
        Ok(subscriber)
    }
}

/// A `mosquitto_sub`, killed by SIGKILL when dropped.
struct Subscriber {
    lines: Lines,
    /// Messages that came while something else was waited for.
    early: VecDeque<String>,
    /// Of all that came, those with DUP.
    repeated: usize,
}

impl Subscriber {
    /// Reads a line. A message is its `TOPIC QOS RETAIN EXPIRY PAYLOAD`.
    fn read(&mut self, line: &str) -> Option<String> {
        self.repeated += usize::from(line.contains(" received PUBLISH (d1, "));
        line.strip_prefix(MESSAGE).map(str::to_owned)
    }

    /// Waits for a line that ends so.
    fn wait(&mut self, end: &str) -> Result<(), Failure> {
        loop {
            let line = self.lines.try_next().ok_or_else(|| format!("no line {end:?}"))?;
            if let Some(message) = self.read(&line) {
                self.early.push_back(message);
            } else if line.ends_with(end) {
                return Ok(());
            }
        }
    }

    /// The next message.
    fn next(&mut self) -> Result<String, Failure> {
        if let Some(message) = self.early.pop_front() {
            return Ok(message);
        }
        loop {
            let line = self.lines.try_next().ok_or("no message came")?;
            if let Some(message) = self.read(&line) {
                return Ok(message);
            }
        }
    }

    /// How many messages are there already.
    fn count(&mut self) -> usize {
        for line in self.lines.rest() {
            if let Some(message) = self.read(&line) {
                self.early.push_back(message);
            }
        }
        self.early.len()
    }

    /// It has all it wanted (`-C`): it says goodbye, ends well, and printed nothing that was not looked at.
    fn has_all(mut self) -> Result<(), Failure> {
        let more: Vec<String> = self.early.drain(..).collect();
        equal(more, Vec::new(), "messages too many")?;
        let lines = ended(self.lines)?;
        equal(lines.iter().filter(|line| line.starts_with(MESSAGE)).count(), 0, "messages too many")
    }
}

/// It says goodbye and ends with exit code 0; what it said until then.
fn ended(lines: Lines) -> Result<Vec<String>, Failure> {
    let (lines, code) = lines.end().ok_or("it does not end")?;
    equal(code, Some(0), &format!("exit code after {lines:?}"))?;
    equal(lines.last().is_some_and(|line| line.ends_with(" sending DISCONNECT")), true, "a goodbye")?;
    Ok(lines)
}

/// How many lines have that in them.
fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.contains(what)).count()
}

/// Payloads that tell their order.
fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

/// Makes the session outlive its connection: for ever in 3.1.1, for a minute in 5.
fn lasting(version: &str) -> &'static [&'static str] {
    if version == "5" { &["-c", "-x", "60"] } else { &["-c"] }
}

fn connect(at: Place<'_>) -> Result<(), Failure> {
    for version in VERSIONS {
        let name = format!("c-{}", at.run);
        let lines = at.publish(version, &["-i", &name, "-t", "anybody", "-m", "x"])?;
        equal(count(&lines, &format!("Client {name} received CONNACK (0)")), 1, "CONNACK")?;
    }
    // It calls itself by the client id that CONNACK gives it.
    let lines = at.publish("5", &["-t", "anybody", "-m", "x"])?;
    equal(count(&lines, "Client (null) sending CONNECT"), 1, "CONNECT without a client id")?;
    equal(count(&lines, "Client (null) received CONNACK"), 0, "CONNACK without a client id")?;
    equal(count(&lines, " received CONNACK (0)"), 1, "CONNACK")
}

fn both_ways(at: Place<'_>, qos: u8) -> Result<(), Failure> {
    for from in VERSIONS {
        for to in VERSIONS {
            let topic = format!("t/{}/{from}/{to}", at.run);
            let mut there = at.subscriber(to, "there", &topic, qos, &["-C", "20"])?;
            let published =
                at.publish_all(from, &["-i", "here", "-t", &topic, "-q", &qos.to_string()], &numbers(20))?;
            for n in 0..20 {
                equal(there.next()?, format!("{topic} {qos} 0  {n}"), "the message")?;
            }
            equal(there.repeated, 0, "messages with DUP")?;
            there.has_all()?;
            let acknowledged = ["received PUBACK (", "received PUBREC (", "received PUBCOMP ("];
            let wanted = [[0, 0, 0], [20, 0, 0], [0, 20, 20]][usize::from(qos)];
            equal(acknowledged.map(|what| count(&published, what)), wanted, "acknowledgements")?;
        }
    }
    Ok(())
}

fn will(at: Place<'_>) -> Result<(), Failure> {
    for version in VERSIONS {
        let topic = format!("will/{}/{version}", at.run);
        let last = ["--will-topic", &topic, "--will-payload", "gone", "--will-qos", "1"];
        let mut watcher = at.subscriber(version, "w", &topic, 1, &[])?;
        drop(at.subscriber(version, "m", "nothing", 1, &last)?);
        equal(watcher.next()?, format!("{topic} 1 0  gone"), "the will")?;
        // It ends by itself once it has subscribed.
        at.subscriber(version, "m", "nothing", 1, &[&last[..], &["-E"]].concat())?.has_all()?;
        at.publish(version, &["-t", &topic, "-q", "1", "-m", "end"])?;
        equal(watcher.next()?, format!("{topic} 1 0  end"), "what follows a polite end")?;
    }
    Ok(())
}

fn retained(at: Place<'_>) -> Result<(), Failure> {
    for version in VERSIONS {
        let [a, b, all] = ["a", "b", "+"].map(|level| format!("kept/{}/{version}/{level}", at.run));
        at.publish(version, &["-r", "-t", &a, "-q", "1", "-m", "old"])?;
        at.publish(version, &["-r", "-t", &a, "-q", "1", "-m", "new"])?;
        at.publish(version, &["-r", "-t", &b, "-q", "2", "-m", "other"])?;
        let mut late = at.subscriber(version, "l", &all, 2, &["-C", "4"])?;
        let mut kept = [late.next()?, late.next()?];
        kept.sort();
        equal(kept, [format!("{a} 1 1  new"), format!("{b} 2 1  other")], "the retained messages")?;
        at.publish(version, &["-r", "-t", &a, "-q", "1", "-n"])?;
        equal(late.next()?, format!("{a} 1 0  "), "the first one's removal")?;
        at.publish(version, &["-r", "-t", &b, "-q", "2", "-n"])?;
        equal(late.next()?, format!("{b} 2 0  "), "the second one's removal")?;
        late.has_all()?;
        let mut later = at.subscriber(version, "l2", &all, 1, &["-C", "1"])?;
        at.publish(version, &["-t", &a, "-q", "1", "-m", "live"])?;
        equal(later.next()?, format!("{a} 1 0  live"), "nothing was kept")?;
        later.has_all()?;
    }
    Ok(())
}

fn take_over(at: Place<'_>) -> Result<(), Failure> {
    for version in VERSIONS {
        let (name, topic) = (format!("same-{version}"), format!("same/{}/{version}", at.run));
        let mut first = at.subscriber(version, &name, &topic, 1, lasting(version))?;
        let mut second = at.subscriber(version, &name, &topic, 1, lasting(version))?;
        if version == "5" {
            first.wait("Received DISCONNECT (142)")?;
            at.publish(version, &["-t", &topic, "-q", "1", "-m", "x"])?;
            equal(second.next()?, format!("{topic} 1 0  x"), "what the second one gets")?;
            equal(first.count(), 0, "what the first one gets")?;
        } else {
            // Nobody tells it why; it finds itself disconnected and would take over in its turn.
            first.wait(&format!("Client {name} sending CONNECT"))?;
        }
    }
    Ok(())
}

fn resume(at: Place<'_>) -> Result<(), Failure> {
    for version in VERSIONS {
        for qos in [1, 2] {
            let (name, topic) = (format!("away-{version}-{qos}"), format!("resume/{}/{version}/{qos}", at.run));
            drop(at.subscriber(version, &name, &topic, qos, lasting(version))?);
            at.publish_all(version, &["-i", "p", "-t", &topic, "-q", &qos.to_string()], &numbers(50))?;
            let mut back = at.returned(version, &name, &topic, qos, 50)?;
            for n in 0..50 {
                equal(back.next()?, format!("{topic} {qos} 0  {n}"), "what was missed")?;
            }
            back.has_all()?;
        }
    }
    Ok(())
}

fn shared(at: Place<'_>) -> Result<(), Failure> {
    let (topic, last) = (format!("shared/{}", at.run), format!("last/{}", at.run));
    let filter = format!("$share/group/{topic}");
    let mut members = Vec::new();
    for version in VERSIONS {
        let asked = ["-i", &format!("s-{version}"), "-q", "2", "-t", &filter, "-t", &last];
        members.push(at.start(version, &asked, "Subscribed (mid: 1): 2, 2")?);
    }
    at.publish_all("5", &["-i", "p", "-t", &topic, "-q", "2"], &numbers(40))?;
    let deadline = Instant::now() + PATIENCE;
    while members.iter_mut().map(Subscriber::count).sum::<usize>() < 40 {
        equal(Instant::now() < deadline, true, "all shared messages came in time")?;
        std::thread::park_timeout(Duration::from_millis(10));
    }
    // What came twice, or to both, is there before this.
    at.publish("5", &["-t", &last, "-q", "1", "-m", "last"])?;
    let (mut all, end) = (Vec::new(), format!("{last} 1 0  last"));
    for member in &mut members {
        let before = all.len();
        loop {
            let message = member.next()?;
            if message == end {
                break;
            }
            let number = message.strip_prefix(&format!("{topic} 2 0  ")).and_then(|number| number.parse::<u32>().ok());
            all.push(number.ok_or(message)?);
        }
        equal(all.len() > before, true, "each member got some")?;
    }
    all.sort_unstable();
    equal(all, (0..40).collect(), "each message once in the group")
}

/// Towards the gateway alone: libmosquitto 2.0 takes no aliases, and grants none unless it is told to.
fn aliases(at: Place<'_>) -> Result<(), Failure> {
    for version in VERSIONS {
        let topic = |level| format!("alias/{}/{version}/{level}", at.run);
        let mut subscriber = at.subscriber(version, "s", &topic("#"), 1, &["-C", "10"])?;
        for (level, alias) in [("a", "1"), ("b", "2")] {
            let with_alias = ["-t", &topic(level), "-q", "1", "-D", "publish", "topic-alias", alias];
            let published = at.publish_all("5", &with_alias, &numbers(5))?;
            // The first names the topic, the others have the alias alone.
            let named = [format!("'{}'", topic(level)), "'(null)'".to_owned()];
            equal(named.map(|name| count(&published, &name)), [1, 4], "publishes with a name and without")?;
            for n in 0..5 {
                equal(subscriber.next()?, format!("{} 1 0  {n}", topic(level)), "the topic by alias")?;
            }
        }
        subscriber.has_all()?;
    }
    Ok(())
}

fn expiry(at: Place<'_>) -> Result<(), Failure> {
    let topic = format!("expiry/{}", at.run);
    at.subscriber("5", "away", &topic, 1, &[lasting("5"), &["-E"]].concat())?.has_all()?;
    for (payload, seconds) in [("short", "1"), ("long", "100")] {
        let limited = ["-D", "publish", "message-expiry-interval", seconds];
        at.publish("5", &[&["-t", &topic, "-q", "1", "-m", payload], &limited[..]].concat())?;
    }
    // The short one's time, by the gateway's clock.
    std::thread::sleep(Duration::from_millis(1_500));
    let mut back = at.returned("5", "away", &topic, 1, 1)?;
    let message = back.next()?;
    let parts: Vec<&str> = message.split(' ').collect();
    equal((parts.len(), parts[0], parts.last()), (5, topic.as_str(), Some(&"long")), "what has not expired")?;
    let left = parts[3].parse::<u32>().unwrap_or_default();
    equal((90..=99).contains(&left), true, &format!("{left} s are left of 100"))?;
    back.has_all()
}
