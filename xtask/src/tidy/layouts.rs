//! The layout tables of the protocol pages against the structs.
//!
//! A checked table follows a comment line `<!-- layout: zerobuffer::Oieb -->` and begins with the
//! columns Offset (`0x28`), Type (`u64`, `4 x u8`) and Field (in backticks); more may follow.

use std::{fs, mem::offset_of};

use anyhow::{Context as _, Result};
use polyshm_wire::{
    eshm::{ChannelHead, ChannelTail, Header},
    slots::{ChangesHead, CursorLine, Footer, Meta, ReaderLine, WriterLine},
    zerobuffer::{FrameHeader, Oieb},
    zeroipc::{
        BarrierImage, ChannelHeader, ChannelSync, Entry, EventImage, FutureHeader, LatchImage,
        LazyBoolImage, MapHeader, PoolHeader, QueueHeader, RingHeader, RwLockImage, SemaphoreImage,
        SetHeader, StackHeader, StreamHeader, StreamVoid, TableHeader,
    },
};

use super::Problems;
use crate::run::Workspace;

/// A field as the code has it or a table says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: String,
    offset: usize,
    size: usize,
}

/// A struct of polyshm-wire.
#[derive(Debug)]
struct Layout {
    /// As written in the comment.
    name: &'static str,
    /// The page that must have its table.
    page: &'static str,
    size: usize,
    fields: Vec<Field>,
}

/// A table, as written.
#[derive(Debug)]
struct Table {
    name: String,
    line: usize,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    line: usize,
    /// The field, or what cannot be read.
    field: Result<Field, String>,
}

/// Lists a struct's fields; leaving one out does not compile.
macro_rules! layout {
    ($page:literal, $name:expr, $type:ident { $($field:ident),* $(,)? }) => {{
        let complete = |value: &$type| {
            let $type { $($field: _),* } = value;
        };
        // Only its type check matters.
        let _ = complete;
        Layout {
            name: $name,
            page: $page,
            size: size_of::<$type>(),
            fields: vec![$(Field {
                name: stringify!($field).to_owned(),
                offset: offset_of!($type, $field),
                size: size_of_field(|value: &$type| &value.$field),
            }),*],
        }
    }};
}

/// As `layout`, with the page and the name that all of them share.
macro_rules! eshm {
    ($type:ident { $($field:ident),* $(,)? }) => {
        layout!(
            "docs/protocols/eshm.md",
            concat!("eshm::", stringify!($type)),
            $type { $($field),* }
        )
    };
}

macro_rules! slots {
    ($type:ident { $($field:ident),* $(,)? }) => {
        layout!(
            "docs/protocols/slots.md",
            concat!("slots::", stringify!($type)),
            $type { $($field),* }
        )
    };
}

macro_rules! zeroipc {
    ($type:ident { $($field:ident),* $(,)? }) => {
        layout!(
            "docs/protocols/zeroipc.md",
            concat!("zeroipc::", stringify!($type)),
            $type { $($field),* }
        )
    };
}

fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

fn layouts() -> Vec<Layout> {
    let mut layouts = zerobuffer();
    layouts.extend(zeroipc_containers());
    layouts.extend(zeroipc_words());
    layouts.extend(eshm());
    layouts.extend(slots());
    layouts
}

fn zerobuffer() -> Vec<Layout> {
    vec![
        layout!(
            "docs/protocols/zerobuffer.md",
            "zerobuffer::Oieb",
            Oieb {
                oieb_size,
                version,
                metadata_size,
                metadata_free_bytes,
                metadata_written_bytes,
                payload_size,
                payload_free_bytes,
                payload_write_pos,
                payload_read_pos,
                payload_written_count,
                payload_read_count,
                writer_pid,
                reader_pid,
                reserved,
            }
        ),
        layout!(
            "docs/protocols/zerobuffer.md",
            "zerobuffer::FrameHeader",
            FrameHeader {
                payload_size,
                sequence,
            }
        ),
    ]
}

