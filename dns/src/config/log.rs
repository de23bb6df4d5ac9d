//! Which answers are written to the log, and how: CoreDNS's `log`.

use std::time::Duration;

/// What CoreDNS calls its common format.
pub(crate) const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";
/// The same with the opcode.
pub(crate) const COMBINED: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration} {>opcode}";

/// Answers about the names of some domains are written to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRule {
    /// Only names of these domains; empty: of all.
    pub zones: Vec<String>,
    /// The line, with `{name}`, `{type}`, `{class}`, `{proto}`, `{remote}`, `{port}`, `{size}`, `{duration}`, `{rcode}`,
    /// `{rsize}`, `{>rflags}`, `{>bufsize}`, `{>do}`, `{>id}` and `{>opcode}` for what query and answer have there.
    pub format: String,
    /// Only answers of these classes; empty: all.
    pub classes: Vec<AnswerClass>,
    /// Besides, all that took longer.
    pub slower_than: Option<Duration>,
}

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerClass {
    /// Records.
    Success,
    /// There is no such name, or it has no such records.
    Denial,
    /// It was not answered.
    Error,
}

impl Default for LogRule {
    fn default() -> Self {
        Self { zones: Vec::new(), format: COMMON.to_owned(), classes: Vec::new(), slower_than: None }
    }
}

impl LogRule {
    /// The format with the opcode.
    pub const COMBINED: &str = COMBINED;
    /// The usual format.
    pub const COMMON: &str = COMMON;
}
