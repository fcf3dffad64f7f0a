//! Owns: who somebody is and what they may do: user templates, tokens and the keys they are checked with, rights by
//! containment, rates and bans. Pure: the same answer to the same question at the same `now`.
//! In: credentials as a connection carries them, keys as an operator gives them. Out: a [`Grant`], or a [`Fault`].
//! Must not: know sockets, sessions or files; read a clock; block; log a secret.
//! Invariants: a template that parsed can be filled for every client that has an identifier; a key checks tokens of one
//! algorithm only and speaks for its own apps only; what a list of rights does not contain is refused.

mod bans;
mod hook;
mod keys;
mod rates;
mod rights;
mod sign;
mod template;
#[cfg(test)]
mod tests;
mod token;

pub use bans::{Author, Ban, BanRule, BanSet, Bans, By, NoRoom, Subject};
pub use hook::{Introduction, answered};
pub use keys::{Algorithm, Key, KeyApps, KeyError, KeySet};
pub use rates::{Entry, Table, Weight};
pub use rights::{Lists, NotAPattern, Pattern, Publishers, Rights, Who};
pub use sign::{Signing, Wanted, sign};
pub use template::{TemplateError, UserTemplate};
pub use token::{Fault, Grant, Rules, verify};
