// Topics over `ws`, as its own documentation broadcasts: a set of sockets for each topic, `send` in a loop.
//
// `GET /?topic=T` subscribes to T, `GET /` publishes: a binary message of one byte with the topic's length, the topic,
// the payload. A subscriber gets the payload as a binary message.
import { WebSocketServer } from "ws";

const topics = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096, perMessageDeflate: false });

server.on("connection", (socket, request) => {
  const topic = new URL(request.url, "http://localhost").searchParams.get("topic");
  if (topic === null) {
    socket.on("message", publish);
    return;
  }
  let subscribers = topics.get(topic);
  if (subscribers === undefined) topics.set(topic, (subscribers = new Set()));
  subscribers.add(socket);
  socket.on("close", () => {
    subscribers.delete(socket);
    if (subscribers.size === 0) topics.delete(topic);
  });
});

function publish(message) {
  const start = 1 + message[0];
  const payload = message.subarray(start);
  for (const subscriber of topics.get(message.toString("utf8", 1, start)) ?? []) subscriber.send(payload);
}

server.on("error", error => {
  console.error(error.message);
  process.exit(1);
});
