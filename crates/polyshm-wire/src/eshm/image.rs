//! A whole image taken apart (section 1).

use alloc::vec::Vec;

use super::{ChannelHead, ChannelTail, Direction, Header, ImageError, Layout};

/// Everything in an image, as plain values.
///
/// Process identifiers, flags and marks are given as found: nothing here says
/// that somebody lives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Description {
    /// always 2
    pub version: u32,
    /// beats of the master
    pub master_heartbeat: u64,
    /// beats of the slave
    pub slave_heartbeat: u64,
    /// the last master's process
    pub master_pid: i32,
    /// the last slave's process, 0 before the first
    pub slave_pid: i32,
    /// whether the flag is anything but 0
    pub master_alive: bool,
    /// whether the flag is anything but 0
    pub slave_alive: bool,
    /// milliseconds that a heartbeat may stand still
    pub stale_threshold: u32,
    /// masters that this object has had
    pub master_generation: u32,
    /// capacity in bytes that a native creator noted, 0 = unknown; not compared
    /// with the layout
    pub native_capacity: u32,
    /// process mark of a native master, 0 = not native
    pub native_master_mark: u32,
    /// process mark of a native slave, 0 = not native
    pub native_slave_mark: u32,
    /// the channel that the master writes
    pub master_to_slave: ChannelDescription,
    /// the channel that the slave writes
    pub slave_to_master: ChannelDescription,
}

/// One channel of a [`Description`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChannelDescription {
    /// as found
    pub sequence: u32,
    /// as found; not above the capacity when `message` is there
    pub data_size: u32,
    /// messages ever written
    pub write_count: u64,
    /// deliveries of all readers together
    pub read_count: u64,
    /// threads of native readers that sleep on the sequence
    pub native_waiters: u32,
    /// a sequence number whose message is void, with bit 0 set; 0 = none
    pub native_void: u32,
    /// how many sequence numbers were voided so far
    pub native_voids: u32,
    /// whether the sequence is odd: a message is being written, or its writer
    /// died, or a reference inverted the parity (section 10)
    pub busy: bool,
    /// the message in the buffer; `None` while busy, when it is void, and before
    /// the first one. It may have been read already
    pub message: Option<Vec<u8>>,
}

impl Description {
    /// The channel that carries this direction.
    pub const fn channel(&self, direction: Direction) -> &ChannelDescription {
        match direction {
            Direction::MasterToSlave => &self.master_to_slave,
            Direction::SlaveToMaster => &self.slave_to_master,
        }
    }
}

/// Checks an image that nobody is changing and copies everything out of it.
///
/// Refused are an image shorter than the layout, another magic or version, and
/// a `data_size` above the capacity, unless the message is not there to be read
/// anyway. Bytes behind the layout are ignored.
///
/// ```
/// use polyshm_wire::eshm::{Direction, Header, Layout, describe};
///
/// let layout = Layout::default();
/// let mut image = vec![0; usize::try_from(layout.object_len())?];
/// image[..128].copy_from_slice(&Header::new(100, layout.capacity()).to_bytes());
/// assert_eq!(describe(&image, &layout)?.master_to_slave.message, None);
///
/// // One message of two bytes.
/// let place = layout.channel(Direction::MasterToSlave);
/// image[128..136].copy_from_slice(&[2, 0, 0, 0, 2, 0, 0, 0]);
/// image[136..138].copy_from_slice(b"Hi");
/// image[usize::try_from(place.write_count)?] = 1;
/// let seen = describe(&image, &layout)?;
/// assert_eq!(seen.master_to_slave.message.as_deref(), Some(&b"Hi"[..]));
///
/// // A size that leaves the buffer is an error that names it.
/// image[134] = 1;
/// let error = describe(&image, &layout).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "data_size of the master-to-slave channel is 65538, the limit is the capacity 4096",
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn describe(image: &[u8], layout: &Layout) -> Result<Description, ImageError> {
    let header = Header::read(image)?;
    header.check()?;
    layout.check_len(image.len() as u64)?;
    Ok(Description {
        version: header.version.get(),
        master_heartbeat: header.master_heartbeat.get(),
        slave_heartbeat: header.slave_heartbeat.get(),
        master_pid: header.master_pid.get(),
        slave_pid: header.slave_pid.get(),
        master_alive: header.master_alive.get() != 0,
        slave_alive: header.slave_alive.get() != 0,
        stale_threshold: header.stale_threshold.get(),
        master_generation: header.master_generation.get(),
        native_capacity: header.native_capacity.get(),
        native_master_mark: header.native_master_mark.get(),
        native_slave_mark: header.native_slave_mark.get(),
        master_to_slave: describe_channel(image, *layout, Direction::MasterToSlave)?,
        slave_to_master: describe_channel(image, *layout, Direction::SlaveToMaster)?,
    })
}

