//! Pooled byte blocks in a few sizes: what receives borrow and sends leave in. An idle connection has none.
//!
//! ```text
//!   out ──give──► free ──trim, not wanted for a while──► cold (address space alone; blocks below a page: freed)
//!    ▲             │                                       │
//!    └────take─────┴──────────when none is free────────────┘
//! ```
//! Blocks that nobody wants are not freed: the allocator has many of a size in one run, and gives that back when all of them
//! are free. After a burst the few that are in use, or are kept, lie among the others, and keep all of them in memory:
//! 1 MB after 64 handshakes at a time. So the memory goes and the block stays.
#![allow(unsafe_code, reason = "the memory of a block that nobody wants goes back to the system, the block stays")]

use crate::limits::{BLOCK_CLASSES, POOL_BYTES_MAX, POOL_FREE_BYTES_MAX, POOL_KEPT_BYTES, POOL_TRIM_INTERVAL};

/// A block out of the pool. It has exactly one owner; dropping it instead of giving it back is a leak that
/// [`BlockPool::out`] shows.
#[derive(Debug)]
pub struct Block {
    bytes: Box<[u8]>,
}

impl Block {
    /// Capacity in bytes: one of the pool's classes.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }
    /// The whole block; what it holds from earlier use is unspecified.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The whole block, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Gives the memory of its whole pages back to the system; they are there again, as zeros, when they are touched. False:
    /// it has none.
    fn cool(&mut self) -> bool {
        let page = rustix::param::page_size();
        let start = self.bytes.as_ptr().align_offset(page);
        let Some(pages) = self.bytes.len().checked_sub(start).map(|bytes| bytes / page).filter(|&pages| pages > 0)
        else {
            return false;
        };
        let whole = &mut self.bytes[start..start + pages * page];
        // SAFETY: the pages are whole ones of a slice that this block owns and nobody else looks at meanwhile. What they hold
        // from now on, zeros or, where the system does not do as it is advised, what they held, are bytes as well, and what a
        // block holds from earlier use is unspecified. The allocator keeps nothing of its own within what it has given out.
        let _advised = unsafe { libc::madvise(whole.as_mut_ptr().cast(), whole.len(), libc::MADV_DONTNEED) };
        true
    }
}

/// One shard's blocks: free lists by size, bounded in all.
#[derive(Debug)]
pub struct BlockPool {
    free: [Vec<Block>; BLOCK_CLASSES.len()],
    /// Free as well, and without memory.
    cold: [Vec<Block>; BLOCK_CLASSES.len()],
    cold_bytes: usize,
    /// Of each list, how many blocks lay in it at the least since the last trim: nobody wanted those.
    unused: [usize; BLOCK_CLASSES.len()],
    trim_at_ms: u64,
    free_bytes: usize,
    out_blocks: usize,
    out_bytes: usize,
    bytes_max: usize,
}

impl Default for BlockPool {
    fn default() -> Self {
        Self::new(POOL_BYTES_MAX)
    }
}

