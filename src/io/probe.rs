//! Which driver this machine gets. The engine is generic over its driver, so the answer is a name to match on, once,
//! where shards are started.

use super::uring;

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring where it has all that is needed, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// [`super::uring::UringDriver`].
    Uring,
    /// [`super::epoll::EpollDriver`].
    Epoll,
}

impl Chosen {
    /// The driver's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// An answer, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choosing {
    /// The driver.
    pub chosen: Chosen,
    /// Why it is not io_uring although that was welcome: one log line.
    pub fallback: Option<String>,
}

/// Decides. It tries what it needs on a ring of its own, which takes well under a millisecond; once per process.
///
/// # Errors
/// Where io_uring was insisted on: what it lacks.
pub fn choose(choice: Choice) -> Result<Choosing, String> {
    match choice {
        Choice::Epoll => Ok(Choosing { chosen: Chosen::Epoll, fallback: None }),
        Choice::Auto => Ok(match uring::probe::missing() {
            None => Choosing { chosen: Chosen::Uring, fallback: None },
            Some(reason) => Choosing { chosen: Chosen::Epoll, fallback: Some(reason) },
        }),
        Choice::IoUring => match uring::probe::missing() {
            None => Ok(Choosing { chosen: Chosen::Uring, fallback: None }),
            Some(reason) => Err(reason),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_chosen_without_a_question() {
        assert_eq!(choose(Choice::Epoll), Ok(Choosing { chosen: Chosen::Epoll, fallback: None }));
    }

    #[test]
    fn auto_is_io_uring_exactly_where_io_uring_can_be_had() {
        let auto = choose(Choice::Auto).expect("auto always finds a driver");
        match choose(Choice::IoUring) {
            Ok(insisted) => assert_eq!(auto, insisted),
            Err(reason) => assert_eq!(auto, Choosing { chosen: Chosen::Epoll, fallback: Some(reason) }),
        }
    }
}
