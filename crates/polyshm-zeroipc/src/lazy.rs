//! Lazy: a value that is computed when it is first wanted (section 6.4).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, OpError},
    future::{load_text, store_text},
    memory::{Memory, Part, open_or_create},
    wait::{Look, Sleepers, Wait, settle},
};
use polyshm_platform::{Bytes, Deadline, Word8, Word32, process, sync::Ordering};
use polyshm_wire::zeroipc::{Dialect, ImageError, LazyBoolImage, LazyLayout, lazy, lazy_bool};
use std::time::Duration;

/// A number that a lazy value can be computed from.
///
/// Implemented for the ten numeric types; integers wrap around.
pub trait Number: Element {
    /// The sum.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// The product.
    #[must_use]
    fn times(self, other: Self) -> Self;
    /// The negative.
    #[must_use]
    fn negative(self) -> Self;
}

macro_rules! numbers {
    ($($int:ty)*; $($float:ty)*) => {
        $(impl Number for $int {
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn negative(self) -> Self { self.wrapping_neg() }
        })*
        $(impl Number for $float {
            fn plus(self, other: Self) -> Self { self + other }
            fn times(self, other: Self) -> Self { self * other }
            fn negative(self) -> Self { -self }
        })*
    };
}
numbers!(i8 i16 i32 i64 u8 u16 u32 u64; f32 f64);

/// What a C++ process stores as the reason of operations that it lacks.
const NOT_IMPLEMENTED: &str = "Complex operations not yet implemented";

/// How long a computation of stored numbers may seem to take.
const INSTANT: Duration = Duration::from_millis(100);

/// A number that is computed when it is first wanted, once, and then kept.
///
/// In the C++ format the computation is stored too: a constant, a sum, a product
/// or a negative of numbers. Any process can do it, so nothing is lost when one
/// dies at it: the next one computes the same. In the Python format, and with
/// the kinds that C++ leaves open ([`Lazy::external`]), the computation is a
/// function that a process brings along: [`Lazy::force_with`].
///
/// **Death.** A Rust process that runs its function leaves its mark in the error
/// text's bytes, which nobody reads meanwhile. When it dies, the next Rust
/// process runs its own. A dead one of another implementation is unknown:
/// waiting ends with [`OpError::HolderUnknown`], and [`Lazy::reset`] goes on.
///
/// Source: section 6.4 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Lazy, Memory};
///
/// let name = format!("polyshm-doc-lazy-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let (c, d) = (Lazy::constant(&memory, "c", 7)?, Lazy::constant(&memory, "d", 5)?);
/// let sum = Lazy::sum(&memory, "sum", &c, &d)?;
/// assert_eq!(sum.peek(), Ok(None));
/// assert_eq!(sum.force(), Ok(12));
/// assert_eq!(sum.peek(), Ok(Some(12)));
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lazy<T> {
    state: Word32,
    /// Kind and operands; they do not change. `None`: Python.
    operation: Option<Operation<T>>,
    cached: Bytes,
    error: Bytes,
    /// How often it was computed; C++ alone counts.
    computed: Option<Word32>,
    /// Whose function runs; at the end of the error text.
    mark: Option<Word32>,
    /// How much of the error's bytes its text may take: not those of the mark.
    text_len: usize,
    own: u32,
    block: Block,
}

#[derive(Clone, Copy, Debug)]
struct Operation<T> {
    kind: u32,
    first: T,
    second: T,
}

const FORCE: &str = "compute";

impl<T: Number> Lazy<T> {
    const WHAT: &'static str = "lazy";

    fn layout(memory: &Memory, name: &str, dialect: Dialect) -> Result<LazyLayout, Error> {
        let (size, align) = shape::<T>();
        LazyLayout::new(dialect, size, align)
            .map_err(memory.layout_error(&Memory::label(Self::WHAT, name)))
    }

