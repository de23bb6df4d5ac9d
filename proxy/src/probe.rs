//! What the running kernel can do, as far as the datapath asks for more than Linux 5.15 has, or could not do without
//! something. Found out by trying, not by the version: distributions bring features to older kernels.

use std::{fmt, fs, path::Path};

use aya::{
    programs::{ProgramType, SchedClassifier, TcAttachType},
    sys::{BpfHelper, is_helper_supported},
    util::KernelVersion,
};

/// Helpers that the programs call, and the first kernels with them. Without one of these the datapath cannot be loaded;
/// the kernel's own message would be a page of instructions.
const HELPERS: [(&str, BpfHelper, &str); 5] = [
    ("redirect_peer", BpfHelper::BPF_FUNC_redirect_peer, "5.10"),
    ("redirect_neigh", BpfHelper::BPF_FUNC_redirect_neigh, "5.10"),
    ("ktime_get_coarse_ns", BpfHelper::BPF_FUNC_ktime_get_coarse_ns, "5.11"),
    ("fib_lookup", BpfHelper::BPF_FUNC_fib_lookup, "4.18"),
    ("sk_lookup_tcp", BpfHelper::BPF_FUNC_sk_lookup_tcp, "4.20"),
];

/// A feature of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, as the metric's label has it.
    pub name: &'static str,
    /// Whether the kernel has it.
    pub present: bool,
    /// What is done without it; `None` where nothing can be.
    pub without: Option<&'static str>,
}

/// What the kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// The kernel's release.
    pub kernel: String,
    /// Each feature that matters.
    pub features: Vec<Feature>,
}

impl Features {
    /// Tries the running kernel.
    pub fn probe() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        // A kernel that cannot be asked is taken to have it: what really fails then says so itself.
        let helper = |helper| is_helper_supported(ProgramType::SchedClassifier, helper).unwrap_or(true);
        let mut features: Vec<_> = HELPERS
            .iter()
            .map(|(name, id, _)| Feature { name, present: helper(*id), without: None })
            .collect();
        features.push(Feature {
            name: TCX,
            // Every network namespace has this device.
            present: SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok(),
            without: Some("programs are attached by filters (clsact)"),
        });
        features.push(Feature {
            name: CHECKSUM_V6,
            present: knows_checksum_v6(),
            without: Some("the sums of adapters over IPv6 packets are corrected by a call more"),
        });
        features.push(Feature {
            name: "btf",
            present: Path::new("/sys/kernel/btf/vmlinux").exists(),
            without: Some("nothing is missing"),
        });
        Self { kernel, features }
    }

    /// Whether it has a feature.
    pub fn has(&self, name: &str) -> bool {
        self.features.iter().any(|feature| feature.name == name && feature.present)
    }

    /// What the datapath cannot do without, and is not there.
    pub fn missing(&self) -> Vec<String> {
        let lacks = |name: &&(&str, BpfHelper, &str)| !self.has(name.0);
        HELPERS.iter().filter(lacks).map(|(name, _, since)| format!("bpf_{name} (Linux {since})")).collect()
    }
}

/// Links between programs and devices (6.6).
pub(crate) const TCX: &str = "tcx";
/// `BPF_F_IPV6` of `bpf_l4_csum_replace` (6.16).
const CHECKSUM_V6: &str = "csum_replace_ipv6";

/// The one feature that cannot be tried without a packet.
pub(crate) fn knows_checksum_v6() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 16, 0))
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}:", self.kernel)?;
        for feature in &self.features {
            write!(f, " {}{}", if feature.present { '+' } else { '-' }, feature.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_kernel() {
        let features =
            HELPERS.map(|(name, ..)| Feature { name, present: name != "redirect_peer", without: None });
        let features = Features { kernel: "5.4.0".into(), features: features.to_vec() };
        assert_eq!(features.missing(), ["bpf_redirect_peer (Linux 5.10)"]);
        assert!(
            features.to_string().starts_with("Linux 5.4.0: -redirect_peer +redirect_neigh"),
            "{features}"
        );
        assert!(!features.has(TCX));
    }
}
