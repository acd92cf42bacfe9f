//! ZeroIPC: named structures in one segment, behind a table that says where
//! each is.
//!
//! The section numbers on this page and on its items are those of
//! `docs/protocols/zeroipc.md`.
//!
//! | bytes | what | section |
//! |---|---|---|
//! | 0..32 | [`TableHeader`] | 2.1 |
//! | 32..32+48n | n slots of 48 bytes, each an [`Entry`] or unused | 2.2 |
//! | from there on | the structures, each at a multiple of 8 | 4 to 6 |
//!
//! All integers are little-endian. An entry holds a name, an offset and a size
//! and **no type**: what a structure is, and what its elements are, only its
//! users know. So every layout here has two constructors. `new` checks a wish
//! and says how many bytes it takes; `read` judges a stored header against the
//! size of its entry and against the element that the caller expects. Both give
//! a layout whose offsets count from the start of the structure.
//!
//! | structure | layout | header |
//! |---|---|---|
//! | array | [`ArrayLayout`] | 8 bytes; 16 in C |
//! | queue, stack | [`QueueLayout`], [`StackLayout`] | [`QueueHeader`], [`StackHeader`] |
//! | ring, pool | [`RingLayout`], [`PoolLayout`] | [`RingHeader`], [`PoolHeader`] |
//! | map, set | [`MapLayout`], [`SetLayout`] | [`MapHeader`], [`SetHeader`] |
//! | semaphore, mutex, barrier, latch | fixed | [`SemaphoreImage`], [`BarrierImage`], [`LatchImage`] |
//! | event, read-write lock, once, monitor | fixed | [`EventImage`], [`RwLockImage`], [`once`], [`monitor`] |
//! | signal, future, lazy value | [`SignalLayout`], [`FutureLayout`], [`LazyLayout`] | [`future`], [`lazy`], [`LazyBoolImage`] |
//! | channel, stream | [`SlotLayout`] and a queue or a ring | [`ChannelHeader`], [`ChannelSync`], [`StreamHeader`], [`StreamVoid`] |
//!
//! # Two dialects
//!
//! The C++ and the Python implementation agree on most structures. Where they
//! do not, a [`Dialect`] chooses, and `read` tells them apart where the entry's
//! size allows. C++ is the default.
//!
//! # Elements and inspection
//!
//! [`DType`] names an element at run time, in numpy's notation, and converts
//! between its bytes and a [`Value`]. [`describe`] lists the entries of a whole
//! image with everything that each can be.
//!
//! # What is not here
//!
//! Nothing atomic and no order of stores: which words are changed while others
//! look, and how, is the business of whoever maps the segment. The modules of
//! offsets, such as [`queue`], are for that.

mod describe;
mod dtype;
mod error;
mod layout;
mod table;

pub use describe::{Candidate, Composite, Description, EntryDescription, describe};
pub use dtype::{DType, DTypeError, Field, StructType, Typed, Value};
pub use error::{ImageError, LayoutError, NameError};
pub use layout::*;
pub use table::{
    ALIGN, DEFAULT_MAX_ENTRIES, ENTRY_SIZE, Entry, Extent, HEADER_SIZE, MAGIC, MAX_NAME, NAME_SIZE,
    TableHeader, VERSION, check_name, entry_at, entry_offset, header_offset, place, table_end,
};
