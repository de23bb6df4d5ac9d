//! What the demo prints: parts, commands as a person would type them, what came back, and whether that was
//! right.

use std::io::IsTerminal;
use std::time::Duration;

use sluice_tests::bed::Host;
use sluice_tests::{Output, Result};

/// The transcript so far.
pub(crate) struct Transcript {
    part: u32,
    steps: u32,
    failed: Vec<String>,
    colours: bool,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        println!("Sluice: two nodes, real pods, curl and nslookup. About 15 seconds.");
        Self { part: 0, steps: 0, failed: Vec::new(), colours: std::io::stdout().is_terminal() }
    }

    /// Begins the next part.
    pub(crate) fn part(&mut self, title: &str) {
        self.part += 1;
        println!("\n{}", self.paint("1", &format!("{}. {title}", self.part)));
    }

    /// Tells something that is not checked.
    pub(crate) fn tell(&self, text: &str) {
        println!("   {text}");
    }

    /// Runs a command on a host and checks what came back: `check` says what is wrong with it.
    pub(crate) fn step(
        &mut self,
        name: &str,
        host: &Host,
        words: &[&str],
        check: impl FnOnce(&Output) -> std::result::Result<(), String>,
    ) -> Result<()> {
        let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
        let output = host.run(program, arguments)?;
        println!("   {} {}", self.paint("36", &format!("{}$", host.name())), typed(words));
        for line in output.stdout.lines().chain(output.stderr.lines()).filter(|line| !line.trim().is_empty())
        {
            println!("      {line}");
        }
        self.verdict(name, check(&output));
        Ok(())
    }

    /// Notes whether a step gave what it should.
    pub(crate) fn verdict(&mut self, name: &str, outcome: std::result::Result<(), String>) {
        self.steps += 1;
        match outcome {
            Ok(()) => println!("   {} {name}", self.paint("32", "ok")),
            Err(reason) => {
                println!("   {} {name}: {reason}", self.paint("31", "FAILED"));
                self.failed.push(name.to_owned());
            }
        }
    }

    /// The last lines; returns the names of the steps that failed.
    pub(crate) fn end(self, took: Duration) -> Vec<String> {
        let right = self.steps as usize - self.failed.len();
        println!("\n{right} of {} steps gave what they should, in {:.1} s.", self.steps, took.as_secs_f32());
        self.failed
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The words as they would be typed in a shell.
fn typed(words: &[&str]) -> String {
    let quote = |word: &&str| {
        if word.is_empty() || word.contains([' ', '*', '?', '[', '&', ';', '|', '$', '\\', '\'']) {
            format!("'{word}'")
        } else {
            (*word).to_owned()
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The output must contain all of these.
pub(crate) fn has<'a>(wanted: &'a [&'a str]) -> impl FnOnce(&Output) -> std::result::Result<(), String> + 'a {
    move |output| {
        let missing: Vec<_> = wanted.iter().filter(|text| !output.stdout.contains(**text)).copied().collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("there is no {}", missing.join(", no "))) }
    }
}
