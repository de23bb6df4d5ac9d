//! The names that CoreDNS's metrics of upstreams had before version 1.11, for dashboards that know no others: made of today's when
//! somebody reads them, so that counting costs nothing more.

use std::collections::BTreeMap;

use prometheus::{
    HistogramVec, IntCounterVec,
    core::{Collector, Desc},
    proto::{Counter, LabelPair, Metric, MetricFamily, MetricType},
};

use super::Metrics;

/// What the former metrics are made of, and their descriptions.
pub(super) struct Former {
    durations: HistogramVec,
    /// With what each is called now, and was then.
    counters: [(IntCounterVec, &'static str); 3],
    descriptions: Vec<Desc>,
}

const DURATIONS: &str = "coredns_forward_request_duration_seconds";
const REQUESTS: &str = "coredns_forward_requests_total";
const RESPONSES: &str = "coredns_forward_responses_total";
const HELP: &str = "The former name of a metric of coredns_proxy.";

impl Former {
    pub(super) fn of(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let counters = [
            (metrics.check_failures.clone(), "coredns_forward_healthcheck_failures_total"),
            (metrics.connections_found.clone(), "coredns_forward_conn_cache_hits_total"),
            (metrics.connections_opened.clone(), "coredns_forward_conn_cache_misses_total"),
        ];
        let names =
            [DURATIONS, REQUESTS, RESPONSES].into_iter().chain(counters.iter().map(|(_, name)| *name));
        let describe =
            |name: &str| Desc::new(name.to_owned(), HELP.to_owned(), Vec::new(), Default::default());
        let descriptions = names.map(describe).collect::<Result<_, _>>()?;
        Ok(Self { durations: metrics.upstream.clone(), counters, descriptions })
    }
}

impl Collector for Former {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for mut durations in self.durations.collect() {
            let metrics = durations.mut_metric();
            metrics.iter_mut().for_each(leave_out_proxy);
            let count = |metric: &Metric| metric.get_histogram().get_sample_count() as f64;
            let responses =
                metrics.iter().map(|metric| counter(metric.get_label().to_vec(), count(metric))).collect();
            let mut requests = BTreeMap::new();
            for metric in metrics.iter() {
                *requests.entry(label(metric, "to")).or_insert(0.0) += count(metric);
            }
            let requests =
                requests.into_iter().map(|(to, count)| counter(vec![pair("to", to)], count)).collect();
            families.push(family(RESPONSES, MetricType::COUNTER, responses));
            families.push(family(REQUESTS, MetricType::COUNTER, requests));
            families.push(family(DURATIONS, MetricType::HISTOGRAM, durations.take_metric()));
        }
        for (counters, name) in &self.counters {
            for mut now in counters.collect() {
                now.mut_metric().iter_mut().for_each(leave_out_proxy);
                families.push(family(name, MetricType::COUNTER, now.take_metric()));
            }
        }
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

/// The label that says which plugin asks: there was none but `forward`.
fn leave_out_proxy(metric: &mut Metric) {
    let mut labels = metric.take_label();
    labels.retain(|label| label.name() != "proxy_name");
    metric.set_label(labels);
}

fn label(metric: &Metric, name: &str) -> String {
    let label = metric.get_label().iter().find(|label| label.name() == name);
    label.map(|label| label.value().to_owned()).unwrap_or_default()
}

fn pair(name: &str, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}

fn counter(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn family(name: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(HELP.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
