//! The form of a Corefile: server blocks, directives, options.

use super::CorefileError;

/// A server block: domains and what holds for them.
#[derive(Debug, PartialEq)]
pub(super) struct ServerBlock {
    pub(super) line: usize,
    pub(super) keys: Vec<String>,
    pub(super) directives: Vec<Directive>,
}

/// A directive with its options.
#[derive(Debug, PartialEq)]
pub(super) struct Directive {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) words: Vec<String>,
    /// The lines in its braces.
    pub(super) options: Vec<Setting>,
}

/// A line in a directive's braces.
#[derive(Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) words: Vec<String>,
}

#[derive(Debug)]
struct Token {
    line: usize,
    text: String,
    is_quoted: bool,
}

impl Token {
    fn is(&self, brace: &str) -> bool {
        !self.is_quoted && self.text == brace
    }
}

/// Splits a text into words. Quotes hold a word together, `#` starts a comment, `{$NAME}` is taken from the
/// environment.
fn tokens(text: &str) -> Result<Vec<Token>, CorefileError> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\n' => line += 1,
            _ if char.is_whitespace() => {}
            '#' => while chars.next_if(|char| *char != '\n').is_some() {},
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
                        None => return Err(CorefileError::new(start, "\"", "the quote does not end")),
                    }
                }
                tokens.push(Token { line: start, text: from_environment(&word), is_quoted: true });
            }
            _ => {
                let mut word = String::from(char);
                while let Some(char) = chars.next_if(|char| !char.is_whitespace()) {
                    word.push(char);
                }
                tokens.push(Token { line, text: from_environment(&word), is_quoted: false });
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

/// Reads the server blocks.
pub(super) fn parse(text: &str) -> Result<Vec<ServerBlock>, CorefileError> {
    let tokens = tokens(text)?;
    let mut at = 0;
    let mut blocks = Vec::new();
    while let Some(first) = tokens.get(at) {
        let line = first.line;
        let mut keys = Vec::new();
        while let Some(token) = tokens.get(at).filter(|token| !token.is("{") && !token.is("}")) {
            keys.extend(token.text.split(',').filter(|key| !key.is_empty()).map(str::to_owned));
            at += 1;
        }
        if keys.is_empty() {
            return Err(CorefileError::new(line, &first.text, "a domain is expected"));
        }
        let mut directives = Vec::new();
        expect(&tokens, &mut at, "{", &keys[0], line)?;
        while tokens.get(at).is_some_and(|token| !token.is("}")) {
            directives.push(directive(&tokens, &mut at)?);
        }
        expect(&tokens, &mut at, "}", &keys[0], line)?;
        blocks.push(ServerBlock { line, keys, directives });
    }
    Ok(blocks)
}

fn expect(
    tokens: &[Token],
    at: &mut usize,
    brace: &str,
    what: &str,
    line: usize,
) -> Result<(), CorefileError> {
    match tokens.get(*at) {
        Some(token) if token.is(brace) => {
            *at += 1;
            Ok(())
        }
        Some(token) => {
            Err(CorefileError::new(token.line, &token.text, format!("a {brace:?} of {what} is expected")))
        }
        None => Err(CorefileError::new(line, what, format!("a {brace:?} is missing"))),
    }
}

/// The words of the line that `at` is in, up to a brace.
fn words(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let line = tokens.get(*at).map_or(0, |token| token.line);
    let mut words = Vec::new();
    while let Some(token) =
        tokens.get(*at).filter(|token| token.line == line && !token.is("{") && !token.is("}"))
    {
        words.push(token.text.clone());
        *at += 1;
    }
    words
}

fn directive(tokens: &[Token], at: &mut usize) -> Result<Directive, CorefileError> {
    let line = tokens.get(*at).map_or(0, |token| token.line);
    let mut all = words(tokens, at).into_iter();
    let name = all.next().ok_or_else(|| CorefileError::new(line, "{", "a directive is expected"))?;
    let mut options = Vec::new();
    if tokens.get(*at).is_some_and(|token| token.is("{") && token.line == line) {
        *at += 1;
        while let Some(token) = tokens.get(*at).filter(|token| !token.is("}")) {
            let line = token.line;
            let mut words = words(tokens, at).into_iter();
            let option =
                words.next().ok_or_else(|| CorefileError::new(line, &name, "braces within braces"))?;
            options.push(Setting { line, name: option, words: words.collect() });
        }
        expect(tokens, at, "}", &name, line)?;
    }
    Ok(Directive { line, name, words: all.collect(), options })
}
