// What mqtt.js must be able to do with the gateway, one function a feature. Runs in Node and in a browser: it is given
// the library, the address, and what to call with each result.

let mqtt, url, run = 0

// A client that collects what it gets. `options` are the library's.
async function connect(clientId, options = {}) {
  const client = mqtt.connect(url, {
    clientId, username: 'matrix', protocolVersion: 5, clean: true, reconnectPeriod: 0, connectTimeout: 10_000, ...options,
  })
  client.arrived = []
  client.waiting = []
  client.on('message', (topic, payload, packet) => {
    const waiter = client.waiting.shift()
    if (waiter) waiter(packet)
    else client.arrived.push(packet)
  })
  client.connack = await new Promise((resolve, reject) => {
    client.once('connect', resolve)
    client.once('error', reject)
    client.once('close', () => reject(new Error('closed before CONNACK')))
  })
  client.removeAllListeners('error')
  client.on('error', () => {})
  return client
}

function next(client) {
  if (client.arrived.length > 0) return Promise.resolve(client.arrived.shift())
  return within(10_000, 'a message', new Promise((resolve) => client.waiting.push(resolve)))
}

function within(ms, what, promise) {
  let timer
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms) })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

// Closes the connection without a word, as a lost network does.
async function vanish(client) {
  const closed = new Promise((resolve) => client.once('close', resolve))
  client.stream.destroy()
  await within(10_000, 'the close', closed)
}

function equal(found, wanted, what) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`${what}: ${a}, expected ${b}`)
}

const text = (packet) => packet.payload.toString()

async function bothWays(protocolVersion, qos) {
  const here = await connect(`here-${run}`, { protocolVersion })
  const there = await connect(`there-${run}`, { protocolVersion })
  for (const [from, to, topic] of [[here, there, `t/${run}/a`], [there, here, `t/${run}/b`]]) {
    const [granted] = await to.subscribeAsync(topic, { qos })
    equal(granted.qos, qos, 'granted QoS')
    for (let n = 0; n < 20; n += 1) await from.publishAsync(topic, `${n}`, { qos })
    for (let n = 0; n < 20; n += 1) {
      const packet = await next(to)
      equal([packet.topic, text(packet), packet.qos, packet.dup], [topic, `${n}`, qos, false], 'the message')
    }
  }
  await here.endAsync()
  await there.endAsync()
}

