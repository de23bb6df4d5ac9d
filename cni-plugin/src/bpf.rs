//! The few commands of bpf(2) that the plugin needs, on what the agent has pinned.
//!
//! Not aya: opening a pinned program there probes the kernel's features first, by loading some twenty programs,
//! which takes longer than the whole of ADD.

#![expect(
    unsafe_code,
    reason = "bpf(2) takes pointers; there is no safe wrapper that does not probe the kernel first"
)]

use std::{
    collections::BTreeSet,
    ffi::CString,
    io,
    marker::PhantomData,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use sluice_ebpf_common::{Addr, Backend, Endpoint, FrontendKey};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_TCX_INGRESS: u32 = 46;

/// Steps of a walk over a map, at most: several times as many as a node has pods or host ports.
const WALK_LIMIT: usize = 1 << 20;

/// What the kernel reads for `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// What the kernel reads for `BPF_MAP_*_ELEM`.
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// What the kernel reads for `BPF_LINK_CREATE`, as far as TCX needs it.
#[repr(C)]
struct LinkAttributes {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

/// What the kernel reads for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttributes {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The start of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is a live, exclusive, fully initialised `repr(C)` value without implicit padding, and
    // its size is passed along; every pointer in it (see the callers) is to memory that outlives the call. The
    // kernel takes shorter attributes than its own as if the rest were zero.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    libc::c_int::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens what is pinned at `path`.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attributes = ObjectAttributes { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins something at `path`, which must not exist.
pub(crate) fn pin(object: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let bpf_fd = object.as_raw_fd() as u32;
    bpf(BPF_OBJ_PIN, &mut ObjectAttributes { pathname: path.as_ptr() as u64, bpf_fd, file_flags: 0 })
        .map(drop)
}

/// Attaches a program to the ingress of a link, after what is attached there already. The attachment lasts as
/// long as the link that is returned, or its pin.
pub(crate) fn attach_ingress(program: &OwnedFd, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attributes = LinkAttributes {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: BPF_TCX_INGRESS,
        flags: 0,
        relative: 0,
        pad: 0,
        expected_revision: 0,
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A key or value: plain old data, of which every bit pattern is a value.
pub(crate) trait Plain: Copy + Default {}

// What the agent has marked as such, for the same maps (`sluice_ebpf_common`, `user.rs`).
impl Plain for Addr {}
impl Plain for Endpoint {}
impl Plain for FrontendKey {}
impl Plain for Backend {}

/// A pinned hash map.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    fd: OwnedFd,
    of: PhantomData<(K, V)>,
}

impl<K: Plain + Ord, V: Plain> Map<K, V> {
    /// Opens the pinned map. One whose keys and values are of other sizes is refused: the kernel would read or
    /// write beyond ours.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let fd = open(path)?;
        let mut info = MapInfo::default();
        let mut attributes = InfoAttributes {
            bpf_fd: fd.as_raw_fd() as u32,
            info_len: size_of::<MapInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
        if (info.key_size as usize, info.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
            let what = format!("its entries are of {} and {} bytes", info.key_size, info.value_size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self { fd, of: PhantomData })
    }

    fn element(&self, key: u64, value: u64) -> ElementAttributes {
        ElementAttributes { map_fd: self.fd.as_raw_fd() as u32, pad: 0, key, value, flags: 0 }
    }

    /// Enters a value, in place of what was there.
    pub(crate) fn put(&self, key: &K, value: &V) -> io::Result<()> {
        let value = std::ptr::from_ref(value) as u64;
        bpf(BPF_MAP_UPDATE_ELEM, &mut self.element(std::ptr::from_ref(key) as u64, value)).map(drop)
    }

    /// Looks a value up.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::default();
        let at = std::ptr::from_mut(&mut value) as u64;
        match bpf(BPF_MAP_LOOKUP_ELEM, &mut self.element(std::ptr::from_ref(key) as u64, at)) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All keys that have an entry. One that comes or goes meanwhile is among them or not.
    pub(crate) fn keys(&self) -> io::Result<BTreeSet<K>> {
        let mut keys = BTreeSet::new();
        let mut last: Option<K> = None;
        let mut next = K::default();
        // Where the last key is removed under the walk, the kernel starts again from the first; the set does not
        // mind, and the limit ends a walk that never comes through.
        for _ in 0..WALK_LIMIT {
            let key = last.as_ref().map_or(0, |last| std::ptr::from_ref(last) as u64);
            match bpf(BPF_MAP_GET_NEXT_KEY, &mut self.element(key, std::ptr::from_mut(&mut next) as u64)) {
                Ok(_) => {
                    keys.insert(next);
                    last = Some(next);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Removes an entry; that there is none is no error.
    pub(crate) fn remove(&self, key: &K) -> io::Result<()> {
        match bpf(BPF_MAP_DELETE_ELEM, &mut self.element(std::ptr::from_ref(key) as u64, 0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
