//! Structures whose element type is chosen at run time.

use crate::{
    array::{OutOfBounds, RawArray},
    error::{Error, Label, OpError, Refused},
    map::{FIND, INSERT, Inserted, REMOVE, RawMap},
    memory::{Memory, open_or_create},
    queue::{RawQueue, Repair},
    ring::RawRing,
    stack::{Not, RawStack},
    table::Done,
};
use polyshm_platform::Deadline;
use polyshm_wire::zeroipc::{
    ArrayForm, DType, DTypeError, Dialect, Field, KeyKind, RingLayout, Value,
};
use std::ops::RangeBounds;

/// What can say an element type: a [`DType`], or the text of one, such as
/// `float32`, `<f4`, `S16`, `bool` or `[('lat', 'f4'), ('lon', 'f4')]`.
pub trait IntoDType {
    /// The element type.
    ///
    /// # Errors
    ///
    /// The text says none.
    fn into_dtype(self) -> Result<DType, DTypeError>;
}

impl IntoDType for DType {
    fn into_dtype(self) -> Result<DType, DTypeError> {
        Ok(self)
    }
}

impl IntoDType for &DType {
    fn into_dtype(self) -> Result<DType, DTypeError> {
        Ok(self.clone())
    }
}

impl IntoDType for &str {
    fn into_dtype(self) -> Result<DType, DTypeError> {
        DType::parse(self)
    }
}

impl IntoDType for &String {
    fn into_dtype(self) -> Result<DType, DTypeError> {
        DType::parse(self)
    }
}

