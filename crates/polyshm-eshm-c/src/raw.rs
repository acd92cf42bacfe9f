//! Pointers of C, as Rust's references and values and back.
//!
//! One of the three audited modules; the other two hold the functions that C
//! calls, and come here for everything that is behind a pointer.
#![allow(unsafe_code, reason = "C programs pass pointers")]

use crate::{
    settings::{InitError, Settings},
    types::{
        ESHMBinary, ESHMConfig, ESHMDisconnectBehavior,
        ESHMError::{self, ESHM_ERROR_BUFFER_FULL, ESHM_ERROR_INVALID_PARAM},
        ESHMItemType::{
            ESHM_ITEM_BINARY, ESHM_ITEM_BOOLEAN, ESHM_ITEM_INTEGER, ESHM_ITEM_REAL,
            ESHM_ITEM_STRING,
        },
        ESHMRole,
    },
};
use polyshm_eshm::items::{ItemRef, ValueRef};
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    mem,
    ptr::{self, NonNull},
    slice,
};

const INTEGER: u8 = ESHM_ITEM_INTEGER as u8;
const BOOLEAN: u8 = ESHM_ITEM_BOOLEAN as u8;
const REAL: u8 = ESHM_ITEM_REAL as u8;
const STRING: u8 = ESHM_ITEM_STRING as u8;
const BINARY: u8 = ESHM_ITEM_BINARY as u8;

/// Copies a configuration.
///
/// # Safety
///
/// `config` is NULL or points to an `ESHMConfig` whose fields all have values,
/// and its name is NULL or ends with a NUL.
pub(crate) unsafe fn settings(config: *const ESHMConfig) -> Result<Settings, InitError> {
    const { assert!(size_of::<ESHMRole>() == size_of::<c_int>()) };
    const { assert!(size_of::<ESHMDisconnectBehavior>() == size_of::<c_int>()) };
    if config.is_null() {
        return Err(InitError::Null);
    }
    // SAFETY: it is not NULL, so that the caller promises an `ESHMConfig`; its
    // fields are such that any bits will do.
    let config = unsafe { config.read() };
    if config.shm_name.is_null() {
        return Err(InitError::Null);
    }
    // SAFETY: it is not NULL, so that the caller promises a NUL at its end.
    let name = unsafe { CStr::from_ptr(config.shm_name) };
    let number = |field: *const c_int| {
        // SAFETY: the closure is called with the two enumerations below, which
        // have this size, no smaller alignment, and a value, as promised; all
        // bits are numbers.
        unsafe { field.read() }
    };
    let flag = |field: *const u8| {
        // SAFETY: the closure is called with the two booleans below, which are
        // bytes with a value, as promised.
        unsafe { field.read() != 0 }
    };
    Ok(Settings {
        name: name.to_bytes().to_vec(),
        role: number(config.role.as_ptr().cast()),
        disconnect_behavior: number(config.disconnect_behavior.as_ptr().cast()),
        stale_threshold_ms: config.stale_threshold_ms,
        reconnect_wait_ms: config.reconnect_wait_ms,
        reconnect_retry_interval_ms: config.reconnect_retry_interval_ms,
        max_reconnect_attempts: config.max_reconnect_attempts,
        auto_cleanup: flag(config.auto_cleanup.as_ptr().cast()),
        use_threads: flag(config.use_threads.as_ptr().cast()),
    })
}

/// Bytes that C passes in.
///
/// # Safety
///
/// `data` is not NULL and points to `len` bytes that have values and that
/// nobody changes for as long as they are used here.
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    let len = at_most_a_slice(len);
    // SAFETY: not NULL, `len` bytes with values which stay, as promised; bytes
    // have no alignment, and the length is no longer than a slice may be.
    unsafe { slice::from_raw_parts(data.cast(), len) }
}

/// A buffer that C passes in.
///
/// # Safety
///
/// `buffer` is not NULL and points to `len` bytes that have values, as all
/// memory of a C program does, and that nobody else uses meanwhile.
pub(crate) unsafe fn bytes_mut<'a>(buffer: *mut c_void, len: usize) -> &'a mut [u8] {
    let len = at_most_a_slice(len);
    // SAFETY: not NULL, `len` bytes with values for us alone, as promised;
    // bytes have no alignment, and the length is no longer than a slice may be.
    unsafe { slice::from_raw_parts_mut(buffer.cast(), len) }
}

