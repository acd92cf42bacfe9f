//! Text fields: a limit in characters, and bytes that may not be UTF-8
//! (section 3.3).

use alloc::string::String;

/// The part of a text that a field of `max_chars` characters keeps, and whether
/// that is less than all of it (section 3.3).
///
/// Characters are Unicode code points, as Python counts them.
///
/// ```
/// use polyshm_wire::slots::text_prefix;
///
/// assert_eq!(text_prefix("größer", 6), ("größer", false));
/// assert_eq!(text_prefix("größer", 4), ("größ", true));
/// ```
pub fn text_prefix(text: &str, max_chars: u32) -> (&str, bool) {
    // No text has more characters than bytes.
    if text.len() as u64 <= u64::from(max_chars) {
        return (text, false);
    }
    match text.char_indices().nth(max_chars as usize) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

/// Appends bytes that should be UTF-8, and leaves out what is not, as Python
/// does with `errors="ignore"` (section 3.3).
///
/// ```
/// use polyshm_wire::slots::push_text_lossy;
///
/// let mut text = String::new();
/// push_text_lossy(&mut text, b"caf\xc3\xa9 \xff\xe2\x82ok");
/// assert_eq!(text, "café ok");
/// ```
pub fn push_text_lossy(into: &mut String, bytes: &[u8]) {
    // Both decoders drop a start byte with the continuation bytes that may
    // follow it, and then look at the next byte anew.
    for chunk in bytes.utf8_chunks() {
        into.push_str(chunk.valid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (text, max, kept, truncated) in [
            ("", 1, "", false),
            ("abcd", 4, "abcd", false),
            ("abcde", 4, "abcd", true),
            ("a\0b", 2, "a\0", true),
            ("😀😀", 1, "😀", true),
            ("😀", 1, "😀", false),
            // One grapheme, two code points.
            ("e\u{301}", 1, "e", true),
            ("é", u32::MAX, "é", false),
        ] {
            assert_eq!(text_prefix(text, max), (kept, truncated), "{text:?}");
        }
    }

    /// What `bytes.decode("utf-8", errors="ignore")` gives.
    #[test]
    fn malformed_text_as_python_drops_it() {
        for (bytes, text) in [
            (&b"a\x80b"[..], "ab"),
            (b"\xc0\xafz", "z"),
            (b"\xe0\x80\x80z", "z"),
            (b"\xed\xa0\x80z", "z"),
            (b"\xf4\x90\x80\x80z", "z"),
            (b"\xe2\x82", ""),
            (b"\xe2\x28\xa1", "("),
            (b"\xf0\x9f\x98a\xf0\x9f\x98\x80", "a😀"),
            (b"\xf8\x88\x80\x80\x80z", "z"),
            (b"\xc3\xc3\xa9", "é"),
            (b"\xff\xfe\x00", "\0"),
        ] {
            let mut into = String::from("+");
            push_text_lossy(&mut into, bytes);
            assert_eq!(&into[1..], text, "{bytes:x?}");
        }
    }
}
