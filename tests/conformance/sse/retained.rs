//! What is retained comes first to a stream that is new, and not to one that goes on.

use super::stream::Stream;
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::shard::command::{Push, Target};
use std::sync::Arc;

fn retain(node: &Node, topic: &str, payload: &[u8]) {
    let with = |push: &mut Push| Arc::make_mut(&mut push.message).retain = true;
    node.push_with(Target::Topic(topic.into()), payload, Qos::AtLeastOnce, with).expect("it is taken");
}

#[test]
fn a_new_stream_is_sent_what_is_retained_and_one_that_comes_back_is_not() {
    for shards in [1, 3] {
        let node = Node::with_shards(shards);
        for number in 0..100 {
            retain(&node, &format!("rooms/{number:02}"), number.to_string().as_bytes());
        }
        for query in ["topic=rooms/%2B&user=ann", "topic=rooms/%2B&inbox=1&qos=0&user=bob"] {
            let mut stream = Stream::open(&node, query);
            let got: Vec<usize> =
                stream.rest().iter().map(|event| event.payload().parse().expect("a number")).collect();
            assert!(got.into_iter().eq(0..100), "{query}");
            retain(&node, "rooms/07", b"newer");
            assert_eq!(stream.next().payload(), "newer");
            let last = stream.last_id().to_owned();
            stream.hang_up();
            let mut again = Stream::resume(&node, query, &last);
            again.expect_nothing();
            retain(&node, "rooms/07", b"7");
        }
        let mut one = Stream::open(&node, "topic=rooms/42&user=cid");
        assert_eq!(one.take(1)[0].payload(), "42");
        one.expect_nothing();
    }
}