/// The header, and what is before and behind a channel's data.
fn eshm() -> Vec<Layout> {
    vec![
        eshm!(Header {
            magic,
            version,
            master_heartbeat,
            slave_heartbeat,
            master_pid,
            slave_pid,
            master_alive,
            slave_alive,
            stale_threshold,
            master_generation,
            native_capacity,
            native_master_mark,
            native_slave_mark,
            padding
        }),
        eshm!(ChannelHead {
            sequence,
            data_size
        }),
        eshm!(ChannelTail {
            write_count,
            read_count,
            native_waiters,
            native_void,
            native_voids,
            padding
        }),
    ]
}

/// The indices, and the parts of the trailer.
fn slots() -> Vec<Layout> {
    vec![
        slots!(Meta {
            write_idx,
            read_idx,
            count
        }),
        slots!(Footer {
            magic,
            version,
            fields,
            schema_hash,
            slots,
            segment_size,
            trailer_offset,
            owner_mark,
            schema_len,
            flags,
            check
        }),
        slots!(WriterLine {
            lock,
            written,
            overwritten,
            handles,
            listed,
            waiting,
            writing,
            padding
        }),
        slots!(ReaderLine {
            wake,
            sleepers,
            demand,
            room_wake,
            room_sleepers,
            padding
        }),
        slots!(CursorLine {
            position,
            mark,
            kind,
            padding
        }),
        slots!(ChangesHead {
            counted,
            full,
            foreign
        }),
    ]
}

/// The table and the headers of containers.
fn zeroipc_containers() -> Vec<Layout> {
    vec![
        zeroipc!(TableHeader {
            magic,
            version,
            entry_count,
            max_entries,
            memory_size,
            next_offset
        }),
        zeroipc!(Entry { name, offset, size }),
        zeroipc!(QueueHeader {
            head,
            tail,
            capacity,
            elem_size
        }),
        zeroipc!(StackHeader {
            top,
            capacity,
            elem_size,
            reserved
        }),
        zeroipc!(RingHeader {
            write_pos,
            read_pos,
            capacity,
            elem_size
        }),
        zeroipc!(PoolHeader {
            free_head,
            allocated,
            reserved,
            capacity,
            elem_size
        }),
        zeroipc!(MapHeader {
            size,
            capacity,
            key_size,
            value_size
        }),
        zeroipc!(SetHeader {
            size,
            capacity,
            elem_size,
            reserved
        }),
    ]
}

/// What has a fixed size; the rest is arithmetic, and tests check it.
fn zeroipc_words() -> Vec<Layout> {
    vec![
        zeroipc!(SemaphoreImage {
            count,
            waiting,
            max_count,
            reserved
        }),
        zeroipc!(BarrierImage {
            arrived,
            generation,
            participants,
            reserved
        }),
        zeroipc!(LatchImage {
            count,
            initial,
            reserved
        }),
        zeroipc!(EventImage {
            signaled,
            mode,
            waiting
        }),
        zeroipc!(RwLockImage {
            readers,
            writer_active
        }),
        zeroipc!(ChannelHeader {
            capacity,
            senders,
            receivers,
            closed,
            padding,
            send_seq,
            recv_seq
        }),
        zeroipc!(ChannelSync {
            senders,
            receivers,
            closed,
            capacity
        }),
        zeroipc!(StreamHeader {
            sequence,
            subscribers,
            closed,
            padding,
            capacity,
            name,
            tail
        }),
        zeroipc!(StreamVoid {
            count,
            closed,
            padding
        }),
        zeroipc!(FutureHeader {
            state,
            waiters,
            time
        }),
        zeroipc!(LazyBoolImage {
            state,
            kind,
            a,
            b,
            padding,
            cached,
            tail
        }),
    ]
}

pub(super) fn check(workspace: &Workspace) -> Result<Problems> {
    let layouts = layouts();
    let mut pages: Vec<&str> = layouts.iter().map(|layout| layout.page).collect();
    pages.dedup();
    let mut problems = Vec::new();
    for page in pages {
        let text = fs::read_to_string(workspace.root.join(page))
            .with_context(|| format!("could not read {page}, which must hold the layout tables"))?;
        let expected: Vec<&Layout> = layouts
            .iter()
            .filter(|layout| layout.page == page)
            .collect();
        compare(page, &tables(&text), &expected, &mut problems);
    }
    Ok(problems)
}

