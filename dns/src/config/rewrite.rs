//! What of a query or of its answer is put as something else: CoreDNS's `rewrite`.

/// One rule; those of a domain are looked at in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What it changes.
    pub change: Change,
    /// The rules after this one are looked at too, where this one changed something.
    pub and_on: bool,
}

/// What a rule changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Some names are answered as if they were others. Records that bear the other name bear the name asked for
    /// in the answer.
    Name {
        /// Which.
        on: NamePattern,
        /// What is put in the place of what was looked for; `{1}` stands for the first group of a regular expression.
        to: String,
        /// What is changed in the answer besides.
        answers: Vec<AnswerChange>,
    },
    /// Questions for one record type are answered as if they were for another.
    Type {
        /// The type asked for.
        from: u16,
        /// The type that is answered.
        to: u16,
    },
    /// Questions of one class are answered as if they were of another.
    Class {
        /// The class asked for.
        from: u16,
        /// The class that is answered.
        to: u16,
    },
    /// Upstreams are told something with the question.
    Option(OptionChange),
    /// Times to live of answers about some names are brought within bounds, in seconds.
    Ttl {
        /// Which names.
        on: NamePattern,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// The response code of answers about some names is another.
    Rcode {
        /// Which names.
        on: NamePattern,
        /// The code that is changed.
        from: u16,
        /// What it becomes: 0 to 15.
        to: u16,
    },
    /// An alias in an answer leads elsewhere, and the records there are told.
    Alias {
        /// Which targets.
        on: NamePattern,
        /// What is put in the place of what was looked for.
        to: String,
    },
}

/// Some names. They have a final dot and are lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    /// How they are compared.
    pub matches: NameMatch,
    /// With what.
    pub text: String,
}

/// How a name is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameMatch {
    /// The whole name.
    Exact,
    /// How it begins.
    Prefix,
    /// How it ends.
    Suffix,
    /// Any part of it.
    Substring,
    /// A regular expression.
    Regex,
}

/// What is changed in an answer to a name that was put as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerChange {
    /// Owners and names in data are turned back, as far as that can be told.
    Auto,
    /// Owners that match the expression become `to`.
    Owner {
        /// A regular expression.
        from: String,
        /// `{1}` stands for its first group.
        to: String,
    },
    /// Names in the data of CNAME, NS, PTR, MX, SRV, SOA and NAPTR records that match the expression become `to`.
    Value {
        /// A regular expression.
        from: String,
        /// `{1}` stands for its first group.
        to: String,
    },
}

/// An EDNS option for upstreams. What clients themselves say in options is never passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionChange {
    /// When.
    pub when: OptionWhen,
    /// Which, and what is in it.
    pub option: EdnsOption,
}

/// When an option is given, by whether the client has one of the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionWhen {
    /// Always.
    Set,
    /// Where the client has none.
    Append,
    /// Where the client has one.
    Replace,
    /// Never; one that a rule before has given is taken away.
    Unset,
}

/// An EDNS option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdnsOption {
    /// Of any code.
    Local {
        /// The code.
        code: u16,
        /// What is in it.
        data: OptionData,
    },
    /// The server is asked for its identity (RFC 5001).
    Nsid,
    /// The client's network (RFC 7871), by so many bits of its address.
    Subnet {
        /// Of an IPv4 address, at most 32.
        v4: u8,
        /// Of an IPv6 address, at most 128.
        v6: u8,
    },
}

/// What is in an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionData {
    /// These bytes, at most 64.
    Bytes(Vec<u8>),
    /// The name asked for, as text.
    QueryName,
    /// The number of the type asked for, 2 bytes.
    QueryType,
    /// The client's address, 4 or 16 bytes.
    ClientAddress,
    /// The client's port, 2 bytes.
    ClientPort,
    /// `udp` or `tcp`.
    Protocol,
}
