//! A service manager as small as one can be: starts a program, starts it again when it dies, and keeps the file descriptors
//! that it gives away (`FDSTORE=1`) for the next one, as systemd does.
//!
//! ```text
//! <folder>/notify   the socket that the program is told of (NOTIFY_SOCKET)
//! <folder>/pid      its process id
//! <folder>/store    the names of what is kept, one a line
//! ```

#![expect(unsafe_code, reason = "file descriptors that come with a message are numbers")]

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{IoSliceMut, Write as _};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::dup2;

use crate::{Error, Result};

/// The first number of what is handed over (sd_listen_fds(3)).
const FIRST: i32 = 3;
/// How many are kept at the most.
const MOST: usize = 32;
/// How often the program is looked at.
const STEP: Duration = Duration::from_millis(20);

/// What is kept, in the order in which it came.
type Store = Vec<(String, OwnedFd)>;

/// Runs a program for ever, with a pause between two runs.
pub fn run(folder: &Path, pause: Duration, command: &[String]) -> Result<Infallible> {
    // Whatever this process opens from here on is beyond the numbers that are handed over.
    let mut places = placeholders()?;
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).map_err(Error::file("bind", &path))?;
    socket.set_read_timeout(Some(STEP)).map_err(Error::file("bind", &path))?;
    let mut store = Store::new();
    loop {
        let mut child = start(folder, &path, command, &store, &mut places)?;
        write(&folder.join("pid"), &child.id().to_string())?;
        while child.try_wait().map_err(Error::file("wait for", &path))?.is_none() {
            if let Some((message, fds)) = receive(&socket) {
                take(&mut store, &message, fds);
                let names: Vec<_> = store.iter().map(|(name, _)| format!("{name}\n")).collect();
                write(&folder.join("store"), &names.concat())?;
            }
        }
        thread::sleep(pause);
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| file.write_all(text.as_bytes()));
    written.and_then(|()| fs::rename(&new, path)).map_err(Error::file("write", path))
}

/// Open files with the numbers that are handed over.
fn placeholders() -> Result<Vec<OwnedFd>> {
    let path = PathBuf::from("/dev/null");
    let place = |number: i32| {
        let file = File::open(&path).map(OwnedFd::from).map_err(Error::file("open", &path))?;
        if file.as_raw_fd() == number {
            return Ok(file);
        }
        // SAFETY: this process has opened nothing yet: the number is that of something that whoever started it has left
        // open, and nobody here knows of.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    (FIRST..).take(MOST).map(place).collect()
}

fn start(
    folder: &Path,
    socket: &Path,
    command: &[String],
    store: &Store,
    places: &mut [OwnedFd],
) -> Result<Child> {
    for ((_, fd), place) in store.iter().zip(&mut *places) {
        // The copy is inherited, where the original is closed.
        dup2(fd, place).map_err(|error| Error::answer("dup2", error.to_string()))?;
    }
    let names: Vec<_> = store.iter().map(|(name, _)| name.as_str()).collect();
    // The program must find its own number in LISTEN_PID, which only itself knows before it is started.
    let script = "LISTEN_PID=$$ exec \"$@\"";
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "sh", "-c", script, "sh"])
        .args(command)
        .env("NOTIFY_SOCKET", socket)
        .env("LISTEN_FDS", store.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .spawn()
        .map_err(Error::file("start what is managed in", folder))
}

/// A message, if one comes soon.
fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut text = [0; 4096];
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; MOST]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
    let mut fds = Vec::new();
    for message in received.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel has just opened them for this process, and nobody else knows their numbers.
            fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    let length = received.bytes;
    Some((String::from_utf8_lossy(&text[..length]).into_owned(), fds))
}

fn take(store: &mut Store, message: &str, fds: Vec<OwnedFd>) {
    let has = |line: &str| message.lines().any(|said| said == line);
    let name = message.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
    if has("FDSTOREREMOVE=1") {
        store.retain(|(held, _)| held != name);
    }
    if has("FDSTORE=1") {
        // What is here already is not kept twice.
        let target = |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
        for fd in fds {
            let is_new = store.iter().all(|(_, held)| target(held) != target(&fd));
            if is_new && store.len() < MOST {
                store.push((name.to_owned(), fd));
            }
        }
    }
}