/// Why an operation with a value of a run-time type did not happen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DynError {
    /// The value is none of the element type.
    #[error("the value is no element of {on}")]
    Value {
        /// The structure.
        on: Label,
        /// What is wrong with it.
        source: DTypeError,
    },
    /// An index or range reaches beyond the end.
    #[error(transparent)]
    Bounds(#[from] OutOfBounds),
    /// The operation itself failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// There is no room; the value comes back.
    #[error("{on} is full: take elements out first, or wait for room")]
    Full {
        /// The structure.
        on: Label,
        /// What was to be taken.
        value: Value,
    },
    /// The value was not taken, and comes back.
    #[error(transparent)]
    Refused(#[from] Refused<Value>),
    /// The element type has no such field.
    #[error("the elements of {on} have no field {field:?}: look at its dtype")]
    NoSuchField {
        /// The structure.
        on: Label,
        /// The field asked for.
        field: String,
    },
    /// A number was wanted.
    #[error("the elements of {on} are no numbers: name a numeric field, or read its values")]
    NotANumber {
        /// The structure.
        on: Label,
    },
}

/// The element type that a text says.
fn dtype_of(what: &'static str, name: &str, dtype: impl IntoDType) -> Result<DType, Error> {
    dtype.into_dtype().map_err(|source| Error::DType {
        on: Memory::label(what, name),
        source,
    })
}

/// Bytes of a value, and back.
#[derive(Clone, Debug)]
struct Codec {
    dtype: DType,
    on: Label,
}

impl Codec {
    fn new(dtype: DType, on: &Label) -> Self {
        Self {
            dtype,
            on: on.clone(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        vec![0; self.dtype.size()]
    }

    fn encode(&self, value: &Value) -> Result<Vec<u8>, DynError> {
        let mut bytes = self.bytes();
        self.dtype
            .encode(value, &mut bytes)
            .map_err(|source| self.wrong(source))?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Value, DynError> {
        self.dtype
            .decode(bytes)
            .map_err(|source| self.wrong(source))
    }

    fn wrong(&self, source: DTypeError) -> DynError {
        DynError::Value {
            on: self.on.clone(),
            source,
        }
    }

    fn full(&self, value: Value) -> DynError {
        DynError::Full {
            on: self.on.clone(),
            value,
        }
    }
}

/// An array whose element type is chosen at run time, as a Python program does
/// it.
///
/// What holds of an [`Array`](crate::Array) holds of it. The format does not
/// record element types: opening checks the size only.
///
/// Source: sections 3 and 4.1 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{DynArray, Memory, Value};
///
/// let name = format!("polyshm-doc-dynarray-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let data = DynArray::create(&memory, "temperature", 1000, "float32")?;
/// data.set(0, 23.5).expect("a number, inside");
/// assert_eq!(data.get(0), Some(Value::Float(23.5)));
///
/// let places = DynArray::create(&memory, "places", 10, "[('lat', 'f4'), ('lon', 'f4')]")?;
/// places.set_field(0, "lat", 52.5).expect("a field");
/// assert_eq!(places.column("lat").expect("a number")[0], 52.5);
/// assert!(DynArray::open(&memory, "places", "float32").is_err(), "another size");
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DynArray {
    raw: RawArray,
    codec: Codec,
}

impl DynArray {
    fn over(raw: RawArray, dtype: DType) -> Self {
        let codec = Codec::new(dtype, raw.label());
        Self { raw, codec }
    }

    /// Creates an array of `capacity` elements, all zero.
    ///
    /// # Errors
    ///
    /// As [`Array::create`](crate::Array::create), or the text says no type.
    pub fn create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        dtype: impl IntoDType,
    ) -> Result<Self, Error> {
        let dtype = dtype_of(RawArray::WHAT, name, dtype)?;
        let size = dtype.size() as u64;
        let raw = RawArray::create(memory, name, ArrayForm::Plain, capacity, size)?;
        Ok(Self::over(raw, dtype))
    }

    /// Opens an array, also one of the C library.
    ///
    /// # Errors
    ///
    /// As [`Array::open`](crate::Array::open), or the text says no type.
    pub fn open(memory: &Memory, name: &str, dtype: impl IntoDType) -> Result<Self, Error> {
        let dtype = dtype_of(RawArray::WHAT, name, dtype)?;
        let raw = RawArray::open(memory, name, dtype.size() as u64)?;
        Ok(Self::over(raw, dtype))
    }

    /// Opens the array, which must have that capacity, or creates it if there
    /// is none.
    ///
    /// # Errors
    ///
    /// As [`DynArray::open`] and [`DynArray::create`], or it has another
    /// capacity.
    pub fn open_or_create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        dtype: impl IntoDType,
    ) -> Result<Self, Error> {
        let dtype = dtype_of(RawArray::WHAT, name, dtype)?;
        open_or_create(
            || {
                let raw = RawArray::open(memory, name, dtype.size() as u64)?;
                let raw = raw.expect_capacity(capacity)?;
                Ok(Self::over(raw, dtype.clone()))
            },
            || Self::create(memory, name, capacity, &dtype),
        )
    }

    /// The element type.
    pub const fn dtype(&self) -> &DType {
        &self.codec.dtype
    }

    /// The number of elements.
    pub const fn len(&self) -> usize {
        self.raw.capacity()
    }

    /// Never: an array has at least one element.
    pub const fn is_empty(&self) -> bool {
        self.raw.capacity() == 0
    }

    fn element(&self, index: usize) -> Result<Vec<u8>, OutOfBounds> {
        let mut bytes = self.codec.bytes();
        let size = bytes.len();
        self.raw.read(index, &mut bytes, size)?;
        Ok(bytes)
    }

    /// Copies one element; `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<Value> {
        self.codec.decode(&self.element(index).ok()?).ok()
    }

    /// Stores one element.
    ///
    /// # Errors
    ///
    /// The index lies beyond the end, or the value is none of the type.
    pub fn set(&self, index: usize, value: impl Into<Value>) -> Result<(), DynError> {
        let bytes = self.codec.encode(&value.into())?;
        Ok(self.raw.write(index, &bytes, bytes.len())?)
    }

    /// Copies a range of elements.
    ///
    /// # Errors
    ///
    /// The range reaches beyond the end.
    pub fn read(&self, range: impl RangeBounds<usize>) -> Result<Vec<Value>, DynError> {
        let (bytes, size) = self.range(range)?;
        bytes
            .chunks_exact(size)
            .map(|element| self.codec.decode(element))
            .collect()
    }

    /// The bytes of a range of elements, and of one of them.
    fn range(&self, range: impl RangeBounds<usize>) -> Result<(Vec<u8>, usize), DynError> {
        let range = self.raw.range(range)?;
        let size = self.codec.dtype.size();
        let mut bytes = vec![0; range.len() * size];
        self.raw.read(range.start, &mut bytes, size)?;
        Ok((bytes, size))
    }

    /// Stores elements from `start` on.
    ///
    /// # Errors
    ///
    /// They reach beyond the end, or a value is none of the type; nothing was
    /// stored.
    pub fn write(&self, start: usize, values: &[Value]) -> Result<(), DynError> {
        let size = self.codec.dtype.size();
        let mut bytes = vec![0; values.len() * size];
        for (value, into) in values.iter().zip(bytes.chunks_exact_mut(size)) {
            self.codec
                .dtype
                .encode(value, into)
                .map_err(|source| self.codec.wrong(source))?;
        }
        Ok(self.raw.write(start, &bytes, size)?)
    }

    /// As [`DynArray::write`], from anything that values can be made of:
    /// `array.write_from(0, [20.5, 21.0])`.
    ///
    /// # Errors
    ///
    /// As [`DynArray::write`].
    pub fn write_from<V: Into<Value>>(
        &self,
        start: usize,
        values: impl IntoIterator<Item = V>,
    ) -> Result<(), DynError> {
        let values: Vec<Value> = values.into_iter().map(Into::into).collect();
        self.write(start, &values)
    }

    /// Stores the same element everywhere.
    ///
    /// # Errors
    ///
    /// The value is none of the type.
    pub fn fill(&self, value: impl Into<Value>) -> Result<(), DynError> {
        let bytes = self.codec.encode(&value.into())?;
        for index in 0..self.len() {
            self.raw.write(index, &bytes, bytes.len())?;
        }
        Ok(())
    }

    /// Copies one element after the other, each when it is asked for.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        (0..self.len()).map_while(|index| self.get(index))
    }

    fn field(&self, name: &str) -> Result<&Field, DynError> {
        let fields = self.codec.dtype.fields();
        fields
            .iter()
            .find(|field| field.name() == name)
            .ok_or_else(|| DynError::NoSuchField {
                on: self.codec.on.clone(),
                field: name.to_owned(),
            })
    }

    /// Copies one field of one element; `None` beyond the end and where there is
    /// no such field.
    pub fn get_field(&self, index: usize, field: &str) -> Option<Value> {
        let field = self.field(field).ok()?;
        let start = field.offset() as usize;
        let bytes = self.element(index).ok()?;
        let part = bytes.get(start..start + field.dtype().size())?;
        field.dtype().decode(part).ok()
    }

    /// Stores one field of one element; the others stay.
    ///
    /// # Errors
    ///
    /// The index lies beyond the end, there is no such field, or the value is
    /// none of its type.
    pub fn set_field(
        &self,
        index: usize,
        field: &str,
        value: impl Into<Value>,
    ) -> Result<(), DynError> {
        let field = self.field(field)?;
        // In range, so the product below does not wrap.
        if index >= self.len() {
            return Err(self
                .raw
                .out_of_bounds(index..index.saturating_add(1))
                .into());
        }
        let mut bytes = vec![0; field.dtype().size()];
        field
            .dtype()
            .encode(&value.into(), &mut bytes)
            .map_err(|source| self.codec.wrong(source))?;
        let at = index * self.codec.dtype.size() + field.offset() as usize;
        let stored = self.raw.data().write(at, &bytes);
        stored.map_err(|_| self.raw.out_of_bounds(index..index + 1).into())
    }

    /// All elements as numbers.
    ///
    /// # Errors
    ///
    /// [`DynError::NotANumber`] of byte strings and structured types.
    pub fn numbers(&self) -> Result<Vec<f64>, DynError> {
        self.extract(0, &self.codec.dtype)
    }

    /// One field of all elements as numbers.
    ///
    /// # Errors
    ///
    /// There is no such field, or it is no number.
    pub fn column(&self, field: &str) -> Result<Vec<f64>, DynError> {
        let field = self.field(field)?;
        self.extract(field.offset() as usize, field.dtype())
    }

    fn extract(&self, start: usize, dtype: &DType) -> Result<Vec<f64>, DynError> {
        let not_a_number = || DynError::NotANumber {
            on: self.codec.on.clone(),
        };
        let (bytes, size) = self.range(..)?;
        bytes
            .chunks_exact(size)
            .map(|element| {
                let part = element.get(start..start + dtype.size());
                let value = part.and_then(|part| dtype.decode(part).ok());
                value
                    .and_then(|value| value.as_f64())
                    .ok_or_else(not_a_number)
            })
            .collect()
    }

    /// Statistics of all elements.
    ///
    /// # Errors
    ///
    /// [`DynError::NotANumber`] of byte strings and structured types.
    pub fn stats(&self) -> Result<Stats, DynError> {
        self.summed(&self.numbers()?)
    }

    /// Statistics of one field of all elements.
    ///
    /// # Errors
    ///
    /// There is no such field, or it is no number.
    pub fn column_stats(&self, field: &str) -> Result<Stats, DynError> {
        self.summed(&self.column(field)?)
    }

    fn summed(&self, numbers: &[f64]) -> Result<Stats, DynError> {
        // An array has at least one element.
        Stats::of(numbers).ok_or_else(|| DynError::NotANumber {
            on: self.codec.on.clone(),
        })
    }

    #[cfg(feature = "ndarray")]
    pub(crate) const fn raw(&self) -> &RawArray {
        &self.raw
    }
}

