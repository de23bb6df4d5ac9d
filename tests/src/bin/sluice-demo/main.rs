//! The demo: two nodes, real pods, curl and nslookup, told as a transcript, each step checked.

mod change;
mod crash;
mod reach;
mod scene;
mod transcript;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sluice_tests::{Result, reaper};

use crate::scene::Scene;
use crate::transcript::Transcript;

/// Shows two nodes, real pods, curl and nslookup at work.
#[derive(Parser)]
struct Cli {
    /// Leave it running, and say how to enter a pod.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Remove what `--keep` left.
    #[arg(long)]
    down: bool,
    /// The name under which everything lies: two demos of different names do not meet.
    #[arg(long, default_value = "demo")]
    name: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = if cli.down { down(&cli.name) } else { show(&cli.name, cli.keep) };
    match outcome {
        Ok(failed) if failed.is_empty() => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("sluice-demo: failed: {}", failed.join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("sluice-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn down(bed: &str) -> Result<Vec<String>> {
    reaper::remove(bed)?;
    println!("The demo is gone.");
    Ok(Vec::new())
}

/// Runs the parts; returns the names of the steps that failed.
fn show(bed: &str, keep: bool) -> Result<Vec<String>> {
    let started = Instant::now();
    let mut transcript = Transcript::new();
    transcript.part("Two nodes, a host outside, and an agent on each node");
    let mut scene = Scene::set(bed, &mut transcript)?;
    transcript.part("Pods, wired by sluice-cni, with real servers in them");
    scene.fill(&mut transcript)?;
    transcript.part("Who reaches whom");
    reach::show(&scene, &mut transcript)?;
    transcript.part("A backend goes, another comes");
    change::show(&mut scene, &mut transcript)?;
    transcript.part("The agent is killed while a download runs");
    crash::show(&scene, &mut transcript)?;
    let failed = transcript.end(started.elapsed());
    if keep {
        scene.keep()?;
    }
    Ok(failed)
}