const features = {
  async connect() {
    for (const protocolVersion of [4, 5]) {
      const client = await connect(`c-${run}`, { protocolVersion })
      equal(client.connack.sessionPresent, false, 'session present')
      await client.endAsync()
    }
    const nameless = await connect('', { clean: true })
    if (!nameless.connack.properties.assignedClientIdentifier) throw new Error('no client id was assigned')
    await nameless.endAsync()
  },

  async qos0() { await bothWays(4, 0); await bothWays(5, 0) },
  async qos1() { await bothWays(4, 1); await bothWays(5, 1) },
  async qos2() { await bothWays(4, 2); await bothWays(5, 2) },

  async will() {
    const watcher = await connect(`w-${run}`)
    await watcher.subscribeAsync(`will/${run}`, { qos: 1 })
    const will = { topic: `will/${run}`, payload: 'gone', qos: 1, retain: false }
    const mortal = await connect(`m-${run}`, { will })
    await vanish(mortal)
    equal(text(await next(watcher)), 'gone', 'the will')
    const polite = await connect(`m-${run}`, { will })
    await polite.endAsync()
    await watcher.publishAsync(`will/${run}`, 'end', { qos: 1 })
    equal(text(await next(watcher)), 'end', 'what follows a polite end')
    await watcher.endAsync()
  },

  async retained() {
    const publisher = await connect(`p-${run}`)
    await publisher.publishAsync(`kept/${run}/a`, 'old', { qos: 1, retain: true })
    await publisher.publishAsync(`kept/${run}/a`, 'new', { qos: 1, retain: true })
    // At QoS 0 nothing says that a message has arrived, except that it comes back.
    await publisher.subscribeAsync(`kept/${run}/b`, { qos: 0 })
    await publisher.publishAsync(`kept/${run}/b`, 'other', { qos: 0, retain: true })
    equal(text(await next(publisher)), 'other', 'the message at QoS 0')
    const late = await connect(`l-${run}`)
    await late.subscribeAsync(`kept/${run}/+`, { qos: 1 })
    const got = [await next(late), await next(late)].map((packet) => [packet.topic, text(packet), packet.retain]).sort()
    equal(got, [[`kept/${run}/a`, 'new', true], [`kept/${run}/b`, 'other', true]], 'the retained messages')
    await publisher.publishAsync(`kept/${run}/a`, '', { qos: 1, retain: true })
    await publisher.publishAsync(`kept/${run}/b`, '', { qos: 1, retain: true })
    equal([text(await next(late)), text(await next(late))], ['', ''], 'their removal')
    const later = await connect(`l2-${run}`)
    await later.subscribeAsync(`kept/${run}/+`, { qos: 1 })
    await publisher.publishAsync(`kept/${run}/a`, 'live', { qos: 1 })
    const live = await next(later)
    equal([text(live), live.retain], ['live', false], 'nothing was kept')
    for (const client of [publisher, late, later]) await client.endAsync()
  },

  async take_over() {
    const first = await connect(`same-${run}`, { properties: { sessionExpiryInterval: 60 } })
    const told = new Promise((resolve) => first.once('disconnect', resolve))
    const second = await connect(`same-${run}`, { clean: false, properties: { sessionExpiryInterval: 60 } })
    equal((await within(10_000, 'the goodbye', told)).reasonCode, 0x8e, 'the reason')
    equal(second.connack.sessionPresent, true, 'session present')
    await second.endAsync()
  },

  async resume() {
    const lasting = { clean: false, properties: { sessionExpiryInterval: 60 } }
    const publisher = await connect(`p-${run}`)
    for (const qos of [1, 2]) {
      const away = await connect(`away-${run}`, lasting)
      await away.subscribeAsync(`resume/${run}`, { qos })
      await vanish(away)
      for (let n = 0; n < 50; n += 1) await publisher.publishAsync(`resume/${run}`, `${n}`, { qos })
      const back = await connect(`away-${run}`, lasting)
      equal(back.connack.sessionPresent, true, 'session present')
      for (let n = 0; n < 50; n += 1) equal(text(await next(back)), `${n}`, 'what was missed')
      await back.endAsync()
    }
    await publisher.endAsync()
  },

  async shared() {
    const members = [await connect(`s1-${run}`), await connect(`s2-${run}`)]
    for (const member of members) await member.subscribeAsync(`$share/group/shared/${run}`, { qos: 1 })
    const publisher = await connect(`p-${run}`)
    for (let n = 0; n < 40; n += 1) await publisher.publishAsync(`shared/${run}`, `${n}`, { qos: 1 })
    const wanted = Array.from({ length: 40 }, (_, n) => n)
    for (let waited = 0; members[0].arrived.length + members[1].arrived.length < 40; waited += 1) {
      if (waited > 500) throw new Error('not all shared messages came')
      await pause(20)
    }
    await pause(200)
    const got = members.map((member) => member.arrived.map((packet) => Number(text(packet))))
    equal(got.flat().sort((a, b) => a - b), wanted, 'each message once in the group')
    if (got.some((list) => list.length === 0)) throw new Error('one member got everything')
    for (const client of [...members, publisher]) await client.endAsync()
  },

  async aliases() {
    const subscriber = await connect(`s-${run}`, { properties: { topicAliasMaximum: 8 } })
    await subscriber.subscribeAsync(`alias/${run}/#`, { qos: 1 })
    const publisher = await connect(`p-${run}`)
    if (!(publisher.connack.properties.topicAliasMaximum >= 2)) throw new Error('the gateway takes no aliases')
    const set = (topic, topicAlias, payload) => publisher.publishAsync(topic, payload, { qos: 1, properties: { topicAlias } })
    await set(`alias/${run}/a`, 1, '1')
    await set(`alias/${run}/b`, 2, '2')
    await set('', 1, '3')
    await set('', 2, '4')
    await set(`alias/${run}/c`, 1, '5')
    await set('', 1, '6')
    const got = []
    for (let n = 0; n < 6; n += 1) {
      const packet = await next(subscriber)
      got.push([packet.topic.at(-1), text(packet)].join(''))
    }
    equal(got, ['a1', 'b2', 'a3', 'b4', 'c5', 'c6'], 'topics by alias')
    await subscriber.endAsync()
    await publisher.endAsync()
  },

  async expiry() {
    const lasting = { clean: false, properties: { sessionExpiryInterval: 60 } }
    const away = await connect(`away-${run}`, lasting)
    await away.subscribeAsync(`expiry/${run}`, { qos: 1 })
    await away.endAsync()
    const publisher = await connect(`p-${run}`)
    const publish = (payload, messageExpiryInterval) =>
      publisher.publishAsync(`expiry/${run}`, payload, { qos: 1, properties: { messageExpiryInterval } })
    await publish('short', 1)
    await publish('long', 100)
    await pause(1_500)
    const back = await connect(`away-${run}`, lasting)
    const packet = await next(back)
    equal(text(packet), 'long', 'what has not expired')
    const left = packet.properties.messageExpiryInterval
    if (!(left >= 97 && left <= 99)) throw new Error(`${left} s are left of 100`)
    await back.endAsync()
    await publisher.endAsync()
  },

  // Messages that are worth packing, from a client and to two of them, of either version.
  async large() {
    const subscribers = [await connect(`s4-${run}`, { protocolVersion: 4 }), await connect(`s5-${run}`)]
    for (const subscriber of subscribers) await subscriber.subscribeAsync(`large/${run}`, { qos: 2 })
    const publisher = await connect(`p-${run}`)
    for (const bytes of [1_000, 5_000, 40_000, 200_000]) {
      const payload = JSON.stringify(Array.from({ length: bytes / 20 }, (_, n) => `entry ${n * n} of ${bytes}`)).slice(0, bytes)
      for (const qos of [0, 1, 2]) {
        await publisher.publishAsync(`large/${run}`, payload, { qos })
        for (const subscriber of subscribers) {
          const packet = await next(subscriber)
          if (text(packet) !== payload || packet.qos !== qos) throw new Error(`${bytes} bytes at QoS ${qos} came otherwise`)
        }
      }
    }
    for (const client of [...subscribers, publisher]) await client.endAsync()
  },
}

// Runs all features one after the other and tells `report(line)` what came of each.
export async function play(library, address, report) {
  mqtt = library
  url = address
  for (const [name, feature] of Object.entries(features)) {
    run += 1
    try {
      await within(60_000, name, feature())
      report(`ok ${name}`)
    } catch (error) {
      report(`failed ${name}: ${error.message}`)
    }
  }
  report('end')
}