/// Statistics of numbers.
///
/// ```
/// let stats = polyshm_zeroipc::Stats::of(&[1.0, 2.0, 3.0, 6.0]).expect("some");
/// assert_eq!((stats.count, stats.mean, stats.min, stats.max), (4, 3.0, 1.0, 6.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// How many numbers there are; at least one.
    pub count: usize,
    /// Their arithmetic mean.
    pub mean: f64,
    /// Their standard deviation, of the numbers as a whole (numpy's `ddof` 0).
    pub std: f64,
    /// The smallest; NaN if one of them is.
    pub min: f64,
    /// The largest; NaN if one of them is.
    pub max: f64,
}

impl Stats {
    /// Of these numbers; `None` when there are none.
    pub fn of(numbers: &[f64]) -> Option<Self> {
        let count = numbers.len();
        let extreme = |pick: fn(f64, f64) -> f64| {
            numbers.iter().copied().reduce(|a, b| {
                // `f64::min` and `max` pass over NaN, as numpy does not.
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    pick(a, b)
                }
            })
        };
        let (min, max) = (extreme(f64::min)?, extreme(f64::max)?);
        let mean = numbers.iter().sum::<f64>() / count as f64;
        // In two passes: the squares' sum alone would cancel.
        let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
        Some(Self {
            count,
            mean,
            std: (squares / count as f64).sqrt(),
            min,
            max,
        })
    }
}

