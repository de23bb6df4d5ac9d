//! The fast path: connect() to a cluster address becomes a connection to the backend, once, with nothing
//! left to translate per packet.
//!
//! Only where nobody can tell the difference: TCP, a cluster address, a service that the proxy has marked.
//! Everything else is left to the packet programs, which do without this one.

#![expect(unsafe_code, reason = "the context is a pointer to the kernel's view of the call")]

use aya_ebpf::{
    EbpfContext, bindings::bpf_sock_addr, helpers::generated::bpf_get_socket_cookie,
    programs::SockAddrContext,
};
use sluice_ebpf_common::{
    Addr, Be16, FRONTEND_EXTERNAL, FRONTEND_LOCAL_INSIDE, FRONTEND_LOCAL_SERVER, FRONTEND_SOURCE_RANGES,
    FrontendKey, PROTO_TCP, SERVICE_FAST_PATH,
};

use crate::{
    maps,
    service::{frontend_key, pick},
};

/// The call goes on, with the address as it now stands.
const PROCEED: i32 = 1;

/// Rewrites the address of a connect() to a service.
#[inline(always)]
pub fn connect(ctx: &SockAddrContext, v4: bool) -> i32 {
    if protocol(ctx) != u32::from(PROTO_TCP) {
        return PROCEED;
    }
    let key = read(ctx, v4);
    let cookie = cookie(ctx);
    if let Some((addr, port)) = backend_for(&key) {
        maps::peer_put(cookie, &key);
        write(ctx, v4, &addr, port);
    } else if maps::peer(&cookie).is_some() {
        // A socket that is connected once more, elsewhere.
        maps::peer_remove(cookie);
    }
    PROCEED
}

/// Gives back the address that the program connected to.
#[inline(always)]
pub fn getpeername(ctx: &SockAddrContext, v4: bool) -> i32 {
    if protocol(ctx) == u32::from(PROTO_TCP)
        && let Some(peer) = maps::peer(&cookie(ctx))
    {
        write(ctx, v4, &peer.addr, peer.port);
    }
    PROCEED
}

#[inline(always)]
fn backend_for(key: &FrontendKey) -> Option<(Addr, Be16)> {
    let frontend = maps::frontend(key)?;
    if frontend.flags & (FRONTEND_EXTERNAL | FRONTEND_LOCAL_SERVER | FRONTEND_SOURCE_RANGES) != 0 {
        return None;
    }
    let inside = frontend.flags & FRONTEND_LOCAL_INSIDE != 0;
    let service = if inside { frontend.local } else { frontend.service };
    if maps::service(&service)?.flags & SERVICE_FAST_PATH == 0 {
        return None;
    }
    // No client: a service that remembers its clients is not marked for the fast path.
    let (_, backend) = pick(service, &Addr::ANY_V6).ok()?;
    Some((backend.addr, backend.port))
}

#[inline(always)]
fn raw(ctx: &SockAddrContext) -> *mut bpf_sock_addr {
    ctx.sock_addr
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*raw(ctx)).protocol }
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context of this program type.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The address as it stands in the call. An IPv4-mapped IPv6 address is the IPv4 address itself.
#[inline(always)]
fn read(ctx: &SockAddrContext, v4: bool) -> FrontendKey {
    let raw = raw(ctx);
    // SAFETY: the context is valid while the program runs; the kernel allows aligned word access.
    unsafe {
        let addr = if v4 {
            Addr::from_v4_word((*raw).user_ip4)
        } else {
            Addr::from_words([
                core::ptr::read_volatile(&raw const (*raw).user_ip6[0]),
                core::ptr::read_volatile(&raw const (*raw).user_ip6[1]),
                core::ptr::read_volatile(&raw const (*raw).user_ip6[2]),
                core::ptr::read_volatile(&raw const (*raw).user_ip6[3]),
            ])
        };
        frontend_key(addr, Be16((*raw).user_port as u16), PROTO_TCP)
    }
}

#[inline(always)]
fn write(ctx: &SockAddrContext, v4: bool, addr: &Addr, port: Be16) {
    let raw = raw(ctx);
    // SAFETY: as for `read`; volatile, so that the compiler does not join the words to a wider store, which
    // the kernel does not allow here.
    unsafe {
        if v4 {
            core::ptr::write_volatile(&raw mut (*raw).user_ip4, addr.v4_word());
        } else {
            let words = addr.words();
            core::ptr::write_volatile(&raw mut (*raw).user_ip6[0], words[0]);
            core::ptr::write_volatile(&raw mut (*raw).user_ip6[1], words[1]);
            core::ptr::write_volatile(&raw mut (*raw).user_ip6[2], words[2]);
            core::ptr::write_volatile(&raw mut (*raw).user_ip6[3], words[3]);
        }
        core::ptr::write_volatile(&raw mut (*raw).user_port, u32::from(port.0));
    }
}
