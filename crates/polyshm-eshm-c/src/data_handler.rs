//! The functions of `libeshm_data.so` (format, section 8.3): the codec alone.
#![allow(
    unsafe_code,
    reason = "functions for C take pointers and have plain names"
)]

use crate::{
    code::caught,
    raw::{self, Arrays, CItem},
    table::Table,
    types::ESHMItemType::ESHM_ITEM_BINARY,
};
use polyshm_eshm::{
    ItemDialect,
    items::{Decoder, encode_refs},
};
use std::{
    cell::Cell,
    ffi::{c_char, c_int, c_void},
    fmt::{self, Display},
    ptr,
};

/// There is nothing to keep: that a handler is there is all.
static DATA_HANDLERS: Table<()> = Table::new();

/// The length of an error's text with its NUL.
const ERROR_LEN: usize = 256;

thread_local! {
    /// Cells: C may hold a pointer to it while it changes.
    static LAST_ERROR: [Cell<c_char>; ERROR_LEN] = const { [const { Cell::new(0) }; ERROR_LEN] };
}

/// Keeps the text of an error, cut to what there is room for, and gives the
/// answer that goes with it.
fn fail(error: &impl Display) -> c_int {
    let text = error.to_string();
    let end = text.floor_char_boundary(ERROR_LEN - 1);
    LAST_ERROR.with(|cells| {
        for (cell, byte) in cells.iter().zip(text.as_bytes()[..end].iter().chain(&[0])) {
            cell.set(c_char::from_ne_bytes([*byte]));
        }
    });
    -1
}

/// Runs a body; its error is kept as the last.
fn answered(body: impl FnOnce() -> Result<c_int, Box<dyn Display>>) -> c_int {
    let panicked = || Err(Box::new("a defect of the library was met") as Box<dyn Display>);
    match caught(None, || Some(body())).unwrap_or_else(panicked) {
        Ok(value) => value,
        Err(error) => caught(-1, || fail(&error)),
    }
}

fn refuse<T>(error: impl Display + 'static) -> Result<T, Box<dyn Display>> {
    Err(Box::new(error))
}

fn boxed(error: impl Display + 'static) -> Box<dyn Display> {
    Box::new(error)
}

/// What C passed cannot be.
struct Invalid;

impl Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pointer is NULL, the handler is none, or a length is negative")
    }
}

fn check(handle: *mut c_void) -> Result<(), Box<dyn Display>> {
    match DATA_HANDLERS.get(handle.addr()) {
        Some(_) => Ok(()),
        None => refuse(Invalid),
    }
}

/// Makes an encoder and decoder of items.
#[unsafe(no_mangle)]
pub extern "C" fn dh_create() -> *mut c_void {
    caught(ptr::null_mut(), || {
        ptr::without_provenance_mut(DATA_HANDLERS.insert(()))
    })
}

/// Ends one. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn dh_destroy(handle: *mut c_void) {
    caught((), || {
        DATA_HANDLERS.remove(handle.addr());
    });
}

/// What the last error of a dh_ function was in this thread; empty when there was none. The text
/// is there until the next error, and as long as the thread.
#[unsafe(no_mangle)]
pub extern "C" fn dh_get_last_error() -> *const c_char {
    // Without a destructor it is there until the thread is gone.
    LAST_ERROR.with(|cells| cells.as_ptr().cast())
}

