//! What is on record of a share group: how far it is, and what of the log its members' sessions have taken since.
//!
//! A group with a member whose session outlives its connection has a record of its own, committed before the first
//! SUBACK and then written lazily, about a second behind: up to where all is done with, but for what is open. What is
//! taken at QoS 2 is recorded at once, by the member's shard, with the message in the session; the next write of the
//! group's own record says the same and removes it. After a crash the group reads what was open, and what it had not
//! read yet, but for what is taken.

use super::gateway::{Core, Gateway};
use super::letter::Letter;
use super::log_port::Waiting;
use super::share::{Home, Recording};
use crate::base::ids::Seq;
use crate::base::log::RecordChange;
use crate::io::Driver;
use crate::limits::READ_RECORDS_MAX;
use crate::router::share::Mark;
use crate::session::core::record;
use crate::store::{Answer, Record, Request, StoreError};
use std::sync::Arc;

impl Gateway {
    /// Answers who waits, once interest is installed and the group's record is read and, if it has to be, written.
    pub(super) fn go_on_joining<D: Driver>(&mut self, core: &mut Core<D>, index: usize) {
        let home = &mut self.shares.homes[index];
        match home.record {
            Recording::Unread => {
                home.record = Recording::Reading;
                let share = Arc::clone(&home.share);
                self.read_share_records(index, share, Box::default());
            }
            Recording::Absent if home.installing == 0 && home.group.wants().1 => {
                home.record = Recording::Writing;
                let records = mark_records(home);
                let request = Request::Append { key: None, entries: Vec::new(), records };
                self.log.submit(request, Waiting::ShareWritten { index, share: Arc::clone(&home.share) });
            }
            Recording::Absent | Recording::Present if home.installing == 0 => {
                for (shard, ticket) in core::mem::take(&mut home.joining) {
                    core.send_control(shard, Letter::InterestSet { ticket });
                }
            }
            _ => {}
        }
    }

    /// A group by the number it had when something was asked for it, if it is still that one.
    pub(super) fn group_at(&mut self, index: usize, share: &Arc<str>) -> Option<&mut Home> {
        self.shares.homes.get_mut(index).filter(|home| home.share == *share)
    }

    /// The group's own record and those of what is taken, which come behind it.
    fn read_share_records(&mut self, index: usize, share: Arc<str>, after: Box<[u8]>) {
        let prefix = record::share_key(self.shares.homes[index].group.app, &share);
        let request = Request::ReadRecords { prefix, after, limit: READ_RECORDS_MAX };
        self.log.submit(request, Waiting::ShareRead { index, share });
    }

    /// A page of a group's records, if it has any.
    pub(super) fn on_share_read<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        index: usize,
        share: &Arc<str>,
        result: Result<Answer, StoreError>,
    ) {
        let told = self.seq;
        let Some(home) = self.group_at(index, share).filter(|home| home.record == Recording::Reading) else { return };
        match result {
            Ok(Answer::Records(page)) => {
                let key = record::share_key(home.group.app, share);
                let last = page.last().filter(|_| page.len() == READ_RECORDS_MAX).map(|(last, _)| last.clone());
                if home.is_fresh {
                    self.remove_orphans(&page);
                } else {
                    restore(home, &key, &page, told);
                }
                if let Some(last) = last {
                    return self.read_share_records(index, Arc::clone(share), last);
                }
                let home = &mut self.shares.homes[index];
                home.record = if home.has_mark { Recording::Present } else { Recording::Absent };
            }
            // Without it messages would be lost. The log answers as fast as it can, so this asks no oftener.
            _ => {
                self.counters.failed_reads += 1;
                self.shares.homes[index].record = Recording::Unread;
            }
        }
        self.go_on_joining(core, index);
        self.shares.enqueue(index);
    }

    /// A group whose sessions have all gone left these.
    fn remove_orphans(&mut self, page: &[Record]) {
        if page.is_empty() {
            return;
        }
        self.counters.orphan_records += page.len() as u64;
        let records = page.iter().map(|(key, _)| RecordChange { key: key.clone(), value: None }).collect();
        self.log.submit(Request::Append { key: None, entries: Vec::new(), records }, Waiting::Nobody);
    }

    /// The first record of a group is committed. If it could not be, its members' own commits fail as well.
    pub(super) fn on_share_written<D: Driver>(&mut self, core: &mut Core<D>, index: usize, share: &Arc<str>) {
        let Some(home) = self.group_at(index, share).filter(|home| home.record == Recording::Writing) else { return };
        home.record = Recording::Present;
        self.go_on_joining(core, index);
    }

    /// A group's position may have moved: its record follows within a second.
    pub(super) fn share_moved<D: Driver>(&mut self, core: &mut Core<D>, index: usize) {
        let home = &mut self.shares.homes[index];
        if home.record != Recording::Present || core::mem::replace(&mut home.is_unwritten, true) {
            return;
        }
        if self.shares.unwritten.is_empty() {
            self.shares.unwritten_since_ms = core.now().monotonic_ms;
        }
        self.shares.unwritten.push_back(index);
    }

    pub(super) fn write_shares<D: Driver>(&mut self, core: &mut Core<D>) {
        let is_due = self.shares.write_ms().is_some_and(|at| at <= core.now().monotonic_ms);
        if !is_due || self.log.congested() {
            return;
        }
        let mut records = Vec::new();
        for index in core::mem::take(&mut self.shares.unwritten) {
            let Some(home) = self.shares.homes.get_mut(index).filter(|home| home.is_unwritten) else { continue };
            home.is_unwritten = false;
            records.extend(mark_records(home));
        }
        if !records.is_empty() {
            self.log.submit(Request::Append { key: None, entries: Vec::new(), records }, Waiting::Nobody);
        }
    }
}

/// Takes a page of a group's records in. What is logged up to `told` may be its.
fn restore(home: &mut Home, key: &[u8], page: &[Record], told: Seq) {
    for (of, value) in page {
        if let Some(seq) = record::share_taken_seq(key, of) {
            home.group.resume_taken(seq);
        } else if let Some((through, open)) = record::parse_share(value) {
            home.group.resume(Mark { through, open }, told);
            home.has_mark = true;
        }
    }
}

/// How far a group is, and the removal of what that makes superfluous.
fn mark_records(home: &mut Home) -> Vec<RecordChange> {
    let (app, share) = (home.group.app, Arc::clone(&home.share));
    let Mark { through, open } = home.group.mark();
    let taken = home.group.forget_taken().into_iter().map(|seq| record::share_taken_key(app, &share, seq));
    let removals = taken.map(|key| RecordChange { key, value: None });
    core::iter::once(record::share(record::share_key(app, &share), through, &open)).chain(removals).collect()
}
