//! The cluster's API server on a host of its own, reached over the switch as in life.

use std::net::IpAddr;
use std::path::PathBuf;

use super::with_length;
use crate::apiserver::{ApiServer, Credentials, TOKEN};
use crate::bed::{Host, Switch};
use crate::{Error, Result, Testbed};

/// The API server's addresses on the switch, each of which leads to it.
pub const API: [&str; 2] = ["192.168.77.200", "fd77::c8"];

/// The server and its host.
#[derive(Debug)]
pub struct Api {
    server: ApiServer,
    host: Host,
    kubeconfig: PathBuf,
}

impl Api {
    pub(super) fn make(bed: &Testbed, lan: &Switch) -> Result<Self> {
        let host = bed.host("api")?;
        lan.connect(&host, "eth0", &API.map(with_length).each_ref().map(String::as_str))?;
        let addresses: Vec<IpAddr> = API.iter().filter_map(|address| address.parse().ok()).collect();
        let server = ApiServer::on(&host, &addresses)?;
        let kubeconfig = bed.folder().join("kubeconfig");
        let api = Self { server, host, kubeconfig };
        api.set_token(TOKEN)?;
        let credentials = Credentials::TokenFile(api.kubeconfig.with_extension("token"));
        api.server.kubeconfig(&api.kubeconfig, 0, &credentials)?;
        Ok(api)
    }

    /// The server, for objects and faults.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Its host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The kubeconfig of all nodes: the first address, and a token in a file.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// Writes the token that the nodes show, as a kubelet does that rotates it: whole at once.
    pub fn set_token(&self, token: &str) -> Result<()> {
        let (file, beside) = (self.kubeconfig.with_extension("token"), self.kubeconfig.with_extension("new"));
        std::fs::write(&beside, token).map_err(Error::file("write", &beside))?;
        std::fs::rename(&beside, &file).map_err(Error::file("write", &file))
    }
}
