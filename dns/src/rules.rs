//! What is done about a query before the zone and the upstreams are asked.

mod acl;
mod dns64;
mod hosts;
mod log;
mod order;
mod rewrite;
mod template;
mod weights;

use std::{net::IpAddr, sync::Arc, time::Duration};

use regex::Regex;
use tokio::task::JoinSet;

use self::{hosts::HostTable, order::Arranger, rewrite::Rewriter, template::Templates};
pub(crate) use self::{
    rewrite::{MAX_OPTIONS, Rewritten},
    template::Said,
};
use crate::{
    AclAction, ConfigError, Rules,
    dnssec::Signer,
    files::Files,
    handler::Client,
    metrics::{AclMetrics, RuleMetrics},
    name::WireName,
    query::{Query, QueryName},
    reply::Reply,
};

/// All rules, ready for use.
#[derive(Debug, Default)]
pub(crate) struct RuleSet(
    /// The longest domain first.
    Vec<Arc<Scope>>,
);

/// The rules for the names of a domain.
#[derive(Debug)]
pub(crate) struct Scope {
    zone: WireName,
    log: Vec<log::Rule>,
    acl: Vec<acl::Rule>,
    acl_metrics: AclMetrics,
    rewriter: Rewriter,
    templates: Templates,
    hosts: Option<HostTable>,
    /// Domains in files.
    pub(crate) files: Files,
    /// Signs answers.
    pub(crate) signer: Option<Signer>,
    dns64: Option<dns64::Translator>,
    /// In which order addresses are told.
    pub(crate) order: Arranger,
}

impl RuleSet {
    /// Reads the configuration.
    pub(crate) fn new(rules: &[Rules], metrics: &RuleMetrics) -> Result<Self, ConfigError> {
        let mut scopes = rules
            .iter()
            .map(|rules| {
                let zone = domain(&rules.zone)?;
                Ok(Arc::new(Scope {
                    acl_metrics: metrics.acl(&zone.to_string()),
                    zone,
                    log: rules.log.iter().map(log::Rule::new).collect::<Result<_, _>>()?,
                    acl: rules.acl.iter().map(acl::Rule::new).collect::<Result<_, _>>()?,
                    rewriter: Rewriter::new(&rules.rewrites)?,
                    templates: Templates::new(&rules.templates, metrics)?,
                    hosts: rules.hosts.as_ref().map(|hosts| HostTable::new(hosts, metrics)).transpose()?,
                    files: Files::new(&rules.files)?,
                    signer: rules
                        .dnssec
                        .as_ref()
                        .map(|dnssec| Signer::new(dnssec, &metrics.signatures))
                        .transpose()?,
                    dns64: rules
                        .dns64
                        .as_ref()
                        .map(|dns64| dns64::Translator::new(dns64, metrics))
                        .transpose()?,
                    order: Arranger::new(&rules.order),
                }))
            })
            .collect::<Result<Vec<_>, ConfigError>>()?;
        scopes.sort_by_key(|scope| std::cmp::Reverse(scope.zone.as_bytes().len()));
        Ok(Self(scopes))
    }

    /// The rules for a name.
    pub(crate) fn of(&self, name: &QueryName) -> Option<&Arc<Scope>> {
        self.0.iter().find(|scope| is_below(name, &scope.zone))
    }

    /// Keeps up with the files, for ever.
    pub(crate) async fn watch(&self) {
        let mut watches = JoinSet::new();
        for scope in self.0.iter().cloned() {
            watches.spawn(async move {
                let hosts = async {
                    if let Some(hosts) = &scope.hosts {
                        hosts.watch().await;
                    }
                };
                tokio::join!(hosts, scope.files.watch());
            });
        }
        for scope in self.0.iter().filter(|scope| scope.order.is_about_whole_answers()).cloned() {
            watches.spawn(async move { scope.order.watch().await });
        }
        while watches.join_next().await.is_some() {}
    }
}

impl Scope {
    /// What becomes of a query.
    pub(crate) fn action(&self, query: &Query<'_>, client: IpAddr) -> AclAction {
        let rule = self.acl.iter().find(|rule| rule.matches(query, client));
        rule.map_or(AclAction::Allow, |rule| rule.action)
    }

    /// Counts what became of a query.
    pub(crate) fn count(&self, action: AclAction) {
        if !self.acl.is_empty() {
            self.acl_metrics.count(action);
        }
    }

    /// The query that is answered in the place of this one, with what puts its answer right.
    pub(crate) fn rewrite(&self, query: &Query<'_>, client: Client) -> Option<Rewritten<'_>> {
        self.rewriter.rewrite(query, client)
    }

    /// Whether anything may be written to the log.
    pub(crate) fn is_logging(&self) -> bool {
        !self.log.is_empty()
    }

    /// Writes to the log what is to be written of an answer.
    pub(crate) fn log(&self, query: &Query<'_>, client: Client, answer: &[u8], took: Duration) {
        if let Some(line) = self.log.iter().find_map(|rule| rule.line(query, client, answer, took)) {
            tracing::info!("{line}");
        }
    }

    /// What makes IPv6 addresses for this query, if anything does.
    pub(crate) fn translator(&self, query: &Query<'_>, client: IpAddr) -> Option<&dns64::Translator> {
        self.dns64.as_ref().filter(|dns64| dns64.applies(query, client))
    }

    /// Writes what the rules themselves say to a query; `None` where they say nothing. `is_counted`: they are asked about it
    /// for the first time.
    pub(crate) fn write(
        &self,
        query: &Query<'_>,
        client: IpAddr,
        turn: u32,
        is_counted: bool,
        reply: &mut Reply<'_>,
    ) -> Option<Said> {
        let said = self.templates.write(query, &self.zone, client, is_counted, reply);
        said.or_else(|| self.hosts.as_ref()?.write(query, turn, reply).map(Said::Complete))
    }
}

fn domain(text: &str) -> Result<WireName, ConfigError> {
    WireName::parse(text).ok_or_else(|| ConfigError::Zone(text.to_owned()))
}

fn domains(texts: &[String]) -> Result<Vec<WireName>, ConfigError> {
    texts.iter().map(|text| domain(text)).collect()
}

fn is_below(name: &QueryName, zone: &WireName) -> bool {
    name.labels_before(zone.as_bytes()).is_some()
}

/// Whether a name is below one of the domains; of no domains, all names are.
fn is_among(name: &QueryName, zones: &[WireName]) -> bool {
    zones.is_empty() || zones.iter().any(|zone| is_below(name, zone))
}

fn regex(text: &str) -> Result<Regex, ConfigError> {
    Regex::new(text).map_err(|source| ConfigError::Regex { text: text.to_owned(), source: Box::new(source) })
}
