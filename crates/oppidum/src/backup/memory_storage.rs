//! A storage in memory, which fails at a chosen call: for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::storage::BackupStorage;

#[derive(Debug, Default)]
pub(crate) struct MemoryStorage {
    pub(crate) files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The calls so far.
    pub(crate) calls: AtomicU32,
    /// The call that fails, from 1; 0: none. And whether it has an effect before.
    pub(crate) fails_at: (u32, bool),
}

impl MemoryStorage {
    /// A storage with these files, in which a call fails.
    pub(crate) fn failing(files: &BTreeMap<String, Vec<u8>>, fails_at: (u32, bool)) -> Self {
        Self { files: Mutex::new(files.clone()), fails_at, ..Self::default() }
    }

    fn call<T>(&self, effect: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> io::Result<T> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let (fails_at, has_effect) = self.fails_at;
        // The writer is gone after that call.
        if fails_at != 0 && (fails_at < number || (fails_at == number && !has_effect)) {
            return Err(io::Error::other("the storage is gone"));
        }
        let done = effect(&mut self.files.lock());
        if fails_at == number { Err(io::Error::other("the storage is gone")) } else { Ok(done) }
    }
}

impl BackupStorage for MemoryStorage {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.call(|files| files.get(name).cloned())
    }

    fn write_new(&self, name: &str, content: &[u8]) -> io::Result<bool> {
        self.call(|files| {
            let is_new = !files.contains_key(name);
            files.entry(name.to_owned()).or_insert_with(|| content.to_vec());
            is_new
        })
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let is_in = |name: &&String| name.split_once('/').is_some_and(|(of, _)| of == folder);
        self.call(|files| files.keys().filter(is_in).cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(|files| drop(files.remove(name)))
    }

    fn clear_drafts(&self) -> io::Result<()> {
        self.call(|_| ())
    }
}
