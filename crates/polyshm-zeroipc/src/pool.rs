//! Pool: blocks of one size, to be taken and given back (section 4.5).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, Full, OpError},
    memory::{Memory, Part, open_or_create},
};
use polyshm_platform::{Bytes, Word32, Word64, Words32, sync::Ordering};
use polyshm_wire::zeroipc::{ImageError, PoolLayout, pool};
use std::{collections::HashSet, marker::PhantomData};

/// A fixed number of blocks that any process can take and give back.
///
/// A block is known by its index, which may be handed to other processes. Taking
/// and giving back never block. What was stored before a block is given back is
/// seen by who takes it next (release and acquire on the list's head).
///
/// The format does not say who has a block: those of a process that died stay
/// taken until [`Pool::repair`] is told which ones are in use. Giving a block
/// back twice is noticed only when none is taken or it is the next free one.
///
/// Source: section 4.5 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Pool};
///
/// let name = format!("polyshm-doc-pool-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let blocks = Pool::<f64>::create(&memory, "blocks", 2)?;
/// let first = blocks.allocate_with(1.5).expect("two are free");
/// blocks.set(first, 2.5).expect("it exists");
/// assert_eq!(blocks.get(first), Some(2.5));
/// blocks.deallocate(first).expect("it was taken");
/// assert_eq!(blocks.allocated(), 0);
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pool<T> {
    /// Index of the first free block, and a generation that every change
    /// raises.
    head: Word64,
    allocated: Word32,
    /// Per block: the next free one.
    next: Words32,
    nodes: Bytes,
    node_size: usize,
    block: Block,
    _element: PhantomData<fn(T) -> T>,
}

/// Why a block was not given back, or could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There is no such block.
    #[error("the pool has {capacity} blocks, and no block {index}")]
    NoSuchBlock {
        /// The index given.
        index: u32,
        /// How many blocks there are.
        capacity: u32,
    },
    /// The block is free already.
    #[error("block {index} is free already: it was given back twice")]
    AlreadyFree {
        /// The index given.
        index: u32,
    },
}

const TAKE: &str = "take a block from";

impl<T: Element> Pool<T> {
    const WHAT: &'static str = "pool";

    /// Creates a pool of `capacity` blocks.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, the capacity is 0 or too large, or it
    /// does not fit.
    pub fn create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let (size, align) = shape::<T>();
        let layout = PoolLayout::new(capacity, size, align).map_err(memory.layout_error(&label))?;
        let part = Part {
            name: name.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(&label, &[part], |blocks| Self::init(&blocks[0], &layout))
    }

    pub(crate) fn init(block: &Block, layout: &PoolLayout) -> Result<Self, Error> {
        block.fill(0, &layout.header().to_bytes())?;
        let made = Self::over(block, layout)?;
        made.link(0, |_| true);
        Ok(made)
    }

