//! The functions of `libeshm.so` (format, section 8.2).
//!
//! Their comments are those of the header. Each looks up its handle, turns
//! pointers into references, and keeps panics from C.
#![allow(
    unsafe_code,
    reason = "functions for C take pointers and have plain names"
)]

use crate::{
    code::{self, SUCCESS, answered, caught},
    handle::Handle,
    raw::{self, Arrays, CItem},
    table::Table,
    types::{
        ESHMConfig,
        ESHMError::{
            self, ESHM_ERROR_BUFFER_TOO_SMALL, ESHM_ERROR_INVALID_PARAM, ESHM_ERROR_NOT_INITIALIZED,
        },
        ESHMHandle, ESHMRole, ESHMStats,
    },
};
use polyshm_eshm::items::Decoder;
use std::{
    ffi::{c_char, c_int, c_void},
    io::Write as _,
    ptr,
    sync::Arc,
    time::Duration,
};

static HANDLES: Table<Handle> = Table::new();

/// The build option of the reference, at its default.
const DEFAULT_CAPACITY: usize = 4096;

/// How long `eshm_read` waits.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

fn find(handle: *mut ESHMHandle) -> Result<Arc<Handle>, ESHMError> {
    HANDLES.get(handle.addr()).ok_or(ESHM_ERROR_INVALID_PARAM)
}

fn milliseconds(timeout_ms: u32) -> Duration {
    Duration::from_millis(timeout_ms.into())
}

/// # Safety
///
/// As [`raw::settings`].
unsafe fn init(config: *const ESHMConfig, capacity: usize) -> *mut ESHMHandle {
    caught(ptr::null_mut(), || {
        // SAFETY: the caller promises what `settings` asks for.
        let opened = unsafe { raw::settings(config) }
            .and_then(|settings| Handle::open(&settings, capacity as u64));
        match opened {
            Ok(handle) => ptr::without_provenance_mut(HANDLES.insert(handle)),
            Err(error) => {
                // C learns no more than NULL. In one piece, since other processes
                // write there too; and it may be closed.
                let line = format!("[ESHM] {}\n", error.line());
                let _ = std::io::stderr().write_all(line.as_bytes());
                ptr::null_mut()
            }
        }
    })
}

/// Opens an endpoint for messages of up to 4096 bytes. Returns NULL if that cannot be done, and
/// says why on the standard error stream.
///
/// # Safety
///
/// config is NULL or points to an ESHMConfig with all fields set, whose name is NULL or ends with
/// a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_init(config: *const ESHMConfig) -> *mut ESHMHandle {
    // SAFETY: the caller promises the same.
    unsafe { init(config, DEFAULT_CAPACITY) }
}

/// Opens an endpoint for messages of up to capacity bytes, from 1 to 2^30; both sides must use the
/// same. An extension: the original fixes the capacity when it is built.
///
/// # Safety
///
/// As for eshm_init.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_init_with_capacity(
    config: *const ESHMConfig,
    capacity: usize,
) -> *mut ESHMHandle {
    // SAFETY: the caller promises the same.
    unsafe { init(config, capacity) }
}

/// Closes an endpoint. A read of another thread that waits ends, with ESHM_ERROR_NOT_INITIALIZED.
/// The handle is unknown from now on to every function, and never comes again. In a forked child it
/// only forgets the handle: the endpoint is the parent's.
#[unsafe(no_mangle)]
pub extern "C" fn eshm_destroy(handle: *mut ESHMHandle) -> c_int {
    answered(|| {
        let handle = HANDLES
            .remove(handle.addr())
            .ok_or(ESHM_ERROR_INVALID_PARAM)?;
        Handle::close(handle);
        SUCCESS
    })
}

/// Writes a message, which replaces the one before. Never waits for a reader. size may be 0, data
/// may not be NULL.
///
/// # Safety
///
/// data is NULL or points to size bytes that nobody changes meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_write(
    handle: *mut ESHMHandle,
    data: *const c_void,
    size: usize,
) -> c_int {
    answered(|| {
        let handle = find(handle)?;
        if data.is_null() {
            return Err(ESHM_ERROR_INVALID_PARAM);
        }
        // One byte too many is enough to be refused.
        let size = size.min(handle.capacity() + 1);
        // SAFETY: not NULL; no more bytes than the caller promises.
        handle.write(unsafe { raw::bytes(data, size) })
    })
}

/// Reads the next message, waiting up to 1000 ms. Returns its length, which may be 0, or an error.
///
/// # Safety
///
/// buffer is NULL or points to size bytes that nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_read(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    size: usize,
) -> c_int {
    answered(|| {
        // SAFETY: the caller promises the same.
        let len = unsafe { read(handle, buffer, size, READ_TIMEOUT) }?;
        // No message is longer than 2^30 bytes.
        Ok(c_int::try_from(len).unwrap_or(c_int::MAX))
    })
}

/// Reads the next message, waiting up to timeout_ms, not at all with 0. Its length goes to
/// bytes_read unless that is NULL. A message that is longer than the buffer is not taken.
///
/// # Safety
///
/// buffer is NULL or points to size bytes, bytes_read is NULL or points to a size_t, and nobody
/// else uses them meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_read_ex(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    size: usize,
    bytes_read: *mut usize,
    timeout_ms: u32,
) -> c_int {
    answered(|| {
        // SAFETY: the caller promises the same.
        let len = unsafe { read(handle, buffer, size, milliseconds(timeout_ms)) }?;
        if !bytes_read.is_null() {
            // SAFETY: not NULL, and then a `size_t`, as promised.
            unsafe { raw::store(bytes_read, len) };
        }
        SUCCESS
    })
}

