//! Results that the coordinator has not acknowledged yet: kept across reconnects, in memory up to a
//! limit and in files past it, and sent again on every new stream.

use ablate_proto::v1::{ChunkId, ChunkResult};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use tempfile::TempDir;

/// Bytes of scores kept in memory.
pub const MEMORY_LIMIT: usize = 256 << 20;
/// Bytes of scores kept in files.
pub const FILE_LIMIT: usize = 8 << 30;
/// Both.
pub const LIMITS: (usize, usize) = (MEMORY_LIMIT, FILE_LIMIT);
/// Bytes of scores sent ahead of their acknowledgement: little enough that a renewal never waits long
/// behind results.
const WINDOW: usize = 16 << 20;

/// (experiment, sweep, round, chunk).
pub type Key = (String, u32, u32, u32);

/// A chunk's key.
#[must_use]
pub fn key(id: &ChunkId) -> Key {
    (id.experiment.clone(), id.sweep, id.round, id.chunk)
}

enum Place {
    Memory,
    File(PathBuf),
}

struct Entry {
    /// Without its scores where those lie in a file.
    result: ChunkResult,
    place: Place,
    size: usize,
    sent: bool,
}

/// The unacknowledged results, in the order in which they were made.
pub struct Unacked {
    entries: BTreeMap<u64, Entry>,
    by_key: HashMap<Key, u64>,
    next: u64,
    memory: usize,
    files: usize,
    in_flight: usize,
    memory_limit: usize,
    file_limit: usize,
    dir: Option<TempDir>,
}