/// No object is longer: a caller that claims so has fewer.
const fn at_most_a_slice(len: usize) -> usize {
    const MOST: usize = isize::MAX as usize;
    if len > MOST { MOST } else { len }
}

/// Stores a result.
///
/// # Safety
///
/// `place` is not NULL and points to memory for a `T` that nobody else uses
/// meanwhile.
pub(crate) unsafe fn store<T>(place: *mut T, value: T) {
    // SAFETY: memory for a `T` that is ours to write, as promised.
    unsafe { place.write(value) }
}

/// Stores bytes.
///
/// # Safety
///
/// `place` is not NULL and points to as many bytes, which nobody else uses
/// meanwhile.
pub(crate) unsafe fn store_bytes(place: *mut u8, bytes: &[u8]) {
    // SAFETY: as many bytes that are ours to write, as promised; they are no
    // part of what this borrows.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) }
}

/// The items that C passes in as three arrays.
///
/// # Safety
///
/// The arrays are not NULL and have `count` elements. Each key is NULL or ends
/// with a NUL; each value is NULL or points to what `ESHMItemType` says of its
/// type. Nobody changes any of it for as long as the items are used.
pub(crate) unsafe fn items<'a>(
    types: *const u8,
    keys: *const *const c_char,
    values: *const *const c_void,
    count: usize,
) -> Result<Vec<ItemRef<'a>>, ItemError> {
    (0..count)
        .map(|at| {
            // SAFETY: `at` is below the number of elements that the caller
            // promises for the three arrays.
            let (kind, key, value) = unsafe {
                (
                    types.add(at).read(),
                    keys.add(at).read(),
                    values.add(at).read(),
                )
            };
            if key.is_null() || value.is_null() {
                return Err(ItemError::Null { at });
            }
            // SAFETY: it is not NULL, so that the caller promises a NUL at its
            // end, and that it stays as it is.
            let key = unsafe { CStr::from_ptr(key) }.to_bytes();
            // SAFETY: it is not NULL, so that the caller promises that it
            // points to what belongs to the type, and that it stays as it is.
            let value = unsafe { value_at(at, kind, value) }?;
            Ok(ItemRef { key, value })
        })
        .collect()
}

/// Why an item of C's is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ItemError {
    #[error("item {at} has no key or no value")]
    Null { at: usize },
    #[error("item {at} is of type {kind}, which has no form in C: use 0 to 4")]
    Kind { at: usize, kind: u8 },
}

/// # Safety
///
/// `value` points to what `ESHMItemType` says of `kind`, and to anything if it
/// does not say. Nobody changes it for as long as the value is used.
unsafe fn value_at<'a>(
    at: usize,
    kind: u8,
    value: *const c_void,
) -> Result<ValueRef<'a>, ItemError> {
    Ok(match kind {
        // SAFETY: an `int64_t`, as promised; where it is aligned for one or not.
        INTEGER => ValueRef::Integer(unsafe { value.cast::<i64>().read_unaligned() }),
        // SAFETY: a `bool`, as promised, which is a byte.
        BOOLEAN => ValueRef::Boolean(unsafe { value.cast::<u8>().read() } != 0),
        // SAFETY: a `double`, as promised; where it is aligned for one or not.
        REAL => ValueRef::Real(unsafe { value.cast::<f64>().read_unaligned() }),
        // SAFETY: characters with a NUL at the end that stay, as promised.
        STRING => ValueRef::String(unsafe { CStr::from_ptr(value.cast()) }.to_bytes()),
        BINARY => {
            // SAFETY: an `ESHMBinary`, as promised; any bits are valid for it.
            let binary = unsafe { value.cast::<ESHMBinary>().read_unaligned() };
            match (binary.data.is_null(), binary.len) {
                (_, 0) => ValueRef::Binary(&[]),
                (true, _) => return Err(ItemError::Null { at }),
                // SAFETY: it is not NULL, so that the caller promises that many
                // bytes behind it, which stay.
                (false, len) => ValueRef::Binary(unsafe { bytes(binary.data.cast(), len) }),
            }
        }
        _ => return Err(ItemError::Kind { at, kind }),
    })
}

