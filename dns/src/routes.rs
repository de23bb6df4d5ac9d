//! Who is asked about which names.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use tokio::task::JoinSet;

use crate::{
    ConfigError, DnsConfig, ForwardOptions, StubDomain, chain::Chain, forward::Forwarder, metrics::Metrics,
    name::WireName, query::QueryName, resolve::Resolver, upstream::Upstream,
};

/// Resolvers by the domains whose names they are asked about.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The longest domain first.
    stubs: Vec<Route>,
    /// For all other names.
    rest: Route,
    /// Whether upstreams are looked at for loops.
    detects_loops: bool,
}

#[derive(Debug)]
struct Route {
    zone: WireName,
    /// What the resolver was made of.
    config: StubDomain,
    resolver: Arc<Resolver>,
}

impl Routes {
    /// Reads the configuration. `own`: the server's own addresses. What `old` has that is as it should be,
    /// goes on with what it remembers.
    pub(crate) fn new(
        config: &DnsConfig,
        own: &[SocketAddr],
        metrics: &Metrics,
        old: Option<&Self>,
    ) -> Result<Self, ConfigError> {
        let route = |config: StubDomain| {
            let zone = WireName::parse(&config.zone).ok_or_else(|| ConfigError::Zone(config.zone.clone()))?;
            let kept = old.and_then(|old| old.all().find(|route| route.config == config));
            let resolver = match kept {
                Some(route) => route.resolver.clone(),
                None => {
                    let forwarder = |upstreams: &_, max, options: &ForwardOptions| {
                        Forwarder::new(upstreams, max, options.clone(), own.to_vec(), metrics.clone())
                    };
                    let first = forwarder(&config.upstreams, config.max_concurrent, &config.forward)?;
                    let next = config.next.iter();
                    let rest =
                        next.map(|next| forwarder(&next.upstreams, next.max_concurrent, &next.forward));
                    let chain = Chain::new(first, rest.collect::<Result<_, _>>()?);
                    Resolver::new(chain, config.cache.clone(), metrics.clone())?
                }
            };
            Ok::<_, ConfigError>(Route { zone, config, resolver })
        };
        let mut stubs = config.stub_domains.iter().cloned().map(route).collect::<Result<Vec<_>, _>>()?;
        stubs.sort_by_key(|route| std::cmp::Reverse(route.zone.as_bytes().len()));
        let rest = route(StubDomain {
            zone: ".".to_owned(),
            upstreams: config.upstreams.clone(),
            max_concurrent: config.max_concurrent,
            forward: config.forward.clone(),
            next: config.next.clone(),
            cache: config.cache.clone(),
        })?;
        Ok(Self { stubs, rest, detects_loops: config.detect_loops })
    }

    /// Whom to ask about a name.
    pub(crate) fn of(&self, name: &QueryName) -> &Arc<Resolver> {
        let stub = self.stubs.iter().find(|route| name.labels_before(route.zone.as_bytes()).is_some());
        &stub.unwrap_or(&self.rest).resolver
    }

    /// Whether anybody is ever asked.
    pub(crate) fn is_enabled(&self) -> bool {
        self.all().any(|route| route.resolver.chain.is_enabled())
    }

    /// The host's search domains.
    pub(crate) fn host_search(&self) -> Arc<Vec<WireName>> {
        self.rest.resolver.chain.search()
    }

    /// The upstreams of all names.
    fn upstreams(&self) -> impl Iterator<Item = Arc<Upstream>> {
        let all = self.all().flat_map(|route| route.resolver.chain.all());
        all.flat_map(|forwarder| forwarder.upstreams().as_ref().clone())
    }

    /// Whether a question is one that an upstream was asked to see whether it comes back; takes note of it.
    pub(crate) fn came_back(&self, name: &QueryName) -> bool {
        self.upstreams().any(|upstream| upstream.came_back(name))
    }

    /// The upstreams whose questions come back.
    pub(crate) fn looping(&self) -> BTreeSet<SocketAddr> {
        self.upstreams().filter(|upstream| upstream.is_looping()).map(|upstream| upstream.address).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Route> {
        self.stubs.iter().chain([&self.rest])
    }

    /// Keeps up with the files that name upstreams, for ever.
    pub(crate) async fn watch(&self) {
        let mut watches = JoinSet::new();
        for route in self.all() {
            let zone = self.detects_loops.then(|| route.zone.clone());
            let resolver = route.resolver.clone();
            watches.spawn(async move { resolver.chain.watch(zone.as_ref()).await });
        }
        while watches.join_next().await.is_some() {}
    }
}
