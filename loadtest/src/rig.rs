//! An engine with a fleet in it, turned by the scenario's own thread until something is so.

use crate::Failure;
use crate::clock::sleep_to_the_point;
use crate::figures::Moment;
use crate::fleet::orders::{Beat, Drive, Mailing, Plan, Ramp, Round, Saying};
use crate::fleet::{Fleet, Tick};
use crate::server::{Process, slab_bytes};
use indicatif::{ProgressBar, ProgressStyle};
use kittiwake::base::ids::ShardId;
use kittiwake::engine::mail::{Mailbox, Post};
use kittiwake::engine::{Engine, Settings};
use kittiwake::io::Driver;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// While connecting or publishing at a rate the fleet looks at its orders at least so often.
const FAST_TICK: Duration = Duration::from_millis(2);
/// While letters are published at a rate, the fleet looks when one is due, but no sooner than this after it last looked:
/// how late one leaves is counted into its latency.
const MAIL_TICK_MIN: Duration = Duration::from_micros(100);
/// While heartbeats are sent at a rate.
const BEAT_TICK: Duration = Duration::from_millis(1);
/// The mailbox holds ticks alone.
const TICKS_MAX: usize = 16;
/// A ramp in which nobody got ready for so long is given up.
const RAMP_PATIENCE: Duration = Duration::from_secs(15);
/// Pause between looks at a progress bar.
const REDRAW: Duration = Duration::from_millis(100);
/// Pause between two moments of the timeline.
const MOMENT: Duration = Duration::from_secs(1);
/// Moments that are kept: over an hour and a half of them. Beyond it none is added.
const MOMENTS_MAX: usize = 6_000;
/// A squad that was told to leave has left by then, counted from the last one that did.
const LEAVE_PATIENCE: Duration = Duration::from_secs(20);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As hoped.
    Done,
    /// Nothing moved for too long.
    Stalled,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// The client side of a run.
pub struct Rig<D: Driver> {
    engine: Engine<D, Fleet>,
    post: Post<Tick>,
    stop: Arc<AtomicBool>,
    quiet: bool,
    started: Instant,
    /// Whose memory and CPU time the timeline has.
    watched: Option<Process>,
    timeline: Vec<Moment>,
    noted: Option<Instant>,
}

/// How a ramp is to go.
#[derive(Clone, Copy, Debug)]
pub struct Climb {
    /// New connections a second; 0: no bound.
    pub rate: u32,
    /// Handshakes under way at a time.
    pub handshakes: u32,
    /// When all were due, if not when each is asked.
    pub due: Option<Instant>,
}

impl<D: Driver> Rig<D> {
    /// For a fleet of at most so many members.
    pub fn new(driver: D, connections_max: u32, stop: Arc<AtomicBool>, quiet: bool) -> Result<Self, Failure> {
        let mailbox = Mailbox::new(ShardId(0), TICKS_MAX);
        let post = mailbox.post();
        let settings = Settings { connections_max, ..Settings::default() };
        let engine = Engine::new(driver, Fleet::new(), settings, mailbox, vec![post.clone()])?;
        let (started, timeline) = (Instant::now(), Vec::new());
        Ok(Self { engine, post, stop, quiet, started, watched: None, timeline, noted: None })
    }

    pub fn fleet(&self) -> &Fleet {
        &self.engine.handler
    }

    pub fn fleet_mut(&mut self) -> &mut Fleet {
        &mut self.engine.handler
    }

