//! `import`: snippets and other files in the place of a line.
//!
//! Files become snippets first: [`bundle`] puts them behind the Corefile, under the pattern by which they are imported,
//! so that one text says all there is, is compared with the last one, and kept. What is read never is a file then.
//!
//! ```text
//! import common.conf      ──▶   import common.conf
//! . { ... }                     . { ... }
//!                               (common.conf) {
//!                               #file common.conf
//!                               . its lines .
//!                               }
//! ```

use std::{collections::BTreeMap, fmt::Write as _, io};

use super::{
    CorefileError,
    token::{FILE, Token, tokens},
};

/// The most imports of a Corefile, those of what is imported included.
const MAX_IMPORTS: usize = 10_000;
/// The most words that they come to.
const MAX_TOKENS: usize = 1_000_000;
/// How deep imports may lie within others.
const MAX_DEPTH: usize = 64;

/// A file that is imported: its name and its text.
type Imported = (String, String);

/// Puts a Corefile together with the files that it imports, and those that they do. `load` gives the files of a pattern, in
/// order; a text that imports no files stays as it is.
pub(super) fn bundle(
    text: &str,
    load: &mut dyn FnMut(&str) -> io::Result<Vec<Imported>>,
) -> Result<String, CorefileError> {
    let mut out = text.to_owned();
    let mut found: BTreeMap<String, ()> = BTreeMap::new();
    let mut waiting = vec![tokens(text)?];
    let mut snippets = BTreeMap::new();
    while let Some(mut tokens) = waiting.pop() {
        take_snippets(&mut tokens, &mut snippets)?;
        let bodies: Vec<_> = snippets.values().flatten().cloned().collect();
        let imports: Vec<_> = imports(&tokens).chain(imports(&bodies)).cloned().collect();
        for pattern in imports {
            let name = pattern.text.clone();
            if snippets.contains_key(&name) || found.contains_key(&name) {
                continue;
            }
            found.insert(name.clone(), ());
            if found.len() > MAX_IMPORTS {
                return Err(CorefileError::at(&pattern, "import", "too many imports"));
            }
            let wrong = |problem: String| CorefileError::at(&pattern, "import", problem);
            if name.contains(char::is_whitespace) || name.contains(['(', ')', '"', '#']) {
                return Err(wrong(format!("{name:?} cannot be the name of a file that is imported")));
            }
            let files = load(&name).map_err(|error| wrong(format!("{name}: {error}")))?;
            if files.is_empty() && !is_glob(&name) {
                return Err(wrong(format!("{name:?} is no snippet and no file")));
            }
            let mut body = String::new();
            for (file, text) in files {
                let of_file = format!("{FILE}{file}\n{text}\n");
                waiting.push(tokens_of(&of_file)?);
                body.push_str(&of_file);
            }
            // A text grows without fail.
            let _ = write!(out, "\n({name}) {{\n{body}}}\n");
        }
    }
    Ok(out)
}

/// The words of a file, whose braces must match: it is put between braces.
fn tokens_of(text: &str) -> Result<Vec<Token>, CorefileError> {
    let tokens = tokens(text)?;
    let mut depth = 0_usize;
    for token in &tokens {
        if token.is("{") {
            depth += 1;
        } else if token.is("}") {
            depth = depth
                .checked_sub(1)
                .ok_or_else(|| CorefileError::at(token, "}", "there is no \"{\" before it"))?;
        }
    }
    match (depth, tokens.last()) {
        (1.., Some(last)) => Err(CorefileError::at(last, &last.text, "a \"}\" is missing")),
        _ => Ok(tokens),
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// What is imported, and where.
fn imports(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    (0..tokens.len()).filter_map(|at| import_at(tokens, at))
}

/// The word after an `import` that stands first on its line.
fn import_at(tokens: &[Token], at: usize) -> Option<&Token> {
    let word = tokens.get(at).filter(|token| token.is("import"))?;
    let is_first = at.checked_sub(1).is_none_or(|before| {
        let before = &tokens[before];
        !before.is_on_line_of(word) || before.is("{")
    });
    tokens.get(at + 1).filter(|next| is_first && next.is_on_line_of(word) && !next.is("{") && !next.is("}"))
}

/// Takes the snippets out of a text: blocks whose only name stands in parentheses.
fn take_snippets(
    tokens: &mut Vec<Token>,
    snippets: &mut BTreeMap<String, Vec<Token>>,
) -> Result<(), CorefileError> {
    let mut rest = Vec::with_capacity(tokens.len());
    let mut depth = 0_usize;
    let mut all = std::mem::take(tokens).into_iter().peekable();
    while let Some(token) = all.next() {
        let name =
            token.text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).filter(|_| depth == 0);
        let is_snippet = all.peek().is_some_and(|next| next.is("{"));
        if let Some(name) = name.filter(|name| is_snippet && !name.is_empty()) {
            let name = name.to_owned();
            all.next();
            let mut body = Vec::new();
            let mut open = 1_usize;
            loop {
                let Some(inner) = all.next() else {
                    return Err(CorefileError::at(&token, &token.text, "a \"}\" is missing"));
                };
                open = if inner.is("{") {
                    open + 1
                } else if inner.is("}") {
                    open - 1
                } else {
                    open
                };
                if open == 0 {
                    break;
                }
                body.push(inner);
            }
            // Those that an imported file has are known everywhere, as its other lines are.
            take_snippets(&mut body, snippets)?;
            if snippets.insert(name, body).is_some() {
                return Err(CorefileError::at(&token, &token.text, "there is another snippet of this name"));
            }
            continue;
        }
        if token.is("{") {
            depth += 1;
        } else if token.is("}") {
            depth = depth.saturating_sub(1);
        }
        rest.push(token);
    }
    *tokens = rest;
    Ok(())
}

/// The words with what is imported in its place.
pub(super) fn expand(mut tokens: Vec<Token>) -> Result<Vec<Token>, CorefileError> {
    let mut snippets = BTreeMap::new();
    take_snippets(&mut tokens, &mut snippets)?;
    let mut state = State { snippets, out: Vec::new(), imports: 0 };
    state.put(&tokens, 0)?;
    Ok(state.out)
}

struct State {
    snippets: BTreeMap<String, Vec<Token>>,
    out: Vec<Token>,
    imports: usize,
}

impl State {
    fn put(&mut self, tokens: &[Token], depth: usize) -> Result<(), CorefileError> {
        let import = self.imports;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let Some(name) = import_at(tokens, at) else {
                self.out.push(Token { import, ..token.clone() });
                at += 1;
                continue;
            };
            let wrong = |problem: &str| CorefileError::at(name, "import", problem);
            self.imports += 1;
            if self.imports > MAX_IMPORTS || self.out.len() > MAX_TOKENS || depth > MAX_DEPTH {
                return Err(wrong("too many imports"));
            }
            if tokens.get(at + 2).is_some_and(|more| more.is_on_line_of(name) && !more.is("}")) {
                return Err(wrong("one snippet or pattern of files is expected"));
            }
            let Some(body) = self.snippets.get(&name.text).cloned() else {
                return Err(wrong(&format!("{:?} is no snippet and no file", name.text)));
            };
            self.put(&body, depth + 1)?;
            at += 2;
        }
        Ok(())
    }
}
