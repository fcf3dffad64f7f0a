//! The process kills itself at a durable point, to show that nothing is lost there, or hangs in it as in a dead disk. In debug builds only: a release build
//! has no such code. `FAILPOINT=POINT:WHEN:COUNT` in the environment, where POINT is the word of a [`Point`], `pinned`
//! or `any`, WHEN is `before` (the commit is not made), `after` (it is made, nobody knows) or `hang` (it never ends), and COUNT counts from 1.

use crate::base::clock::Now;
use crate::base::ids::{AppId, Epoch, Offset, Seq};
use crate::base::message::{Entry, StreamKey};
use crate::session::core::record::{Point, point};
use crate::store::{Group, KnownKey, Record, Standing, Store, StoreFault, StreamGap, StreamHead, Usage};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::BTreeSet;

/// The variable. Not one of the configuration's: those are refused when they are not known.
const VARIABLE: &str = "FAILPOINT";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    /// The commit, or the retention that goes with it, takes entries while deliveries are in flight.
    Pinned,
    At(Point),
}

#[derive(Debug)]
struct Armed {
    wanted: Wanted,
    is_after: bool,
    hangs: bool,
    left: u32,
}

fn parse(text: &str) -> Option<Armed> {
    let mut parts = text.split(':');
    let wanted = match parts.next()? {
        "any" => Wanted::Any,
        "pinned" => Wanted::Pinned,
        word => Wanted::At(Point::ALL.into_iter().find(|point| point.word() == word)?),
    };
    let (is_after, hangs) = match parts.next()? {
        "before" => (false, false),
        "after" => (true, false),
        "hang" => (false, true),
        _ => return None,
    };
    Some(Armed { wanted, is_after, hangs, left: parts.next()?.parse().ok().filter(|left| *left > 0)? })
}

/// A store that is watched for the point.
pub(super) struct Failpoint<S> {
    inner: S,
    armed: Option<Armed>,
    /// Keys of the deliveries in flight that are recorded.
    flights: BTreeSet<Box<[u8]>>,
}

impl<S: Store> Failpoint<S> {
    pub(super) fn new(inner: S) -> Self {
        let text = std::env::var(VARIABLE).ok();
        let armed = text.map(|text| parse(&text).expect("a test names a point, when, and how often"));
        Self { inner, armed, flights: BTreeSet::new() }
    }

    /// Kills the process when its time has come.
    fn pass(&mut self, is_after: bool, is_there: impl Fn(Wanted) -> bool) {
        let Some(armed) = &mut self.armed else { return };
        if armed.is_after != is_after || !is_there(armed.wanted) {
            return;
        }
        armed.left -= 1;
        if armed.left == 0 {
            if !armed.hangs {
                // Nothing is flushed, dropped or told.
                kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
            }
            loop {
                std::thread::park();
            }
        }
    }
}

impl<S: Store> Store for Failpoint<S> {
    fn append_many(&mut self, group: Group<'_>, now: Now) -> Result<(), StoreFault> {
        let is_there = |wanted| match wanted {
            Wanted::Any => true,
            Wanted::Pinned => false,
            Wanted::At(wanted) => group.records.iter().any(|change| point(change) == Some(wanted)),
        };
        self.pass(false, is_there);
        for change in group.records {
            match point(change) {
                Some(Point::Flight) => drop(self.flights.insert(change.key.clone())),
                Some(Point::Settled) => drop(self.flights.remove(&change.key)),
                _ => {}
            }
        }
        let trimmed = self.inner.usage().trimmed;
        self.inner.append_many(group, now)?;
        let is_pinned = !self.flights.is_empty() && self.inner.usage().trimmed > trimmed;
        self.pass(true, |wanted| if wanted == Wanted::Pinned { is_pinned } else { is_there(wanted) });
        Ok(())
    }

    fn sweep(&mut self, now: Now) -> Result<(), StoreFault> {
        self.inner.sweep(now)
    }

    fn life(&self) -> Epoch {
        self.inner.life()
    }

    fn last_seq(&self) -> Result<Seq, StoreFault> {
        self.inner.last_seq()
    }

    fn head(&self, stream: &StreamKey) -> Result<StreamHead, StoreFault> {
        self.inner.head(stream)
    }

    fn standing(&self, stream: &StreamKey, record: &[u8]) -> Result<Standing, StoreFault> {
        self.inner.standing(stream, record)
    }

    fn key(&self, app: AppId, key: &str, now: Now) -> Result<Option<KnownKey>, StoreFault> {
        self.inner.key(app, key, now)
    }

    fn read_stream(&self, stream: &StreamKey, after: Offset, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        self.inner.read_stream(stream, after, limit)
    }

    fn read_topics(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        self.inner.read_topics(app, after, limit)
    }

    fn read_gaps(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<StreamGap>, StoreFault> {
        self.inner.read_gaps(app, after, limit)
    }

    fn read_records(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Record>, StoreFault> {
        self.inner.read_records(prefix, after, limit)
    }

    fn room(&self, app: AppId) -> Option<u64> {
        self.inner.room(app)
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}
