//! The form of a Corefile: server blocks, directives, options.

use super::{
    CorefileError,
    token::{Token, tokens},
};

/// A place in a text.
pub(super) type Place<'t> = &'t Token;

/// A server block: domains and what holds for them.
#[derive(Debug)]
pub(super) struct ServerBlock {
    pub(super) at: Token,
    pub(super) keys: Vec<String>,
    pub(super) directives: Vec<Directive>,
}

/// A directive with its options.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) at: Token,
    pub(super) name: String,
    pub(super) words: Vec<String>,
    /// The lines in its braces.
    pub(super) options: Vec<Setting>,
}

/// A line in a directive's braces.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) at: Token,
    pub(super) name: String,
    pub(super) words: Vec<String>,
}

/// Reads the server blocks; what is imported stands in the place of its `import`.
pub(super) fn parse(text: &str) -> Result<Vec<ServerBlock>, CorefileError> {
    let tokens = super::import::expand(tokens(text)?)?;
    let mut at = 0;
    let mut blocks = Vec::new();
    while let Some(first) = tokens.get(at) {
        let mut keys = Vec::new();
        while let Some(token) = tokens.get(at).filter(|token| !token.is("{") && !token.is("}")) {
            keys.extend(token.text.split(',').filter(|key| !key.is_empty()).map(str::to_owned));
            at += 1;
        }
        if keys.is_empty() {
            return Err(CorefileError::at(first, &first.text, "a domain is expected"));
        }
        let mut directives = Vec::new();
        expect(&tokens, &mut at, "{", &keys[0], first)?;
        while tokens.get(at).is_some_and(|token| !token.is("}")) {
            directives.push(directive(&tokens, &mut at)?);
        }
        expect(&tokens, &mut at, "}", &keys[0], first)?;
        blocks.push(ServerBlock { at: first.clone(), keys, directives });
    }
    Ok(blocks)
}

fn expect(
    tokens: &[Token],
    at: &mut usize,
    brace: &str,
    what: &str,
    start: Place<'_>,
) -> Result<(), CorefileError> {
    match tokens.get(*at) {
        Some(token) if token.is(brace) => {
            *at += 1;
            Ok(())
        }
        Some(token) => {
            Err(CorefileError::at(token, &token.text, format!("a {brace:?} of {what} is expected")))
        }
        None => Err(CorefileError::at(start, what, format!("a {brace:?} is missing"))),
    }
}

/// The words of the line that `at` is in, up to a brace.
fn words(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let Some(first) = tokens.get(*at) else { return Vec::new() };
    let mut words = Vec::new();
    while let Some(token) =
        tokens.get(*at).filter(|token| token.is_on_line_of(first) && !token.is("{") && !token.is("}"))
    {
        words.push(token.text.clone());
        *at += 1;
    }
    words
}

fn directive(tokens: &[Token], at: &mut usize) -> Result<Directive, CorefileError> {
    // The caller has seen it.
    let start = tokens[*at].clone();
    let mut all = words(tokens, at).into_iter();
    let name = all.next().ok_or_else(|| CorefileError::at(&start, "{", "a directive is expected"))?;
    let mut options = Vec::new();
    if tokens.get(*at).is_some_and(|token| token.is("{") && token.is_on_line_of(&start)) {
        *at += 1;
        while let Some(token) = tokens.get(*at).filter(|token| !token.is("}")) {
            let mut words = words(tokens, at).into_iter();
            let option =
                words.next().ok_or_else(|| CorefileError::at(token, &name, "braces within braces"))?;
            options.push(Setting { at: token.clone(), name: option, words: words.collect() });
        }
        expect(tokens, at, "}", &name, &start)?;
    }
    Ok(Directive { at: start, name, words: all.collect(), options })
}
