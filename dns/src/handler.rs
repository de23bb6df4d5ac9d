//! From a query to its answer: at once where we know it, later where others must be asked.

mod filed;
mod later;
mod ruled;
mod signed;
mod whole;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::{
    DnsConfig,
    answer::{self, Written},
    autopath,
    clients::Clients,
    failures::Failures,
    files::Files,
    message::{self, Question},
    metrics::{Metrics, Part, RuleMetrics},
    name::WireName,
    query::{Query, QueryName, Refusal},
    reply::{self, Reply},
    routes::Routes,
    rules::{RuleSet, Scope},
    transfer::Transfers,
    wire::{CLASS_IN, Rcode, flag, rtype},
    zone::{Found, Origin, Zone},
};

/// The published zone; none before the first publish.
pub(crate) type ZoneSlot = Arc<ArcSwapOption<Zone>>;

/// How a query came, and so how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// The handler in force; another takes its place when the configuration changes.
pub(crate) type HandlerSlot = Arc<ArcSwap<Handler>>;

/// Queries that wait for others at one time, whatever becomes of them; more are refused at once.
const MAX_UNDER_WAY: usize = 10_000;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// How.
    pub(crate) transport: Transport,
    /// From where.
    pub(crate) address: IpAddr,
    /// And from which port.
    pub(crate) port: u16,
}

impl Client {
    /// The same client, as if it took an answer of any length: for what becomes part of its answer.
    pub(crate) fn whole(self) -> Self {
        Self { transport: Transport::Tcp, ..self }
    }
}

/// What a query asked for, as far as it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The type.
    pub(crate) qtype: u16,
    /// DNSSEC records are wanted.
    pub(crate) dnssec_ok: bool,
}

/// By whom, and how, a name is asked for.
#[derive(Clone, Copy)]
struct Course<'s> {
    /// What is said of its domain.
    scope: Option<&'s Scope>,
    client: Client,
    /// Decides which of several addresses comes first.
    turn: u32,
    /// How many names led to it.
    aliases: usize,
}

impl<'s> Course<'s> {
    /// The files in which names like this one are.
    fn files(&self, name: &QueryName) -> Option<&'s Files> {
        self.scope.map(|scope| &scope.files).filter(|files| files.hold(name))
    }
}

/// What to do about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Silence,
    /// The answer is written.
    Answered(Part),
    /// The answer is written, and should be asked for again: [`Handler::refresh`].
    Refresh(Part),
    /// Others must be asked: [`Handler::later`].
    Later,
    /// The answer is the whole zone: [`Handler::transfer`]. Over TCP only.
    Transfer,
}

impl Outcome {
    /// Whether an answer is written.
    fn is_answer(self) -> bool {
        matches!(self, Self::Answered(_) | Self::Refresh(_))
    }
}

/// Answers queries. One for all sockets.
#[derive(Debug)]
pub(crate) struct Handler {
    origin: Arc<Origin>,
    zone: ZoneSlot,
    /// For what is not ours.
    pub(crate) routes: Routes,
    /// What comes before all else.
    pub(crate) rules: RuleSet,
    allow_from: Clients,
    transfers: Transfers,
    /// Where names of ours that do not exist are asked for elsewhere.
    fallthrough: Vec<WireName>,
    udp_payload: u16,
    failures: Failures,
    under_way: AtomicUsize,
    metrics: RuleMetrics,
}

impl Handler {
    /// A handler of this zone.
    pub(crate) fn new(
        origin: Arc<Origin>,
        zone: ZoneSlot,
        routes: Routes,
        rules: RuleSet,
        transfers: Transfers,
        config: &DnsConfig,
        metrics: &Metrics,
    ) -> Self {
        Self {
            metrics: metrics.rules.clone(),
            origin,
            zone,
            routes,
            rules,
            allow_from: Clients::new(&config.allow_from),
            transfers,
            fallthrough: config.fallthrough.iter().filter_map(|zone| WireName::parse(zone)).collect(),
            udp_payload: config.max_udp_payload,
            failures: Failures::default(),
            under_way: AtomicUsize::new(0),
        }
    }

    fn limit(&self, query: &Query<'_>, client: Client) -> usize {
        match client.transport {
            Transport::Udp => query.udp_limit(self.udp_payload),
            Transport::Tcp => usize::from(u16::MAX),
        }
    }

