//! Pages of records that were read a moment ago. At start every shard reads all of them to find its own, at about the
//! same pace: so each page is read once, and not as often as there are shards.

use crate::limits::LOG_PAGES_MAX;
use crate::store::{Record, Request};
use std::collections::VecDeque;
use std::sync::Arc;

/// Those that were full, for only they are one of many. They go with the next write of records, and with the next sweep.
#[derive(Debug, Default)]
pub(super) struct Pages(VecDeque<Page>);

#[derive(Debug)]
struct Page {
    prefix: Box<[u8]>,
    after: Box<[u8]>,
    limit: usize,
    records: Arc<[Record]>,
}

impl Pages {
    pub fn find(&self, request: &Request) -> Option<Arc<[Record]>> {
        let Request::ReadRecords { prefix, after, limit } = request else { return None };
        let is_it = |page: &&Page| page.after == *after && page.prefix == *prefix && page.limit == *limit;
        self.0.iter().find(is_it).map(|page| Arc::clone(&page.records))
    }

    /// What was just read, if another shard may ask for it.
    pub fn note(&mut self, request: &Request, records: &Arc<[Record]>, is_full: bool) {
        let Request::ReadRecords { prefix, after, limit } = request else { return };
        if !is_full || *limit <= 1 {
            return;
        }
        if self.0.len() == LOG_PAGES_MAX {
            self.0.pop_front();
        }
        let (prefix, after, limit) = (prefix.clone(), after.clone(), *limit);
        self.0.push_back(Page { prefix, after, limit, records: Arc::clone(records) });
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
