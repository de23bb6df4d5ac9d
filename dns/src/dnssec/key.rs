//! Keys in files, as `dnssec-keygen` and `ldns-keygen` write them: the public half a DNSKEY record, the private half numbers.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use hickory_proto::dnssec::{
    Algorithm, PublicKey, SigningKey, TBS, crypto::signing_key_from_der, rdata::DNSKEY,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer};

use super::message::{Set, labels};
use crate::{
    master,
    name::WireName,
    wire::{rtype, u16_at},
};

/// The bit of a key that signs a zone (RFC 4034, 2.1.1).
const ZONE: u16 = 0x100;
/// The bit of one that signs keys.
const SEP: u16 = 1;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be read.
    #[error("{}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What its file says is no such key.
    #[error("{}: {problem}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It is a key of another domain.
    #[error("{}: a key of {owner} can sign none of the zones", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// Whose key it is.
        owner: String,
    },
}

/// A key with which we sign.
pub(super) struct Key {
    /// The file of its public half.
    pub(super) file: PathBuf,
    /// Whose key it is.
    pub(super) owner: WireName,
    /// The data of its DNSKEY record.
    pub(super) data: Vec<u8>,
    flags: u16,
    algorithm: u8,
    tag: u16,
    private: Box<dyn SigningKey>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of the private half.
        f.debug_struct("Key").field("owner", &self.owner).field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl Key {
    /// Reads the two files of a key.
    pub(super) fn read(file: &Path) -> Result<Self, KeyError> {
        let text = file.to_string_lossy();
        let base = text.strip_suffix(".key").or(text.strip_suffix(".private")).unwrap_or(&text);
        let [public, private] = [".key", ".private"].map(|end| PathBuf::from(format!("{base}{end}")));
        let open =
            |file: &PathBuf| fs::read(file).map_err(|source| KeyError::Read { file: file.clone(), source });
        let wrong = |file: &PathBuf, problem: String| KeyError::Wrong { file: file.clone(), problem };
        let (owner, data) =
            public_half(&open(&public)?, &public).map_err(|problem| wrong(&public, problem))?;
        let (Some(flags), [_, _, _, algorithm, bytes @ ..]) = (u16_at(&data, 0), &*data) else {
            return Err(wrong(&public, "the DNSKEY record is too short".to_owned()));
        };
        if flags & ZONE == 0 {
            return Err(wrong(&public, "is not a key that signs zones".to_owned()));
        }
        let text = open(&private)?;
        let key = private_half(&String::from_utf8_lossy(&text), *algorithm, bytes)
            .map_err(|problem| wrong(&private, problem))?;
        let told = key.to_public_key().map_err(|error| wrong(&private, error.to_string()))?;
        if told.public_bytes() != bytes {
            return Err(wrong(&private, format!("is not the private half of {}", public.display())));
        }
        let tag = DNSKEY::calculate_key_tag_internal(&data);
        let algorithm = *algorithm;
        Ok(Self { file: public, owner, flags, algorithm, tag, private: key, data })
    }

    /// Whether it is one that signs keys.
    pub(super) fn signs_keys(&self) -> bool {
        self.flags & SEP != 0
    }

    /// The data of its signature of a set of records. `signed`: the set in canonical form; `times`: the end of the signature
    /// and its beginning, in seconds since 1970.
    pub(super) fn sign(&self, set: &Set, signed: &[u8], zone: &WireName, times: [u32; 2]) -> Option<Vec<u8>> {
        let mut data = Vec::with_capacity(256);
        data.extend(set.rtype.to_be_bytes());
        data.extend([self.algorithm, labels(&set.owner)]);
        data.extend(set.ttl.to_be_bytes());
        data.extend(times.into_iter().flat_map(u32::to_be_bytes));
        data.extend(self.tag.to_be_bytes());
        data.extend(zone.as_bytes());
        let whole = [&data, signed].concat();
        match self.private.sign(&TBS::from(whole.as_slice())) {
            Ok(signature) => data.extend(signature),
            Err(error) => {
                tracing::error!(key = %self.file.display(), %error, "an answer could not be signed");
                return None;
            }
        }
        Some(data)
    }
}

/// The owner and the data of the DNSKEY record of a file.
fn public_half(text: &[u8], file: &Path) -> Result<(WireName, Vec<u8>), String> {
    let root = WireName::parse(".").ok_or("no root")?;
    let mut load = |_: &Path| Err(io::ErrorKind::Unsupported.into());
    let records = master::read(text, file, &root, &mut load)
        .map_err(|error| format!("line {}: {}", error.line, error.problem))?;
    let mut keys = records.into_iter().filter(|record| record.rtype == rtype::DNSKEY);
    match (keys.next(), keys.next()) {
        (Some(key), None) => Ok((key.name, key.data)),
        _ => Err("one DNSKEY record is expected".to_owned()),
    }
}

/// The private half: lines of the form `Name: value`, of which binary ones are in base 64.
fn private_half(text: &str, algorithm: u8, public: &[u8]) -> Result<Box<dyn SigningKey>, String> {
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let format = fields.get("Private-key-format").copied().unwrap_or_default();
    if !format.starts_with("v1.") {
        return Err(format!("the format {format:?} of the private key is not v1"));
    }
    let said = fields.get("Algorithm").and_then(|text| text.split_whitespace().next());
    if said != Some(algorithm.to_string().as_str()) {
        return Err("the algorithm is not that of the public key".to_owned());
    }
    let bytes = |name: &str| {
        let text = fields.get(name).ok_or_else(|| format!("{name} is missing"))?;
        BASE64.decode(text.as_bytes()).map_err(|_| format!("{name} is not in base 64"))
    };
    let (kind, der) = match algorithm {
        8 | 10 => {
            let names = [
                "Modulus",
                "PublicExponent",
                "PrivateExponent",
                "Prime1",
                "Prime2",
                "Exponent1",
                "Exponent2",
                "Coefficient",
            ];
            let mut all = der(2, &[0]);
            for name in names {
                all.extend(integer(&bytes(name)?));
            }
            let kind = if algorithm == 8 { Algorithm::RSASHA256 } else { Algorithm::RSASHA512 };
            (kind, PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der(0x30, &all))))
        }
        13 => (Algorithm::ECDSAP256SHA256, elliptic(P256, &bytes("PrivateKey")?, public)),
        14 => (Algorithm::ECDSAP384SHA384, elliptic(P384, &bytes("PrivateKey")?, public)),
        15 => {
            let seed = der(4, &der(4, &bytes("PrivateKey")?));
            let key = [&der(2, &[1]), &der(0x30, ED25519), &seed, &der(0x81, &[&[0], public].concat())[..]]
                .concat();
            (Algorithm::ED25519, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(0x30, &key))))
        }
        other => return Err(format!("the algorithm {other} is not supported: 8, 10, 13, 14 and 15 are")),
    };
    // RSA keys of less than 2048 bits are refused here.
    signing_key_from_der(&der, kind).map_err(|error| format!("the private key is not accepted: {error}"))
}

/// Object identifiers (RFC 5480, RFC 8410) with their heads.
const EC: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];

/// A key on a curve as PKCS #8 (RFC 5958, RFC 5915).
fn elliptic(curve: &[u8], private: &[u8], public: &[u8]) -> PrivateKeyDer<'static> {
    let point = der(3, &[&[0, 4], public].concat());
    let key = der(0x30, &[&der(2, &[1]), &der(4, private), &der(0xa1, &point)[..]].concat());
    let whole = [&der(2, &[0]), &der(0x30, &[EC, curve].concat()), &der(4, &key)[..]].concat();
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(0x30, &whole)))
}

/// A number without a sign.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let bytes = &bytes[first..];
    let is_padded = bytes.first().is_none_or(|byte| *byte >= 0x80);
    der(2, &[if is_padded { &[0][..] } else { &[] }, bytes].concat())
}

/// A value with its tag and its length (DER).
fn der(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(value);
    out
}