/// A queue whose element type is chosen at run time; see [`Queue`](crate::Queue).
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{DynQueue, Memory, Value};
///
/// let name = format!("polyshm-doc-dynqueue-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let jobs = DynQueue::create(&memory, "jobs", 16, "S8")?;
/// jobs.try_push("resize").expect("it fits");
/// assert_eq!(jobs.try_pop(), Some(Value::from("resize")));
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DynQueue {
    raw: RawQueue,
    codec: Codec,
}

const PUSH: &str = "push to";
const POP: &str = "pop from";
const PEEK: &str = "look at the top of";
const WRITE: &str = "write to";
const READ: &str = "read from";

impl DynQueue {
    fn over(raw: RawQueue, dtype: DType) -> Self {
        let codec = Codec::new(dtype, raw.label());
        Self { raw, codec }
    }

    /// Creates a queue for at least `capacity` elements.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`](crate::Queue::create), or the text says no type.
    pub fn create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        dtype: impl IntoDType,
    ) -> Result<Self, Error> {
        let dtype = dtype_of(RawQueue::WHAT, name, dtype)?;
        let raw = RawQueue::create(memory, name, capacity, dtype.size() as u64)?;
        Ok(Self::over(raw, dtype))
    }

    /// Opens a queue.
    ///
    /// # Errors
    ///
    /// As [`Queue::open`](crate::Queue::open), or the text says no type.
    pub fn open(memory: &Memory, name: &str, dtype: impl IntoDType) -> Result<Self, Error> {
        let dtype = dtype_of(RawQueue::WHAT, name, dtype)?;
        let raw = RawQueue::open(memory, name, dtype.size() as u64)?;
        Ok(Self::over(raw, dtype))
    }

    /// Opens the queue, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`DynQueue::open`] and [`DynQueue::create`].
    pub fn open_or_create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        dtype: impl IntoDType,
    ) -> Result<Self, Error> {
        let dtype = dtype_of(RawQueue::WHAT, name, dtype)?;
        open_or_create(
            || Self::open(memory, name, &dtype),
            || Self::create(memory, name, capacity, &dtype),
        )
    }

    /// The element type.
    pub const fn dtype(&self) -> &DType {
        &self.codec.dtype
    }

    /// Pushes if there is room.
    ///
    /// # Errors
    ///
    /// [`DynError::Full`], or the value is none of the type.
    pub fn try_push(&self, value: impl Into<Value>) -> Result<(), DynError> {
        let value = value.into();
        if self.raw.try_push(&self.codec.encode(&value)?) {
            Ok(())
        } else {
            Err(self.codec.full(value))
        }
    }

    /// Pushes, waiting for room until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], [`OpError::Stuck`], or the value is none of the
    /// type.
    pub fn push_within(
        &self,
        value: impl Into<Value>,
        deadline: impl Into<Deadline>,
    ) -> Result<(), DynError> {
        let value = value.into();
        let bytes = self.codec.encode(&value)?;
        self.raw
            .push_until(&bytes, PUSH, deadline.into(), || false)
            .map_err(|error| Refused { value, error }.into())
    }

    /// Pops if there is an element.
    pub fn try_pop(&self) -> Option<Value> {
        let mut bytes = self.codec.bytes();
        self.raw
            .try_pop(&mut bytes)
            .then(|| self.codec.decode(&bytes).ok())
            .flatten()
    }

    /// Pops, waiting for an element until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::Stuck`].
    pub fn pop_within(&self, deadline: impl Into<Deadline>) -> Result<Value, DynError> {
        let mut bytes = self.codec.bytes();
        self.raw
            .pop_until(&mut bytes, POP, deadline.into(), || false)?;
        self.codec.decode(&bytes)
    }

    /// The number of elements; with others at work, of a moment ago.
    pub fn len(&self) -> usize {
        self.raw.len() as usize
    }

    /// Whether there are no elements; with others at work, a moment ago.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// The number of elements that there is room for.
    pub fn capacity(&self) -> usize {
        self.raw.capacity() as usize
    }

    /// Restores service; see [`Queue::repair`](crate::Queue::repair).
    pub fn repair(&self) -> Repair {
        self.raw.repair()
    }
}

