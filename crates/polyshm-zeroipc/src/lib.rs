#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod array;
mod block;
mod channel;
mod dynamic;
mod element;
mod error;
mod future;
mod lazy;
mod map;
mod memory;
#[cfg(all(test, loom))]
mod model;
mod native;
mod pool;
mod queue;
mod ring;
mod set;
mod stack;
mod stream;
mod sync;
mod table;
#[cfg(feature = "ndarray")]
mod view;
mod wait;

pub use array::{Array, OutOfBounds};
pub use channel::Channel;
pub use dynamic::{DynArray, DynError, DynMap, DynQueue, DynRing, DynStack, IntoDType, Stats};
pub use element::{Element, Key, byte_key};
pub use error::{Error, Full, Label, OpError, Refused};
pub use future::{Future, FutureState, SetOutcome};
pub use lazy::{Lazy, LazyBool, Number};
pub use map::{InsertError, Inserted, Map};
pub use memory::{Memory, MemoryOptions, OpenOptions, TableEntry};
pub use pool::{Pool, PoolError};
pub use queue::{Queue, Repair};
pub use ring::Ring;
pub use set::Set;
pub use stack::{Stack, TryPushError};
pub use stream::{Stream, VoidStream};
pub use sync::{
    barrier::Barrier,
    event::{Event, EventMode},
    latch::Latch,
    monitor::{Monitor, MonitorGuard},
    mutex::{Mutex, MutexGuard},
    once::{Once, OnceOutcome, OnceRun},
    rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    semaphore::{Semaphore, SemaphorePermit},
    signal::Signal,
};

#[cfg(feature = "ndarray")]
pub use view::ArrayLoan;

pub use polyshm_platform::{Deadline, Mode, WaitStrategy};
pub use polyshm_wire::zeroipc::{
    ArrayForm, DType, DTypeError, Description, Dialect, ImageError, KeyKind, LayoutError,
    NameError, Value,
};
/// The crate whose derives make a type an [`Element`].
pub use zerocopy;
#[doc(no_inline)]
pub use zerocopy::{FromBytes, Immutable, IntoBytes};
