//! The datapath's entry points.
//!
//! ```text
//!            ┌────────┐   ┌────────────┐   ┌─────────┐   ┌─────────┐   ┌─────────┐
//! packet ───▶│ packet │──▶│    flow    │──▶│ service │──▶│   nat   │──▶│ rewrite │──▶ forward ─▶ verdict
//!            └────────┘   │ known flow │   │frontend,│   │new flow,│   └─────────┘
//!                         └─────┬──────┘   │ backend │   │  port   │        ▲
//!                               │          └─────────┘   └─────────┘        │
//!                               └────────────────────────────────────────────┘
//! ```
//!
//! Every packet program is this one pipeline, in IPv4 and IPv6 alike; the hook decides only which stages may
//! say something new. A stage returns its answer or a [`sluice_ebpf_common::DropReason`]; `verdict` alone
//! turns either into what the kernel wants, and counts.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the program macros want public functions and make others without a comment; a binary exports none"
)]

mod flow;
mod forward;
mod fragment;
mod icmp;
mod kernel;
mod maps;
mod nat;
mod packet;
mod pipeline;
mod reject;
mod rewrite;
mod service;
mod socket;
mod source;
mod verdict;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};

use crate::pipeline::Hook;

/// Ingress of a pod's host veth.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    verdict::give(pipeline::run(&ctx, Hook::FromPod))
}

/// Ingress of an uplink.
#[classifier]
pub fn from_wire(ctx: TcContext) -> i32 {
    verdict::give(pipeline::run(&ctx, Hook::FromWire))
}

/// Egress of an uplink.
#[classifier]
pub fn to_wire(ctx: TcContext) -> i32 {
    verdict::give(pipeline::run(&ctx, Hook::ToWire))
}

/// Egress of the service device, of the loopback device, and of what leads to pods: the bridge, or veths without one.
#[classifier]
pub fn from_host(ctx: TcContext) -> i32 {
    verdict::give(pipeline::run(&ctx, Hook::FromHost))
}

/// connect() of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    socket::connect(&ctx, true)
}

/// connect() of an IPv6 socket, which may name an IPv4 address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    socket::connect(&ctx, false)
}

/// getpeername() of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::getpeername(&ctx, true)
}

/// getpeername() of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    socket::getpeername(&ctx, false)
}

/// The licence as the kernel wants to read it; without it, no helper marked GPL is available.
#[expect(unsafe_code, reason = "a section of a name that the kernel's loader looks for")]
// SAFETY: the name is looked up in this section by the loader and collides with nothing.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the verifier refuses a program that could.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
