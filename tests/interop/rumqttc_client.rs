//! What rumqttc must be able to do with the gateway, over MQTT 5: a line for each feature.

use crate::gateway::PATIENCE;
use crate::matrix::{Failure, equal};
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, DisconnectReasonCode, LastWill, Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions, StateError};
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Where, and for which run.
#[derive(Clone, Copy)]
struct Place<'a> {
    url: &'a str,
    run: u32,
}

/// Plays all features, one after the other.
pub fn play(url: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime of one thread");
    runtime.block_on(async {
        let at = |run| Place { url, run };
        vec![
            line("connect", connect(at(1))).await,
            line("qos0", both_ways(at(2), QoS::AtMostOnce)).await,
            line("qos1", both_ways(at(3), QoS::AtLeastOnce)).await,
            line("qos2", both_ways(at(4), QoS::ExactlyOnce)).await,
            line("will", will(at(5))).await,
            line("retained", retained(at(6))).await,
            line("take_over", take_over(at(7))).await,
            line("resume", resume(at(8))).await,
            line("shared", shared(at(9))).await,
            line("aliases", aliases(at(10))).await,
            line("expiry", expiry(at(11))).await,
        ]
    })
}

async fn line(name: &str, feature: impl Future<Output = Result<(), Failure>>) -> String {
    match feature.await {
        Ok(()) => format!("ok {name}"),
        Err(failure) => format!("failed {name}: {failure}"),
    }
}

/// A connected client whose event loop runs in a task.
struct Client {
    client: AsyncClient,
    packets: UnboundedReceiver<Packet>,
    /// Packets that came while another was waited for.
    early: Vec<Packet>,
    /// Ends with the reason that the gateway gave for it.
    turning: JoinHandle<Option<DisconnectReasonCode>>,
    welcome: ConnAck,
}

