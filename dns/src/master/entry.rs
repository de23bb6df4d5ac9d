//! Lines of a master file: parentheses join them, `;` begins a comment, `"` encloses a text.

use super::text::Word;

/// A line, or several that parentheses join.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// It begins with a space: its owner is the one before.
    pub(super) is_indented: bool,
    /// Its words; there is one.
    pub(super) words: Vec<Word>,
}

/// The entries of a text, until something is wrong with it: the line, and what.
pub(super) fn entries(text: &[u8]) -> impl Iterator<Item = Result<Entry, (usize, String)>> {
    let mut reader = Reader { text, at: 0, line: 1 };
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let next = reader.entry().transpose();
        is_over = !matches!(next, Some(Ok(_)));
        next
    })
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    line: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        if byte == b'\n' {
            self.line += 1;
        }
        Some(byte)
    }

    /// The next entry that has words.
    fn entry(&mut self) -> Result<Option<Entry>, (usize, String)> {
        loop {
            let is_indented = matches!(self.peek(), Some(b' ' | b'\t'));
            let mut entry = Entry { line: self.line, is_indented, words: Vec::new() };
            let mut open = None;
            loop {
                let line = self.line;
                match self.peek() {
                    None if open.is_some() => {
                        return Err((open.unwrap_or(line), "the parenthesis does not end".to_owned()));
                    }
                    None => return Ok((!entry.words.is_empty()).then_some(entry)),
                    Some(b'\n') => {
                        self.next();
                        if open.is_none() {
                            break;
                        }
                    }
                    Some(b' ' | b'\t' | b'\r') => drop(self.next()),
                    Some(b';') => {
                        while self.peek().is_some_and(|byte| byte != b'\n') {
                            self.next();
                        }
                    }
                    Some(b'(') if open.is_none() => {
                        open = Some(line);
                        self.next();
                    }
                    Some(b')') if open.is_some() => {
                        open = None;
                        self.next();
                    }
                    Some(b'(' | b')') => {
                        return Err((line, "a parenthesis that does not belong there".to_owned()));
                    }
                    Some(b'"') => {
                        self.next();
                        entry.words.push(self.quoted(line)?);
                    }
                    Some(_) => entry.words.push(self.word()),
                }
            }
            if !entry.words.is_empty() {
                return Ok(Some(entry));
            }
        }
    }

    fn quoted(&mut self, start: usize) -> Result<Word, (usize, String)> {
        let mut text = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => return Ok(Word { text, is_quoted: true }),
                Some(b'\\') => {
                    text.push(b'\\');
                    text.extend(self.next());
                }
                Some(b'\n') | None => return Err((start, "the quote does not end".to_owned())),
                Some(byte) => text.push(byte),
            }
        }
    }

    fn word(&mut self) -> Word {
        let mut text = Vec::new();
        while let Some(byte) = self.peek() {
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"') {
                break;
            }
            self.next();
            text.push(byte);
            // What is escaped belongs to the word, whatever it is; not the end of the line.
            if byte == b'\\' && self.peek().is_some_and(|byte| byte != b'\n') {
                text.extend(self.next());
            }
        }
        Word { text, is_quoted: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let entry = |entry: Result<Entry, (usize, String)>| match entry {
            Err((line, problem)) => format!("{line}! {problem}"),
            Ok(entry) => {
                let words: Vec<_> = entry.words.iter().map(ToString::to_string).collect();
                format!("{}{}{}", entry.line, if entry.is_indented { "_" } else { ":" }, words.join("|"))
            }
        };
        entries(text.as_bytes()).map(entry).collect()
    }

    #[test]
    fn lines_are_joined_and_comments_passed_over() {
        for (text, wanted) in [
            ("", &[][..]),
            ("; only\n\n  \t\n", &[]),
            ("a b ; c\n d\r\n", &["1:a|b", "2_d"]),
            ("a ( b ; c\n\n d ) e\nf", &["1:a|b|d|e", "4:f"]),
            ("a \"b ;( c\" d\"e\"", &["1:a|\"b ;( c\"|d|\"e\""]),
            ("a\\;b \"\\\"\" \\", &["1:a\\;b|\"\\\"\"|\\"]),
            ("a\nb (\nc", &["1:a", "2! the parenthesis does not end"]),
            ("a )", &["1! a parenthesis that does not belong there"]),
            ("a ( ( ) )", &["1! a parenthesis that does not belong there"]),
            ("\na \"b\nc\"", &["2! the quote does not end"]),
        ] {
            assert_eq!(told(text), wanted, "{text:?}");
        }
    }
}
