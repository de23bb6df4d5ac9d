//! `sluice kube-proxy`: what a command line of kube-proxy's asks for.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::{
    Around, KubeProxyError, defaults,
    flags::{self, FlagError, Given},
    read,
    table::Help,
    translate_value,
};
use crate::config::{
    Config, ConfigError,
    settings::{Listen, PodNetwork, Settings},
};

/// What is to be done.
#[derive(Debug)]
pub enum Invocation {
    /// Print this text.
    Print(String),
    /// Write a text into a file.
    Write(PathBuf, String),
    /// Remove what was made on this node.
    Cleanup(Box<Config>),
    /// Set what only root may set.
    InitOnly(Box<Config>),
    /// Serve.
    Run(Box<Config>),
}

/// A command line, or a configuration that it names, that kube-proxy would not take.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    /// The command line.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// What a flag says.
    #[error("{0}")]
    Value(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Everything but services is somebody else's, where kube-proxy runs.
fn drop_in() -> Settings {
    Settings {
        pod_network: Some(PodNetwork::Foreign),
        dns: Some(false),
        routes: Some(false),
        cni_conflist: Some(false),
        ..Settings::default()
    }
}

/// What a command line asks for; `words` are without the program's name.
pub fn invocation(words: &[String]) -> Result<Invocation, InvocationError> {
    let given = flags::parse(words)?;
    if given.is_on("help") {
        return Ok(Invocation::Print(Help.to_string()));
    }
    if given.is_on("version") {
        return Ok(Invocation::Print(format!("sluice kube-proxy {}", env!("CARGO_PKG_VERSION"))));
    }
    let own = given.path("sluice-config").map(|path| Settings::read(&path)).transpose()?.unwrap_or_default();
    let around = Around { bridge: None, foreign: true, ..Around::of(&own) };
    let (document, config) = match given.path("config") {
        Some(path) => of_file(&given, path, own, &around)?,
        None => of_flags(&given, own, &around)?,
    };
    let config = Box::new(config);
    Ok(if let Some(path) = given.path("write-config-to") {
        Invocation::Write(path, defaults::complete(&document))
    } else if given.is_on("cleanup") {
        Invocation::Cleanup(config)
    } else if given.is_on("init-only") {
        Invocation::InitOnly(config)
    } else {
        Invocation::Run(config)
    })
}

/// With `--config`, of the flags only those count that kube-proxy has go before the file.
fn of_file(
    given: &Given,
    path: PathBuf,
    own: Settings,
    around: &Around<'_>,
) -> Result<(Value, Config), InvocationError> {
    let wrong = |source| ConfigError::KubeProxy { path: path.clone(), source };
    let text =
        fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    let mut document = read(&text).map_err(wrong)?;
    let left_out = given.put_before(&mut document);
    let told = translate_value(document.clone(), around).map_err(wrong)?;
    let mut remarks: Vec<String> =
        told.remarks.iter().map(|remark| format!("{}: {remark}", path.display())).collect();
    if !left_out.is_empty() {
        remarks.push(format!("{}: the file that --config names goes before", left_out.join(" ")));
    }
    remarks.extend(given.meaningless());
    let config = config(given, own, told.settings)?;
    Ok((document, Config { remarks, followed: Some((path, text)), ..config }))
}

fn of_flags(given: &Given, own: Settings, around: &Around<'_>) -> Result<(Value, Config), InvocationError> {
    let document = given.document();
    let told = translate_value(document.value.clone(), around).map_err(|error| match error {
        KubeProxyError::Field { .. } => InvocationError::Value(document.by_flag(&error.to_string())),
        error @ KubeProxyError::Parse(_) => InvocationError::Value(error.to_string()),
    })?;
    let mut remarks: Vec<String> = told.remarks.iter().map(|remark| document.by_flag(remark)).collect();
    remarks.extend(document.remarks.iter().cloned().chain(given.meaningless()));
    let nowhere = |flag: &str| given.is_no_port(flag).then_some(Listen(None));
    let ports = Settings {
        healthz_address: nowhere("healthz-port"),
        metrics_address: nowhere("metrics-port"),
        ..Settings::default()
    };
    let config = config(given, own, ports.or(told.settings))?;
    Ok((document.value, Config { remarks, ..config }))
}

/// The flags that go before everything, then Sluice's own settings, then kube-proxy's.
fn config(given: &Given, own: Settings, mut theirs: Settings) -> Result<Config, InvocationError> {
    let first = Settings {
        node_name: given.node_name()?,
        api_servers: given.text("master").map(|master| vec![master.to_owned()]),
        ..Settings::default()
    };
    if own.manifests.is_some() {
        theirs.kubeconfig = None;
    }
    Ok(Config::new(first.or(own).or(theirs).or(drop_in()))?)
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
