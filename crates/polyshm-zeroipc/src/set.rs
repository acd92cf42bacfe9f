//! Set: elements, each at most once (section 4.7).

use crate::{
    element::{Key, shape},
    error::{Error, Full, OpError, Refused},
    map::{FIND, INSERT, InsertError, REMOVE},
    memory::{Memory, Part, open_or_create},
    queue::Repair,
    table::{Done, RawTable, Shape},
};
use polyshm_wire::zeroipc::{Dialect, SetLayout, set};
use std::marker::PhantomData;

/// Elements, each at most once, for any number of users.
///
/// As a [`Map`](crate::Map) without values, with the same keys, the same waiting
/// and the same two formats: C++ by default, Python by name. Python's set is a
/// map whose values are 1.
///
/// Source: section 4.7 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Set};
///
/// let name = format!("polyshm-doc-set-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let seen = Set::<u32>::create(&memory, "seen", 100)?;
/// assert_eq!(seen.insert(5), Ok(true));
/// assert_eq!(seen.insert(5), Ok(false), "it was there");
/// assert_eq!(seen.contains(5), Ok(true));
/// assert_eq!(seen.remove(5), Ok(true));
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Set<T> {
    table: RawTable,
    _element: PhantomData<fn(T) -> T>,
}

impl<T: Key> Set<T> {
    const WHAT: &'static str = "set";
    /// What Python stores as the value of each element.
    const MARK: &'static [u8] = &[1];

    fn create_as(
        memory: &Memory,
        name: &str,
        dialect: Dialect,
        capacity: u64,
    ) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let (size, align) = shape::<T>();
        let layout =
            SetLayout::new(dialect, capacity, size, align).map_err(memory.layout_error(&label))?;
        let part = Part {
            name: name.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(&label, &[part], |blocks| {
            blocks[0].fill(0, &layout.header().to_bytes())?;
            Self::over(&blocks[0], &layout)
        })
    }

    fn open_as(memory: &Memory, name: &str, dialect: Dialect) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let (size, align) = shape::<T>();
        let block = memory.open_entry(name, &label)?;
        let layout = SetLayout::read(&block.header()?, block.size as u64, dialect, size, align)
            .map_err(|source| block.mismatch(source))?;
        Self::over(&block, &layout)
    }

    fn over(block: &crate::block::Block, layout: &SetLayout) -> Result<Self, Error> {
        let shape = Shape::of_set(layout, T::KIND);
        Ok(Self {
            table: RawTable::over(block, set::SIZE, layout.slots_offset(), shape)?,
            _element: PhantomData,
        })
    }

    /// Creates a set with `capacity` slots, in the C++ format.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, the capacity is 0 or too large, or it
    /// does not fit.
    pub fn create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Cpp, capacity)
    }

    /// Creates a set with `capacity` slots, in the Python format.
    ///
    /// # Errors
    ///
    /// As [`Set::create`].
    pub fn create_python(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Python, capacity)
    }

    /// Opens a set of the C++ format.
    ///
    /// # Errors
    ///
    /// There is none of that name, its elements have another size, it is of the
    /// Python format, or it is damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        Self::open_as(memory, name, Dialect::Cpp)
    }

    /// Opens a set of the Python format.
    ///
    /// # Errors
    ///
    /// As [`Set::open`], the other way round.
    pub fn open_python(memory: &Memory, name: &str) -> Result<Self, Error> {
        Self::open_as(memory, name, Dialect::Python)
    }

    /// Opens the set, or creates it in the C++ format if there is none.
    ///
    /// # Errors
    ///
    /// As [`Set::open`] and [`Set::create`].
    pub fn open_or_create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, capacity),
        )
    }

    /// Inserts an element; gives whether it was not there before.
    ///
    /// # Errors
    ///
    /// No slot is free, or one on the element's way is stuck; it comes back.
    pub fn insert(&self, element: T) -> Result<bool, InsertError<T>> {
        let mut scratch = T::new_zeroed();
        let value = &Self::MARK[..self.table.shape().value_size];
        match self
            .table
            .insert(element.as_bytes(), value, false, scratch.as_mut_bytes())
        {
            Done::New => Ok(true),
            Done::Present => Ok(false),
            Done::Full => Err(InsertError::Full(Full(element))),
            Done::Stuck(slot) => Err(InsertError::Stuck(Refused {
                value: element,
                error: self.table.stuck(INSERT, slot),
            })),
        }
    }

    /// Whether an element is there.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`] when it was not found and a slot on its way stays
    /// half-changed.
    pub fn contains(&self, element: T) -> Result<bool, OpError> {
        let mut scratch = T::new_zeroed();
        let mut mark = [0];
        let mark = &mut mark[..self.table.shape().value_size];
        self.table
            .find(element.as_bytes(), mark, scratch.as_mut_bytes())
            .map_err(|slot| self.table.stuck(FIND, slot))
    }

    /// Removes an element; gives whether it was there.
    ///
    /// # Errors
    ///
    /// As [`Set::contains`].
    #[doc(alias = "erase")]
    pub fn remove(&self, element: T) -> Result<bool, OpError> {
        let mut scratch = T::new_zeroed();
        self.table
            .erase(element.as_bytes(), scratch.as_mut_bytes())
            .map_err(|slot| self.table.stuck(REMOVE, slot))
    }

    /// Copies all elements, each at one moment, not all at the same.
    pub fn to_vec(&self) -> Vec<T> {
        let mut elements = Vec::new();
        self.table.for_each(size_of::<T>(), |element, _| {
            elements.extend(T::read_from_bytes(element));
        });
        elements
    }

    /// The number of elements; with others at work, of a moment ago.
    pub fn len(&self) -> usize {
        self.table.len() as usize
    }

    /// Whether there are no elements; with others at work, a moment ago.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// The number of slots.
    pub fn capacity(&self) -> usize {
        self.table.shape().capacity as usize
    }

    /// Which of the two formats it has.
    pub fn dialect(&self) -> Dialect {
        self.table.shape().dialect
    }

    /// Removes all elements. Only while nobody else uses the set.
    pub fn clear(&self) {
        self.table.clear();
    }

    /// Restores service after a process died while it changed a slot: such
    /// slots lose their element, and the count is made right.
    ///
    /// Only while nobody else uses the set.
    pub fn repair(&self) -> Repair {
        let (kept, dropped) = self.table.repair();
        Repair { kept, dropped }
    }
}