/// An item in the form in which C gets it.
#[derive(Debug)]
pub(crate) struct CItem<'a> {
    kind: u8,
    key: &'a [u8],
    /// `None` where the type has no form in C.
    value: Option<CValue>,
}

impl<'a> CItem<'a> {
    pub(crate) fn new(item: &ItemRef<'a>) -> Result<Self, OutOfMemory> {
        Ok(Self {
            kind: item.value.kind().into(),
            key: item.key,
            value: CValue::new(&item.value)?,
        })
    }

    pub(crate) fn has_value(&self) -> bool {
        self.value.is_some()
    }
}

/// The C library has no memory.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("there is no memory for the values")]
pub(crate) struct OutOfMemory;

impl From<OutOfMemory> for ESHMError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        ESHM_ERROR_BUFFER_FULL
    }
}

/// A value in memory of the C library's; freed unless it is handed over.
#[derive(Debug)]
struct CValue {
    kind: u8,
    pointer: NonNull<c_void>,
}

impl CValue {
    fn new(value: &ValueRef<'_>) -> Result<Option<Self>, OutOfMemory> {
        let pointer = match *value {
            ValueRef::Integer(value) => allocate(&[&value.to_ne_bytes()])?,
            ValueRef::Boolean(value) => allocate(&[&[value.into()]])?,
            ValueRef::Real(value) => allocate(&[&value.to_ne_bytes()])?,
            ValueRef::String(text) => allocate(&[text, &[0]])?,
            ValueRef::Binary(data) => {
                // If the second fails, dropping this frees the first.
                let bytes = Self {
                    kind: STRING,
                    pointer: allocate(&[data])?,
                };
                let place = malloc(size_of::<ESHMBinary>())?.cast::<ESHMBinary>();
                let binary = ESHMBinary {
                    data: bytes.into_raw().cast(),
                    len: data.len(),
                };
                // SAFETY: fresh memory of its size, aligned for everything as
                // all of the C library's is.
                unsafe { place.write(binary) };
                place.cast()
            }
            ValueRef::Event { .. }
            | ValueRef::FunctionCall { .. }
            | ValueRef::ImageFrame { .. } => {
                return Ok(None);
            }
        };
        Ok(Some(Self {
            kind: value.kind().into(),
            pointer,
        }))
    }

    /// From here on whoever has the pointer frees it.
    fn into_raw(self) -> *mut c_void {
        let pointer = self.pointer.as_ptr();
        mem::forget(self);
        pointer
    }
}

impl Drop for CValue {
    fn drop(&mut self) {
        // SAFETY: made in `new` with this type, and not handed over: `into_raw`
        // forgets what it hands over.
        unsafe { free_value(self.kind, self.pointer.as_ptr()) }
    }
}

/// These bytes one behind the other, in memory of the C library's; never none.
fn allocate(parts: &[&[u8]]) -> Result<NonNull<c_void>, OutOfMemory> {
    let len = parts.iter().map(|part| part.len()).sum();
    let place = malloc(len)?;
    let mut end = place.as_ptr().cast::<u8>();
    for part in parts {
        // SAFETY: `end` has room for this part and all that follow, which
        // together are as long as the fresh memory; that cannot overlap a part.
        // Moving on by the part's length leads at most to the memory's end.
        unsafe {
            ptr::copy_nonoverlapping(part.as_ptr(), end, part.len());
            end = end.add(part.len());
        }
    }
    Ok(place)
}

fn malloc(len: usize) -> Result<NonNull<c_void>, OutOfMemory> {
    // SAFETY: takes any length; without one it may give NULL for success, and is
    // therefore asked for a byte.
    NonNull::new(unsafe { libc::malloc(len.max(1)) }).ok_or(OutOfMemory)
}

/// Frees a value.
///
/// # Safety
///
/// `pointer` is NULL, or was handed over with the type `kind`, or with any that
/// is not binary if that is not either, and was not freed.
pub(crate) unsafe fn free_value(kind: u8, pointer: *mut c_void) {
    if kind == BINARY && !pointer.is_null() {
        // SAFETY: made as an `ESHMBinary` in `CValue::new` and not freed, as
        // promised; its data were made there too, and go with it only.
        unsafe { libc::free(pointer.cast::<ESHMBinary>().read().data.cast()) }
    }
    // SAFETY: NULL, or from `malloc` and not freed, as promised.
    unsafe { libc::free(pointer) }
}

