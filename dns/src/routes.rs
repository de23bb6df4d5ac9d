//! Who is asked about which names.

use std::{net::SocketAddr, sync::Arc};

use tokio::task::JoinSet;

use crate::{
    ConfigError, DnsConfig, forward::Forwarder, metrics::Metrics, name::WireName, query::QueryName,
    resolve::Resolver,
};

/// Resolvers by the domains whose names they are asked about.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The longest domain first.
    stubs: Vec<(WireName, Arc<Resolver>)>,
    /// For all other names.
    rest: Arc<Resolver>,
}

impl Routes {
    /// Reads the configuration. `own`: the server's own addresses.
    pub(crate) fn new(
        config: &DnsConfig,
        own: &[SocketAddr],
        metrics: &Metrics,
    ) -> Result<Self, ConfigError> {
        let resolver = |upstreams, max, options: &_, cache: &_| {
            let options = Clone::clone(options);
            let forwarder = Forwarder::new(upstreams, max, options, own.to_vec(), metrics.clone())?;
            Ok::<_, ConfigError>(Resolver::new(forwarder, Clone::clone(cache), metrics.clone()))
        };
        let mut stubs = Vec::new();
        for stub in &config.stub_domains {
            let zone = WireName::parse(&stub.zone).ok_or_else(|| ConfigError::Zone(stub.zone.clone()))?;
            let resolver = resolver(&stub.upstreams, stub.max_concurrent, &stub.forward, &stub.cache)?;
            stubs.push((zone, resolver));
        }
        stubs.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.as_bytes().len()));
        let rest = resolver(&config.upstreams, config.max_concurrent, &config.forward, &config.cache)?;
        Ok(Self { stubs, rest })
    }

    /// Whom to ask about a name.
    pub(crate) fn of(&self, name: &QueryName) -> &Arc<Resolver> {
        let stub = self.stubs.iter().find(|(zone, _)| name.labels_before(zone.as_bytes()).is_some());
        stub.map_or(&self.rest, |(_, resolver)| resolver)
    }

    /// Whether anybody is ever asked.
    pub(crate) fn is_enabled(&self) -> bool {
        self.all().any(|resolver| resolver.forwarder.is_enabled())
    }

    /// The host's search domains.
    pub(crate) fn host_search(&self) -> Arc<Vec<WireName>> {
        self.rest.forwarder.search.load_full()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Resolver>> {
        self.stubs.iter().map(|(_, resolver)| resolver).chain([&self.rest])
    }

    /// Keeps up with the files that name upstreams, for ever.
    pub(crate) async fn watch(&self) {
        let mut watches = JoinSet::new();
        for resolver in self.all().cloned() {
            watches.spawn(async move { resolver.forwarder.watch().await });
        }
        while watches.join_next().await.is_some() {}
    }
}
