//! Map: values found by keys (section 4.6).

use crate::{
    block::Block,
    element::{Element, Key, shape},
    error::{Error, Full, OpError, Refused},
    memory::{Memory, Part, open_or_create},
    queue::Repair,
    table::{Done, RawTable, Shape},
};
use polyshm_wire::zeroipc::{Dialect, KeyKind, MapLayout, map};
use std::marker::PhantomData;

/// The map over bytes.
#[derive(Clone, Debug)]
pub(crate) struct RawMap {
    pub(crate) table: RawTable,
    pub(crate) key_size: usize,
}

impl RawMap {
    pub(crate) const WHAT: &'static str = "map";

    pub(crate) fn create(
        memory: &Memory,
        name: &str,
        dialect: Dialect,
        capacity: u64,
        (key, kind): ((u64, u64), KeyKind),
        value: (u64, u64),
    ) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout =
            MapLayout::new(dialect, capacity, key, value).map_err(memory.layout_error(&label))?;
        let part = Part {
            name: name.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(&label, &[part], |blocks| {
            Self::init(&blocks[0], &layout, kind)
        })
    }

    pub(crate) fn init(block: &Block, layout: &MapLayout, kind: KeyKind) -> Result<Self, Error> {
        block.fill(0, &layout.header().to_bytes())?;
        Self::over(block, layout, kind)
    }

    pub(crate) fn open(
        memory: &Memory,
        name: &str,
        dialect: Dialect,
        (key, kind): ((u64, u64), KeyKind),
        value: (u64, u64),
    ) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        let layout = MapLayout::read(&block.header()?, block.size as u64, dialect, key, value)
            .map_err(|source| block.mismatch(source))?;
        Self::over(&block, &layout, kind)
    }

    fn over(block: &Block, layout: &MapLayout, kind: KeyKind) -> Result<Self, Error> {
        let shape = Shape::of_map(layout, kind);
        Ok(Self {
            table: RawTable::over(block, map::SIZE, layout.slots_offset(), shape)?,
            key_size: layout.key_size as usize,
        })
    }
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The key was not there.
    New,
    /// The key was there and has a new value.
    Updated,
}

/// Why a key was not inserted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError<T> {
    /// There is no free slot.
    #[error(transparent)]
    Full(Full<T>),
    /// A slot on the key's way stays half-changed.
    #[error(transparent)]
    Stuck(Refused<T>),
}

/// Values found by keys, for any number of users.
///
/// A fixed number of slots with linear probing. Keys are numbers, byte strings,
/// or elements that the program declares a [`Key`]. No operation sleeps; each
/// waits (spinning, then yielding) for a process that is just changing a slot on
/// the key's way. A lookup never gives another key's value: it looks again when
/// the slot changed hands meanwhile. Values of 1, 2, 4 and 8 bytes in natural
/// alignment are never torn.
///
/// Two formats go by this name. [`Map::create`] makes the C++ one, which is for
/// values of at most 8 bytes; [`Map::create_python`] the Python one. Where the
/// sizes tell them apart, opening one as the other is an error.
///
/// A process that dies while it changes a slot leaves it stuck: what crosses it
/// and does not find its key elsewhere reports [`OpError::Stuck`], and
/// [`Map::repair`] restores service.
///
/// Source: section 4.6 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Inserted, Map, Memory, byte_key};
///
/// let name = format!("polyshm-doc-map-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let ages = Map::<[u8; 16], u64>::create(&memory, "ages", 100)?;
/// let alice = byte_key("alice").expect("it fits");
/// assert_eq!(ages.insert(alice, 30), Ok(Inserted::New));
/// assert_eq!(ages.insert(alice, 31), Ok(Inserted::Updated));
/// assert_eq!(ages.get(alice), Ok(Some(31)));
/// assert_eq!(ages.remove(alice), Ok(true));
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Map<K, V> {
    raw: RawMap,
    _element: PhantomData<fn() -> (K, V)>,
}

pub(crate) const INSERT: &str = "insert into";
pub(crate) const FIND: &str = "look up a key in";
pub(crate) const REMOVE: &str = "remove a key from";

impl<K: Key, V: Element> Map<K, V> {
    pub(crate) const fn over(raw: RawMap) -> Self {
        Self {
            raw,
            _element: PhantomData,
        }
    }

    fn key() -> ((u64, u64), KeyKind) {
        (shape::<K>(), K::KIND)
    }

    fn create_as(
        memory: &Memory,
        name: &str,
        dialect: Dialect,
        capacity: u64,
    ) -> Result<Self, Error> {
        RawMap::create(memory, name, dialect, capacity, Self::key(), shape::<V>()).map(Self::over)
    }

