//! Rust source without its comments and literals.

/// The source with comments, strings and characters blanked; lines stay where they are.
pub(super) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at);
        if end > at {
            out.extend(
                chars[at..end]
                    .iter()
                    .map(|&c| if c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        } else if is_word(chars[at]) {
            // A whole word, so that the r of `for` does not start a raw string.
            let start = at;
            while at < chars.len() && is_word(chars[at]) {
                at += 1;
            }
            out.extend(&chars[start..at]);
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Whether `word` occurs in the line as a whole word.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.split(|c| !is_word(c)).any(|found| found == word)
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Where the comment or literal that starts at `at` ends.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let next = |offset: usize| chars.get(at + offset).copied();
    match chars[at] {
        '/' if next(1) == Some('/') => Some(line_end(chars, at)),
        '/' if next(1) == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(string_end(chars, at + 1)),
        '\'' => char_end(chars, at),
        'b' | 'c' | 'r' => prefixed_string_end(chars, at),
        _ => None,
    }
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..]
        .iter()
        .position(|&c| c == '\n')
        .map_or(chars.len(), |length| at + length)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => {
                depth += 1;
                at += 2;
            }
            ('*', '/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

/// `at` is after the opening quote.
fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal; a lifetime is code.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        let close = chars.get(at + 3..)?.iter().position(|&c| c == '\'')?;
        return Some(at + 3 + close + 1);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

/// `b"`, `c"`, `r"`, `br#"`, `b'` and the like; a raw identifier is code.
fn prefixed_string_end(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start;
    if matches!(chars[at], 'b' | 'c') {
        at += 1;
    }
    match chars.get(at)? {
        '"' => return Some(string_end(chars, at + 1)),
        '\'' if chars[start] == 'b' => return char_end(chars, at),
        'r' => at += 1,
        _ => return None,
    }
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    while at < chars.len() {
        let closed = chars[at] == '"'
            && chars[at + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes;
        if closed {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(chars.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        code_only(source)
            .split(|c| !is_word(c))
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(words("a // x\nb /* x /* x */ x */ c"), ["a", "b", "c"]);
        assert_eq!(words(r#"a "x \" x" b"#), ["a", "b"]);
        assert_eq!(
            words(r##"a r#"x " x"# b br"x\" c c"x" d b"x" e"##),
            ["a", "b", "c", "d", "e"]
        );
        assert_eq!(
            words(r"a 'x' b '\'' c '\u{1}' d b'x' e"),
            ["a", "b", "c", "d", "e"]
        );
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(words("f<'a>(x: &'a str)"), ["f", "a", "x", "a", "str"]);
        assert_eq!(words("r#type for\"x\""), ["r", "type", "for"]);
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = "a\n/* \n */ b\n\"\n\"\nc";
        assert_eq!(code_only(source).lines().count(), source.lines().count());
    }

    #[test]
    fn unclosed_literals_end_with_the_source() {
        assert_eq!(words("a \"x"), ["a"]);
        assert_eq!(words("a /* x"), ["a"]);
        assert_eq!(words("a r#\"x"), ["a"]);
        assert_eq!(words("a \"x\\"), ["a"]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("pub unsafe fn f()", "unsafe"));
        assert!(!has_word("#![deny(unsafe_code)]", "unsafe"));
    }
}
