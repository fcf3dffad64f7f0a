//! What operators ask of a node, and what it asks of others.

use super::Node;
use kittiwake::auth::Introduction;
use kittiwake::shard::command::{CommandToken, Event, Question, QuestionToken, Shown, Story};

impl Node {
    /// What was told of single connections since the last time.
    pub fn stories(&self) -> Vec<Story> {
        self.0.plane.borrow().stories.try_iter().collect()
    }

    /// Devices that somebody is asked about, and has not answered yet.
    pub fn introductions(&self) -> Vec<(QuestionToken, Introduction)> {
        let plane = self.0.plane.borrow();
        let asked = plane.questions.try_iter().filter_map(|Question { token, shown }| match shown {
            Shown::Device(who) => Some((token, *who)),
            Shown::Token(_) => None,
        });
        asked.collect()
    }

    /// Sends a canary through every shard and the log.
    pub fn send_canary(&self) -> CommandToken {
        let token = self.token();
        self.handle().canary(token).expect("there is room for a question");
        self.run();
        token
    }

    /// Those that have come through.
    pub fn canaries(&self, token: CommandToken) -> Vec<bool> {
        self.run();
        let mut plane = self.0.plane.borrow_mut();
        plane.hear();
        let come = plane.heard.iter().filter_map(|event| match event {
            Event::Canary { token: other, is_well } if *other == token => Some(*is_well),
            _ => None,
        });
        come.collect()
    }
}
