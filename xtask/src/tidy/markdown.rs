//! The little Markdown that the checks read.

/// A line and whether it stands in a fenced code block; fences themselves are left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) number: usize,
    pub(super) text: &'a str,
    pub(super) code: bool,
}

pub(super) fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut fence: Option<&str> = None;
    for (text, number) in text.lines().zip(1..) {
        let trimmed = text.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            _ => lines.push(Line {
                number,
                text,
                code: fence.is_some(),
            }),
        }
    }
    lines
}

/// The line without its code spans.
pub(super) fn without_code_spans(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('`') {
        let ticks = rest[start..].chars().take_while(|&c| c == '`').count();
        let mark = &rest[start..start + ticks];
        let after = start + ticks;
        let Some(length) = rest[after..].find(mark) else {
            break;
        };
        out.push_str(&rest[..start]);
        // Keeps `[`code`](target)` a link with a text.
        out.push('_');
        rest = &rest[after + length + ticks..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_make_code() {
        let lines = lines("a\n```sh\nb\n~~~\n```\nc");
        let seen: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.text, line.code))
            .collect();
        assert_eq!(
            seen,
            [
                (1, "a", false),
                (3, "b", true),
                (4, "~~~", true),
                (6, "c", false)
            ]
        );
    }

    #[test]
    fn code_spans_are_blanked() {
        assert_eq!(
            without_code_spans("a `[x](y)` [`z`](w) ``a`b`` `open"),
            "a _ [_](w) _ `open"
        );
    }
}
