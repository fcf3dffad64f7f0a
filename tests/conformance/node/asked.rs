//! What operators ask of a node, and what it asks of others.

use super::Node;
use kittiwake::auth::Introduction;
use kittiwake::shard::command::{
    BanAnswer, BanCommand, CommandError, CommandToken, ConnectionFigures, ConnectionQuery, Event, Question,
    QuestionToken, Shown, Story,
};

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

    /// The connections that operators are told of.
    pub fn connections(&self, query: ConnectionQuery) -> Vec<ConnectionFigures> {
        let token = self.token();
        self.handle().connections(query, token).expect("there is room for a question");
        self.run();
        let mut plane = self.0.plane.borrow_mut();
        plane.hear();
        let (mine, others): (Vec<Event>, Vec<Event>) = plane
            .heard
            .drain(..)
            .partition(|event| matches!(event, Event::Connections { token: other, .. } if *other == token));
        plane.heard = others;
        let lists = mine.into_iter().map(|event| match event {
            Event::Connections { connections, .. } => connections,
            _ => unreachable!("the partition is of connections"),
        });
        lists.flatten().collect()
    }

    /// What comes of an operator's wish.
    pub fn ban(&self, command: BanCommand) -> Result<BanAnswer, CommandError> {
        let token = self.token();
        self.handle().bans(command, token).expect("there is room for a question");
        self.run();
        match self.take_event(|event| matches!(event, Event::Bans { token: other, .. } if *other == token)) {
            Event::Bans { result, .. } => result,
            other => unreachable!("{other:?} was not asked for"),
        }
    }
}