fn compare(page: &str, tables: &[Table], layouts: &[&Layout], problems: &mut Problems) {
    for table in tables {
        if !layouts.iter().any(|layout| layout.name == table.name) {
            problems.push(format!(
                "{page}:{}: no struct `{}` is listed in xtask's tidy/layouts.rs; add it there",
                table.line, table.name
            ));
        }
    }
    for layout in layouts {
        let named: Vec<&Table> = tables
            .iter()
            .filter(|table| table.name == layout.name)
            .collect();
        let [table] = named.as_slice() else {
            problems.push(format!(
                "{page}: {} tables for {}; write one below the line `<!-- layout: {} -->`",
                named.len(),
                layout.name,
                layout.name
            ));
            continue;
        };
        compare_table(page, table, layout, problems);
    }
}

fn compare_table(page: &str, table: &Table, layout: &Layout, problems: &mut Problems) {
    let mut documented = Vec::new();
    for row in &table.rows {
        let field = match &row.field {
            Ok(field) => field,
            Err(why) => {
                problems.push(format!("{page}:{}: {why}", row.line));
                continue;
            }
        };
        if documented.contains(&field.name.as_str()) {
            problems.push(format!(
                "{page}:{}: `{}` is listed twice",
                row.line, field.name
            ));
        }
        documented.push(field.name.as_str());
        match layout.fields.iter().find(|expected| expected.name == field.name) {
            Some(expected) if expected == field => {}
            Some(expected) => problems.push(format!(
                "{page}:{}: `{}` is documented at {:#04x} with {} bytes; {} has it at {:#04x} with {} bytes",
                row.line, field.name, field.offset, field.size, layout.name, expected.offset, expected.size
            )),
            None => problems.push(format!(
                "{page}:{}: {} has no field `{}`; remove the row or rename it",
                row.line, layout.name, field.name
            )),
        }
    }
    for field in &layout.fields {
        if !documented.contains(&field.name.as_str()) {
            problems.push(format!(
                "{page}:{}: the table of {} lacks `{}` at {:#04x}; add its row",
                table.line, layout.name, field.name, field.offset
            ));
        }
    }
    let end = layout
        .fields
        .iter()
        .map(|field| field.offset + field.size)
        .max()
        .unwrap_or(0);
    if end != layout.size {
        problems.push(format!(
            "{}: the fields end at {end:#04x} but the struct has {:#04x} bytes; it must have no padding",
            layout.name, layout.size
        ));
    }
}

fn tables(text: &str) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut lines = text.lines().zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        let Some(name) = line
            .trim()
            .strip_prefix("<!--")
            .and_then(|rest| rest.trim_start().strip_prefix("layout:"))
            .and_then(|rest| rest.strip_suffix("-->"))
        else {
            continue;
        };
        let mut rows = Vec::new();
        let mut body = false;
        while let Some((line, number)) = lines.next_if(|(line, _)| {
            line.trim().is_empty() && rows.is_empty() && !body || line.trim().starts_with('|')
        }) {
            let cells: Vec<&str> = line
                .trim()
                .trim_matches('|')
                .split('|')
                .map(str::trim)
                .collect();
            let rule = !line.trim().is_empty()
                && cells
                    .iter()
                    .all(|cell| cell.chars().all(|c| matches!(c, '-' | ':')));
            if rule {
                body = true;
            } else if body {
                rows.push(Row {
                    line: number,
                    field: field(&cells),
                });
            }
        }
        tables.push(Table {
            name: name.trim().to_owned(),
            line: number,
            rows,
        });
    }
    tables
}

fn field(cells: &[&str]) -> Result<Field, String> {
    let [offset, kind, name, ..] = cells else {
        return Err("a layout row needs the columns Offset, Type and Field".to_owned());
    };
    let plain = |cell: &str| cell.trim_matches('`').to_owned();
    Ok(Field {
        offset: plain(offset)
            .strip_prefix("0x")
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .ok_or_else(|| format!("`{offset}` is not an offset such as 0x28"))?,
        size: size_of_type(&plain(kind))
            .ok_or_else(|| format!("`{kind}` is not a type such as u64 or 4 x u8"))?,
        name: name
            .strip_prefix('`')
            .and_then(|rest| rest.strip_suffix('`'))
            .ok_or_else(|| format!("the field {name} must stand in backticks"))?
            .to_owned(),
    })
}