impl Client {
    async fn connect(at: Place<'_>, name: &str, configure: impl FnOnce(&mut MqttOptions)) -> Result<Self, Failure> {
        let name = if name.is_empty() { String::new() } else { format!("{name}-{}", at.run) };
        let port = at.url.rsplit(':').next().and_then(|rest| rest.split('/').next()).and_then(|port| port.parse().ok());
        let port = port.expect("the test made the address");
        let mut options = if at.url.starts_with("ws://") {
            let mut options = MqttOptions::new(name, at.url, port);
            options.set_transport(Transport::Ws);
            options
        } else {
            MqttOptions::new(name, "127.0.0.1", port)
        };
        options.set_clean_start(true).set_credentials("matrix", "").set_keep_alive(Duration::from_secs(30));
        configure(&mut options);
        let (client, mut turns) = AsyncClient::new(options, 64);
        let (sender, packets) = unbounded_channel();
        let turning = tokio::spawn(async move {
            loop {
                match turns.poll().await {
                    Ok(Event::Incoming(packet)) => {
                        if sender.send(packet).is_err() {
                            return None;
                        }
                    }
                    Ok(Event::Outgoing(_)) => {}
                    Err(ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. })) => {
                        return Some(reason_code);
                    }
                    // Another turn would connect again.
                    Err(_) => return None,
                }
            }
        });
        let welcome = ConnAck {
            session_present: false,
            code: rumqttc::v5::mqttbytes::v5::ConnectReturnCode::Success,
            properties: None,
        };
        let mut connected = Self { client, packets, early: Vec::new(), turning, welcome };
        connected.welcome = connected
            .wait(|packet| if let Packet::ConnAck(ack) = packet { Some(ack.clone()) } else { None })
            .await
            .map_err(|failure| format!("CONNACK: {failure}"))?;
        Ok(connected)
    }

    /// The first packet, come or to come, of which `pick` makes something.
    async fn wait<T>(&mut self, pick: impl Fn(&Packet) -> Option<T>) -> Result<T, Failure> {
        if let Some(place) = self.early.iter().position(|packet| pick(packet).is_some()) {
            return Ok(pick(&self.early.remove(place)).expect("it was just picked"));
        }
        loop {
            let packet = timeout(PATIENCE, self.packets.recv()).await.map_err(|_| "nothing came")?.ok_or("it ended")?;
            match pick(&packet) {
                Some(picked) => return Ok(picked),
                None => self.early.push(packet),
            }
        }
    }

    async fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<(), Failure> {
        self.client.subscribe(filter, qos).await.map_err(|error| error.to_string())?;
        let codes =
            self.wait(|packet| if let Packet::SubAck(ack) = packet { Some(ack.return_codes.clone()) } else { None });
        let codes = format!("{:?}", codes.await?);
        if codes == format!("[Success({qos:?})]") { Ok(()) } else { Err(format!("granted {codes}")) }
    }

    /// Publishes and waits for what ends that.
    async fn publish(&mut self, topic: &str, payload: &str, qos: QoS) -> Result<(), Failure> {
        self.publish_with(topic, payload, qos, false, PublishProperties::default()).await
    }

    async fn publish_with(
        &mut self,
        topic: &str,
        payload: &str,
        qos: QoS,
        retain: bool,
        properties: PublishProperties,
    ) -> Result<(), Failure> {
        let payload = payload.to_owned();
        let sent = self.client.publish_with_properties(topic, qos, retain, payload, properties).await;
        sent.map_err(|error| error.to_string())?;
        match qos {
            QoS::AtMostOnce => Ok(()),
            QoS::AtLeastOnce => self.wait(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await,
            QoS::ExactlyOnce => self.wait(|packet| matches!(packet, Packet::PubComp(_)).then_some(())).await,
        }
    }

    async fn next(&mut self) -> Result<Publish, Failure> {
        self.wait(|packet| if let Packet::Publish(publish) = packet { Some(publish.clone()) } else { None }).await
    }

    async fn text(&mut self) -> Result<String, Failure> {
        Ok(text(&self.next().await?))
    }

    /// Messages that are there already.
    fn count(&mut self) -> usize {
        while let Ok(packet) = self.packets.try_recv() {
            self.early.push(packet);
        }
        self.early.iter().filter(|packet| matches!(packet, Packet::Publish(_))).count()
    }

    async fn end(self) -> Result<(), Failure> {
        self.client.disconnect().await.map_err(|error| error.to_string())?;
        self.ended().await.map(drop)
    }

    /// Waits for its end; the reason that the gateway gave.
    async fn ended(self) -> Result<Option<DisconnectReasonCode>, Failure> {
        timeout(PATIENCE, self.turning).await.map_err(|_| "it does not end")?.map_err(|error| error.to_string())
    }

    /// Closes the socket without a word, as a lost network does.
    async fn vanish(self) {
        self.turning.abort();
        // Aborted or ended by itself: in both cases the socket is gone.
        let _ended = self.turning.await;
    }
}

fn text(publish: &Publish) -> String {
    String::from_utf8_lossy(&publish.payload).into_owned()
}

fn topic(publish: &Publish) -> String {
    String::from_utf8_lossy(&publish.topic).into_owned()
}

fn lasting(options: &mut MqttOptions) {
    options.set_clean_start(false).set_session_expiry_interval(Some(60));
}

async fn connect(at: Place<'_>) -> Result<(), Failure> {
    let client = Client::connect(at, "c", |_| {}).await?;
    equal(client.welcome.session_present, false, "session present")?;
    client.end().await?;
    let nameless = Client::connect(at, "", |_| {}).await?;
    let properties = nameless.welcome.properties.as_ref();
    properties
        .and_then(|properties| properties.assigned_client_identifier.as_ref())
        .ok_or("no client id was assigned")?;
    nameless.end().await
}

