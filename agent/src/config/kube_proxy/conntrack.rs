//! The section `conntrack` (row 43 of the behaviour table): for our table of connections, and for nf_conntrack's, which
//! what Sluice has no part in still goes through.

use std::time::Duration;

use serde_json::Value;

use super::{Fields, KubeProxyError, Period, Settings};
use crate::config::{ConntrackName, NfConntrack};

/// What there is room for where one of the two settings is left out: connections, and connections a core.
const MIN: i64 = 128 * 1024;
const PER_CORE: i64 = 32 * 1024;
/// So many at the most, however many cores there are.
const MOST: i64 = 1024 * 1024;
/// How long nf_conntrack remembers, where nothing is said.
const ESTABLISHED: Duration = Duration::from_hours(24);
const CLOSE_WAIT: Duration = Duration::from_hours(1);

/// How many connections there should be room for; none where that is to be left as it is.
fn room(per_core: Option<i64>, min: Option<i64>, cores: u32) -> Option<i64> {
    match per_core.unwrap_or(PER_CORE).saturating_mul(i64::from(cores)) {
        0 => None,
        of_cores if of_cores > MOST => Some(MOST),
        of_cores => Some(of_cores.max(min.unwrap_or(MIN))),
    }
}

/// What nf_conntrack is told where nothing else is said: what kube-proxy tells it.
pub(in crate::config) fn usual(cores: u32, established: Duration, close_wait: Duration) -> NfConntrack {
    let max = room(None, None, cores).unwrap_or(MIN);
    let usual = [
        (ConntrackName::Max, u64::try_from(max).unwrap_or(0)),
        (ConntrackName::TcpTimeoutEstablished, established.as_secs()),
        (ConntrackName::TcpTimeoutCloseWait, close_wait.as_secs()),
    ];
    NfConntrack(usual.into())
}

pub(super) fn conntrack(top: &mut Fields, settings: &mut Settings, cores: u32) -> Result<(), KubeProxyError> {
    let mut section = top.section("conntrack")?;
    let (per_core, min) = (section.number("maxPerCore")?, section.number("min")?);
    for (field, number) in [("maxPerCore", per_core), ("min", min)] {
        if number.is_some_and(|number| number < 0) {
            return Err(section.wrong(field, "is less than 0"));
        }
    }
    let room = room(per_core, min, cores);
    let mut host = NfConntrack::default();
    host.0.extend(room.and_then(|room| Some((ConntrackName::Max, u64::try_from(room).ok()?))));
    // Ours has a size of its own where nothing is said.
    if let Some(connections) = room.filter(|_| per_core.is_some() || min.is_some()) {
        // Two entries are a connection.
        let entries = u32::try_from(connections.saturating_mul(2));
        settings.flow_entries = Some(entries.map_err(|_| section.wrong("min", "is too large"))?);
    }
    let mut time = |field: &str, name: ConntrackName, usual: Option<Duration>| {
        // That it be none leaves it as it is, which is not to say nothing.
        let is_said = matches!(section.fields.get(field), Some(Value::String(text)) if !text.is_empty());
        let time = section.duration(field)?;
        let told = if is_said { time } else { usual };
        host.0.extend(told.map(|time| (name, time.as_secs())));
        Ok::<_, KubeProxyError>(time.map(Period))
    };
    settings.tcp_established_timeout =
        time("tcpEstablishedTimeout", ConntrackName::TcpTimeoutEstablished, Some(ESTABLISHED))?;
    settings.tcp_close_wait_timeout =
        time("tcpCloseWaitTimeout", ConntrackName::TcpTimeoutCloseWait, Some(CLOSE_WAIT))?;
    settings.udp_timeout = time("udpTimeout", ConntrackName::UdpTimeout, None)?;
    settings.udp_stream_timeout = time("udpStreamTimeout", ConntrackName::UdpTimeoutStream, None)?;
    let liberal = section.flag("tcpBeLiberal")?.filter(|liberal| *liberal);
    host.0.extend(liberal.map(|_| (ConntrackName::TcpBeLiberal, 1)));
    settings.nf_conntrack = Some(host);
    top.put_back("conntrack", section);
    Ok(())
}