fn describe_channel(
    image: &[u8],
    layout: Layout,
    direction: Direction,
) -> Result<ChannelDescription, ImageError> {
    // No offset can leave the image: its length was checked against the layout,
    // and a length in memory fits usize.
    let place = layout.channel(direction);
    let head = ChannelHead::read(&image[place.sequence as usize..])?;
    let tail = ChannelTail::read(&image[place.write_count as usize..])?;
    let sequence = head.sequence.get();
    let found = head.data_size.get();
    let capacity = layout.capacity();

    let busy = head.is_busy();
    let void = tail.native_void.get();
    let is_void = void == sequence | 1;
    // The sequence alone may be 0 again after 2^31 messages.
    let is_fresh = sequence == 0 && tail.write_count.get() == 0;
    let message = if busy || is_void || is_fresh {
        None
    } else if found > capacity {
        return Err(ImageError::DataSize {
            direction,
            found,
            capacity,
        });
    } else {
        let data = &image[place.data as usize..][..found as usize];
        Some(data.to_vec())
    };
    Ok(ChannelDescription {
        sequence,
        data_size: found,
        write_count: tail.write_count.get(),
        read_count: tail.read_count.get(),
        native_waiters: tail.native_waiters.get(),
        native_void: void,
        native_voids: tail.native_voids.get(),
        busy,
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layout: Layout) -> Vec<u8> {
        let mut image = alloc::vec![0; layout.object_len() as usize];
        image[..128].copy_from_slice(&Header::new(100, layout.capacity()).to_bytes());
        image
    }

    #[test]
    fn what_is_not_there_to_be_read() {
        let layout = Layout::new(8).unwrap();
        let place = layout.channel(Direction::SlaveToMaster);
        let (sequence, size) = (place.sequence as usize, place.data_size as usize);
        let message =
            |image: &[u8]| describe(image, &layout).map(|seen| seen.slave_to_master.message);

        let mut image = image(layout);
        assert_eq!(message(&image), Ok(None));
        image[size] = 9;
        assert_eq!(message(&image), Ok(None));
        image[sequence] = 3;
        assert_eq!(message(&image), Ok(None));
        image[sequence] = 4;
        image[place.native_void as usize] = 5;
        assert_eq!(message(&image), Ok(None));
        image[place.native_void as usize] = 7;
        let direction = Direction::SlaveToMaster;
        assert_eq!(
            message(&image),
            Err(ImageError::DataSize {
                direction,
                found: 9,
                capacity: 8
            })
        );
        image[size] = 8;
        assert_eq!(message(&image), Ok(Some(alloc::vec![0; 8])));
        // An empty message is a message, also at sequence 0 after the wrap.
        image[size] = 0;
        assert_eq!(message(&image), Ok(Some(Vec::new())));
        image[sequence] = 0;
        assert_eq!(message(&image), Ok(None));
        image[place.write_count as usize] = 1;
        assert_eq!(message(&image), Ok(Some(Vec::new())));
    }
}