    /// Creates a map with `capacity` slots, in the C++ format.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, the capacity is 0 or too large, the
    /// value has more than 8 bytes, or it does not fit.
    pub fn create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Cpp, capacity)
    }

    /// Creates a map with `capacity` slots, in the Python format.
    ///
    /// # Errors
    ///
    /// As [`Map::create`], without the limit of the value.
    pub fn create_python(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Python, capacity)
    }

    /// Opens a map of the C++ format.
    ///
    /// # Errors
    ///
    /// There is none of that name, its keys or values have other sizes, it is of
    /// the Python format, or it is damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        RawMap::open(memory, name, Dialect::Cpp, Self::key(), shape::<V>()).map(Self::over)
    }

    /// Opens a map of the Python format.
    ///
    /// # Errors
    ///
    /// As [`Map::open`], the other way round.
    pub fn open_python(memory: &Memory, name: &str) -> Result<Self, Error> {
        RawMap::open(memory, name, Dialect::Python, Self::key(), shape::<V>()).map(Self::over)
    }

    /// Opens the map, or creates it in the C++ format if there is none.
    ///
    /// # Errors
    ///
    /// As [`Map::open`] and [`Map::create`].
    pub fn open_or_create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, capacity),
        )
    }

    /// Inserts a key with its value, or gives the key that is there a new one.
    ///
    /// # Errors
    ///
    /// No slot is free, or one on the key's way is stuck; both come back.
    pub fn insert(&self, key: K, value: V) -> Result<Inserted, InsertError<(K, V)>> {
        let mut scratch = K::new_zeroed();
        let table = &self.raw.table;
        match table.insert(
            key.as_bytes(),
            value.as_bytes(),
            true,
            scratch.as_mut_bytes(),
        ) {
            Done::New => Ok(Inserted::New),
            Done::Present => Ok(Inserted::Updated),
            Done::Full => Err(InsertError::Full(Full((key, value)))),
            Done::Stuck(slot) => Err(InsertError::Stuck(Refused {
                value: (key, value),
                error: table.stuck(INSERT, slot),
            })),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`] when the key was not found and a slot on its way stays
    /// half-changed.
    #[inline]
    #[doc(alias = "find")]
    pub fn get(&self, key: K) -> Result<Option<V>, OpError> {
        let (mut value, mut scratch) = (V::new_zeroed(), K::new_zeroed());
        let table = &self.raw.table;
        let found = table.find(key.as_bytes(), value.as_mut_bytes(), scratch.as_mut_bytes());
        match found {
            Ok(true) => Ok(Some(value)),
            Ok(false) => Ok(None),
            Err(slot) => Err(table.stuck(FIND, slot)),
        }
    }

    /// Whether a key is there.
    ///
    /// # Errors
    ///
    /// As [`Map::get`].
    pub fn contains_key(&self, key: K) -> Result<bool, OpError> {
        self.get(key).map(|value| value.is_some())
    }

    /// Removes a key; gives whether it was there.
    ///
    /// # Errors
    ///
    /// As [`Map::get`].
    #[doc(alias = "erase")]
    pub fn remove(&self, key: K) -> Result<bool, OpError> {
        let mut scratch = K::new_zeroed();
        let table = &self.raw.table;
        table
            .erase(key.as_bytes(), scratch.as_mut_bytes())
            .map_err(|slot| table.stuck(REMOVE, slot))
    }

    /// Copies all keys and values, each pair at one moment, not all at the same.
    pub fn to_vec(&self) -> Vec<(K, V)> {
        let mut pairs = Vec::new();
        self.raw.table.for_each(self.raw.key_size, |key, value| {
            if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
                pairs.push((key, value));
            }
        });
        pairs
    }

    /// The number of keys; with others at work, of a moment ago.
    pub fn len(&self) -> usize {
        self.raw.table.len() as usize
    }

    /// Whether there are no keys; with others at work, a moment ago.
    pub fn is_empty(&self) -> bool {
        self.raw.table.len() == 0
    }

    /// The number of slots.
    pub fn capacity(&self) -> usize {
        self.raw.table.shape().capacity as usize
    }

    /// Which of the two formats it has.
    pub fn dialect(&self) -> Dialect {
        self.raw.table.shape().dialect
    }

    /// Removes all keys, and makes removed slots short again: after many
    /// removals every failed lookup walks through all of them.
    ///
    /// Only while nobody else uses the map.
    pub fn clear(&self) {
        self.raw.table.clear();
    }

    /// Restores service after a process died while it changed a slot: such
    /// slots lose their key, and the count is made right.
    ///
    /// Only while nobody else uses the map.
    pub fn repair(&self) -> Repair {
        let (kept, dropped) = self.raw.table.repair();
        Repair { kept, dropped }
    }
}