/// A stack whose element type is chosen at run time; see [`Stack`](crate::Stack).
#[derive(Clone, Debug)]
pub struct DynStack {
    raw: RawStack,
    codec: Codec,
}

impl DynStack {
    fn over(raw: RawStack, dtype: DType) -> Self {
        let codec = Codec::new(dtype, raw.label());
        Self { raw, codec }
    }

    /// Creates a stack for `capacity` elements.
    ///
    /// # Errors
    ///
    /// As [`Stack::create`](crate::Stack::create), or the text says no type.
    pub fn create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        dtype: impl IntoDType,
    ) -> Result<Self, Error> {
        let dtype = dtype_of(RawStack::WHAT, name, dtype)?;
        let raw = RawStack::create(memory, name, capacity, dtype.size() as u64)?;
        Ok(Self::over(raw, dtype))
    }

    /// Opens a stack.
    ///
    /// # Errors
    ///
    /// As [`Stack::open`](crate::Stack::open), or the text says no type.
    pub fn open(memory: &Memory, name: &str, dtype: impl IntoDType) -> Result<Self, Error> {
        let dtype = dtype_of(RawStack::WHAT, name, dtype)?;
        let raw = RawStack::open(memory, name, dtype.size() as u64)?;
        Ok(Self::over(raw, dtype))
    }

    /// Opens the stack, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`DynStack::open`] and [`DynStack::create`].
    pub fn open_or_create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        dtype: impl IntoDType,
    ) -> Result<Self, Error> {
        let dtype = dtype_of(RawStack::WHAT, name, dtype)?;
        open_or_create(
            || Self::open(memory, name, &dtype),
            || Self::create(memory, name, capacity, &dtype),
        )
    }

    /// The element type.
    pub const fn dtype(&self) -> &DType {
        &self.codec.dtype
    }

    /// Pushes if there is room.
    ///
    /// # Errors
    ///
    /// [`DynError::Full`], [`OpError::Stuck`], or the value is none of the type.
    pub fn try_push(&self, value: impl Into<Value>) -> Result<(), DynError> {
        let value = value.into();
        let bytes = self.codec.encode(&value)?;
        let pushed = self.raw.try_push(&bytes, Deadline::never());
        pushed.map_err(|not| match not {
            Not::Now => self.codec.full(value),
            Not::Stuck(slot) => Refused {
                value,
                error: self.raw.stuck(PUSH, slot),
            }
            .into(),
        })
    }

    /// Pushes, waiting for room until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], [`OpError::Stuck`], or the value is none of the
    /// type.
    pub fn push_within(
        &self,
        value: impl Into<Value>,
        deadline: impl Into<Deadline>,
    ) -> Result<(), DynError> {
        let value = value.into();
        let bytes = self.codec.encode(&value)?;
        let go = |end| self.raw.try_push(&bytes, end);
        self.raw
            .wait(PUSH, deadline.into(), go)
            .map_err(|error| Refused { value, error }.into())
    }

    fn got(
        &self,
        attempt: &'static str,
        bytes: &[u8],
        done: &Result<(), Not>,
    ) -> Result<Option<Value>, DynError> {
        match done {
            Ok(()) => self.codec.decode(bytes).map(Some),
            Err(Not::Now) => Ok(None),
            Err(Not::Stuck(slot)) => Err(self.raw.stuck(attempt, *slot).into()),
        }
    }

    /// Pops if there is an element.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`].
    pub fn try_pop(&self) -> Result<Option<Value>, DynError> {
        let mut bytes = self.codec.bytes();
        let done = self.raw.try_pop(&mut bytes, Deadline::never());
        self.got(POP, &bytes, &done)
    }

    /// Pops, waiting for an element until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::Stuck`].
    pub fn pop_within(&self, deadline: impl Into<Deadline>) -> Result<Value, DynError> {
        let mut bytes = self.codec.bytes();
        let go = |end| self.raw.try_pop(&mut bytes, end);
        self.raw.wait(POP, deadline.into(), go)?;
        self.codec.decode(&bytes)
    }

    /// Copies the top element and leaves it there.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`].
    pub fn peek(&self) -> Result<Option<Value>, DynError> {
        let mut bytes = self.codec.bytes();
        let done = self.raw.peek(&mut bytes);
        self.got(PEEK, &bytes, &done)
    }

    /// The number of elements; with others at work, of a moment ago.
    pub fn len(&self) -> usize {
        self.raw.len() as usize
    }

    /// Whether there are no elements; with others at work, a moment ago.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// The number of elements that there is room for.
    pub fn capacity(&self) -> usize {
        self.raw.capacity() as usize
    }

    /// Restores service; see [`Stack::repair`](crate::Stack::repair).
    pub fn repair(&self) -> Repair {
        self.raw.repair()
    }
}

