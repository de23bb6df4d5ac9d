//! Stand-ins for what the agent pins: a map of endpoints and a program that passes everything on.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{fs, path::PathBuf, process::Command};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

use super::Node;

/// Runs `test` on a thread with a mount namespace of its own, with a datapath whose map has room for so many
/// endpoints.
pub(crate) fn with_datapath(room: u32, test: impl FnOnce(&Node, &Value) + Send) {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let node = Node::new();
                let bpffs = node.state_dir().join("bpf");
                fs::create_dir(&bpffs).unwrap();
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                    .unwrap();
                mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
                for directory in ["maps", "programs", "links"] {
                    fs::create_dir_all(bpffs.join("v1").join(directory)).unwrap();
                }
                if !has_tcx() {
                    fs::create_dir(bpffs.join("v1/clsact")).unwrap();
                }
                let map = bpffs.join("v1/maps/endpoints");
                let entries = room.to_string();
                let create =
                    ["map", "create", map.to_str().unwrap(), "type", "hash", "key", "16", "value", "24"];
                bpftool(&[&create[..], &["entries", &entries, "name", "endpoints"]].concat());
                let map = bpffs.join("v1/maps/host_ports");
                let create =
                    ["map", "create", map.to_str().unwrap(), "type", "hash", "key", "24", "value", "24"];
                bpftool(&[&create[..], &["entries", "64", "name", "host_ports"]].concat());
                program::pin_pass(&bpffs.join("v1/programs/from_pod"));
                let config = node.config(json!({ "bpffs": bpffs }));
                test(&node, &config);
                nix::mount::umount(&bpffs).unwrap();
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Whether the kernel attaches programs by links (TCX, 6.6). On one that does not, the agent says so by a folder.
pub(crate) fn has_tcx() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

pub(crate) fn bpftool(arguments: &[&str]) -> Value {
    let output = Command::new("bpftool").arg("-j").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() }
}

/// The map of endpoints: the bytes of each key and value.
pub(crate) fn endpoints(config: &Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries(config, "endpoints")
}

/// The map of host ports, likewise.
pub(crate) fn host_ports(config: &Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries(config, "host_ports")
}

fn entries(config: &Value, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let map = PathBuf::from(config["bpffs"].as_str().unwrap()).join("v1/maps").join(name);
    let bytes = |value: &Value| {
        let digits =
            value.as_array().unwrap().iter().map(|byte| byte.as_str().unwrap().trim_start_matches("0x"));
        digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect::<Vec<_>>()
    };
    let dump = bpftool(&["map", "dump", "pinned", map.to_str().unwrap()]);
    let mut list: Vec<_> =
        dump.as_array().unwrap().iter().map(|entry| (bytes(&entry["key"]), bytes(&entry["value"]))).collect();
    list.sort();
    list
}

pub(crate) fn links(config: &Value) -> Vec<String> {
    let directory = PathBuf::from(config["bpffs"].as_str().unwrap()).join("v1/links");
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A program that passes every packet on, made of two instructions: no compiler is needed for it.
mod program {
    #![expect(unsafe_code, reason = "bpf(2) takes pointers")]

    use std::{ffi::CString, os::unix::ffi::OsStrExt, path::Path};

    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }

    #[repr(C)]
    struct Pin {
        path: u64,
        fd: u32,
        flags: u32,
    }

    fn bpf<T>(command: i64, attributes: &T) -> i32 {
        // SAFETY: a live value of the size that is passed along; the pointers in it outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
        assert!(result >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
        i32::try_from(result).unwrap()
    }

    pub(super) fn pin_pass(path: &Path) {
        /// r0 = -1 (go on to the next program); exit.
        const PASS: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
        let load = Load {
            kind: 3,
            count: 2,
            instructions: PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buffer: 0,
            kernel_version: 0,
            flags: 0,
        };
        let fd = bpf(5, &load);
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        bpf(6, &Pin { path: path.as_ptr() as u64, fd: fd.cast_unsigned(), flags: 0 });
        // SAFETY: the descriptor is ours, and nobody uses it after this.
        unsafe { libc::close(fd) };
    }
}