async fn both_ways(at: Place<'_>, qos: QoS) -> Result<(), Failure> {
    let mut pair = [Client::connect(at, "here", |_| {}).await?, Client::connect(at, "there", |_| {}).await?];
    for turn in 0..2 {
        let name = format!("t/{}/{turn}", at.run);
        pair[1 - turn].subscribe(&name, qos).await?;
        for n in 0..20 {
            pair[turn].publish(&name, &n.to_string(), qos).await?;
        }
        for n in 0..20 {
            let publish = pair[1 - turn].next().await?;
            let got = (topic(&publish), text(&publish), publish.qos, publish.dup);
            equal(got, (name.clone(), n.to_string(), qos, false), "the message")?;
        }
    }
    let [here, there] = pair;
    here.end().await?;
    there.end().await
}

async fn will(at: Place<'_>) -> Result<(), Failure> {
    let name = format!("will/{}", at.run);
    let mut watcher = Client::connect(at, "w", |_| {}).await?;
    watcher.subscribe(&name, QoS::AtLeastOnce).await?;
    let with_will = |options: &mut MqttOptions| {
        options.set_last_will(LastWill::new(name.clone(), "gone", QoS::AtLeastOnce, false, None));
    };
    Client::connect(at, "m", with_will).await?.vanish().await;
    equal(watcher.text().await?, "gone".to_owned(), "the will")?;
    Client::connect(at, "m", with_will).await?.end().await?;
    watcher.publish(&name, "end", QoS::AtLeastOnce).await?;
    equal(watcher.text().await?, "end".to_owned(), "what follows a polite end")?;
    watcher.end().await
}

async fn retained(at: Place<'_>) -> Result<(), Failure> {
    let [a, b] = ["a", "b"].map(|level| format!("kept/{}/{level}", at.run));
    let all = format!("kept/{}/+", at.run);
    let (none, one) = (PublishProperties::default, QoS::AtLeastOnce);
    let mut publisher = Client::connect(at, "p", |_| {}).await?;
    publisher.publish_with(&a, "old", one, true, none()).await?;
    publisher.publish_with(&a, "new", one, true, none()).await?;
    publisher.publish_with(&b, "other", QoS::ExactlyOnce, true, none()).await?;
    let mut late = Client::connect(at, "l", |_| {}).await?;
    late.subscribe(&all, QoS::ExactlyOnce).await?;
    let mut got = Vec::new();
    for _ in 0..2 {
        let publish = late.next().await?;
        got.push((topic(&publish), text(&publish), publish.retain));
    }
    got.sort();
    equal(
        got,
        vec![(a.clone(), "new".to_owned(), true), (b.clone(), "other".to_owned(), true)],
        "the retained messages",
    )?;
    publisher.publish_with(&a, "", one, true, none()).await?;
    publisher.publish_with(&b, "", one, true, none()).await?;
    equal([late.text().await?, late.text().await?], [String::new(), String::new()], "their removal")?;
    let mut later = Client::connect(at, "l2", |_| {}).await?;
    later.subscribe(&all, one).await?;
    publisher.publish(&a, "live", one).await?;
    let live = later.next().await?;
    equal((text(&live), live.retain), ("live".to_owned(), false), "nothing was kept")?;
    for client in [publisher, late, later] {
        client.end().await?;
    }
    Ok(())
}

async fn take_over(at: Place<'_>) -> Result<(), Failure> {
    let first = Client::connect(at, "same", lasting).await?;
    let second = Client::connect(at, "same", lasting).await?;
    // It reads the reason only where the close does not come at once behind it.
    let reason = first.ended().await?;
    equal(matches!(reason, None | Some(DisconnectReasonCode::SessionTakenOver)), true, "the reason")?;
    equal(second.welcome.session_present, true, "session present")?;
    second.end().await
}

async fn resume(at: Place<'_>) -> Result<(), Failure> {
    let name = format!("resume/{}", at.run);
    let mut publisher = Client::connect(at, "p", |_| {}).await?;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut away = Client::connect(at, "away", lasting).await?;
        away.subscribe(&name, qos).await?;
        away.vanish().await;
        for n in 0..50 {
            publisher.publish(&name, &n.to_string(), qos).await?;
        }
        let mut back = Client::connect(at, "away", lasting).await?;
        equal(back.welcome.session_present, true, "session present")?;
        for n in 0..50 {
            equal(back.text().await?, n.to_string(), "what was missed")?;
        }
        back.end().await?;
    }
    publisher.end().await
}

