//! Owns: bytes ↔ frames. In: bytes. Out: borrowed views; encoders write into the caller's buffer.
//! Must not: know sockets, clocks or sessions.