/// A ring whose element type is chosen at run time; see [`Ring`](crate::Ring).
#[derive(Debug)]
pub struct DynRing {
    raw: RawRing,
    codec: Codec,
}

impl DynRing {
    fn over(raw: RawRing, dtype: DType) -> Self {
        let codec = Codec::new(dtype, raw.label());
        Self { raw, codec }
    }

    /// Creates a ring for `elements` elements.
    ///
    /// # Errors
    ///
    /// As [`Ring::create`](crate::Ring::create), or the text says no type.
    pub fn create(
        memory: &Memory,
        name: &str,
        elements: u64,
        dtype: impl IntoDType,
    ) -> Result<Self, Error> {
        let dtype = dtype_of(RawRing::WHAT, name, dtype)?;
        let label = Memory::label(RawRing::WHAT, name);
        let layout =
            RingLayout::new(elements, dtype.size() as u64).map_err(memory.layout_error(&label))?;
        let raw = RawRing::create(memory, &label, name, layout)?;
        Ok(Self::over(raw, dtype))
    }

    /// Opens a ring.
    ///
    /// # Errors
    ///
    /// As [`Ring::open`](crate::Ring::open), or the text says no type.
    pub fn open(memory: &Memory, name: &str, dtype: impl IntoDType) -> Result<Self, Error> {
        let dtype = dtype_of(RawRing::WHAT, name, dtype)?;
        let label = Memory::label(RawRing::WHAT, name);
        let raw = RawRing::open(memory, &label, name, dtype.size() as u64)?;
        Ok(Self::over(raw, dtype))
    }

    /// Opens the ring, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`DynRing::open`] and [`DynRing::create`].
    pub fn open_or_create(
        memory: &Memory,
        name: &str,
        elements: u64,
        dtype: impl IntoDType,
    ) -> Result<Self, Error> {
        let dtype = dtype_of(RawRing::WHAT, name, dtype)?;
        open_or_create(
            || Self::open(memory, name, &dtype),
            || Self::create(memory, name, elements, &dtype),
        )
    }

    /// The element type.
    pub const fn dtype(&self) -> &DType {
        &self.codec.dtype
    }

    /// Writes an element if there is room.
    ///
    /// # Errors
    ///
    /// [`DynError::Full`], or the value is none of the type.
    pub fn try_write(&mut self, value: impl Into<Value>) -> Result<(), DynError> {
        let value = value.into();
        let bytes = self.codec.encode(&value)?;
        if self.raw.write(&bytes, bytes.len(), true) > 0 {
            Ok(())
        } else {
            Err(self.codec.full(value))
        }
    }

