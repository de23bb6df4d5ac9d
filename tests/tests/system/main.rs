//! The whole system on the testbed: real agents, the real plugin, real clients and servers. A file for each
//! family of behaviour; one binary, as linking ten takes longer than running them.

mod api;
mod api_faults;
mod api_nodes;
mod api_real;
mod bandwidth;
mod change;
mod clusterip;
mod connections;
mod endings;
mod fallback;
mod filters;
mod foreign;
mod frontends;
mod hairpin;
mod health;
mod host_ports;
mod joining;
mod leftovers;
mod masquerade;
mod metrics;
mod names;
mod names_change;
mod names_end;
mod nodeport;
mod overlay;
mod paths;
mod pods;
mod policies;
mod restart;
mod site;
mod slices;
mod surroundings;
mod udp;