/// Encodes items as C++ does: for each a type, a key, and a pointer to a value as ESHMItemType says.
/// Types from ESHM_ITEM_EVENT on are refused. Returns the number of bytes, or -1, also when they do
/// not fit.
///
/// # Safety
///
/// Each pointer is NULL or points to what nobody changes meanwhile: types, keys and values to count
/// elements, each key to text with a NUL at its end, each value to what belongs to its type; out to
/// out_size bytes that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dh_encode(
    handle: *mut c_void,
    types: *const u8,
    keys: *const *const c_char,
    values: *const *const c_void,
    count: c_int,
    out: *mut u8,
    out_size: c_int,
) -> c_int {
    answered(|| {
        check(handle)?;
        let (Ok(count), Ok(out_size)) = (usize::try_from(count), usize::try_from(out_size)) else {
            return refuse(Invalid);
        };
        if types.is_null() || keys.is_null() || values.is_null() || out.is_null() {
            return refuse(Invalid);
        }
        // SAFETY: not NULL, and then arrays of `count` elements with what
        // belongs to them, as promised.
        let items = unsafe { raw::items(types, keys, values, count) }.map_err(boxed)?;
        let message = encode_refs(&items, ItemDialect::Native).map_err(boxed)?;
        if message.len() > out_size {
            return refuse(format!(
                "the buffer is too small: {} bytes are needed, it has {out_size}",
                message.len()
            ));
        }
        // SAFETY: not NULL; no more bytes than the caller promises.
        unsafe { raw::store_bytes(out, &message) };
        // No longer than `out_size`.
        Ok(c_int::try_from(message.len()).unwrap_or(c_int::MAX))
    })
}

/// Decodes items, of C++ or of Python, into the arrays as eshm_read_data does. Values of types from
/// ESHM_ITEM_EVENT on are NULL. Returns the number of items, or -1, and then there are no values to
/// be freed.
///
/// # Safety
///
/// Each pointer is NULL or points to memory that nobody else uses meanwhile: buffer to size bytes,
/// types, keys and values to max_items elements, each key to max_key_len bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dh_decode(
    handle: *mut c_void,
    buffer: *const u8,
    size: c_int,
    types: *mut u8,
    keys: *mut *mut c_char,
    max_key_len: c_int,
    values: *mut *mut c_void,
    max_items: c_int,
) -> c_int {
    answered(|| {
        check(handle)?;
        let arrays = Arrays {
            types,
            keys,
            max_key_len,
            values,
        };
        let (Ok(size), Ok(key_len)) = (usize::try_from(size), arrays.check()) else {
            return refuse(Invalid);
        };
        if buffer.is_null() {
            return refuse(Invalid);
        }
        // SAFETY: not NULL, and then `size` bytes, as promised.
        let message = unsafe { raw::bytes(buffer.cast(), size) };
        let items = Decoder::new()
            .lenient(true)
            .decode_refs(message)
            .map_err(boxed)?;
        let Some(count) = c_int::try_from(items.len())
            .ok()
            .filter(|&count| count <= max_items)
        else {
            return refuse(format!(
                "too many items: the message has {}, there is room for {max_items}",
                items.len()
            ));
        };
        let items = items
            .iter()
            .map(CItem::new)
            .collect::<Result<Vec<_>, _>>()
            .map_err(boxed)?;
        // SAFETY: not NULL, and then arrays of at least so many elements, and
        // keys of the checked length or NULL, as promised.
        if unsafe { arrays.fill(items, key_len) }.is_err() {
            return refuse(Invalid);
        }
        Ok(count)
    })
}

/// Frees a value of dh_decode, of that type. NULL is fine.
///
/// # Safety
///
/// value is NULL, or came from dh_decode with that type and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dh_free_value(kind: u8, value: *mut c_void) {
    if kind > ESHM_ITEM_BINARY as u8 {
        // There are none of ours.
        return;
    }
    caught((), || {
        // SAFETY: the caller promises the same.
        unsafe { raw::free_value(kind, value) }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn last_error() -> String {
        // SAFETY: it ends with a NUL and is not changed meanwhile.
        let text = unsafe { CStr::from_ptr(dh_get_last_error()) };
        text.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_last_error_is_cut_and_a_shorter_one_replaces_it() {
        assert_eq!(last_error(), "");
        assert_eq!(fail(&"é".repeat(200)), -1);
        // 254 bytes: no half character.
        assert_eq!(last_error(), "é".repeat(127));
        fail(&"short");
        assert_eq!(last_error(), "short");
        std::thread::spawn(|| assert_eq!(last_error(), ""))
            .join()
            .unwrap();
    }

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(answered(|| panic!("for the test")), -1);
        assert_eq!(last_error(), "a defect of the library was met");
    }
}