    /// Writes an element, waiting for room until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], or the value is none of the type.
    pub fn write_within(
        &mut self,
        value: impl Into<Value>,
        deadline: impl Into<Deadline>,
    ) -> Result<(), DynError> {
        let value = value.into();
        let bytes = self.codec.encode(&value)?;
        self.raw
            .write_until(&bytes, WRITE, deadline.into(), || false)
            .map_err(|error| Refused { value, error }.into())
    }

    /// Reads an element if there is one.
    pub fn try_read(&mut self) -> Option<Value> {
        let mut bytes = self.codec.bytes();
        let size = bytes.len();
        let read = self.raw.read(&mut bytes, size, false);
        (read > 0).then(|| self.codec.decode(&bytes).ok()).flatten()
    }

    /// Reads an element, waiting for it until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`].
    pub fn read_within(&mut self, deadline: impl Into<Deadline>) -> Result<Value, DynError> {
        let mut bytes = self.codec.bytes();
        self.raw
            .read_until(&mut bytes, READ, deadline.into(), || false)?;
        self.codec.decode(&bytes)
    }

    /// The number of elements that are there.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// The number of elements that there is room for.
    pub const fn capacity(&self) -> usize {
        self.raw.capacity()
    }
}

/// A map whose key and value types are chosen at run time; see
/// [`Map`](crate::Map).
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{DynMap, Memory, Value};
///
/// let name = format!("polyshm-doc-dynmap-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let ages = DynMap::create_python(&memory, "ages", 100, "S16", "uint8")?;
/// ages.insert("alice", 30).expect("there is room");
/// assert_eq!(ages.get("alice"), Ok(Some(Value::UInt(30))));
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DynMap {
    raw: RawMap,
    key: Codec,
    value: Codec,
}

impl DynMap {
    fn types(
        name: &str,
        key: impl IntoDType,
        value: impl IntoDType,
    ) -> Result<(DType, DType), Error> {
        Ok((
            dtype_of(RawMap::WHAT, name, key)?,
            dtype_of(RawMap::WHAT, name, value)?,
        ))
    }

    fn shape(dtype: &DType) -> (u64, u64) {
        (dtype.size() as u64, dtype.align() as u64)
    }

    /// How keys of that type are hashed; those with padding are no keys.
    fn kind(name: &str, key: &DType) -> Result<KeyKind, Error> {
        key.key_kind().ok_or_else(|| Error::Unusable {
            on: Memory::label(RawMap::WHAT, name),
            reason: "keys of that type have padding, whose bytes say nothing; use a packed type",
        })
    }

    fn over(raw: RawMap, key: DType, value: DType) -> Self {
        let on = raw.table.label().clone();
        Self {
            key: Codec::new(key, &on),
            value: Codec::new(value, &on),
            raw,
        }
    }

    fn create_as(
        memory: &Memory,
        name: &str,
        dialect: Dialect,
        capacity: u64,
        (key, value): (DType, DType),
    ) -> Result<Self, Error> {
        let shape = (Self::shape(&key), Self::kind(name, &key)?);
        let raw = RawMap::create(memory, name, dialect, capacity, shape, Self::shape(&value))?;
        Ok(Self::over(raw, key, value))
    }

    fn open_as(
        memory: &Memory,
        name: &str,
        dialect: Dialect,
        (key, value): (DType, DType),
    ) -> Result<Self, Error> {
        let shape = (Self::shape(&key), Self::kind(name, &key)?);
        let raw = RawMap::open(memory, name, dialect, shape, Self::shape(&value))?;
        Ok(Self::over(raw, key, value))
    }

