//! Owns: one device's conversation: `core/` is neutral, `mqtt/` adapts it.