impl BlockPool {
    /// A pool that lets at most `bytes_max` out at a time.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            free: Default::default(),
            // As long as they can become (blocks below a page never go cold): to let one go allocates nothing. Memory that
            // nobody touches costs none.
            cold: BLOCK_CLASSES.map(|size| Vec::with_capacity(POOL_FREE_BYTES_MAX / size)),
            cold_bytes: 0,
            unused: Default::default(),
            trim_at_ms: 0,
            free_bytes: 0,
            out_blocks: 0,
            out_bytes: 0,
            bytes_max,
        }
    }

    /// The smallest block that holds `bytes`; none when that is more than the largest class or the pool is empty.
    pub fn take(&mut self, bytes: usize) -> Option<Block> {
        self.take_leaving(bytes, 0)
    }

    /// As [`BlockPool::take`], unless fewer than `leave` bytes would remain for others.
    pub fn take_leaving(&mut self, bytes: usize, leave: usize) -> Option<Block> {
        let class = BLOCK_CLASSES.iter().position(|&size| size >= bytes)?;
        let size = BLOCK_CLASSES[class];
        if self.out_bytes + size + leave > self.bytes_max {
            return None;
        }
        let block = match self.free[class].pop() {
            Some(block) => {
                self.free_bytes -= size;
                block
            }
            None => match self.cold[class].pop() {
                Some(block) => {
                    self.cold_bytes -= size;
                    block
                }
                None => Block { bytes: vec![0; size].into_boxed_slice() },
            },
        };
        self.unused[class] = self.unused[class].min(self.free[class].len());
        self.out_blocks += 1;
        self.out_bytes += size;
        Some(block)
    }

    /// The size of the block that [`BlockPool::take`] would give for so many bytes.
    pub fn class_of(bytes: usize) -> Option<usize> {
        BLOCK_CLASSES.iter().copied().find(|&size| size >= bytes)
    }

    /// Bytes that may still go out.
    pub fn bytes_left(&self) -> usize {
        self.bytes_max - self.out_bytes
    }

    /// Takes a block back. Any pool takes any block of a known class (a connection that moves leaves its own behind,
    /// so in practice a block returns to where it came from).
    pub fn give(&mut self, block: Block) {
        let size = block.capacity();
        assert!(self.out_blocks > 0 && self.out_bytes >= size, "a block came back that was never out");
        self.out_blocks -= 1;
        self.out_bytes -= size;
        let class = BLOCK_CLASSES.iter().position(|&c| c == size).expect("blocks have the size of a class");
        if self.free_bytes + size <= POOL_FREE_BYTES_MAX {
            self.free_bytes += size;
            self.free[class].push(block);
        }
    }

    /// Gives the memory of blocks back that were not wanted since the last call that did something, [`POOL_TRIM_INTERVAL`]
    /// ago or more, but for [`POOL_KEPT_BYTES`] of each size.
    pub fn trim(&mut self, now_ms: u64) {
        if now_ms < self.trim_at_ms {
            return;
        }
        self.trim_at_ms = now_ms.saturating_add(POOL_TRIM_INTERVAL.as_millis() as u64);
        for (class, free) in self.free.iter_mut().enumerate() {
            let size = BLOCK_CLASSES[class];
            let surplus = self.unused[class].min(free.len().saturating_sub(POOL_KEPT_BYTES / size));
            self.free_bytes -= surplus * size;
            // The oldest ones: those at the end are warm.
            for mut block in free.drain(..surplus) {
                // One that has no whole page, or for which there is no room, is freed.
                if self.cold_bytes + size <= POOL_FREE_BYTES_MAX && block.cool() {
                    self.cold_bytes += size;
                    self.cold[class].push(block);
                }
            }
            self.unused[class] = free.len();
        }
    }

    /// Blocks out at the moment; 0 when everything is at rest.
    pub fn out(&self) -> usize {
        self.out_blocks
    }

    /// Bytes out at the moment.
    pub fn out_bytes(&self) -> usize {
        self.out_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_smallest_class_that_fits() {
        let mut pool = BlockPool::default();
        let largest = BLOCK_CLASSES[BLOCK_CLASSES.len() - 1];
        for (bytes, capacity) in [(0, 512), (512, 512), (513, 4096), (1 << 20, largest), (largest, largest)] {
            let block = pool.take(bytes).expect("the pool is full");
            assert_eq!(block.capacity(), capacity);
            pool.give(block);
        }
        assert!(pool.take(largest + 1).is_none());
        assert_eq!((pool.out(), pool.out_bytes()), (0, 0));
    }

    #[test]
    fn blocks_that_nobody_wants_are_freed_and_others_kept() {
        let mut pool = BlockPool::default();
        let interval_ms = POOL_TRIM_INTERVAL.as_millis() as u64;
        let kept = POOL_KEPT_BYTES / 16_384;
        let use_at_once = |pool: &mut BlockPool, count: usize| {
            let blocks: Vec<_> = (0..count).map(|_| pool.take(16_384).expect("the pool is full")).collect();
            blocks.into_iter().for_each(|block| pool.give(block));
        };
        use_at_once(&mut pool, 32);
        pool.trim(0);
        assert_eq!(pool.free[2].len(), 32, "all were wanted since the start");
        use_at_once(&mut pool, 20);
        pool.trim(interval_ms - 1);
        assert_eq!(pool.free[2].len(), 32, "it is too early");
        pool.trim(interval_ms);
        assert_eq!(pool.free[2].len(), 20, "twelve were not wanted");
        pool.trim(2 * interval_ms);
        assert_eq!((pool.free[2].len(), pool.free_bytes), (kept, POOL_KEPT_BYTES));
        pool.trim(3 * interval_ms);
        assert_eq!(pool.free[2].len(), kept, "a few are kept however long it is");
    }

    #[test]
    fn a_block_that_nobody_wanted_has_no_memory_and_is_used_before_a_new_one() {
        let mut pool = BlockPool::default();
        let interval_ms = POOL_TRIM_INTERVAL.as_millis() as u64;
        let mut blocks: Vec<_> = (0..8).map(|_| pool.take(16_384).expect("the pool is full")).collect();
        blocks.iter_mut().for_each(|block| block.bytes_mut().fill(7));
        blocks.into_iter().for_each(|block| pool.give(block));
        pool.trim(0);
        pool.trim(interval_ms);
        let kept = POOL_KEPT_BYTES / 16_384;
        assert_eq!((pool.free[2].len(), pool.cold[2].len(), pool.cold_bytes), (kept, 8 - kept, (8 - kept) * 16_384));
        let again: Vec<_> = (0..8).map(|_| pool.take(16_384).expect("the pool is full")).collect();
        assert_eq!((pool.free[2].len(), pool.cold[2].len(), pool.cold_bytes), (0, 0, 0));
        let zeros = |block: &Block| block.bytes().iter().filter(|&&byte| byte == 0).count();
        assert!(again[..kept].iter().all(|block| zeros(block) == 0), "the warm ones come first, and are as they were");
        let parts = 2 * rustix::param::page_size();
        assert!(again[kept..].iter().all(|block| zeros(block) + parts > 16_384), "no whole page is as it was");
        again.into_iter().for_each(|block| pool.give(block));
        assert_eq!((pool.out(), pool.free_bytes), (0, 8 * 16_384));
    }

    #[test]
    fn a_block_below_a_page_is_freed() {
        let mut pool = BlockPool::default();
        let blocks: Vec<_> = (0..256).map(|_| pool.take(512).expect("the pool is full")).collect();
        blocks.into_iter().for_each(|block| pool.give(block));
        pool.trim(0);
        pool.trim(POOL_TRIM_INTERVAL.as_millis() as u64);
        assert_eq!((pool.free[0].len(), pool.cold[0].len()), (POOL_KEPT_BYTES / 512, 0));
    }

    #[test]
    fn the_bound_holds_at_n_and_refuses_n_plus_one() {
        let mut pool = BlockPool::new(1024);
        let (a, b) = (pool.take(512).expect("first"), pool.take(512).expect("second"));
        assert!(pool.take(1).is_none());
        pool.give(a);
        assert!(pool.take(1).is_some());
        pool.give(b);
    }
}
