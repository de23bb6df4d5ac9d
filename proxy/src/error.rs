//! What can go wrong between user space and the datapath.

use std::{io, path::PathBuf};

/// An error of the datapath, naming the object and the call.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The programs were not built into this binary.
    #[error(
        "this build has no datapath: build it with `cargo xtask build`, or name the object file in the configuration"
    )]
    NoObject,
    /// The directory for pins is not on a BPF file system.
    #[error("bpffsDir {path} is not on a BPF file system: mount one (mount -t bpf bpf {there})")]
    NotBpffs {
        /// The directory.
        path: PathBuf,
        /// The part of it that is there.
        there: PathBuf,
    },
    /// A file operation failed.
    #[error("{call} {path}: {source}")]
    Io {
        /// The call.
        call: &'static str,
        /// Its object.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused the object file.
    #[error("loading the datapath: {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// The kernel is too old.
    #[error("this kernel ({kernel}) lacks what the datapath cannot do without: {missing}")]
    Kernel {
        /// Its release.
        kernel: String,
        /// What it lacks.
        missing: String,
    },
    /// A device, or a filter on it.
    #[error(transparent)]
    Netlink(#[from] sluice_netlink::Error),
    /// A pinned map does not fit this version of the programs.
    #[error(
        "pinned map {map} has {what} {found}, this version needs {wanted}: remove {path} while no agent runs"
    )]
    Incompatible {
        /// The map.
        map: &'static str,
        /// What differs.
        what: &'static str,
        /// The pinned map's.
        found: u32,
        /// Ours.
        wanted: u32,
        /// The pins' directory.
        path: PathBuf,
    },
    /// The object file lacks a program or a map.
    #[error("the datapath's object file has no {kind} {name}")]
    Missing {
        /// "program" or "map".
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A program operation failed.
    #[error("{call} {object}: {source}")]
    Program {
        /// The call.
        call: &'static str,
        /// The program, or the program and its device.
        object: String,
        /// Why.
        source: Box<aya::programs::ProgramError>,
    },
    /// A link operation failed.
    #[error("{call} {object}: {source}")]
    Link {
        /// The call.
        call: &'static str,
        /// The link.
        object: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map operation failed.
    #[error("{call} in map {map}, key {key}: {source}")]
    Map {
        /// The call.
        call: &'static str,
        /// The map.
        map: &'static str,
        /// The key, as text; empty where the whole map is meant.
        key: String,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
}

impl DatapathError {
    pub(crate) fn io(call: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { call, path, source }
    }

    pub(crate) fn program(
        call: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(aya::programs::ProgramError) -> Self {
        let object = object.into();
        move |source| Self::Program { call, object, source: Box::new(source) }
    }

    pub(crate) fn link<E>(call: &'static str, object: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let object = object.into();
        move |source| Self::Link { call, object, source: Box::new(source) }
    }

    pub(crate) fn map(
        call: &'static str,
        map: &'static str,
        key: impl ToString,
    ) -> impl FnOnce(aya::maps::MapError) -> Self {
        let key = key.to_string();
        move |source| Self::Map { call, map, key, source: Box::new(source) }
    }
}
