//! Part 5: SIGKILL for the agent during a download; the download and new connections go on; the agent comes back and
//! adopts what is there.

use std::time::Duration;

use sluice_tests::bed::Servers;
use sluice_tests::{Result, Running, wait_for};

use crate::scene::{Scene, WEB};
use crate::transcript::{Transcript, has};

/// Slow enough to last over the crash and the restart.
const RATE: &str = "24M";

/// Shows the part.
pub(crate) fn show(scene: &Scene, transcript: &mut Transcript) -> Result<()> {
    let client = scene.pod("client").host();
    let node = scene.cluster.node(1);
    let file = scene.cluster.bed().folder().join("download");
    let shown = file.display().to_string();
    let url = format!("http://{}/large", WEB[0]);
    let words = ["-sS", "-m20", "--limit-rate", RATE, "-o", &shown, &url];
    let mut command = client.command("curl")?;
    let mut download =
        Running::start(command.args(words), &scene.cluster.bed().folder().join("download.log"))?;
    let size = || file.metadata().map_or(0, |meta| meta.len());
    wait_for("the download", Duration::from_secs(5), || Ok((size() > 0).then_some(())))?;
    transcript.tell(&format!("client$ curl --limit-rate {RATE} -o download {url} &"));

    let links_before = links(&node.bpffs());
    node.kill_agent()?;
    let at = size();
    transcript.tell(&format!("node1$ kill -9 <agent>      at {:.1} MiB", mib(at)));
    let url = format!("http://{}/", WEB[0]);
    transcript.step(
        "a new connection without an agent",
        client,
        &["curl", "-sS", "-m5", &url],
        has(&["web-"]),
    )?;
    let going_on =
        wait_for("more of the download", Duration::from_secs(3), || Ok((size() > at).then_some(())));
    transcript.verdict("the download goes on without an agent", going_on.map_err(|error| error.to_string()));

    node.start_agent()?;
    let ready = node.wait_ready();
    transcript.tell(&format!("node1$ sluice agent &       at {:.1} MiB", mib(size())));
    transcript.verdict("the agent is back", ready.map_err(|error| error.to_string()));
    let links_after = links(&node.bpffs());
    let adopted = links_before == links_after && !links_after.is_empty();
    let complaint = || format!("links before: {links_before:?}; after: {links_after:?}");
    transcript.verdict(
        &format!("it adopted its {} attachments", links_after.len()),
        if adopted { Ok(()) } else { Err(complaint()) },
    );
    transcript.step(
        "a new connection with the new agent",
        client,
        &["curl", "-sS", "-m5", "http://web"],
        has(&["web-"]),
    )?;
    let code = download.wait(Duration::from_secs(10))?;
    let whole = code == Some(0) && size() == Servers::LARGE;
    let outcome = if whole {
        Ok(())
    } else {
        Err(format!("{} of {} bytes: {}", size(), Servers::LARGE, download.log()))
    };
    transcript.tell(&format!("download: {:.1} MiB of {:.1}", mib(size()), mib(Servers::LARGE)));
    transcript.verdict("the download is whole", outcome);
    Ok(())
}

/// The pinned links of devices, each with the inode that would change were it made anew. (Links of cgroups cannot be
/// taken over: the new ones stand beside the old ones for a moment.)
fn links(bpffs: &std::path::Path) -> Vec<(String, u64)> {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(bpffs.join("v1/links")).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (!name.ends_with("-cgroup")).then_some((name, entry.metadata().ok()?.ino()))
    });
    let mut links: Vec<_> = named.collect();
    links.sort();
    links
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