/// `u32` is 4, `4 x u64` is 32.
fn size_of_type(kind: &str) -> Option<usize> {
    let (count, base) = match kind.split_once([' ', '\u{a0}']) {
        Some((count, rest)) => (
            count.parse().ok()?,
            rest.trim_start_matches(['x', '\u{d7}', ' ', '\u{a0}']),
        ),
        None => (1, kind),
    };
    let bits: usize = base.strip_prefix(['u', 'i', 'f'])?.parse().ok()?;
    matches!(bits, 8 | 16 | 32 | 64).then_some(count * bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# Page

<!-- layout: a::B -->

| Offset | Type | Field | Meaning |
|-------:|:-----|-------|---------|
| 0x00 | u32 | `size` | own size |
| 0x04 | 4 x u8 | `version` | |
| 0x08 | 4 \u{d7} u64 | `reserved` | zero |

| Offset | Type | Field |
|---|---|---|
| 0x99 | u32 | `not_checked` |
";

    fn named(name: &str, offset: usize, size: usize) -> Field {
        Field {
            name: name.to_owned(),
            offset,
            size,
        }
    }

    fn layout() -> Layout {
        Layout {
            name: "a::B",
            page: "page.md",
            size: 40,
            fields: vec![
                named("size", 0, 4),
                named("version", 4, 4),
                named("reserved", 8, 32),
            ],
        }
    }

    fn problems(page: &str, layout: &Layout) -> Problems {
        let mut problems = Vec::new();
        compare("page.md", &tables(page), &[layout], &mut problems);
        problems
    }

    #[test]
    fn a_true_table_passes() {
        assert_eq!(problems(PAGE, &layout()), Problems::new());
    }

    #[test]
    fn a_wrong_offset_or_size_is_found() {
        let wrong = PAGE.replace("0x04 | 4 x u8", "0x05 | 2 x u8");
        let problems = problems(&wrong, &layout());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("page.md:8: `version` is documented at 0x05 with 2 bytes"));
    }

    #[test]
    fn a_lacking_row_is_found() {
        let wrong = PAGE.replace("| 0x04 | 4 x u8 | `version` | |\n", "");
        let problems = problems(&wrong, &layout());
        assert_eq!(
            problems,
            ["page.md:3: the table of a::B lacks `version` at 0x04; add its row"]
        );
    }

    #[test]
    fn an_invented_or_doubled_row_is_found() {
        let wrong = PAGE
            .replace("`version`", "`size`")
            .replace("`reserved`", "`spare`");
        let problems = problems(&wrong, &layout()).join("\n");
        assert!(problems.contains("`size` is listed twice"), "{problems}");
        assert!(problems.contains("a::B has no field `spare`"), "{problems}");
    }

    #[test]
    fn a_lacking_unknown_or_unreadable_table_is_found() {
        assert!(problems("", &layout())[0].contains("0 tables for a::B"));
        let unknown = problems(&PAGE.replace("a::B", "a::C"), &layout()).join("\n");
        assert!(unknown.contains("no struct `a::C`"), "{unknown}");
        let unreadable = problems(&PAGE.replace("0x08", "eight"), &layout()).join("\n");
        assert!(
            unreadable.contains("`eight` is not an offset"),
            "{unreadable}"
        );
    }

    #[test]
    fn types_have_sizes() {
        for (kind, size) in [
            ("u8", 1),
            ("u32", 4),
            ("f64", 8),
            ("4 x u8", 4),
            ("4 x u64", 32),
        ] {
            assert_eq!(size_of_type(kind), Some(size), "{kind}");
        }
        for kind in ["", "u7", "4 x", "x u8", "bytes"] {
            assert_eq!(size_of_type(kind), None, "{kind}");
        }
    }

    #[test]
    fn structs_are_listed_without_gaps() {
        for layout in layouts() {
            let mut end = 0;
            for field in &layout.fields {
                assert_eq!(field.offset, end, "{}::{}", layout.name, field.name);
                end += field.size;
            }
            assert_eq!(end, layout.size, "{}", layout.name);
        }
    }
}