    /// Opens a pool.
    ///
    /// # Errors
    ///
    /// There is none of that name, its elements have another size, or it is
    /// damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        let (size, align) = shape::<T>();
        let layout = PoolLayout::read(&block.header()?, block.size as u64, size, align)
            .map_err(|source| block.mismatch(source))?;
        let opened = Self::over(&block, &layout)?;
        // A list that leads outside or in a circle would give one block to two.
        match opened.free_blocks() {
            Some(Err(found)) => Err(block.mismatch(ImageError::Field {
                structure: Self::WHAT,
                field: "free list",
                found: i64::from(found),
                min: 0,
                max: i64::from(layout.capacity) - 1,
            })),
            _ => Ok(opened),
        }
    }

    /// Opens the pool, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Pool::open`] and [`Pool::create`].
    pub fn open_or_create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, capacity),
        )
    }

    fn over(block: &Block, layout: &PoolLayout) -> Result<Self, Error> {
        let node_size = layout.node_size();
        let len = node_size * u64::from(layout.capacity);
        Ok(Self {
            head: block.word64(pool::FREE_HEAD)?,
            allocated: block.word32(pool::ALLOCATED)?,
            next: block.words32(
                pool::NODES + layout.next_in_node(),
                node_size,
                layout.capacity,
            )?,
            nodes: block.bytes(pool::NODES, len as usize)?,
            node_size: node_size as usize,
            block: block.clone(),
            _element: PhantomData,
        })
    }

    /// Takes a block, whatever it holds; `None` when all are taken.
    ///
    /// # Errors
    ///
    /// [`OpError::Damaged`] when the list of free blocks leads outside.
    pub fn allocate(&self) -> Result<Option<u32>, OpError> {
        // Acquire: pairs with the release of who gave the block back.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (generation, index) = pool::split(head);
            if index == pool::NULL {
                return Ok(None);
            }
            if index >= self.capacity() {
                return Err(OpError::Damaged {
                    attempt: TAKE,
                    on: self.block.label.clone(),
                    field: "free list",
                    found: u64::from(index),
                });
            }
            // Relaxed: believed only if the generation has not moved.
            let next = self.next.load(index as usize, Ordering::Relaxed);
            let after = pool::head(generation.wrapping_add(1), next);
            // AcqRel: acquire as above; release continues the chain of who gave
            // other blocks back.
            match self
                .head
                .compare_exchange(head, after, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    // Relaxed: a statistic.
                    self.allocated.fetch_add(1, Ordering::Relaxed);
                    return Ok(Some(index));
                }
                Err(found) => head = found,
            }
        }
    }

    /// Takes a block and stores an element in it.
    ///
    /// # Errors
    ///
    /// The element, when all blocks are taken (or the list of free ones is
    /// damaged; see [`Pool::allocate`]).
    pub fn allocate_with(&self, element: T) -> Result<u32, Full<T>> {
        match self.allocate() {
            Ok(Some(index)) => {
                // The index is below the capacity.
                let _ = self.set(index, element);
                Ok(index)
            }
            Ok(None) | Err(_) => Err(Full(element)),
        }
    }

    /// Gives a block back.
    ///
    /// # Errors
    ///
    /// [`PoolError::NoSuchBlock`], or [`PoolError::AlreadyFree`] where that can
    /// be told. Nothing was changed.
    #[doc(alias = "free")]
    pub fn deallocate(&self, index: u32) -> Result<(), PoolError> {
        self.check(index)?;
        // Whoever has a block was counted before it got the index.
        if self.allocated.load(Ordering::Relaxed) == 0 {
            return Err(PoolError::AlreadyFree { index });
        }
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let (generation, first) = pool::split(head);
            if first == index {
                return Err(PoolError::AlreadyFree { index });
            }
            // Relaxed: published by the update below.
            self.next.store(index as usize, first, Ordering::Relaxed);
            let after = pool::head(generation.wrapping_add(1), index);
            // Release: pairs with the acquire of who takes it.
            match self
                .head
                .compare_exchange(head, after, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => {
                    self.allocated.fetch_sub(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(found) => head = found,
            }
        }
    }

    /// Copies a block's element, taken or free; `None` if there is no such block.
    pub fn get(&self, index: u32) -> Option<T> {
        self.check(index).ok()?;
        let mut element = T::new_zeroed();
        let at = index as usize * self.node_size;
        self.nodes.read(at, element.as_mut_bytes()).ok()?;
        Some(element)
    }

    /// Stores a block's element.
    ///
    /// # Errors
    ///
    /// [`PoolError::NoSuchBlock`].
    pub fn set(&self, index: u32, element: T) -> Result<(), PoolError> {
        self.check(index)?;
        let at = index as usize * self.node_size;
        let stored = self.nodes.write(at, element.as_bytes());
        debug_assert!(stored.is_ok(), "the index is below the capacity");
        Ok(())
    }

    fn check(&self, index: u32) -> Result<(), PoolError> {
        let capacity = self.capacity();
        if index < capacity {
            Ok(())
        } else {
            Err(PoolError::NoSuchBlock { index, capacity })
        }
    }

    /// How many blocks are taken, by the pool's own count.
    pub fn allocated(&self) -> u32 {
        self.allocated.load(Ordering::Relaxed).min(self.capacity())
    }

    /// How many blocks there are.
    pub fn capacity(&self) -> u32 {
        self.next.len() as u32
    }

    /// The free blocks, first the one that is taken next; `None` when others
    /// kept changing the list while it was walked.
    pub fn free_list(&self) -> Option<Vec<u32>> {
        self.free_blocks()?.ok()
    }

    /// Walks the list: all of it, or the index at which it is broken; `None`
    /// when it does not stand still.
    fn free_blocks(&self) -> Option<Result<Vec<u32>, u32>> {
        const TRIES: u32 = 16;
        (0..TRIES).find_map(|_| {
            let head = self.head.load(Ordering::Acquire);
            let mut list = Vec::new();
            let mut seen = vec![false; self.capacity() as usize];
            let (_, mut at) = pool::split(head);
            let mut broken = None;
            while at != pool::NULL {
                match seen.get_mut(at as usize) {
                    Some(seen) if !*seen => *seen = true,
                    _ => {
                        broken = Some(at);
                        break;
                    }
                }
                list.push(at);
                at = self.next.load(at as usize, Ordering::Acquire);
            }
            // Every change raises the generation.
            let still = self.head.load(Ordering::Acquire) == head;
            still.then(|| broken.map_or(Ok(list), Err))
        })
    }

    /// Takes back what dead processes had, and puts the list and the count in
    /// order: afterwards exactly the blocks in `in_use` are taken.
    ///
    /// Only while nobody else takes blocks or gives them back.
    pub fn repair(&self, in_use: &[u32]) {
        let in_use: HashSet<u32> = in_use.iter().copied().collect();
        self.link(1, |index| !in_use.contains(&index));
    }

    /// Links the blocks that are free, in order, in a generation after the
    /// present one.
    fn link(&self, later: u32, is_free: impl Fn(u32) -> bool) {
        let (generation, _) = pool::split(self.head.load(Ordering::Relaxed));
        let mut after = pool::NULL;
        let mut free = 0;
        for index in (0..self.capacity()).rev().filter(|&index| is_free(index)) {
            // Relaxed: published by the release below, or with the entry.
            self.next.store(index as usize, after, Ordering::Relaxed);
            after = index;
            free += 1;
        }
        self.allocated
            .store(self.capacity() - free, Ordering::Relaxed);
        self.head.store(
            pool::head(generation.wrapping_add(later), after),
            Ordering::Release,
        );
    }
}
