//! Helpers for tests: objects on the heap, made of any bytes.

use crate::{Endpoint, EndpointBuilder, OpenError, Role, attachment::Object};
use polyshm_platform::Region;
use polyshm_wire::eshm::{HEADER_SIZE, Header};

/// An object without an operating system: its bytes are on the heap, and both
/// sides are this process.
///
/// The code that reads and writes is the same as for a named object. There is
/// no heartbeat thread, and nothing to reconnect to.
///
/// ```
/// use polyshm_eshm::{Endpoint, testing::HeapObject};
///
/// let object = HeapObject::new(64);
/// let mut master = object.create(Endpoint::builder())?;
/// let mut slave = object.attach(Endpoint::builder())?;
/// master.write(b"message")?;
/// assert_eq!(&*slave.try_read()?.unwrap(), b"message");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HeapObject {
    region: Region,
    capacity: u64,
}

/// What errors call it.
const NAME: &str = "heap";

impl HeapObject {
    /// Zeros, enough for an object of that capacity.
    ///
    /// # Panics
    ///
    /// The capacity is 0 or above 2^30.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let layout = polyshm_wire::eshm::Layout::new(capacity).expect("a capacity within limits");
        Self {
            region: Region::heap(layout.object_len() as usize),
            capacity,
        }
    }

    /// An object with these bytes, whatever they are: they are checked by
    /// [`attach`](Self::attach) and [`take_over`](Self::take_over).
    #[must_use]
    pub fn from_image(image: &[u8], capacity: u64) -> Self {
        let object = Self {
            region: Region::heap(image.len()),
            capacity,
        };
        object.poke(0, image);
        object
    }

    /// Makes the bytes a fresh object, with a master.
    ///
    /// # Errors
    ///
    /// [`OpenError::Capacity`].
    pub fn create(&self, config: EndpointBuilder) -> Result<Endpoint, OpenError> {
        let (object, config) = self.object(config)?;
        let attachment = object.fill(&self.region, &config)?;
        Endpoint::of(object, config, attachment)
    }

    /// A slave.
    ///
    /// # Errors
    ///
    /// [`OpenError::Invalid`], [`OpenError::NotReady`] and
    /// [`OpenError::CapacityMismatch`].
    pub fn attach(&self, config: EndpointBuilder) -> Result<Endpoint, OpenError> {
        self.enter(Role::Slave, config)
    }

    /// A master that takes over, as for an attached slave.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    pub fn take_over(&self, config: EndpointBuilder) -> Result<Endpoint, OpenError> {
        self.enter(Role::Master, config)
    }

    fn object(&self, config: EndpointBuilder) -> Result<(Object, EndpointBuilder), OpenError> {
        let config = config.capacity(self.capacity).threads(false);
        // No system object has that path.
        Ok((Object::new(NAME, String::new(), &config)?, config))
    }

    fn enter(&self, role: Role, config: EndpointBuilder) -> Result<Endpoint, OpenError> {
        let (object, config) = self.object(config)?;
        let image = self.image();
        let header = object.check_image(&image[..image.len().min(HEADER_SIZE as usize)])?;
        let Some(header) = header else {
            return Err(OpenError::NotReady { name: NAME.into() });
        };
        object.check_size(image.len() as u64, &header)?;
        let attachment = object.enter_region(&self.region, role, true)?;
        Endpoint::of(object, config, attachment)
    }

    /// A copy of the bytes.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let mut image = vec![0; self.region.len()];
        if let Ok(bytes) = self.region.bytes(0, image.len()) {
            // Of its own length.
            let _ = bytes.read(0, &mut image);
        }
        image
    }

    /// The header as it stands.
    #[must_use]
    pub fn header(&self) -> Option<Header> {
        Header::read(&self.image()).ok()
    }

    /// Overwrites bytes, as a damaged peer would.
    ///
    /// # Panics
    ///
    /// They do not lie inside.
    pub fn poke(&self, offset: usize, bytes: &[u8]) {
        self.region
            .bytes(0, self.region.len())
            .and_then(|all| all.write(offset, bytes))
            .expect("the bytes lie inside the object");
    }
}