impl Unacked {
    /// None yet.
    #[must_use]
    pub fn new(memory_limit: usize, file_limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_key: HashMap::new(),
            next: 0,
            memory: 0,
            files: 0,
            in_flight: 0,
            memory_limit,
            file_limit,
            dir: None,
        }
    }

    /// Number of results.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether so much waits that no further chunk may be begun.
    #[must_use]
    pub fn is_full(&self) -> bool {
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::NoLimit) {
            return false;
        }
        self.memory >= self.memory_limit.saturating_mul(2) || self.files >= self.file_limit
    }

    /// Keeps a result until its [`Self::ack`]. False where the same chunk is kept already: equal work,
    /// equal bytes.
    pub fn push(&mut self, mut result: ChunkResult) -> bool {
        let Some(key) = result.id.as_ref().map(key) else { return false };
        if self.by_key.contains_key(&key) {
            return false;
        }
        let (seq, size) = (self.next, result.scores.len());
        self.next += 1;
        let mut place = Place::Memory;
        if self.memory + size > self.memory_limit {
            match self.write(seq, &result.scores) {
                Ok(path) => {
                    place = Place::File(path);
                    result.scores = Vec::new().into();
                }
                // `is_full` then holds the work back before memory is gone.
                Err(error) => tracing::warn!(%error, "cannot spool a result to a file; keeping it in memory"),
            }
        }
        match place {
            Place::Memory => self.memory += size,
            Place::File(_) => self.files += size,
        }
        self.by_key.insert(key, seq);
        self.entries.insert(seq, Entry { result, place, size, sent: false });
        true
    }

    fn write(&mut self, seq: u64, scores: &[u8]) -> std::io::Result<PathBuf> {
        if self.dir.is_none() {
            self.dir = Some(tempfile::Builder::new().prefix("ablate-results-").tempdir()?);
        }
        let dir = self.dir.as_ref().ok_or_else(|| std::io::Error::other("no folder"))?;
        let path = dir.path().join(format!("{seq}.chunk"));
        std::fs::write(&path, scores)?;
        Ok(path)
    }

    /// The next result to send, while the window has room. A result whose file cannot be read is
    /// dropped: its chunk is leased again.
    pub fn next_to_send(&mut self) -> Option<ChunkResult> {
        loop {
            let (&seq, entry) = self.entries.iter_mut().find(|(_, e)| !e.sent)?;
            if self.in_flight > 0 && self.in_flight + entry.size > WINDOW {
                return None;
            }
            let mut result = entry.result.clone();
            if let Place::File(path) = &entry.place {
                match std::fs::read(path) {
                    Ok(scores) => result.scores = scores.into(),
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "a spooled result is gone; its chunk will be computed again");
                        self.remove(seq);
                        continue;
                    }
                }
            }
            entry.sent = true;
            self.in_flight += entry.size;
            return Some(result);
        }
    }

    /// Chunks of a lease whose results wait here.
    pub fn of_lease(&self, lease: u64) -> impl Iterator<Item = u32> {
        let of = move |e: &&Entry| e.result.lease == lease;
        self.entries.values().filter(of).filter_map(|e| e.result.id.as_ref().map(|id| id.chunk))
    }

    /// The coordinator has the chunk in its store: its result can go. Returns the lease it was made for.
    pub fn ack(&mut self, id: &ChunkId) -> Option<u64> {
        let seq = *self.by_key.get(&key(id))?;
        self.remove(seq)
    }

    fn remove(&mut self, seq: u64) -> Option<u64> {
        let entry = self.entries.remove(&seq)?;
        if let Some(id) = &entry.result.id {
            self.by_key.remove(&key(id));
        }
        match &entry.place {
            Place::Memory => self.memory -= entry.size,
            Place::File(path) => {
                self.files -= entry.size;
                if let Err(error) = std::fs::remove_file(path) {
                    tracing::debug!(%error, "cannot remove a spooled result");
                }
            }
        }
        if entry.sent {
            self.in_flight -= entry.size;
        }
        Some(entry.result.lease)
    }

    /// A new stream begins: everything is to be sent again.
    pub fn resend(&mut self) {
        self.in_flight = 0;
        for entry in self.entries.values_mut() {
            entry.sent = false;
        }
    }

    /// Drops the results of an experiment that the coordinator has closed.
    pub fn drop_experiment(&mut self, experiment: &str) {
        let gone: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, e)| e.result.id.as_ref().is_some_and(|id| id.experiment == experiment))
            .map(|(&seq, _)| seq)
            .collect();
        for seq in gone {
            self.remove(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(chunk: u32, size: usize) -> ChunkResult {
        ChunkResult {
            id: Some(ChunkId { experiment: "e".into(), sweep: 0, round: 0, chunk }),
            lease: u64::from(chunk) + 100,
            scores: vec![chunk as u8; size].into(),
            ..ChunkResult::default()
        }
    }

    #[test]
    fn results_are_sent_again_until_acknowledged_from_memory_and_from_files() {
        let mut kept = Unacked::new(25, 1000);
        for chunk in 0..5 {
            assert!(kept.push(result(chunk, 10)));
        }
        assert!(!kept.push(result(2, 10)), "kept already");
        assert_eq!((kept.memory, kept.files), (20, 30));
        let folder = kept.dir.as_ref().map(|d| d.path().to_owned()).expect("a folder");
        for _ in 0..2 {
            let sent: Vec<ChunkResult> = std::iter::from_fn(|| kept.next_to_send()).collect();
            assert_eq!(sent, (0..5).map(|c| result(c, 10)).collect::<Vec<_>>());
            kept.resend();
        }
        assert_eq!(kept.next_to_send(), Some(result(0, 10)));
        for chunk in 0..4 {
            let id = result(chunk, 0).id.expect("id");
            assert_eq!(kept.ack(&id), Some(u64::from(chunk) + 100));
            assert_eq!(kept.ack(&id), None);
        }
        assert_eq!((kept.len(), kept.memory, kept.files, kept.in_flight), (1, 0, 10, 0));
        kept.drop_experiment("e");
        assert!(kept.is_empty() && kept.files == 0);
        drop(kept);
        assert!(!folder.exists());
    }

    #[test]
    fn the_window_holds_back_and_lets_one_large_result_through() {
        let mut kept = Unacked::new(1 << 30, 1 << 30);
        kept.push(result(0, WINDOW + 1));
        kept.push(result(1, 1));
        assert!(kept.next_to_send().is_some());
        assert!(kept.next_to_send().is_none());
        kept.ack(&result(0, 0).id.expect("id"));
        assert!(kept.next_to_send().is_some());
    }
}
