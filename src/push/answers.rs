//! Answers to pushes of a caller that waits for many at a time: they come to one place, and wake their caller once for all
//! that are there when it looks.

use super::control::Failure;
use crate::shard::command::Pushed;
use core::task::Context;
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// What came of a push.
#[derive(Debug)]
pub(super) struct Answer {
    /// As [`super::Control::push_to`] has said.
    pub(super) token: u64,
    /// The caller's own number for it.
    pub(super) number: usize,
    pub(super) result: Result<Pushed, Failure>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Answers {
    came: Mutex<VecDeque<Answer>>,
    waker: AtomicWaker,
}

impl Answers {
    pub(super) fn put(&self, answer: Answer) {
        // A panic elsewhere cannot leave the queue half changed.
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = came.is_empty();
        came.push_back(answer);
        drop(came);
        // Behind others its caller has been woken, and takes all that is there.
        if is_first {
            self.waker.wake();
        }
    }

    /// Takes all that has come, in its order, into `into`, which is empty. Once there is more, the task is woken.
    pub(super) fn take(&self, into: &mut VecDeque<Answer>, cx: &Context<'_>) {
        assert!(into.is_empty(), "what was taken before has been looked at");
        // First: what comes behind the look wakes.
        self.waker.register(cx.waker());
        core::mem::swap(&mut *self.came.lock().unwrap_or_else(PoisonError::into_inner), into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn answers_come_in_their_order_and_wake_once() {
        let (answers, woken) = (Answers::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let put = |number| answers.put(Answer { token: 7, number, result: Err(Failure::Gone) });
        put(0);
        let mut taken = VecDeque::new();
        for round in 0..3 {
            answers.take(&mut taken, &cx);
            let numbers: Vec<_> = taken.drain(..).map(|answer| answer.number).collect();
            let expected: &[usize] = if round == 0 { &[0] } else { &[1, 2, 3] };
            assert_eq!((numbers.as_slice(), woken.0.load(Ordering::Relaxed)), (expected, round));
            (1..4).for_each(put);
        }
    }
}