    fn reply<'o>(&self, query: &Query<'_>, client: Client, aa: u16, out: &'o mut Vec<u8>) -> Reply<'o> {
        let ra = if self.routes.is_enabled() { flag::RA } else { 0 };
        Reply::new(query, out, self.limit(query, client), self.udp_payload, aa | ra)
    }

    /// An answer of no records.
    fn say(&self, code: Rcode, query: &Query<'_>, client: Client, out: &mut Vec<u8>) -> Outcome {
        self.reply(query, client, 0, out).finish(code);
        Outcome::Answered(Part::Server)
    }

    /// Answers a message as far as that needs nobody else; with what it asked for, if that can be read. `turn`
    /// decides which of several addresses comes first.
    pub(crate) fn answer(
        &self,
        message: &[u8],
        client: Client,
        turn: u32,
        out: &mut Vec<u8>,
    ) -> (Outcome, Option<Asked>) {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Refusal::Silence) => return (Outcome::Silence, None),
            Err(Refusal::Code(code)) => {
                reply::bare(message, code, self.udp_payload, out);
                return (Outcome::Answered(Part::Server), None);
            }
        };
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let asked = Some(Asked { qtype: query.qtype, dnssec_ok });
        let outcome = if self.allow_from.contain(client.address) {
            self.answer_query(&query, client, turn, out)
        } else {
            self.say(Rcode::Refused, &query, client, out)
        };
        if outcome != Outcome::Later {
            return (outcome, asked);
        }
        if self.under_way.fetch_add(1, Ordering::Relaxed) < MAX_UNDER_WAY {
            return (Outcome::Later, asked);
        }
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        (self.say(Rcode::Refused, &query, client, out), asked)
    }

    fn answer_query(&self, query: &Query<'_>, client: Client, turn: u32, out: &mut Vec<u8>) -> Outcome {
        if matches!(query.qtype, rtype::AXFR | rtype::IXFR) {
            return self.answer_transfer(query, client, out);
        }
        if query.qtype == rtype::OPT {
            return self.say(Rcode::FormErr, query, client, out);
        }
        let Some(scope) = self.rules.of(&query.name) else {
            if query.qclass != CLASS_IN {
                return self.say(Rcode::Refused, query, client, out);
            }
            let course = Course { scope: None, client, turn, aliases: 0 };
            return self.answer_plain(course, query, out);
        };
        let came = scope.is_logging().then(Instant::now);
        let turn = scope.order.turn(turn);
        let outcome = self.answer_in(scope, query, for_order(scope, client), turn, out);
        if outcome.is_answer() && scope.order.is_about_whole_answers() {
            scope.order.arrange(query, self.limit(query, client), out);
        }
        if let (Some(came), true) = (came, outcome.is_answer()) {
            scope.log(query, client, out, came.elapsed());
        }
        outcome
    }

    fn answer_plain(&self, course: Course<'_>, query: &Query<'_>, out: &mut Vec<u8>) -> Outcome {
        let Course { client, turn, .. } = course;
        let zone = self.zone.load();
        let Some(zone) = &*zone else {
            if !self.origin.claims(&query.name) {
                return self.answer_rest(course, query, out);
            }
            self.reply(query, client, 0, out).finish(Rcode::ServFail);
            return Outcome::Answered(Part::Kubernetes);
        };
        let mut reply = self.reply(query, client, flag::AA, out);
        match self.ask_zone(zone, query, turn, &mut reply) {
            Written::Complete(Rcode::NxDomain) => {
                reply.finish(Rcode::NxDomain);
                self.answer_walk(zone, query, client, turn, out)
            }
            Written::Complete(rcode) => {
                reply.finish(rcode);
                Outcome::Answered(self.part(&query.name))
            }
            Written::NotOurs => self.answer_rest(course, query, out),
            Written::Leaves(_) => Outcome::Later,
        }
    }

    /// What of the zone a name is.
    fn part(&self, name: &QueryName) -> Part {
        if self.origin.outside(name).is_some() { Part::External } else { Part::Kubernetes }
    }

    /// What the zone says. One of an earlier server denies nothing, and what falls through is not ours.
    fn ask_zone(&self, zone: &Zone, query: &Query<'_>, turn: u32, reply: &mut Reply<'_>) -> Written {
        if zone.is_stale {
            let is_denied = match zone.find(&query.name, query.qtype) {
                Found::NxDomain | Found::NoData => true,
                Found::NotOurs => self.origin.claims(&query.name),
                _ => false,
            };
            if is_denied {
                return Written::Complete(Rcode::ServFail);
            }
        }
        match answer::write(zone, query, turn, reply) {
            Written::Complete(Rcode::NxDomain) if zone.is_stale => Written::Complete(Rcode::ServFail),
            Written::Complete(Rcode::NxDomain) if self.falls_through(&query.name) => Written::NotOurs,
            written => written,
        }
    }

    fn falls_through(&self, name: &QueryName) -> bool {
        self.fallthrough.iter().any(|zone| name.labels_before(zone.as_bytes()).is_some())
    }

    /// The names to which the client's walk along its search path may lead, in order: those that the zone denies are
    /// passed over, none is there where the path is not to be walked.
    fn steps<'z>(
        &self,
        zone: &'z Zone,
        query: &Query<'_>,
        client: Client,
    ) -> impl Iterator<Item = Step> + use<'z> {
        let is_walked = self.origin.autopath;
        let names =
            is_walked.then(|| autopath::walk(zone, query, client.address, &self.routes.host_search()));
        let qtype = query.qtype;
        names.flatten().into_iter().flatten().filter_map(move |name| {
            let (read, _) = QueryName::read(name.as_bytes(), 0)?;
            let found = zone.find(&read, qtype);
            (found != Found::NxDomain).then(|| Step { is_ours: found != Found::NotOurs, read, name })
        })
    }

    /// Puts what the walk comes to in the place of the NXDOMAIN that is written.
    fn answer_walk(
        &self,
        zone: &Zone,
        query: &Query<'_>,
        client: Client,
        turn: u32,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(step) = self.steps(zone, query, client).next() else {
            return Outcome::Answered(Part::Kubernetes);
        };
        if !step.is_ours {
            return Outcome::Later;
        }
        let mut reply = self.reply(query, client, flag::AA, out);
        let Written::Complete(rcode) = answer::write_alias(zone, query, &step.name, turn, &mut reply) else {
            return Outcome::Later;
        };
        reply.finish(rcode);
        self.metrics.walks.inc();
        Outcome::Answered(Part::Kubernetes)
    }

    fn answer_cached(&self, query: &Query<'_>, client: Client, turn: u32, out: &mut Vec<u8>) -> Outcome {
        // What an upstream was asked to see whether it comes back: it goes no further round.
        if query.qtype == rtype::HINFO && self.routes.came_back(&query.name) {
            return self.say(Rcode::Refused, query, client, out);
        }
        let resolver = self.routes.of(&query.name);
        let Some(hit) = resolver.cached(query, Instant::now()) else {
            // In a flood this must cost little.
            if resolver.refuses(query) {
                self.reply(query, client, 0, out).finish(Rcode::Refused);
                return Outcome::Answered(Part::Forward);
            }
            return Outcome::Later;
        };
        let limit = self.limit(query, client);
        hit.entry.answer.write(query, Some(hit.ttl), limit, self.udp_payload, out);
        message::rotate(out, query.qtype, turn, limit);
        if hit.refresh { Outcome::Refresh(Part::Cache) } else { Outcome::Answered(Part::Cache) }
    }

    /// Asks again what [`Self::answer`] answered from the cache, if it said that this is due. Needs a runtime.
    pub(crate) fn refresh(&self, message: &[u8], client: Client) {
        let Ok(query) = Query::read(message) else { return };
        let rewritten = self.rules.of(&query.name).and_then(|scope| scope.rewrite(&query, client));
        let query = match &rewritten {
            Some(rewritten) => rewritten.query(),
            None => Some(query),
        };
        if let Some(query) = query {
            self.routes.of(&query.name).refresh(&Question::of(&query));
        }
    }
}

/// The client, or one that takes an answer of any length, where its order is decided when it is whole.
fn for_order(scope: &Scope, client: Client) -> Client {
    if scope.order.is_about_whole_answers() { client.whole() } else { client }
}

/// A name to which a client's walk may lead.
struct Step {
    name: WireName,
    read: QueryName,
    /// The zone has it; without, others must be asked.
    is_ours: bool,
}
