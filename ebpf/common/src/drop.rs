//! Why the datapath drops packets.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a packet was dropped: the index into map `drops` and the label of the metric.
        ///
        /// Never a value in a map, so a Rust enum is safe here.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason {
            $($(#[$doc])* $name = $number,)+
        }

        impl DropReason {
            /// All reasons, in order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The reason with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                $(if number == $number { return Some(Self::$name); })+
                None
            }

            /// The label of the metric.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

drop_reasons! {
    /// A header is cut short or contradicts itself.
    Malformed = 0, "malformed";
    /// A pod sent from an address that is not its own.
    Spoofed = 1, "spoofed";
    /// The service exists and has no endpoint.
    NoEndpoints = 2, "no_endpoints";
    /// An address of the service network that no service holds.
    NoService = 3, "no_service";
    /// A slot or a backend is missing: the proxy broke the order of change.
    NoBackend = 4, "no_backend";
    /// No source port is left for this destination.
    NatExhausted = 5, "nat_exhausted";
    /// The table of connections took no further entry.
    FlowTableFull = 6, "flow_table_full";
    /// The kernel knows no way to the destination.
    NoRoute = 7, "no_route";
    /// The kernel refused to change the packet.
    RewriteFailed = 8, "rewrite_failed";
    /// The packet's time to live ran out here.
    TtlExpired = 9, "ttl_expired";
    /// The service has endpoints, but none on this node, where the traffic policy wants one.
    NoLocalEndpoints = 10, "no_local_endpoints";
    /// The client is in none of the load balancer's source ranges.
    SourceRange = 11, "source_range";
}

/// A function that the verifier looks at by itself returns one word: an outcome, a small number, or a reason.
impl DropReason {
    /// Outcomes are below, reasons begin here.
    const CODES: u32 = 16;

    /// The word that stands for this reason.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        Self::CODES + self as u32
    }

    /// What a word stands for.
    #[inline(always)]
    pub const fn outcome(code: u32) -> Result<u32, Self> {
        if code < Self::CODES {
            return Ok(code);
        }
        match Self::from_number(code - Self::CODES) {
            Some(reason) => Err(reason),
            None => Err(Self::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_an_outcome_or_a_reason() {
        assert_eq!(DropReason::outcome(0), Ok(0));
        assert_eq!(DropReason::outcome(15), Ok(15));
        assert_eq!(DropReason::outcome(u32::MAX), Err(DropReason::Malformed));
    }

    #[test]
    fn numbers_are_dense_and_labels_unique() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(DropReason::outcome(reason.code()), Err(*reason));
            assert_eq!(DropReason::ALL.iter().filter(|other| other.label() == reason.label()).count(), 1);
        }
    }
}
