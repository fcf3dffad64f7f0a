//! The data directory: who may use it, in which format, and the mark of what was committed last.
//!
//! ```text
//!   format   "kittiwake store, format 1"        lock   held while a process uses the directory
//!   mark     two slots, written in turn          fjall/ the database
//! ```
//! fjall ends its journal at the first record it cannot read, also where readable ones follow, and says nothing. The mark
//! says how far the database was: it is written after each commit, so a database that comes back with less has lost
//! something. It is not synced with each commit (a killed process loses nothing, a machine that loses power may bring
//! back an older one), and a slot that was torn leaves the other.

use super::OpenError;
use crate::base::bytes::{Reader, Write};
use crate::base::ids::Seq;
use crate::limits::STORE_FORMAT;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const FORMAT_PREFIX: &str = "kittiwake store, format ";
/// One a sector, so that a torn write of one leaves the other.
const SLOT_BYTES: u64 = 4_096;
const MARK_BYTES: usize = 32;

/// How far the database was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub life: u64,
    pub group: u64,
    pub seq: Seq,
}

/// An open data directory. The lock goes with the process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
    mark: File,
    is_mark_unsynced: bool,
}

/// What was found.
pub(super) enum Found {
    /// Nothing, or what a process left that died while it made the directory.
    Nothing,
    /// A database and its mark.
    Marked(Mark),
    /// A database whose mark is missing or unreadable.
    Unmarked,
}

impl Directory {
    /// Makes the directory where there is none, and keeps other processes out.
    pub fn open(path: &Path) -> Result<(Self, Found), OpenError> {
        let io = |what: &'static str| move |error| OpenError::Io(what, error);
        fs::create_dir_all(path).map_err(io("make the data directory"))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"));
        let lock = lock.map_err(io("open the lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => return Err(OpenError::Io("take the lock", error)),
        }
        check_format(path)?;
        let mark_path = path.join("mark");
        let was_marked = mark_path.try_exists().map_err(io("look for the mark"))?;
        let has_database = database(path).try_exists().map_err(io("look for the database"))?;
        let mark = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(mark_path);
        let mark = mark.map_err(io("open the mark"))?;
        let read = read_mark(&mark).map_err(io("read the mark"))?;
        let found = match read {
            Some(mark) if has_database || mark.group > 0 => Found::Marked(mark),
            // The first mark comes before the database is made.
            _ if has_database => Found::Unmarked,
            None if was_marked && mark_is_written(&mark).map_err(io("read the mark"))? => Found::Unmarked,
            _ => Found::Nothing,
        };
        let mut directory = Self { path: path.to_owned(), _lock: lock, mark, is_mark_unsynced: false };
        if matches!(found, Found::Nothing) {
            directory.set_mark(Mark::default()).and_then(|()| directory.sync_mark()).map_err(io("write the mark"))?;
            sync_directory(path).map_err(io("sync the data directory"))?;
        }
        Ok((directory, found))
    }

    pub fn database(&self) -> PathBuf {
        database(&self.path)
    }

    pub fn set_mark(&mut self, mark: Mark) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        bytes.u64(mark.life);
        bytes.u64(mark.group);
        bytes.u64(mark.seq.0);
        let sum = checksum(&bytes);
        bytes.u64(sum);
        self.is_mark_unsynced = true;
        self.mark.write_all_at(&bytes, mark.group % 2 * SLOT_BYTES)
    }

    /// Nothing to do while no mark was set.
    pub fn sync_mark(&mut self) -> io::Result<()> {
        if core::mem::take(&mut self.is_mark_unsynced) { self.mark.sync_data() } else { Ok(()) }
    }
}

fn database(path: &Path) -> PathBuf {
    path.join("fjall")
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes the format into an empty directory, and refuses one that is not ours or that a later version has made.
fn check_format(path: &Path) -> Result<(), OpenError> {
    let file = path.join("format");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let found = text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.trim_end().parse().ok());
            match found {
                Some(STORE_FORMAT) => Ok(()),
                Some(found) => Err(OpenError::Format(found)),
                None => Err(OpenError::NotOurs),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_ours = |entry: &fs::DirEntry| entry.file_name() == "lock" || entry.file_name() == "format.new";
            for entry in fs::read_dir(path).map_err(|error| OpenError::Io("look into the data directory", error))? {
                let entry = entry.map_err(|error| OpenError::Io("look into the data directory", error))?;
                if !is_ours(&entry) {
                    return Err(OpenError::NotOurs);
                }
            }
            write_format(path).map_err(|error| OpenError::Io("write the format", error))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(OpenError::NotOurs),
        Err(error) => Err(OpenError::Io("read the format", error)),
    }
}

/// Whole or not at all: a half-written format would make the directory nobody's.
fn write_format(path: &Path) -> io::Result<()> {
    let new = path.join("format.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{FORMAT_PREFIX}{STORE_FORMAT}")?;
    file.sync_all()?;
    fs::rename(&new, path.join("format"))?;
    sync_directory(path)
}

/// The later of the slots that can be read.
fn read_mark(file: &File) -> io::Result<Option<Mark>> {
    let mut found = None;
    for slot in 0..2 {
        let mut bytes = [0; MARK_BYTES];
        match file.read_exact_at(&mut bytes, slot * SLOT_BYTES) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(error),
        }
        let mark = parse_mark(&bytes).filter(|mark| mark.group % 2 == slot);
        found = [found, mark].into_iter().flatten().max_by_key(|mark: &Mark| mark.group);
    }
    Ok(found)
}

fn mark_is_written(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.len() > 0)
}

fn parse_mark(bytes: &[u8; MARK_BYTES]) -> Option<Mark> {
    let mut reader = Reader(bytes);
    let (life, group, seq, sum) = (reader.u64()?, reader.u64()?, Seq(reader.u64()?), reader.u64()?);
    (sum == checksum(&bytes[..MARK_BYTES - 8])).then_some(Mark { life, group, seq })
}

/// FNV-1a: each step is a bijection of the sum, so no change of one byte goes unseen.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
