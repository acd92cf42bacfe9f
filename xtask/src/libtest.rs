//! Counts of tests, read from the output of `cargo test` as it passes.
//!
//! Our tests re-execute their own binary as peers, and such a child may print a `test result:` of
//! its own. So a binary's count is the last result whose sum equals the number that the binary
//! announced first (`running 12 tests`), between the headings that cargo prints per binary.

use std::ops::AddAssign;

/// Tests by their result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// The output between two of cargo's headings.
#[derive(Debug)]
struct Block {
    title: String,
    /// rustdoc runs merged and standalone tests apart, so each result counts.
    doc: bool,
    /// What `running N tests` announced and no result has met yet (doc), or announced first.
    announced: Option<u64>,
    result: Option<Counts>,
}

/// Takes lines of output, gives counts.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    block: Option<Block>,
    total: Counts,
    unfinished: Vec<String>,
}

impl Parser {
    pub(crate) fn line(&mut self, line: &str) {
        let line = without_colour(line);
        let line = line.trim();
        if let Some((title, doc)) = heading(line) {
            self.close();
            self.block = Some(Block {
                title,
                doc,
                announced: None,
                result: None,
            });
        } else if let Some(tests) = announcement(line) {
            let block = self.block();
            if block.doc || block.announced.is_none() {
                block.announced = Some(tests);
            }
        } else if let Some((counts, sum)) = result(line) {
            let block = self.block();
            if block.doc {
                let mut all = block.result.unwrap_or_default();
                all += counts;
                block.result = Some(all);
                block.announced = None;
            } else if block.announced == Some(sum) {
                block.result = Some(counts);
            }
        }
    }

    /// The counts, and the binaries that announced tests but gave no result.
    pub(crate) fn finish(mut self) -> (Counts, Vec<String>) {
        self.close();
        (self.total, self.unfinished)
    }

    fn block(&mut self) -> &mut Block {
        self.block.get_or_insert_with(|| Block {
            title: "the test binary".to_owned(),
            doc: false,
            announced: None,
            result: None,
        })
    }

    fn close(&mut self) {
        let Some(block) = self.block.take() else {
            return;
        };
        if let Some(counts) = block.result {
            self.total += counts;
        }
        let died = if block.doc {
            block.announced.is_some()
        } else {
            block.result.is_none()
        };
        if died && block.announced.is_some() {
            self.unfinished.push(block.title);
        }
    }
}

/// `Running tests/a.rs (target/debug/deps/a-0f)` or `Doc-tests name`.
fn heading(line: &str) -> Option<(String, bool)> {
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some((format!("the documentation tests of {name}"), true));
    }
    let rest = line.strip_prefix("Running ")?;
    let (target, binary) = rest.rsplit_once(" (")?;
    // Every crate has a `src/lib.rs`; the binary's name tells which.
    let binary = binary.strip_suffix(')')?.rsplit(['/', '\\']).next()?;
    Some((format!("{target} ({binary})"), false))
}

/// `running 12 tests`.
fn announcement(line: &str) -> Option<u64> {
    let (number, noun) = line.strip_prefix("running ")?.split_once(' ')?;
    matches!(noun, "test" | "tests").then(|| number.parse().ok())?
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`, and the sum
/// of what ran.
fn result(line: &str) -> Option<(Counts, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, rest) = rest.split_once(". ")?;
    let mut counts = Counts::default();
    let mut measured = 0;
    for part in rest.split("; ") {
        let Some((number, what)) = part.split_once(' ') else {
            continue;
        };
        let slot = match what {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            "ignored" => &mut counts.ignored,
            "measured" => &mut measured,
            _ => continue,
        };
        *slot = number.parse().ok()?;
    }
    Some((
        counts,
        counts.passed + counts.failed + counts.ignored + measured,
    ))
}

/// The line without terminal escape sequences.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // ESC [ parameters final-letter
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(output: &str) -> (Counts, Vec<String>) {
        let mut parser = Parser::default();
        output.lines().for_each(|line| parser.line(line));
        parser.finish()
    }

    fn counts(passed: u64, failed: u64, ignored: u64) -> Counts {
        Counts {
            passed,
            failed,
            ignored,
        }
    }

    #[test]
    fn binaries_are_summed() {
        let (total, unfinished) = parse(
            "\u{1b}[1m\u{1b}[32m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/a-0)\n\
             \n\
             running 3 tests\n\
             test a ... ok\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             \x20    Running tests/b.rs (target/debug/deps/b-0)\n\
             running 1 test\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s\n",
        );
        assert_eq!(total, counts(2, 1, 1));
        assert!(unfinished.is_empty());
    }

    #[test]
    fn results_of_reexecuted_children_do_not_count() {
        let (total, unfinished) = parse(
            "     Running tests/peers.rs (target/debug/deps/peers-0)\n\
             running 2 tests\n\
             running 1 test\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.00s\n\
             running 1 test\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
        );
        assert_eq!(total, counts(2, 0, 0));
        assert!(unfinished.is_empty());
    }

    #[test]
    fn a_binary_that_died_is_named() {
        let (total, unfinished) = parse(
            "     Running tests/died.rs (target/debug/deps/died-0)\n\
             running 2 tests\n\
             error: test failed, to rerun pass `--test died`\n\
             \x20    Running tests/b.rs (target/debug/deps/b-0)\n\
             running 0 tests\n\
             test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(total, counts(0, 0, 0));
        assert_eq!(unfinished, ["tests/died.rs (died-0)"]);
    }

    #[test]
    fn merged_and_standalone_documentation_tests_are_summed() {
        let (total, unfinished) = parse(
            "   Doc-tests polyshm\n\
             running 5 tests\n\
             test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             running 2 tests\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
        );
        assert_eq!(total, counts(6, 0, 1));
        assert!(unfinished.is_empty());
    }

    #[test]
    fn binaries_without_libtest_count_nothing() {
        let (total, unfinished) =
            parse("     Running benches/x.rs (target/debug/deps/x-0)\nTesting a\nSuccess\n");
        assert_eq!(total, counts(0, 0, 0));
        assert!(unfinished.is_empty());
    }

    #[test]
    fn other_lines_are_not_results() {
        assert_eq!(result("test result of something"), None);
        assert_eq!(result("test result: ok. many passed; 0 failed"), None);
        assert_eq!(announcement("running late for tests"), None);
        assert_eq!(heading("Running `target/release/paired --smoke`"), None);
    }
}
