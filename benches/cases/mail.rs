//! Mail from one shard to another.

use super::{Case, Make};
use kittiwake::base::ids::ShardId;
use kittiwake::engine::mail::Mailbox;
use kittiwake::limits::MAILBOX_LETTERS_MAX;
use std::hint::black_box;

pub const CASES: &[Make] = &[post_and_take];

const BATCH: u32 = 64;

/// The receiver is awake, as it is under load.
fn post_and_take() -> Case {
    let mut mailbox: Mailbox<[u64; 6]> = Mailbox::new(ShardId(0), MAILBOX_LETTERS_MAX);
    let post = mailbox.post();
    Case::plain("mail/post and take", BATCH, move || {
        for number in 0..u64::from(BATCH) {
            assert!(post.try_send([number; 6]).is_ok(), "there is room");
        }
        while let Some(letter) = mailbox.take() {
            black_box(letter);
        }
    })
}
