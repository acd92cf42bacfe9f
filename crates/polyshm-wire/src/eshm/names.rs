//! The name of the object (section 1.1).

use alloc::{borrow::ToOwned, string::String};

use super::NameError;

/// Longest name in bytes, before [`object_name`] adds its prefix. The reference
/// cuts longer ones without a word, so that two of them can meet in one object.
pub const MAX_NAME_LEN: usize = 249;

const PREFIX: &str = "eshm_";

/// The object behind `name`, without the slash that `shm_open` wants before it;
/// on Linux, the file in `/dev/shm`.
///
/// Every `/` becomes `_`, as in the reference, so `a/b` and `a_b` are the same
/// object. Nothing else is changed.
///
/// ```
/// use polyshm_wire::eshm::object_name;
///
/// assert_eq!(object_name("demo")?, "eshm_demo");
/// assert_eq!(object_name("/a/b")?, "eshm__a_b");
/// assert!(object_name("").is_err());
/// # Ok::<(), polyshm_wire::eshm::NameError>(())
/// ```
pub fn object_name(name: &str) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let len = name.len();
    if len > MAX_NAME_LEN {
        return Err(NameError::TooLong {
            name: name.to_owned(),
            len,
            max: MAX_NAME_LEN,
        });
    }
    if name.contains('\0') {
        return Err(NameError::Nul {
            name: name.to_owned(),
        });
    }
    let mut object = String::with_capacity(PREFIX.len() + len);
    object.push_str(PREFIX);
    object.extend(name.chars().map(|c| if c == '/' { '_' } else { c }));
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of section 1.1.
    #[test]
    fn names_of_the_table() {
        for (name, object) in [
            ("demo", "eshm_demo"),
            ("a/b", "eshm_a_b"),
            ("/lead", "eshm__lead"),
            ("a//b", "eshm_a__b"),
            ("\u{e9} .", "eshm_\u{e9} ."),
        ] {
            assert_eq!(object_name(name).unwrap(), object);
        }
    }

    #[test]
    fn refused_names() {
        assert_eq!(object_name(""), Err(NameError::Empty));
        assert!(matches!(object_name("a\0b"), Err(NameError::Nul { .. })));
        let longest = object_name(&"x".repeat(249)).unwrap();
        assert_eq!(longest.len(), 254);
        // With the slash and the reference's closing NUL, its whole buffer.
        assert_eq!(longest.len() + 2, 256);
        let error = object_name(&"x".repeat(250)).unwrap_err();
        assert!(matches!(
            error,
            NameError::TooLong {
                len: 250,
                max: 249,
                ..
            }
        ));
        // 125 characters of two bytes each
        assert!(object_name(&"\u{e9}".repeat(125)).is_err());
    }
}