    fn create_as(
        memory: &Memory,
        name: &str,
        dialect: Dialect,
        fill: impl FnOnce(&Block, &LazyLayout) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout = Self::layout(memory, name, dialect)?;
        let part = Part {
            name: name.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(&label, &[part], |blocks| {
            fill(&blocks[0], &layout)?;
            Self::over(&blocks[0], &layout)
        })
    }

    fn create_kind(
        memory: &Memory,
        name: &str,
        kind: u32,
        first: Option<T>,
        second: Option<T>,
    ) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Cpp, |block, layout| {
            let places = [
                (layout.operands_offset(), first),
                (layout.second_operand_offset(), second),
            ];
            for (at, operand) in places {
                if let (Some(at), Some(operand)) = (at, operand) {
                    block.fill(at, operand.as_bytes())?;
                }
            }
            if let Some(at) = layout.kind_offset() {
                block.fill(at, &kind.to_le_bytes())?;
            }
            if let (lazy::CONSTANT, Some(value)) = (kind, first) {
                block.fill(layout.cached_offset(), value.as_bytes())?;
                block.fill(lazy::STATE, &lazy::COMPUTED.to_le_bytes())?;
            }
            Ok(())
        })
    }

    /// Creates a value that is known.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or it does not fit.
    pub fn constant(memory: &Memory, name: &str, value: T) -> Result<Self, Error> {
        Self::create_kind(memory, name, lazy::CONSTANT, Some(value), None)
    }

    /// Creates the sum of two values, which are forced now, as in C++.
    ///
    /// # Errors
    ///
    /// As [`Lazy::constant`], or an operand cannot be computed.
    #[doc(alias = "add")]
    pub fn sum(memory: &Memory, name: &str, a: &Self, b: &Self) -> Result<Self, Error> {
        let (a, b) = (a.operand()?, b.operand()?);
        Self::create_kind(memory, name, lazy::ADD, Some(a), Some(b))
    }

    /// Creates the product of two values, which are forced now, as in C++.
    ///
    /// # Errors
    ///
    /// As [`Lazy::sum`].
    #[doc(alias = "multiply")]
    pub fn product(memory: &Memory, name: &str, a: &Self, b: &Self) -> Result<Self, Error> {
        let (a, b) = (a.operand()?, b.operand()?);
        Self::create_kind(memory, name, lazy::MULTIPLY, Some(a), Some(b))
    }

    /// Creates the negative of a value, which is forced now, as in C++.
    ///
    /// # Errors
    ///
    /// As [`Lazy::sum`].
    pub fn negative(memory: &Memory, name: &str, a: &Self) -> Result<Self, Error> {
        let a = a.operand()?;
        Self::create_kind(memory, name, lazy::NEGATE, Some(a), None)
    }

    /// Creates a value that a process computes by a function of its own. C++
    /// cannot: its force leaves an error.
    ///
    /// # Errors
    ///
    /// As [`Lazy::constant`].
    pub fn external(memory: &Memory, name: &str) -> Result<Self, Error> {
        Self::create_kind(memory, name, lazy::EXTERNAL, None, None)
    }

    /// Creates a value in the Python format; without a `value` it is computed
    /// by a function that a process brings along.
    ///
    /// # Errors
    ///
    /// As [`Lazy::constant`].
    pub fn create_python(memory: &Memory, name: &str, value: Option<T>) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Python, |block, layout| {
            if let Some(value) = value {
                block.fill(layout.cached_offset(), value.as_bytes())?;
                block.fill(lazy::STATE, &lazy::COMPUTED.to_le_bytes())?;
            }
            Ok(())
        })
    }

    fn operand(&self) -> Result<T, Error> {
        self.force().map_err(|_| Error::Unusable {
            on: self.block.label.clone(),
            reason: "as an operand it must be computed, and that failed; see its error",
        })
    }

    /// Opens a value of either format.
    ///
    /// # Errors
    ///
    /// There is none of that name, its type has another size, or it is damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let (size, align) = shape::<T>();
        let block = memory.open_entry(name, &label)?;
        let layout = LazyLayout::read(block.size as u64, size, align)
            .map_err(|source| block.mismatch(source))?;
        Self::over(&block, &layout)
    }

    /// Opens the value, or creates one in the C++ format that a process computes
    /// by a function of its own.
    ///
    /// # Errors
    ///
    /// As [`Lazy::open`] and [`Lazy::external`].
    pub fn open_or_create(memory: &Memory, name: &str) -> Result<Self, Error> {
        open_or_create(|| Self::open(memory, name), || Self::external(memory, name))
    }

    fn over(block: &Block, layout: &LazyLayout) -> Result<Self, Error> {
        let read = |at: u64| -> Result<T, Error> {
            let mut value = T::new_zeroed();
            let bytes = block.bytes(at, size_of::<T>())?;
            let loaded = bytes.read(0, value.as_mut_bytes());
            debug_assert!(loaded.is_ok(), "as long as the value");
            Ok(value)
        };
        let operation = match (
            layout.kind_offset(),
            layout.operands_offset(),
            layout.second_operand_offset(),
        ) {
            (Some(kind), Some(first), Some(second)) => {
                let kind = block.word32(kind)?.load(Ordering::Relaxed);
                if kind > lazy::EXTERNAL {
                    return Err(block.mismatch(ImageError::Field {
                        structure: Self::WHAT,
                        field: "kind",
                        found: kind.into(),
                        min: 0,
                        max: lazy::EXTERNAL.into(),
                    }));
                }
                Some(Operation {
                    kind,
                    first: read(first)?,
                    second: read(second)?,
                })
            }
            _ => None,
        };
        // The last aligned word of the error text.
        let mark_at = (layout.error_offset() + lazy::ERROR_SIZE - 4) & !3;
        let own = if block.marks {
            process::mark(process::current())
        } else {
            0
        };
        let state = block.word32(lazy::STATE)?;
        let found = state.load(Ordering::Acquire);
        if found > lazy::ERROR {
            return Err(block.mismatch(ImageError::Field {
                structure: Self::WHAT,
                field: "state",
                found: found.into(),
                min: 0,
                max: lazy::ERROR.into(),
            }));
        }
        Ok(Self {
            state,
            operation,
            cached: block.bytes(layout.cached_offset(), size_of::<T>())?,
            error: block.bytes(layout.error_offset(), lazy::ERROR_SIZE as usize)?,
            computed: layout
                .count_offset()
                .map(|at| block.word32(at))
                .transpose()?,
            mark: (own != 0).then(|| block.word32(mark_at)).transpose()?,
            text_len: if own == 0 {
                lazy::ERROR_SIZE as usize
            } else {
                (mark_at - layout.error_offset()) as usize
            },
            own,
            block: block.clone(),
        })
    }

    /// Which of the two formats it has.
    pub const fn dialect(&self) -> Dialect {
        match self.operation {
            Some(_) => Dialect::Cpp,
            None => Dialect::Python,
        }
    }

    /// What the stored operation gives, if it can be computed from numbers.
    fn stored(&self) -> Option<T> {
        let Operation {
            kind,
            first,
            second,
        } = self.operation?;
        match kind {
            lazy::CONSTANT => Some(first),
            lazy::ADD => Some(first.plus(second)),
            lazy::MULTIPLY => Some(first.times(second)),
            lazy::NEGATE => Some(first.negative()),
            _ => None,
        }
    }

    fn value(&self) -> T {
        let mut value = T::new_zeroed();
        let loaded = self.cached.read(0, value.as_mut_bytes());
        debug_assert!(loaded.is_ok(), "as long as the value");
        value
    }

    /// The value if it is computed.
    ///
    /// # Errors
    ///
    /// [`OpError::Failed`] with the text that its computation left.
    pub fn peek(&self) -> Result<Option<T>, OpError> {
        match self.look()? {
            Look::Ready(value) => Ok(Some(value)),
            Look::Sleep(_) | Look::Nap => Ok(None),
        }
    }

    fn look(&self) -> Result<Look<T>, OpError> {
        // Acquire: pairs with the release of who computed it.
        match self.state.load(Ordering::Acquire) {
            lazy::COMPUTED => Ok(Look::Ready(self.value())),
            lazy::ERROR => Err(OpError::Failed {
                on: self.block.label.clone(),
                message: load_text(&self.error),
            }),
            other => Ok(Look::Sleep(other)),
        }
    }

    /// The value, computed now if it has not been: what is stored as an
    /// operation takes no time; for a function that another process runs this
    /// waits without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Failed`], also for the kinds that need a function, which leaves
    /// an error for all, as in C++; [`OpError::HolderDied`].
    pub fn force(&self) -> Result<T, OpError> {
        self.force_within(Deadline::never())
    }

    /// As [`Lazy::force`], waiting until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// As [`Lazy::force`], and [`OpError::Timeout`] or
    /// [`OpError::HolderUnknown`].
    pub fn force_within(&self, deadline: impl Into<Deadline>) -> Result<T, OpError> {
        if let Look::Ready(value) = self.look()? {
            return Ok(value);
        }
        let deadline = deadline.into();
        let Some(value) = self.stored() else {
            if self.operation.is_none() {
                // Python: without a function nobody here can compute it.
                return self
                    .wait(deadline, false)
                    .map(|value| value.unwrap_or_else(T::new_zeroed));
            }
            if self.claim() {
                store_text(&self.error, NOT_IMPLEMENTED, self.text_len);
                self.finish(lazy::ERROR);
            }
            return self
                .wait(deadline, false)
                .map(|value| value.unwrap_or_else(T::new_zeroed));
        };
        if self.claim() {
            self.keep(value);
            return Ok(value);
        }
        // Somebody is at it, for as long as an addition takes, or died at it:
        // the result is the same whoever stores it.
        let patience = deadline
            .remaining()
            .map_or(INSTANT, |left| left.min(INSTANT));
        let finished = settle(patience, || {
            let state = self.state.load(Ordering::Acquire);
            (state != lazy::COMPUTING).then_some(())
        });
        if finished.is_none() {
            self.keep(value);
        }
        self.look()?;
        Ok(value)
    }

    /// The value, computed by `function` if it has not been and no other process
    /// is at it. `function` is told whether a process died at it before.
    ///
    /// # Errors
    ///
    /// [`OpError::Failed`] with the text of this or an earlier failure, or as
    /// [`Lazy::force_within`]; waits without end for another process that is at
    /// it.
    pub fn force_with<E: std::fmt::Display>(
        &self,
        function: impl FnOnce(bool) -> Result<T, E>,
    ) -> Result<T, OpError> {
        self.force_with_within(Deadline::never(), function)
    }

    /// As [`Lazy::force_with`], waiting for another process until the deadline or
    /// for that long.
    ///
    /// # Errors
    ///
    /// As [`Lazy::force_with`], and [`OpError::Timeout`] or
    /// [`OpError::HolderUnknown`].
    pub fn force_with_within<E: std::fmt::Display>(
        &self,
        deadline: impl Into<Deadline>,
        function: impl FnOnce(bool) -> Result<T, E>,
    ) -> Result<T, OpError> {
        /// Lets others compute it when the function panics.
        struct Running<'a, T: Number>(Option<&'a Lazy<T>>);
        impl<T: Number> Drop for Running<'_, T> {
            fn drop(&mut self) {
                if let Some(lazy) = self.0 {
                    lazy.finish(lazy::NOT_COMPUTED);
                }
            }
        }
        if let Look::Ready(value) = self.look()? {
            return Ok(value);
        }
        let mut died = false;
        if !self.claim() {
            if let Some(value) = self.wait(deadline.into(), true)? {
                return Ok(value);
            }
            died = true;
        }
        let mut running = Running(Some(self));
        let result = function(died);
        running.0 = None;
        match result {
            Ok(value) => {
                self.keep(value);
                Ok(value)
            }
            Err(error) => {
                let message = error.to_string();
                store_text(&self.error, &message, self.text_len);
                self.finish(lazy::ERROR);
                Err(OpError::Failed {
                    on: self.block.label.clone(),
                    message,
                })
            }
        }
    }

    /// Takes the right to compute it.
    fn claim(&self) -> bool {
        // AcqRel: one of all wins.
        let claimed = self.state.compare_exchange(
            lazy::NOT_COMPUTED,
            lazy::COMPUTING,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if let (Ok(_), Some(mark)) = (claimed, &self.mark) {
            // Relaxed: only who finds us dead cares.
            mark.store(self.own, Ordering::Relaxed);
        }
        claimed.is_ok()
    }

    fn keep(&self, value: T) {
        let stored = self.cached.write(0, value.as_bytes());
        debug_assert!(stored.is_ok(), "as long as the value");
        if let Some(computed) = &self.computed {
            computed.fetch_add(1, Ordering::Relaxed);
        }
        self.finish(lazy::COMPUTED);
    }

    fn finish(&self, state: u32) {
        if let Some(mark) = &self.mark {
            mark.store(0, Ordering::Relaxed);
        }
        // An update, not a store: it is the barrier before the bell. Release:
        // pairs with the acquire of who looks.
        let _ = self.state.compare_exchange(
            lazy::COMPUTING,
            state,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        self.block.bell.ring(&self.state, u32::MAX);
    }

    /// Waits for who computes it; `None`: it died, and the right is ours.
    fn wait(&self, deadline: Deadline, inherit: bool) -> Result<Option<T>, OpError> {
        let look = || {
            Ok(match self.look()? {
                Look::Ready(value) => Look::Ready(Some(value)),
                // Given up by a function that panicked.
                Look::Sleep(lazy::NOT_COMPUTED) if inherit && self.claim() => Look::Ready(None),
                Look::Sleep(state) => Look::Sleep(state),
                Look::Nap => Look::Nap,
            })
        };
        let check = || {
            let Some(word) = &self.mark else {
                return Ok(None);
            };
            let mark = word.load(Ordering::Relaxed);
            if mark == 0
                || process::is_alive_marked(mark)
                || self.state.load(Ordering::Acquire) != lazy::COMPUTING
            {
                return Ok(None);
            }
            if !inherit {
                return Err(OpError::HolderDied {
                    attempt: FORCE,
                    on: self.block.label.clone(),
                    hint: "force it with a function of your own",
                });
            }
            // AcqRel: of several that see it dead one wins.
            let ours = word
                .compare_exchange(mark, self.own, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
            Ok(ours.then_some(None))
        };
        let done = Wait::new(&self.state, Sleepers::Bell(&self.block.bell), look, check)
            .run(self.block.waiter, deadline)?;
        done.ok_or_else(|| {
            let on = self.block.label.clone();
            let known = self
                .mark
                .as_ref()
                .is_some_and(|mark| mark.load(Ordering::Relaxed) != 0);
            if known || self.state.load(Ordering::Relaxed) == lazy::NOT_COMPUTED {
                OpError::Timeout { attempt: FORCE, on }
            } else {
                OpError::HolderUnknown {
                    attempt: FORCE,
                    on,
                    hint: "if it is, call reset()",
                }
            }
        })
    }

    /// How often it was computed; `None` of the Python format.
    pub fn compute_count(&self) -> Option<u32> {
        let computed = self.computed.as_ref()?;
        Some(computed.load(Ordering::Relaxed))
    }

    /// Forgets the value, an error, or who is at it. Only while nobody else uses
    /// it.
    pub fn reset(&self) {
        if let Some(mark) = &self.mark {
            mark.store(0, Ordering::Relaxed);
        }
        self.state.store(lazy::NOT_COMPUTED, Ordering::Release);
        self.state.wake(u32::MAX);
    }
}

/// A truth value that is computed when it is first wanted. C++ calls it
/// `Lazy<bool>`, and cannot open it again.
///
/// The operation and its operands are stored, so any process can compute it, and
/// a death at it costs nothing.
///
/// Source: section 6.4 of `docs/protocols/zeroipc.md`.
#[derive(Clone, Debug)]
pub struct LazyBool {
    state: Word32,
    cached: Word8,
    kind: u32,
    a: bool,
    b: bool,
}

impl LazyBool {
    const WHAT: &'static str = "lazy bool";

    fn create(memory: &Memory, name: &str, kind: u32, a: bool, b: bool) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let part = Part {
            name: name.to_owned(),
            size: lazy_bool::SIZE,
        };
        memory.create_entries(&label, &[part], |blocks| {
            let block = &blocks[0];
            block.fill(lazy_bool::KIND, &kind.to_le_bytes())?;
            block.fill(lazy_bool::A, &[u8::from(a), u8::from(b)])?;
            if kind == lazy_bool::CONST {
                block.fill(lazy_bool::CACHED, &[u8::from(a)])?;
                block.fill(lazy_bool::STATE, &lazy::COMPUTED.to_le_bytes())?;
            }
            Self::over(block)
        })
    }

    /// Creates a value that is known.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or it does not fit.
    pub fn constant(memory: &Memory, name: &str, value: bool) -> Result<Self, Error> {
        Self::create(memory, name, lazy_bool::CONST, value, false)
    }

    /// Creates `a` and `b`.
    ///
    /// # Errors
    ///
    /// As [`LazyBool::constant`].
    pub fn and(memory: &Memory, name: &str, a: &Self, b: &Self) -> Result<Self, Error> {
        Self::create(memory, name, lazy_bool::AND, a.force(), b.force())
    }

    /// Creates `a` or `b`.
    ///
    /// # Errors
    ///
    /// As [`LazyBool::constant`].
    pub fn or(memory: &Memory, name: &str, a: &Self, b: &Self) -> Result<Self, Error> {
        Self::create(memory, name, lazy_bool::OR, a.force(), b.force())
    }

    /// Creates either `a` or `b`.
    ///
    /// # Errors
    ///
    /// As [`LazyBool::constant`].
    pub fn xor(memory: &Memory, name: &str, a: &Self, b: &Self) -> Result<Self, Error> {
        Self::create(memory, name, lazy_bool::XOR, a.force(), b.force())
    }

    /// Creates not `a`.
    ///
    /// # Errors
    ///
    /// As [`LazyBool::constant`].
    pub fn not(memory: &Memory, name: &str, a: &Self) -> Result<Self, Error> {
        Self::create(memory, name, lazy_bool::NOT, a.force(), false)
    }

    /// Opens one.
    ///
    /// # Errors
    ///
    /// There is none of that name, the entry has another size, or it is damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        if block.size as u64 != lazy_bool::SIZE {
            return Err(block.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found: block.size as u64,
                expected: lazy_bool::SIZE,
            }));
        }
        Self::over(&block)
    }

    fn over(block: &Block) -> Result<Self, Error> {
        let header: [u8; 16] = block.header()?;
        let image = LazyBoolImage::read(&header).map_err(|source| block.mismatch(source))?;
        let kind = image.kind.get();
        if kind > lazy_bool::NOT {
            return Err(block.mismatch(ImageError::Field {
                structure: Self::WHAT,
                field: "kind",
                found: kind.into(),
                min: 0,
                max: lazy_bool::NOT.into(),
            }));
        }
        Ok(Self {
            state: block.word32(lazy_bool::STATE)?,
            cached: block.word8(lazy_bool::CACHED)?,
            kind,
            a: image.a != 0,
            b: image.b != 0,
        })
    }

    /// The value, computed now if it has not been. Does not wait.
    pub fn force(&self) -> bool {
        if let Some(value) = self.peek() {
            return value;
        }
        let (a, b) = (self.a, self.b);
        let value = match self.kind {
            lazy_bool::AND => a && b,
            lazy_bool::OR => a || b,
            lazy_bool::XOR => a != b,
            lazy_bool::NOT => !a,
            _ => a,
        };
        // Whoever else is at it stores the same.
        self.cached.store(value.into(), Ordering::Relaxed);
        // Release: pairs with the acquire in `peek`.
        self.state.store(lazy::COMPUTED, Ordering::Release);
        value
    }

    /// The value if it is computed.
    pub fn peek(&self) -> Option<bool> {
        let computed = self.state.load(Ordering::Acquire) == lazy::COMPUTED;
        computed.then(|| self.cached.load(Ordering::Relaxed) != 0)
    }
}
