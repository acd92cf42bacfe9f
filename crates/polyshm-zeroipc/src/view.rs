//! Arrays as `ndarray` arrays: copies and live views.
//!
//! The only module of this crate with unsafe code: a view borrows shared bytes.
#![allow(
    unsafe_code,
    reason = "a live view lends the array's bytes; see `Array::view`"
)]

use crate::{
    array::{Array, RawArray},
    dynamic::DynArray,
    element::{Element, shape},
    error::{Error, Label},
};
use ndarray::{Array1, ArrayView1};
use polyshm_platform::LentBytes;
use polyshm_wire::zeroipc::ImageError;

/// An array's bytes, borrowed for a view.
///
/// Keeps the loan; [`ArrayLoan::view`] shows it as an `ndarray` array.
#[derive(Debug)]
pub struct ArrayLoan<'a, T> {
    bytes: LentBytes<'a>,
    _element: std::marker::PhantomData<&'a [T]>,
}

impl<T: Element> ArrayLoan<'_, T> {
    /// The elements where they are.
    ///
    /// Empty only if the array's start is not aligned for `T`, which the format
    /// does not let happen for alignments up to 8.
    pub fn view(&self) -> ArrayView1<'_, T> {
        let elements = <[T] as zerocopy::FromBytes>::ref_from_bytes_with_elems(
            &self.bytes,
            self.bytes.len() / size_of::<T>(),
        );
        ArrayView1::from(elements.unwrap_or(&[]))
    }
}

impl<T: Element> Array<T> {
    /// A copy as an `ndarray` array: the safe way to calculate with it.
    pub fn to_ndarray(&self) -> Array1<T> {
        Array1::from_vec(self.to_vec())
    }

    /// Lends the elements where they are, without a copy.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use polyshm_zeroipc::{Array, Memory};
    ///
    /// let name = format!("polyshm-doc-view-{}", std::process::id());
    /// let memory = Memory::create_new(&name, 1 << 16)?;
    /// let data = Array::<f32>::create(&memory, "data", 4)?;
    /// data.write(0, &[1.0, 2.0, 3.0, 4.0]).expect("inside");
    /// // SAFETY: no other process knows the segment, and this one stores nothing.
    /// let loan = unsafe { data.lend() }.expect("it is mapped");
    /// assert_eq!(loan.view().mean(), Some(2.5));
    /// memory.unlink()?;
    /// # }
    /// # Ok::<(), polyshm_zeroipc::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The entry does not lie inside the mapping; does not happen to an array
    /// that could be opened.
    ///
    /// # Safety
    ///
    /// For as long as the loan lives no process and no thread stores to the
    /// array, and what was stored before happened before this call. Rust takes
    /// lent bytes to be constant; the format has nothing that makes others keep
    /// to it. [`Array::to_ndarray`] needs no such promise.
    pub unsafe fn lend(&self) -> Result<ArrayLoan<'_, T>, Error> {
        let data = self.raw().data();
        // SAFETY: the caller promises what `Bytes::lend` asks for: nobody stores
        // to these bytes until the loan is dropped.
        let bytes = unsafe { data.lend(0, data.len()) }.map_err(|_| self.raw().gone())?;
        Ok(ArrayLoan {
            bytes,
            _element: std::marker::PhantomData,
        })
    }
}

impl RawArray {
    fn gone(&self) -> Error {
        Error::Unusable {
            on: self.label().clone(),
            reason: "its bytes are not mapped",
        }
    }
}

impl DynArray {
    /// A copy as an `ndarray` array of `T`, which must have the size of the
    /// element type.
    ///
    /// # Errors
    ///
    /// It has another size.
    pub fn to_ndarray<T: Element>(&self) -> Result<Array1<T>, Error> {
        let (size, _) = shape::<T>();
        let on: Label = self.raw().label().clone();
        let expected = self.dtype().size() as u64;
        if size != expected {
            return Err(Error::Structure {
                on,
                source: ImageError::ElementSize {
                    structure: RawArray::WHAT,
                    found: expected,
                    expected: size,
                },
            });
        }
        let mut elements = vec![T::new_zeroed(); self.len()];
        let into = zerocopy::IntoBytes::as_mut_bytes(elements.as_mut_slice());
        // As many bytes as the array has.
        let _ = self.raw().read(0, into, size as usize);
        Ok(Array1::from_vec(elements))
    }
}
