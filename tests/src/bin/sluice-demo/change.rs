//! Part 4: a manifest goes, another comes, under load; when did it take effect, and did anyone notice?

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sluice_tests::{Error, Result};

use crate::scene::{Scene, WEB, pod_manifest};
use crate::transcript::Transcript;

/// How long the load goes on after the change was first seen.
const AFTER: Duration = Duration::from_millis(500);
/// How long the change may take to be seen.
const LIMIT: Duration = Duration::from_secs(5);

/// Shows the part.
pub(crate) fn show(scene: &mut Scene, transcript: &mut Transcript) -> Result<()> {
    transcript.tell("web-3 is made beside web-2; then the manifests change under a stream of connections");
    scene.add("web-3", 2, transcript)?;
    let client = scene.pod("client").host();
    let mut command = client.command("curl")?;
    command.args(["-sSN", "-m10", &format!("http://{}/?[1-1000000]", WEB[0])]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut curl = command.spawn().map_err(|source| Error::Start { command: "curl".into(), source })?;
    let answers = read(curl.stdout.take());
    let complaints = read(curl.stderr.take());
    let before =
        answers.recv_timeout(LIMIT).map_err(|error| Error::answer("the stream of connections", error))?;
    transcript.tell(&format!("client$ curl -s 'http://{}/?[1-1000000]'   ... {}", WEB[0], before.1));

    scene.cluster.apply("web-3.yaml", &pod_manifest("web-3", 2, "web", ""))?;
    let comes = Instant::now();
    scene.cluster.withdraw("web-2.yaml")?;
    let goes = Instant::now();
    transcript.tell("$ mv /tmp/web-3.yaml manifests/ && rm manifests/web-2.yaml");

    let (mut first_new, mut last_old, mut count) = (None, None, 0);
    while comes.elapsed() < LIMIT && first_new.is_none_or(|seen: Instant| seen.elapsed() < AFTER) {
        let Ok((at, answer)) = answers.recv_timeout(AFTER) else { break };
        count += 1;
        if answer.starts_with("web-3") && first_new.is_none() {
            first_new = Some(at);
        }
        if answer.starts_with("web-2") && at > goes {
            last_old = Some(at);
        }
    }
    // It may have ended of itself, by a failed connection.
    let _ended = curl.kill();
    let _ended = curl.wait();
    let complaints: Vec<String> = complaints.iter().map(|(_, line)| line).collect();

    let after = |at: Instant, file: Instant| at.saturating_duration_since(file).as_secs_f64() * 1000.0;
    let came = first_new.map(|at| after(at, comes));
    let went = last_old.map_or(0.0, |at| after(at, goes));
    let came_text = came.map_or("never".to_owned(), |came| format!("{came:.1} ms after its file was there"));
    transcript.tell(&format!("first answer of web-3: {came_text}"));
    transcript.tell(&format!("last answer of web-2: {went:.1} ms after its file was gone"));
    transcript.tell(&format!("{count} connections, {} failed", complaints.len()));
    transcript
        .verdict("a new backend takes part", came.map(|_| ()).ok_or_else(|| "it never answered".to_owned()));
    let gone = if went < 1000.0 { Ok(()) } else { Err(format!("it still answered after {went:.0} ms")) };
    transcript.verdict("a removed backend is not asked any more", gone);
    let unharmed = if complaints.is_empty() { Ok(()) } else { Err(complaints.join("; ")) };
    transcript.verdict("no connection failed meanwhile", unharmed);
    Ok(())
}

/// The lines of a stream, each with the time at which it came.
fn read(stream: Option<impl std::io::Read + Send + 'static>) -> Receiver<(Instant, String)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let lines = stream.map(BufReader::new).into_iter().flat_map(BufRead::lines);
        for line in lines.map_while(std::result::Result::ok) {
            if sender.send((Instant::now(), line)).is_err() {
                break;
            }
        }
    });
    receiver
}