/// # Safety
///
/// As [`eshm_read`].
unsafe fn read(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    size: usize,
    timeout: Duration,
) -> Result<usize, ESHMError> {
    let handle = find(handle)?;
    if buffer.is_null() {
        return Err(ESHM_ERROR_INVALID_PARAM);
    }
    let size = size.min(handle.capacity());
    // SAFETY: not NULL; no more bytes than the caller promises.
    handle.read(unsafe { raw::bytes_mut(buffer, size) }, timeout)
}

/// Reads the next message as typed items, waiting up to timeout_ms. Their number goes to
/// item_count, and each item to its place in the arrays: its type; its key, cut to
/// max_key_len - 1 bytes and a NUL, in the buffer that is there; and a new value, to be freed with
/// eshm_free_value.
///
/// With more than max_items items: ESHM_ERROR_BUFFER_TOO_SMALL. With an item that has no form here,
/// or without items: ESHM_ERROR_INVALID_PARAM. The message is taken all the same, and there are no
/// values to be freed.
///
/// # Safety
///
/// Each pointer is NULL or points to memory that nobody else uses meanwhile: types, keys and
/// values to max_items elements, each key to max_key_len bytes, item_count to an int.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_read_data(
    handle: *mut ESHMHandle,
    types: *mut u8,
    keys: *mut *mut c_char,
    max_key_len: c_int,
    values: *mut *mut c_void,
    max_items: c_int,
    item_count: *mut c_int,
    timeout_ms: u32,
) -> c_int {
    answered(|| {
        let handle = find(handle)?;
        let arrays = Arrays {
            types,
            keys,
            max_key_len,
            values,
        };
        let key_len = arrays.check()?;
        if item_count.is_null() {
            return Err(ESHM_ERROR_INVALID_PARAM);
        }
        let message = handle.read_message(milliseconds(timeout_ms))?;
        let items = Decoder::new()
            .lenient(true)
            .decode_refs(&message)
            .map_err(|_| ESHM_ERROR_INVALID_PARAM)?;
        let count = c_int::try_from(items.len())
            .ok()
            .filter(|&count| count <= max_items)
            .ok_or(ESHM_ERROR_BUFFER_TOO_SMALL)?;
        // SAFETY: not NULL, and then an `int`. The arrays are not NULL either,
        // and then have at least so many elements, as promised.
        unsafe {
            raw::store(item_count, count);
            arrays.clear(items.len());
        }
        let items = items
            .iter()
            .map(CItem::new)
            .collect::<Result<Vec<_>, _>>()?;
        if !items.iter().all(CItem::has_value) {
            return Err(ESHM_ERROR_INVALID_PARAM);
        }
        // SAFETY: as above; each key is NULL or has the checked length, as
        // promised.
        unsafe { arrays.fill(items, key_len) }?;
        SUCCESS
    })
}

/// Frees a value of eshm_read_data, of that type. NULL is fine.
///
/// # Safety
///
/// value is NULL, or came from eshm_read_data with that type and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_free_value(value: *mut c_void, kind: u8) {
    caught((), || {
        // SAFETY: the caller promises the same.
        unsafe { raw::free_value(kind, value) }
    });
}

/// Without threads: beats once, and looks at the other side; to be called at least twice in a stale
/// threshold. With threads: ESHM_SUCCESS. ESHM_ERROR_NOT_INITIALIZED if there is nobody to beat for.
#[unsafe(no_mangle)]
pub extern "C" fn eshm_update_heartbeat(handle: *mut ESHMHandle) -> c_int {
    answered(|| {
        find(handle)
            .map_err(|_| ESHM_ERROR_NOT_INITIALIZED)?
            .update_heartbeat()
    })
}

/// Stores whether somebody is at the other side and lives.
///
/// # Safety
///
/// is_alive is NULL or points to a bool that nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_check_remote_alive(
    handle: *mut ESHMHandle,
    is_alive: *mut bool,
) -> c_int {
    answered(|| {
        let handle = find(handle)?;
        if is_alive.is_null() {
            return Err(ESHM_ERROR_INVALID_PARAM);
        }
        // SAFETY: not NULL, and then a `bool`, as promised.
        unsafe { raw::store(is_alive, handle.is_remote_alive()) };
        SUCCESS
    })
}

/// Stores the numbers of both sides; zeros, with ESHM_ERROR_NOT_INITIALIZED, while a slave has no
/// master.
///
/// # Safety
///
/// stats is NULL or points to an ESHMStats that nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_get_stats(handle: *mut ESHMHandle, stats: *mut ESHMStats) -> c_int {
    answered(|| {
        let handle = find(handle)?;
        if stats.is_null() {
            return Err(ESHM_ERROR_INVALID_PARAM);
        }
        let found = handle.stats();
        // SAFETY: not NULL, and then an `ESHMStats`, as promised.
        unsafe { raw::store(stats, found.unwrap_or_default()) };
        found?;
        SUCCESS
    })
}

/// Stores the role: master or slave, never auto.
///
/// # Safety
///
/// role is NULL or points to an ESHMRole that nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_get_role(handle: *mut ESHMHandle, role: *mut ESHMRole) -> c_int {
    answered(|| {
        let handle = find(handle)?;
        if role.is_null() {
            return Err(ESHM_ERROR_INVALID_PARAM);
        }
        // SAFETY: not NULL, and then an `ESHMRole`, as promised.
        unsafe { raw::store(role, handle.role()) };
        SUCCESS
    })
}

/// The text of a code, for ever.
#[unsafe(no_mangle)]
pub extern "C" fn eshm_error_string(error_code: c_int) -> *const c_char {
    code::text(error_code).as_ptr()
}