async fn shared(at: Place<'_>) -> Result<(), Failure> {
    let mut members = [Client::connect(at, "s1", |_| {}).await?, Client::connect(at, "s2", |_| {}).await?];
    for member in &mut members {
        member.subscribe(&format!("$share/group/shared/{}", at.run), QoS::AtLeastOnce).await?;
    }
    let mut publisher = Client::connect(at, "p", |_| {}).await?;
    for n in 0..40 {
        publisher.publish(&format!("shared/{}", at.run), &n.to_string(), QoS::AtLeastOnce).await?;
    }
    let all_came = async {
        while members.iter_mut().map(Client::count).sum::<usize>() < 40 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_came).await.map_err(|_| "not all shared messages came")?;
    // What comes twice comes soon after.
    sleep(Duration::from_millis(200)).await;
    let mut got = Vec::new();
    for member in &mut members {
        let count = member.count();
        equal(count > 0, true, "each member got some")?;
        for _ in 0..count {
            got.push(member.text().await?.parse::<u32>().map_err(|error| error.to_string())?);
        }
    }
    got.sort_unstable();
    equal(got, (0..40).collect(), "each message once in the group")?;
    for client in members.into_iter().chain([publisher]) {
        client.end().await?;
    }
    Ok(())
}

async fn aliases(at: Place<'_>) -> Result<(), Failure> {
    let mut subscriber = Client::connect(at, "s", |options| {
        options.set_topic_alias_max(Some(8));
    })
    .await?;
    subscriber.subscribe(&format!("alias/{}/#", at.run), QoS::AtLeastOnce).await?;
    let mut publisher = Client::connect(at, "p", |_| {}).await?;
    let properties = publisher.welcome.properties.as_ref();
    let taken = properties.and_then(|properties| properties.topic_alias_max).unwrap_or_default();
    equal(taken >= 2, true, "the gateway takes aliases")?;
    for (level, alias, payload) in
        [("a", 1, "1"), ("b", 2, "2"), ("", 1, "3"), ("", 2, "4"), ("c", 1, "5"), ("", 1, "6")]
    {
        let name = if level.is_empty() { String::new() } else { format!("alias/{}/{level}", at.run) };
        let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
        publisher.publish_with(&name, payload, QoS::AtLeastOnce, false, properties).await?;
    }
    let mut got = Vec::new();
    for _ in 0..6 {
        let publish = subscriber.next().await?;
        let name = topic(&publish);
        got.push(format!("{}{}", name.rsplit('/').next().unwrap_or_default(), text(&publish)));
    }
    equal(got, ["a1", "b2", "a3", "b4", "c5", "c6"].map(str::to_owned).to_vec(), "topics by alias")?;
    subscriber.end().await?;
    publisher.end().await
}

async fn expiry(at: Place<'_>) -> Result<(), Failure> {
    let name = format!("expiry/{}", at.run);
    let mut away = Client::connect(at, "away", lasting).await?;
    away.subscribe(&name, QoS::AtLeastOnce).await?;
    away.end().await?;
    let mut publisher = Client::connect(at, "p", |_| {}).await?;
    for (payload, seconds) in [("short", 1), ("long", 100)] {
        let properties = PublishProperties { message_expiry_interval: Some(seconds), ..PublishProperties::default() };
        publisher.publish_with(&name, payload, QoS::AtLeastOnce, false, properties).await?;
    }
    // The short one's time, by the gateway's clock.
    sleep(Duration::from_millis(1_500)).await;
    let mut back = Client::connect(at, "away", lasting).await?;
    let publish = back.next().await?;
    equal(text(&publish), "long".to_owned(), "what has not expired")?;
    let left = publish.properties.and_then(|properties| properties.message_expiry_interval);
    equal(left.is_some_and(|left| (97..=99).contains(&left)), true, "what is left of 100 s")?;
    back.end().await?;
    publisher.end().await
}
