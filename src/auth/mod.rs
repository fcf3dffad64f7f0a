//! Owns: who somebody is and what they may do: pure, answers by `now`. For now: mode `none`.
//! In: credentials as a CONNECT carries them. Out: a user name, or a refusal.
//! Must not: know sockets or sessions; block; log a secret.
//! Invariants: a template that parsed can be filled for every client that has an identifier.

mod template;

pub use template::{TemplateError, UserTemplate};
