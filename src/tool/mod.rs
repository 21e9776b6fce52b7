//! What the two tools share: how a table of commands becomes a command line, what a command writes to,
//! how it fails. Knows no command of either tool, no cluster and no files.
//!
//! Reading order: [`table`] (the tables of commands), [`arguments`] (a command line by a table), [`complete`]
//! (candidates for a word of one), [`raw`] (words of any bytes), [`exit`] (failures), this file (where output
//! goes), [`grid`] (rows and columns), [`progress`] (the progress of a long command).

pub mod arguments;
pub mod complete;
pub mod exit;
pub mod grid;
pub mod progress;
pub mod raw;
pub mod table;

use std::io;

/// The process that a command runs in, as far as every command needs it. The programs implement it on
/// the operating system, tests on buffers.
pub trait Output: Send + Sync + 'static {
    /// Writes to standard output.
    ///
    /// # Errors
    /// `BrokenPipe` when the reader is gone; commands end silently then.
    fn out(&self, bytes: &[u8]) -> io::Result<()>;

    /// Writes to standard error; failures are ignored.
    fn err(&self, text: &str);

    /// The environment variables whose names and values are text.
    fn variables(&self) -> Vec<(String, String)>;

    /// Whether standard error is a terminal, where hints and progress are shown.
    fn is_terminal(&self) -> bool;

    /// Columns and rows of standard output, where that is a terminal.
    fn size(&self) -> Option<(u16, u16)>;
}

/// Whether escape sequences for colours may be written: to a terminal, unless the variable `NO_COLOR` has
/// a value (no-color.org).
pub fn in_color(output: &dyn Output) -> bool {
    let unwanted = |(name, value): &(String, String)| name == "NO_COLOR" && !value.is_empty();
    output.size().is_some() && !output.variables().iter().any(unwanted)
}
