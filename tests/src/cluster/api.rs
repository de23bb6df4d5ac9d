//! The cluster's API server on a host of its own, reached over the switch as in life: the test's own, or a real one.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::with_length;
use crate::apiserver::{ApiServer, Credentials, RealServer, TOKEN, VARIABLE, documents, identify};
use crate::bed::{Host, Switch};
use crate::{Error, Result, Testbed};

/// The API server's addresses on the switch, each of which leads to it.
pub const API: [&str; 2] = ["192.168.77.200", "fd77::c8"];

/// The server and its host.
#[derive(Debug)]
pub struct Api {
    server: Server,
    host: Host,
    kubeconfig: PathBuf,
}

#[derive(Debug)]
enum Server {
    Test(Box<ApiServer>),
    Real(Box<RealServer>),
}

impl Api {
    pub(super) fn make(bed: &Testbed, lan: &Switch, real: Option<&Path>) -> Result<Self> {
        let host = bed.host("api")?;
        lan.connect(&host, "eth0", &API.map(with_length).each_ref().map(String::as_str))?;
        let addresses: Vec<IpAddr> = API.iter().filter_map(|address| address.parse().ok()).collect();
        let kubeconfig = bed.folder().join("kubeconfig");
        let real = real.map(RealServer::by).transpose()?;
        let Some(real) = real.map_or_else(RealServer::named, |real| Ok(Some(real)))? else {
            let server = Server::Test(Box::new(ApiServer::on(&host, &addresses)?));
            let api = Self { server, host, kubeconfig };
            api.set_token(TOKEN)?;
            let credentials = Credentials::TokenFile(api.kubeconfig.with_extension("token"));
            api.server().kubeconfig(&api.kubeconfig, 0, &credentials)?;
            return Ok(api);
        };
        real.forward(&host, &addresses)?;
        real.kubeconfig(&kubeconfig, API[0])?;
        Ok(Self { server: Server::Real(Box::new(real)), host, kubeconfig })
    }

    /// The test's own server, for faults and for what it has seen.
    ///
    /// # Panics
    ///
    /// With a real server: it does not fail when told to. Such tests are left out then.
    #[expect(clippy::panic, reason = "a test that cannot be made is no test that passed")]
    pub fn server(&self) -> &ApiServer {
        match &self.server {
            Server::Test(server) => server,
            Server::Real(_) => panic!("this test needs the test API server: run it without {VARIABLE}"),
        }
    }

    /// Its host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The kubeconfig of all nodes: the first address, and a token in a file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Creates or replaces an object.
    pub fn put(&self, object: Value) -> Result<()> {
        match &self.server {
            Server::Test(server) => server.put(object),
            Server::Real(server) => server.put(&object),
        }
    }

    /// Deletes an object.
    pub fn delete(&self, object: &Value) -> Result<()> {
        match &self.server {
            Server::Test(server) => server.delete(object),
            Server::Real(server) => server.delete(object),
        }
    }

    /// Puts all objects of a manifest, and deletes those that only the old one has.
    pub fn replace(&self, old: &str, new: &str) -> Result<()> {
        let new = documents(new)?;
        let kept = new.iter().map(identify).collect::<Result<Vec<_>>>()?;
        for object in documents(old)? {
            if !kept.contains(&identify(&object)?) {
                self.delete(&object)?;
            }
        }
        new.into_iter().try_for_each(|object| self.put(object))
    }

    /// Writes the token that the nodes show, as a kubelet does that rotates it: whole at once.
    pub fn set_token(&self, token: &str) -> Result<()> {
        let (file, beside) = (self.kubeconfig.with_extension("token"), self.kubeconfig.with_extension("new"));
        std::fs::write(&beside, token).map_err(Error::file("write", &beside))?;
        std::fs::rename(&beside, &file).map_err(Error::file("write", &file))
    }
}
