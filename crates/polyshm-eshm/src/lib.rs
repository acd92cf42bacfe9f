#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod attachment;
mod channel;
mod config;
mod core;
mod endpoint;
mod error;
mod event;
mod functions;
#[cfg(all(test, loom))]
mod model;
mod monitor;
mod pulse;
mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use channel::Received;
pub use config::{DisconnectBehavior, EndpointBuilder, Role};
pub use core::Connection;
pub use endpoint::{Endpoint, Message, Receiver, Sender};
pub use error::{HeartbeatError, OpenError, ReadError, WriteError};
pub use event::{Event, Events};
pub use functions::FunctionRegistry;
pub use monitor::Remote;
pub use stats::Stats;

pub use polyshm_platform::{Deadline, Mode, WaitStrategy};
pub use polyshm_wire::eshm::{
    DecodeError, EncodeError, ImageError, Item, ItemDialect, LayoutError, NameError, Value,
};

/// Typed items: the parts of a [`Value`], and the codec by itself (format,
/// section 9).
pub mod items {
    #[cfg(feature = "serde")]
    pub use polyshm_wire::eshm::{BridgeError, from_items, to_items};
    pub use polyshm_wire::eshm::{
        DecodeError, Decoder, EncodeError, Event, FunctionCall, ImageFrame, Item, ItemDialect,
        ItemKind, ItemRef, Scalar, ScalarRef, UnknownKind, Value, ValueRef, decode, encode,
        encode_refs, encode_refs_into, item_value,
    };
}
