//! What handles stand for.

use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Things by the numbers that C programs hold as pointers.
///
/// A number points nowhere and is not given out again, so that whatever comes
/// back can be looked up safely: garbage and what was removed are not found.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: RwLock<BTreeMap<usize, Arc<T>>>,
}

/// Of all tables, so that one table's number is unknown to another.
static NEXT: AtomicUsize = AtomicUsize::new(STEP);

/// Numbers are multiples: aligned as a pointer is, and no small integers.
const STEP: usize = 4096;

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: RwLock::new(BTreeMap::new()),
        }
    }

    /// Keeps a thing; gives its number, never 0.
    pub(crate) fn insert(&self, entry: T) -> usize {
        let entry = Arc::new(entry);
        let mut entries = self.entries.write();
        loop {
            // Relaxed: only uniqueness is wanted. On 32 bits it may come round.
            let number = NEXT.fetch_add(STEP, Relaxed);
            if number != 0 && !entries.contains_key(&number) {
                entries.insert(number, entry);
                return number;
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<Arc<T>> {
        self.entries.read().get(&number).cloned()
    }

    /// From now on the number is unknown. Who looked it up before keeps the
    /// thing until done.
    pub(crate) fn remove(&self, number: usize) -> Option<Arc<T>> {
        self.entries.write().remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_or_never_inserted_is_not_found() {
        let (table, other) = (Table::new(), Table::new());
        let (one, two, foreign) = (table.insert('a'), table.insert('b'), other.insert('c'));
        assert_eq!(table.get(one).as_deref(), Some(&'a'));
        assert_eq!(table.get(two).as_deref(), Some(&'b'));
        for garbage in [
            0,
            1,
            one + 1,
            foreign,
            usize::MAX,
            &raw const table as usize,
        ] {
            assert!(table.get(garbage).is_none() && table.remove(garbage).is_none());
        }
        assert_eq!(table.remove(one).as_deref(), Some(&'a'));
        assert!(table.get(one).is_none() && table.remove(one).is_none());
        let later = table.insert('d');
        assert!(![0, one, two].contains(&later));
    }

    #[test]
    fn what_is_in_use_lives_on() {
        let table = Table::new();
        let number = table.insert(String::from("used"));
        let used = table.get(number).unwrap();
        drop(table.remove(number));
        assert_eq!(*used, "used");
    }
}