    /// Creates a map with `capacity` slots, in the C++ format.
    ///
    /// # Errors
    ///
    /// As [`Map::create`](crate::Map::create), a text says no type, or keys of
    /// that type have padding.
    pub fn create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        key: impl IntoDType,
        value: impl IntoDType,
    ) -> Result<Self, Error> {
        let types = Self::types(name, key, value)?;
        Self::create_as(memory, name, Dialect::Cpp, capacity, types)
    }

    /// Creates a map with `capacity` slots, in the Python format.
    ///
    /// # Errors
    ///
    /// As [`DynMap::create`].
    pub fn create_python(
        memory: &Memory,
        name: &str,
        capacity: u64,
        key: impl IntoDType,
        value: impl IntoDType,
    ) -> Result<Self, Error> {
        let types = Self::types(name, key, value)?;
        Self::create_as(memory, name, Dialect::Python, capacity, types)
    }

    /// Opens a map of the C++ format.
    ///
    /// # Errors
    ///
    /// As [`Map::open`](crate::Map::open), or a text says no type.
    pub fn open(
        memory: &Memory,
        name: &str,
        key: impl IntoDType,
        value: impl IntoDType,
    ) -> Result<Self, Error> {
        let types = Self::types(name, key, value)?;
        Self::open_as(memory, name, Dialect::Cpp, types)
    }

    /// Opens a map of the Python format.
    ///
    /// # Errors
    ///
    /// As [`DynMap::open`].
    pub fn open_python(
        memory: &Memory,
        name: &str,
        key: impl IntoDType,
        value: impl IntoDType,
    ) -> Result<Self, Error> {
        let types = Self::types(name, key, value)?;
        Self::open_as(memory, name, Dialect::Python, types)
    }

    /// Opens the map, or creates it in the C++ format if there is none.
    ///
    /// # Errors
    ///
    /// As [`DynMap::open`] and [`DynMap::create`].
    pub fn open_or_create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        key: impl IntoDType,
        value: impl IntoDType,
    ) -> Result<Self, Error> {
        let (key, value) = Self::types(name, key, value)?;
        open_or_create(
            || Self::open(memory, name, &key, &value),
            || Self::create(memory, name, capacity, &key, &value),
        )
    }

    /// The types of key and value.
    pub const fn dtypes(&self) -> (&DType, &DType) {
        (&self.key.dtype, &self.value.dtype)
    }

    /// Inserts a key with its value, or gives the key that is there a new one.
    ///
    /// # Errors
    ///
    /// [`DynError::Full`], [`OpError::Stuck`], or a value is none of its type.
    pub fn insert(
        &self,
        key: impl Into<Value>,
        value: impl Into<Value>,
    ) -> Result<Inserted, DynError> {
        let (key, value) = (key.into(), value.into());
        let (key_bytes, value_bytes) = (self.key.encode(&key)?, self.value.encode(&value)?);
        let mut scratch = self.key.bytes();
        let table = &self.raw.table;
        // Both come back, as a pair.
        let pair = || Value::Struct(vec![key.clone(), value.clone()]);
        match table.insert(&key_bytes, &value_bytes, true, &mut scratch) {
            Done::New => Ok(Inserted::New),
            Done::Present => Ok(Inserted::Updated),
            Done::Full => Err(self.key.full(pair())),
            Done::Stuck(slot) => Err(Refused {
                value: pair(),
                error: table.stuck(INSERT, slot),
            }
            .into()),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`], or the key is none of its type.
    pub fn get(&self, key: impl Into<Value>) -> Result<Option<Value>, DynError> {
        let key = self.key.encode(&key.into())?;
        let (mut value, mut scratch) = (self.value.bytes(), self.key.bytes());
        match self.raw.table.find(&key, &mut value, &mut scratch) {
            Ok(true) => self.value.decode(&value).map(Some),
            Ok(false) => Ok(None),
            Err(slot) => Err(self.raw.table.stuck(FIND, slot).into()),
        }
    }

    /// Whether a key is there.
    ///
    /// # Errors
    ///
    /// As [`DynMap::get`].
    pub fn contains_key(&self, key: impl Into<Value>) -> Result<bool, DynError> {
        self.get(key).map(|value| value.is_some())
    }

    /// Removes a key; gives whether it was there.
    ///
    /// # Errors
    ///
    /// As [`DynMap::get`].
    pub fn remove(&self, key: impl Into<Value>) -> Result<bool, DynError> {
        let key = self.key.encode(&key.into())?;
        let mut scratch = self.key.bytes();
        self.raw
            .table
            .erase(&key, &mut scratch)
            .map_err(|slot| self.raw.table.stuck(REMOVE, slot).into())
    }

    /// Copies all keys and values, each pair at one moment, not all at the same.
    pub fn to_vec(&self) -> Vec<(Value, Value)> {
        let mut pairs = Vec::new();
        self.raw.table.for_each(self.raw.key_size, |key, value| {
            if let (Ok(key), Ok(value)) = (self.key.decode(key), self.value.decode(value)) {
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

    /// Removes all keys; see [`Map::clear`](crate::Map::clear).
    pub fn clear(&self) {
        self.raw.table.clear();
    }

    /// Restores service; see [`Map::repair`](crate::Map::repair).
    pub fn repair(&self) -> Repair {
        let (kept, dropped) = self.raw.table.repair();
        Repair { kept, dropped }
    }
}
