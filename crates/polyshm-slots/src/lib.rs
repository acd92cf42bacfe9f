#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod draft;
mod dynamic;
mod error;
mod field;
mod fifo;
#[cfg(all(test, loom))]
mod model;
mod native;
mod patience;
mod record;
mod ring;
mod segment;
mod slots;
mod store;
mod stride;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod values;

pub use config::{OnFull, OnUnlink, Options, Reading, Replace};
pub use draft::{Draft, Filler, Source};
pub use dynamic::{Dynamic, DynamicFields, DynamicIter, FieldRef, Values};
pub use error::{NameError, OpenError, ReadError, ValueError, WriteError};
pub use field::{Field, FieldMark};
pub use fifo::{Item, SlotFifo};
/// For the facade, which exports it as `Record`.
#[cfg(feature = "derive")]
#[doc(hidden)]
pub use polyshm_slots_derive::FacadeRecord;
#[cfg(feature = "derive")]
pub use polyshm_slots_derive::Record;
pub use record::{FieldInput, FieldValue, FixedField, Record, TypedRecord, Update};
pub use segment::{NameState, remove};
pub use store::{SlotStore, Snapshot};
pub use values::{ArrayElements, DeclaredField, Form};

pub use polyshm_platform::{Deadline, Mode, WaitStrategy};
pub use polyshm_wire::slots::{
    AnnotationError, ArrayValue, Dtype, Element, FieldSpec, FieldType, ImageError, LayoutError,
    Schema, SchemaError, Status, Value,
};
