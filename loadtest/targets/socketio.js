// Topics over Socket.IO: a room for each topic.
//
// `join` with a topic subscribes and is acknowledged; `publish` with a topic and a text sends the text to the room as
// `message`. Payloads are text, since Socket.IO needs two frames for one message with bytes in it.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const server = new Server(http, {
  transports: ["websocket"],
  serveClient: false,
  perMessageDeflate: false,
  httpCompression: false,
  // No heartbeats of its own while others are measured.
  pingInterval: 3_600_000,
  pingTimeout: 3_600_000,
});

server.on("connection", socket => {
  socket.on("join", (topic, joined) => {
    socket.join(topic);
    joined();
  });
  socket.on("publish", (topic, text) => server.to(topic).emit("message", text));
});

http.on("error", error => {
  console.error(error.message);
  process.exit(1);
});
http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