/// The arrays in which C wants items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrays {
    pub(crate) types: *mut u8,
    pub(crate) keys: *const *mut c_char,
    pub(crate) max_key_len: c_int,
    pub(crate) values: *mut *mut c_void,
}

impl Arrays {
    /// The length of every key's buffer, if nothing that is needed lacks.
    pub(crate) fn check(&self) -> Result<usize, ESHMError> {
        let key_len = usize::try_from(self.max_key_len).unwrap_or(0);
        if self.types.is_null() || self.keys.is_null() || self.values.is_null() || key_len == 0 {
            return Err(ESHM_ERROR_INVALID_PARAM);
        }
        Ok(key_len)
    }

    /// Sets values to NULL, so that the caller may free them whatever comes.
    ///
    /// # Safety
    ///
    /// The arrays passed [`check`](Self::check) and have `count` elements.
    pub(crate) unsafe fn clear(&self, count: usize) {
        for at in 0..count {
            // SAFETY: `at` is below the number of elements, as promised.
            unsafe { self.values.add(at).write(ptr::null_mut()) };
        }
    }

    /// Hands over items, all or none: none if a key has no buffer.
    ///
    /// # Safety
    ///
    /// The arrays passed [`check`](Self::check), and have as many elements as
    /// there are items. Each key is NULL or has the length that was checked.
    /// Nobody else uses any of it meanwhile.
    pub(crate) unsafe fn fill(
        self,
        items: Vec<CItem<'_>>,
        key_len: usize,
    ) -> Result<(), ESHMError> {
        let key = |at| {
            // SAFETY: the closure is called with numbers of items, of which
            // there are no more than elements, as promised.
            unsafe { self.keys.add(at).read() }
        };
        if (0..items.len()).any(|at| key(at).is_null()) {
            return Err(ESHM_ERROR_INVALID_PARAM);
        }
        for (at, item) in items.into_iter().enumerate() {
            let text = cut(item.key, key_len);
            let value = item.value.map_or(ptr::null_mut(), CValue::into_raw);
            // SAFETY: `at` is below the number of elements of the two arrays, as
            // promised. The key is not NULL and then has `key_len` bytes, as
            // promised, which are more than `text` has.
            unsafe {
                self.types.add(at).write(item.kind);
                self.values.add(at).write(value);
                let key = key(at).cast::<u8>();
                store_bytes(key, text);
                key.add(text.len()).write(0);
            }
        }
        Ok(())
    }
}

