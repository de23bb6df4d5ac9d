//! `$GENERATE`: a record for each number of a range, as BIND has it.

use super::{entry::Entry, text::Word};

/// The most records of one line.
const MAX_COUNT: u64 = 65_536;

/// The entries that a line stands for: `start-stop[/step]`, and the words of a record in which `$` is the number.
pub(super) fn generate(entry: &Entry) -> Result<Vec<Entry>, String> {
    let [_, range, pattern @ ..] = entry.words.as_slice() else {
        return Err("$GENERATE takes a range and a record".to_owned());
    };
    let numbers = numbers(range).ok_or_else(|| format!("{range} is not a range of numbers"))?;
    let make = |number| {
        let words = pattern.iter().map(|word| put(word, number)).collect::<Result<_, _>>()?;
        Ok(Entry { line: entry.line, is_indented: false, words })
    };
    numbers.into_iter().map(make).collect()
}

fn numbers(range: &Word) -> Option<Vec<u32>> {
    let text = range.plain()?;
    let (range, step) = text.split_once('/').unwrap_or((text, "1"));
    let (start, stop) = range.split_once('-')?;
    let (start, stop, step): (u32, u32, u32) = (start.parse().ok()?, stop.parse().ok()?, step.parse().ok()?);
    let is_good = start <= stop && step > 0 && u64::from(stop - start) / u64::from(step) < MAX_COUNT;
    is_good.then(|| (start..=stop).step_by(step as usize).collect())
}

/// A word with a number in the place of each `$` and `${offset[,width[,base]]}`; `\$` and `$$` are the sign itself.
fn put(word: &Word, number: u32) -> Result<Word, String> {
    let wrong = || format!("{word} is not a pattern");
    let mut text = Vec::with_capacity(word.text.len() + 4);
    let mut rest = word.text.as_slice();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [b'$', after @ ..]) | (b'$', [b'$', after @ ..]) => {
                text.push(b'$');
                rest = after;
            }
            (b'$', [b'{', after @ ..]) => {
                let end = after.iter().position(|byte| *byte == b'}').ok_or_else(wrong)?;
                let form = std::str::from_utf8(&after[..end]).map_err(|_| wrong())?;
                text.extend(formed(form, number).ok_or_else(wrong)?.bytes());
                rest = &after[end + 1..];
            }
            (b'$', _) => text.extend(number.to_string().bytes()),
            _ => text.push(byte),
        }
    }
    Ok(Word { text, is_quoted: word.is_quoted })
}

/// A number moved, of a width, in a base (`d`, `o`, `x`, `X`).
fn formed(form: &str, number: u32) -> Option<String> {
    let mut parts = form.split(',');
    let offset: i64 = parts.next()?.parse().ok()?;
    let width: usize = parts.next().map_or(Some(0), |text| text.parse().ok())?;
    let base = parts.next().unwrap_or("d");
    let value = u64::try_from(i64::from(number).checked_add(offset)?).ok()?;
    if width > 255 || parts.next().is_some() {
        return None;
    }
    match base {
        "d" => Some(format!("{value:0width$}")),
        "o" => Some(format!("{value:0width$o}")),
        "x" => Some(format!("{value:0width$x}")),
        "X" => Some(format!("{value:0width$X}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &[&str]) -> Result<Vec<String>, String> {
        let word = |text: &&str| Word { text: text.as_bytes().to_vec(), is_quoted: false };
        let entry = Entry { line: 3, is_indented: false, words: words.iter().map(word).collect() };
        let join = |entry: Entry| entry.words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        Ok(generate(&entry)?.into_iter().map(join).collect())
    }

    #[test]
    fn a_line_stands_for_many() {
        for (range, owner, data, wanted) in [
            (
                "1-3",
                "host-$",
                "192.0.2.$",
                &["host-1 A 192.0.2.1", "host-2 A 192.0.2.2", "host-3 A 192.0.2.3"][..],
            ),
            ("0-4/4", "${10,3}", "${-0,2,x}", &["010 A 00", "014 A 04"]),
            ("255-255", "${0,4,X}.${0,0,o}", "a", &["00FF.377 A a"]),
            ("7-7", "\\$.$$.$", "a", &["$.$.7 A a"]),
        ] {
            assert_eq!(told(&["$GENERATE", range, owner, "A", data]).unwrap(), wanted);
        }
        for words in [
            &["$GENERATE"][..],
            &["$GENERATE", "3-1", "a"],
            &["$GENERATE", "1-2/0", "a"],
            &["$GENERATE", "0-65536", "a"],
            &["$GENERATE", "1", "a"],
            &["$GENERATE", "1-2", "${"],
            &["$GENERATE", "1-2", "${a}"],
            &["$GENERATE", "1-2", "${-5}"],
            &["$GENERATE", "1-2", "${0,999}"],
            &["$GENERATE", "1-2", "${0,1,q}"],
        ] {
            assert!(told(words).is_err(), "{words:?}");
        }
    }
}
