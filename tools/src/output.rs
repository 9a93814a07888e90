//! Results on standard output: aligned tables for people, one JSON object per line for scripts.
//!
//! Promise: columns are separated by two blanks at least and a cell is never empty nor wrapped, so that `awk` can read
//! what people read. There is colour on a terminal only, and none when `NO_COLOR` is set. Lines leave in large pieces;
//! [`Output::flush`] sends what is left.

use std::fmt::{Arguments, Display};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::cluster_args::CommandError;

/// How something that is absent is printed, as Kafka's tools do.
pub(crate) const ABSENT: &str = "-";

type Written = Result<(), CommandError>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    colour: bool,
}

impl Output {
    pub(crate) fn new() -> Output {
        let out = io::stdout().lock();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Output {
            colour: out.is_terminal() && !no_colour,
            out: BufWriter::with_capacity(1 << 16, out),
        }
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: impl Display) -> Written {
        writeln!(self.out, "{text}").map_err(CommandError::Output)
    }

    /// Where bytes are written that are no text.
    pub(crate) fn bytes(&mut self) -> &mut impl Write {
        &mut self.out
    }

    /// One line of JSON.
    pub(crate) fn json(&mut self, value: &Value) -> Written {
        self.line(value)
    }

    /// A title above a table or a list.
    pub(crate) fn title(&mut self, text: Arguments<'_>) -> Written {
        if self.colour {
            self.line(format_args!("\x1b[1m{text}\x1b[0m"))
        } else {
            self.line(text)
        }
    }

    pub(crate) fn table(&mut self, rows: &Rows) -> Written {
        let text = rows.aligned();
        let mut lines = text.lines();
        if let Some(heading) = lines.next() {
            self.title(format_args!("{heading}"))?;
        }
        lines.try_for_each(|line| self.line(line))
    }

    pub(crate) fn flush(&mut self) -> Written {
        self.out.flush().map_err(CommandError::Output)
    }
}

/// A table that is not printed yet.
#[derive(Debug)]
pub(crate) struct Rows(Table);

impl Rows {
    /// With its headings; one that begins with `>` stands above numbers, which are aligned to the right.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Rows {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(headings.map(|heading| heading.trim_start_matches('>')));
        for (column, heading) in table.column_iter_mut().zip(headings) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Rows(table)
    }

    pub(crate) fn push<const N: usize>(&mut self, cells: [String; N]) {
        self.0
            .add_row(cells.map(|cell| if cell.is_empty() { ABSENT.to_owned() } else { cell }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn aligned(&self) -> String {
        self.0.trim_fmt()
    }
}

/// What is there, or [`ABSENT`].
pub(crate) fn or_absent(value: Option<impl Display>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| value.to_string())
}

/// Numbers with commas between them.
pub(crate) fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    values.join(",")
}

/// `2 topics`, `1 topic`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_cell_is_empty() {
        let mut rows = Rows::new(["TOPIC", ">SIZE", "HOST"]);
        rows.push(["a".to_owned(), "1".to_owned(), String::new()]);
        rows.push(["längerer".to_owned(), "1234567".to_owned(), "h".to_owned()]);
        let expected = "\
TOPIC        SIZE  HOST
a               1  -
längerer  1234567  h";
        assert_eq!(rows.aligned(), expected);
        assert_eq!(or_absent(None::<i32>), "-");
        assert_eq!(list([1, 2]), "1,2");
        assert_eq!(
            [0, 1, 2].map(|number| count(number, "topic")),
            ["0 topics", "1 topic", "2 topics"]
        );
    }
}
