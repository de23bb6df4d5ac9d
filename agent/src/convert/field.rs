//! Fields that several kinds share: names, addresses, networks, ports.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_model::{ObjectName, Protocol};

use super::{ConvertError, Problem, error::Subject};

/// The namespace of an object that names none, as with kubectl.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// The name of a namespaced object.
pub(super) fn object_name(kind: &str, metadata: &ObjectMeta) -> Result<(Subject, ObjectName), ConvertError> {
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let Some(name) = metadata.name.as_deref() else {
        return Err(
            Subject::new(kind, format_args!("{namespace}/?")).error("metadata.name", Problem::Missing)
        );
    };
    let subject = Subject::new(kind, format_args!("{namespace}/{name}"));
    check_label(&subject, "metadata.namespace", namespace)?;
    check_name(&subject, "metadata.name", name)?;
    Ok((subject, ObjectName::new(namespace, name)))
}

/// The name of an object that belongs to no namespace.
pub(super) fn cluster_name(kind: &str, metadata: &ObjectMeta) -> Result<(Subject, String), ConvertError> {
    let Some(name) = metadata.name.clone() else {
        return Err(Subject::new(kind, "?").error("metadata.name", Problem::Missing));
    };
    let subject = Subject::new(kind, &name);
    check_name(&subject, "metadata.name", &name)?;
    Ok((subject, name))
}

fn check_name(subject: &Subject, field: &str, name: &str) -> Result<(), ConvertError> {
    let ok = name.len() <= 253 && name.split('.').all(is_label_text);
    if ok { Ok(()) } else { Err(subject.error(field, Problem::Name(name.to_owned()))) }
}

/// Refuses what cannot be a label of a DNS name.
pub(super) fn check_label(subject: &Subject, field: &str, label: &str) -> Result<(), ConvertError> {
    let ok = label.len() <= 63 && is_label_text(label);
    if ok { Ok(()) } else { Err(subject.error(field, Problem::Label(label.to_owned()))) }
}

fn is_label_text(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A text without the zeroes that begin the parts of an IPv4 address: Kubernetes has let them in for long, and takes the
/// parts for decimal.
pub(super) fn without_zeroes(text: &str) -> Cow<'_, str> {
    let part = |part: &str| match part.trim_start_matches('0') {
        rest if rest.starts_with(|first: char| first.is_ascii_digit()) => rest.to_owned(),
        // A zero it is.
        rest if rest.len() < part.len() => format!("0{rest}"),
        rest => rest.to_owned(),
    };
    if text.contains(':') || !text.starts_with('0') && !text.contains(".0") {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('.').map(part).collect::<Vec<_>>().join("."))
}

/// An address.
pub(super) fn address(subject: &Subject, field: &str, text: &str) -> Result<IpAddr, ConvertError> {
    without_zeroes(text)
        .parse()
        .map_err(|cause| subject.error(field, Problem::Address { text: text.to_owned(), cause }))
}

/// A list of addresses.
pub(super) fn addresses(
    subject: &Subject,
    field: &str,
    texts: &[String],
) -> Result<Vec<IpAddr>, ConvertError> {
    texts.iter().enumerate().map(|(i, text)| address(subject, &format!("{field}[{i}]"), text)).collect()
}

/// A network; host bits are cut off, spaces around it are nothing.
pub(super) fn network(subject: &Subject, field: &str, text: &str) -> Result<IpNet, ConvertError> {
    without_zeroes(text.trim())
        .parse::<IpNet>()
        .map(|network| network.trunc())
        .map_err(|_| subject.error(field, Problem::Network(text.to_owned())))
}

/// A port number.
pub(super) fn port(subject: &Subject, field: &str, number: i32) -> Result<u16, ConvertError> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(subject.error(field, Problem::Port(number))),
    }
}

/// A protocol, TCP where none is given.
pub(super) fn protocol(subject: &Subject, field: &str, text: Option<&str>) -> Result<Protocol, ConvertError> {
    text.map_or(Ok(Protocol::Tcp), |text| {
        text.parse().map_err(|cause: sluice_model::UnknownProtocol| subject.error(field, cause))
    })
}
