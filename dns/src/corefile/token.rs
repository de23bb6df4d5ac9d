//! The words of a Corefile, and where they stand.

use std::sync::Arc;

use super::CorefileError;

/// In a text that was put together of several files ([`super::bundle`]): what follows is of this file, from its line 1.
pub(super) const FILE: &str = "#file ";

/// A word.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The file, where it is not the Corefile itself.
    pub(super) file: Option<Arc<str>>,
    /// The line, from 1.
    pub(super) line: usize,
    /// The word without its quotes.
    pub(super) text: String,
    pub(super) is_quoted: bool,
    /// Which import it came by: lines of the same number that came by others are other lines.
    pub(super) import: usize,
}

impl Token {
    /// Whether it is this brace, and not a text of one.
    pub(super) fn is(&self, brace: &str) -> bool {
        !self.is_quoted && self.text == brace
    }

    /// Whether both stand on one line.
    pub(super) fn is_on_line_of(&self, other: &Self) -> bool {
        self.line == other.line && self.import == other.import && self.file == other.file
    }
}

/// Splits a text into words. Quotes hold a word together, `#` starts a comment, `{$NAME}` is taken from the
/// environment.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, CorefileError> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut file: Option<Arc<str>> = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let token = |line, text, is_quoted| Token { file: file.clone(), line, text, is_quoted, import: 0 };
        match char {
            '\n' => line += 1,
            _ if char.is_whitespace() => {}
            '#' => {
                let mut comment = String::from('#');
                while let Some(char) = chars.next_if(|char| *char != '\n') {
                    comment.push(char);
                }
                if let Some(name) = comment.strip_prefix(FILE) {
                    file = Some(name.into());
                    // The end of this line is before the first.
                    line = 0;
                }
            }
            '"' => {
                let start = line;
                let mut word = String::new();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') if chars.next_if_eq(&'"').is_some() => word.push('"'),
                        Some(char) => {
                            line += usize::from(char == '\n');
                            word.push(char);
                        }
                        None => {
                            let quote = token(start, "\"".to_owned(), true);
                            return Err(CorefileError::at(&quote, "\"", "the quote does not end"));
                        }
                    }
                }
                tokens.push(token(start, from_environment(&word), true));
            }
            _ => {
                let mut word = String::from(char);
                while let Some(char) = chars.next_if(|char| !char.is_whitespace()) {
                    word.push(char);
                }
                tokens.push(token(line, from_environment(&word), false));
            }
        }
    }
    Ok(tokens)
}

fn from_environment(word: &str) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("{$") {
        let Some((name, after)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(&std::env::var(name).unwrap_or_default());
        rest = after;
    }
    out + rest
}