    /// The name of the client's driver.
    pub fn driver(&self) -> &'static str {
        self.engine.core.driver().name()
    }

    /// Receives that brought bytes, so far.
    pub fn receives(&self) -> u64 {
        self.engine.core.totals().receives
    }

    /// From now on the timeline has the memory and the CPU time of this process.
    pub fn watch(&mut self, process: Option<Process>) {
        self.watched = process;
    }

    /// How things stood in the course of the run.
    pub fn take_timeline(&mut self) -> Vec<Moment> {
        core::mem::take(&mut self.timeline)
    }

    fn note(&mut self, stage: &str, now: Instant) {
        if self.timeline.len() >= MOMENTS_MAX || self.noted.is_some_and(|noted| now.duration_since(noted) < MOMENT) {
            return;
        }
        self.noted = Some(now);
        // What cannot be read is left out: the process may have ended.
        let cpu_ns = self.watched.and_then(|process| process.cpu_ns().ok());
        self.timeline.push(Moment {
            seconds: now.duration_since(self.started).as_secs_f64(),
            stage: stage.to_owned(),
            ready: self.fleet().ready(),
            server_rss_bytes: self.watched.and_then(|process| process.rss_bytes().ok()),
            server_cpu_seconds: cpu_ns.map(|ns| ns as f64 / 1e9),
            slab_bytes: slab_bytes().unwrap_or(0),
        });
    }

    pub fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Turns until `progress` has reached `goal`, or has stood still for `patience`.
    pub fn run(
        &mut self,
        what: &str,
        goal: u64,
        patience: Duration,
        progress: impl Fn(&Fleet) -> u64,
    ) -> io::Result<Ended> {
        let bar = self.bar(what, goal);
        let (mut last, mut moved, mut drawn) = (u64::MAX, Instant::now(), Instant::now());
        loop {
            let at = progress(&self.engine.handler);
            let now = Instant::now();
            if at != last {
                (last, moved) = (at, now);
            }
            if now.duration_since(drawn) > REDRAW {
                drawn = now;
                bar.set_position(at.min(goal));
                let tally = &self.engine.handler.tally;
                bar.set_message(format!("{} retries, {} failed, {} lost", tally.retries, tally.failed, tally.lost));
                self.note(what, now);
            }
            let ended = if at >= goal {
                Ended::Done
            } else if self.interrupted() {
                Ended::Interrupted
            } else if now.duration_since(moved) > patience {
                Ended::Stalled
            } else {
                self.engine.turn()?;
                continue;
            };
            bar.set_position(at.min(goal));
            bar.finish_and_clear();
            return Ok(ended);
        }
    }

    /// Turns for a while.
    pub fn rest(&mut self, what: &str, time: Duration) -> io::Result<Ended> {
        let started = Instant::now();
        let ticker = Ticker::start(self.post.clone(), REDRAW);
        let goal = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ended = self.run(what, goal, Duration::MAX, |_| started.elapsed().as_millis() as u64);
        drop(ticker);
        ended
    }

    /// Connects a squad: at most `rate` a second and `handshakes` at a time.
    pub fn ramp(&mut self, what: &str, squad: u8, rate: u32, handshakes: u32) -> io::Result<Ended> {
        let count = self.fleet().squad(squad).count;
        self.ramp_some(what, squad, 0..count, Climb { rate, handshakes, due: None })
    }

    /// Connects some members of a squad, none of whom is connected.
    pub fn ramp_some(&mut self, what: &str, squad: u8, members: Range<u32>, climb: Climb) -> io::Result<Ended> {
        let (count, before) = (u64::from(members.end - members.start), u64::from(self.fleet().squad(squad).ready));
        self.start_ramp(squad, members, climb);
        let ticker = Ticker::start(self.post.clone(), FAST_TICK);
        let failed = self.fleet().tally.failed;
        let ended = self.run(what, count, RAMP_PATIENCE, |fleet| {
            let ready = u64::from(fleet.squad(squad).ready).saturating_sub(before);
            // Attempts that fail are no progress: a server that is full must not be knocked at for ever.
            if ready + fleet.tally.failed - failed >= count { count } else { ready }
        });
        drop(ticker);
        self.engine.handler.ramp = None;
        ended
    }

    /// Begins to connect some members of a squad; whoever turns the rig waits for them.
    pub fn start_ramp(&mut self, squad: u8, members: Range<u32>, climb: Climb) {
        self.engine.handler.ramp = Some(Ramp {
            squad,
            next: members.start,
            end: members.end,
            due: climb.due,
            again: VecDeque::new(),
            under_way: 0,
            under_way_max: climb.handshakes.max(1),
            rate: climb.rate,
            started_ms: self.engine.core.now().monotonic_ms,
            issued: 0,
        });
        self.tick();
    }

    /// Publishes as ordered, until all of it has arrived everywhere.
    pub fn publish(&mut self, what: &str, drive: Drive, patience: Duration) -> io::Result<Ended> {
        let (squad, paced, until) = (drive.squad, drive.pace.is_some(), drive.until);
        let open = drive.left == u64::MAX;
        let started = self.deliveries(squad);
        let goal = if open { u64::MAX } else { drive.left * u64::from(self.fleet().squad(squad).count) };
        self.engine.handler.drive = Some(drive);
        let ticker = Ticker::start(self.post.clone(), if paced { FAST_TICK } else { REDRAW });
        let ended = self.run(what, goal, patience, |fleet| {
            let idle = fleet.drive.as_ref().is_none_or(|drive| drive.left == 0);
            let ledger = fleet.squad(squad).ledger.as_ref();
            match ledger {
                Some(ledger) if idle && ledger.under_way() == 0 => goal,
                Some(ledger) => ledger.deliveries - started,
                None => goal,
            }
        });
        drop(ticker);
        debug_assert!(until.is_some() || !open, "a drive ends by count or by time");
        self.engine.handler.drive = None;
        ended
    }

    /// Deliveries to a squad that were right, so far.
    pub fn deliveries(&self, squad: u8) -> u64 {
        self.fleet().squad(squad).ledger.as_ref().map_or(0, |ledger| ledger.deliveries)
    }

    /// Every member of a squad says this once.
    pub fn say(&mut self, squad: u8, what: Saying) {
        let count = self.fleet().squad(squad).count;
        self.say_some(squad, 0..count, what);
    }

    /// Some members of a squad say this once.
    pub fn say_some(&mut self, squad: u8, members: Range<u32>, what: Saying) {
        self.engine.handler.round = Some(Round { squad, next: members.start, end: members.end, what });
        self.tick();
    }

    /// A squad leaves.
    pub fn leave(&mut self, what: &str, squad: u8) -> io::Result<Ended> {
        let count = self.fleet().squad(squad).count;
        self.leave_some(what, squad, 0..count, Saying::Goodbye)
    }

    /// Some members of a squad leave, each as it is told, and are gone when this returns.
    pub fn leave_some(&mut self, what: &str, squad: u8, members: Range<u32>, how: Saying) -> io::Result<Ended> {
        let before = u64::from(self.fleet().squad(squad).left);
        let leaving = self.fleet().connected(squad, members.clone());
        self.say_some(squad, members, how);
        // Who loses its connection before it is told is gone as well.
        let lost = self.fleet().tally.lost;
        self.run(what, leaving, LEAVE_PATIENCE, |fleet| {
            u64::from(fleet.squad(squad).left) - before + (fleet.tally.lost - lost)
        })
    }

    /// Sends heartbeats as ordered, until all are answered.
    pub fn beat(&mut self, what: &str, beat: Beat, patience: Duration) -> io::Result<Ended> {
        let (squad, open) = (beat.squad, beat.until.is_some());
        let before = self.fleet().squad(squad).beats.answered;
        let goal = if open { u64::MAX } else { beat.left };
        let tick = if beat.pace.is_some() { BEAT_TICK } else { REDRAW };
        self.engine.handler.beat = Some(beat);
        let ticker = Ticker::start(self.post.clone(), tick);
        let ended = self.run(what, goal, patience, |fleet| match &fleet.beat {
            Some(beat) if beat.left == 0 && beat.under_way == 0 => goal,
            _ => fleet.squad(squad).beats.answered - before,
        });
        drop(ticker);
        self.engine.handler.beat = None;
        ended
    }

    /// Publishes letters as ordered, until all are delivered; what was sent to whom.
    pub fn mail(&mut self, what: &str, mailing: Mailing, patience: Duration) -> io::Result<(Ended, Plan)> {
        let (squad, open) = (mailing.squad, mailing.until.is_some());
        let before = self.letters(squad);
        let goal = if open { u64::MAX } else { mailing.left };
        let pace = mailing.pace;
        self.engine.handler.mailing = Some(mailing);
        let ticker = Ticker::start_at(self.post.clone(), move |now| {
            pace.map_or(now + REDRAW, |pace| pace.next_due(now).max(now + MAIL_TICK_MIN))
        });
        let ended = self.run(what, goal, patience, |fleet| {
            let delivered = fleet.squad(squad).inboxes.as_ref().map_or(0, |inboxes| inboxes.deliveries);
            match &fleet.mailing {
                Some(mailing) if mailing.left == 0 && mailing.plan.total <= delivered => goal,
                _ => delivered - before,
            }
        });
        drop(ticker);
        let mailing = self.engine.handler.mailing.take().expect("it was ordered above");
        Ok((ended?, mailing.plan))
    }

    /// Letters that reached a squad's members as they should, so far.
    pub fn letters(&self, squad: u8) -> u64 {
        self.fleet().squad(squad).inboxes.as_ref().map_or(0, |inboxes| inboxes.deliveries)
    }

    /// Until it is dropped, what is due is looked for at least every two milliseconds.
    pub fn ticker(&self) -> Ticker {
        Ticker::start(self.post.clone(), FAST_TICK)
    }

    /// Makes the next turn begin at once.
    fn tick(&self) {
        // A full mailbox will wake it as well.
        let _ = self.post.try_send(Tick);
    }

    fn bar(&self, what: &str, goal: u64) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let (bar, template) = if goal == u64::MAX {
            (ProgressBar::no_length(), "{prefix:<12} {spinner} {human_pos} {per_sec} {msg}")
        } else {
            (ProgressBar::new(goal), "{prefix:<12} {bar:30} {human_pos}/{human_len} {per_sec} eta {eta} {msg}")
        };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        bar.with_style(style).with_prefix(what.to_owned())
    }
}

/// Wakes the engine every so often, until it is dropped.
pub struct Ticker {
    end: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ticker {
    fn start(post: Post<Tick>, pause: Duration) -> Self {
        Self::start_at(post, move |now| now + pause)
    }

    /// `next` says when to tick next.
    fn start_at(post: Post<Tick>, next: impl Fn(Instant) -> Instant + Send + 'static) -> Self {
        let (end, ended) = channel();
        let thread = thread::spawn(move || {
            sleep_to_the_point();
            // The first tick starts what was just ordered.
            while post.try_send(Tick).is_ok() || ended.try_recv().is_err() {
                let now = Instant::now();
                match ended.recv_timeout(next(now) - now) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