/// What C reads of a text in a buffer of that length, which is not 0.
fn cut(text: &[u8], buffer: usize) -> &[u8] {
    let end = text.iter().position(|&byte| byte == 0);
    &text[..end.unwrap_or(text.len()).min(buffer - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_cut_where_c_would_stop() {
        assert_eq!(cut(b"key", 4), b"key");
        assert_eq!(cut(b"key", 3), b"ke");
        assert_eq!(cut(b"key", 1), b"");
        assert_eq!(cut(b"k\0y", 8), b"k");
        assert_eq!(cut(b"", 8), b"");
    }

    fn item<'a>(key: &'a [u8], value: ValueRef<'a>) -> CItem<'a> {
        CItem::new(&ItemRef { key, value }).unwrap()
    }

    fn items_of_each_form() -> Vec<CItem<'static>> {
        vec![
            item(b"integer", ValueRef::Integer(i64::MIN)),
            item(b"boolean", ValueRef::Boolean(true)),
            item(b"real", ValueRef::Real(-1.5)),
            item(b"string", ValueRef::String(b"a\0b")),
            item(b"binary", ValueRef::Binary(&[0, 7, 14])),
            item(b"empty", ValueRef::Binary(&[])),
            item(
                b"frame",
                ValueRef::ImageFrame {
                    width: 1,
                    height: 1,
                    channels: 1,
                    timestamp_ns: 0,
                    data: &[0],
                },
            ),
        ]
    }

    #[test]
    fn items_go_out_and_come_in_again() {
        let mut types = [9_u8; 8];
        let mut texts = [[1 as c_char; 8]; 8];
        let keys = texts.each_mut().map(|text| text.as_mut_ptr());
        let mut values = [ptr::null_mut(); 8];
        let arrays = Arrays {
            types: types.as_mut_ptr(),
            keys: keys.as_ptr(),
            max_key_len: 8,
            values: values.as_mut_ptr(),
        };
        assert_eq!(arrays.check(), Ok(8));
        // SAFETY: eight elements each, and keys of eight bytes.
        unsafe { arrays.fill(items_of_each_form(), 8) }.unwrap();
        assert_eq!(types, [0, 1, 2, 3, 4, 4, 7, 9]);
        assert!(values[6].is_null() && values[7].is_null());

        // SAFETY: the first six were just filled.
        let again = unsafe {
            items(
                types.as_ptr(),
                keys.as_ptr().cast(),
                values.as_ptr().cast(),
                6,
            )
        };
        let wanted = [
            ("integer", ValueRef::Integer(i64::MIN)),
            ("boolean", ValueRef::Boolean(true)),
            ("real", ValueRef::Real(-1.5)),
            // A string of C's has no NUL in it.
            ("string", ValueRef::String(b"a")),
            ("binary", ValueRef::Binary(&[0, 7, 14])),
            ("empty", ValueRef::Binary(&[])),
        ]
        .map(|(key, value)| ItemRef {
            key: key.as_bytes(),
            value,
        });
        assert_eq!(again.unwrap(), wanted);

        for (kind, value) in types.into_iter().zip(values) {
            // SAFETY: handed over above with this type, once.
            unsafe { free_value(kind, value) };
        }
    }

    #[test]
    fn without_a_place_for_a_key_nothing_is_handed_over() {
        let mut types = [9_u8; 8];
        let mut text = [1 as c_char; 8];
        let mut keys = [text.as_mut_ptr(); 8];
        keys[3] = ptr::null_mut();
        let mut values = [ptr::dangling_mut(); 8];
        let arrays = Arrays {
            types: types.as_mut_ptr(),
            keys: keys.as_ptr(),
            max_key_len: 8,
            values: values.as_mut_ptr(),
        };
        // SAFETY: eight elements each, and keys of eight bytes or NULL.
        let refused = unsafe {
            arrays.clear(7);
            arrays.fill(items_of_each_form(), 8)
        };
        assert_eq!(refused, Err(ESHM_ERROR_INVALID_PARAM));
        assert_eq!(types, [9; 8]);
        assert!(values[..7].iter().all(|value| value.is_null()));
        assert!(!values[7].is_null());
    }

    #[test]
    fn arrays_that_lack_are_refused() {
        let mut kind = 0;
        let mut text = 0;
        let key: *mut c_char = &raw mut text;
        let mut value = ptr::null_mut();
        let right = Arrays {
            types: &raw mut kind,
            keys: &raw const key,
            max_key_len: 1,
            values: &raw mut value,
        };
        assert_eq!(right.check(), Ok(1));
        for wrong in [
            Arrays {
                types: ptr::null_mut(),
                ..right
            },
            Arrays {
                keys: ptr::null(),
                ..right
            },
            Arrays {
                values: ptr::null_mut(),
                ..right
            },
            Arrays {
                max_key_len: 0,
                ..right
            },
            Arrays {
                max_key_len: -1,
                ..right
            },
        ] {
            assert_eq!(wrong.check(), Err(ESHM_ERROR_INVALID_PARAM));
        }
    }

    #[test]
    fn items_that_lack_are_refused() {
        let key = c"k".as_ptr();
        let number = 1_i64;
        let value: *const c_void = (&raw const number).cast();
        let nothing = ESHMBinary {
            data: ptr::null_mut(),
            len: 1,
        };
        let nothing: *const c_void = (&raw const nothing).cast();
        for (kind, key, value, wanted) in [
            (0, ptr::null(), value, ItemError::Null { at: 0 }),
            (0, key, ptr::null(), ItemError::Null { at: 0 }),
            (4, key, nothing, ItemError::Null { at: 0 }),
            (5, key, value, ItemError::Kind { at: 0, kind: 5 }),
            (255, key, value, ItemError::Kind { at: 0, kind: 255 }),
        ] {
            // SAFETY: arrays of one element, with what belongs to the type.
            let refused = unsafe { items(&raw const kind, &raw const key, &raw const value, 1) };
            assert_eq!(refused.unwrap_err(), wanted);
        }
    }
}
