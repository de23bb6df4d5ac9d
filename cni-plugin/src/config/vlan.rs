//! VLANs of the container's bridge port: one without tags, and others with.

use serde::Deserialize;
use sluice_netlink::PortVlans;

use crate::error::{Error, Result};

/// What frames without a tag belong to on a trunk that is not told otherwise.
const DEFAULT_VLAN: u16 = 1;

/// VLANs that a trunk carries, as written: one, or from one to another.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrunkRange {
    #[serde(default, rename = "minID")]
    min_id: Option<i64>,
    #[serde(default, rename = "maxID")]
    max_id: Option<i64>,
    #[serde(default)]
    id: Option<i64>,
}

/// What the container's port should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vlans {
    /// The VLAN that was asked for, of what the container sends without a tag.
    pub(crate) access: Option<u16>,
    /// All VLANs of its port, but what it is left with for [`Self::keep_default`]. No number is in two of them.
    pub(crate) port: Vec<PortVlans>,
    /// Whether it stays in the VLAN that the bridge gave it, too.
    pub(crate) keep_default: bool,
}

impl Vlans {
    /// Whether a port with these VLANs is as it should be.
    pub(crate) fn are(&self, found: &[PortVlans]) -> bool {
        let has = |number: u16, wanted: &PortVlans| {
            found.iter().any(|found| {
                (found.first..=found.last).contains(&number)
                    && (found.pvid, found.untagged) == (wanted.pvid, wanted.untagged)
            })
        };
        self.port.iter().all(|wanted| (wanted.first..=wanted.last).all(|number| has(number, wanted)))
            && (self.keep_default || self.too_many(found).next().is_none())
    }

    /// Of the VLANs of a port, those that it should not be in, unless it keeps the bridge's.
    pub(crate) fn too_many<'a>(&'a self, found: &'a [PortVlans]) -> impl Iterator<Item = u16> + 'a {
        let wanted = |number: &u16| self.port.iter().any(|range| (range.first..=range.last).contains(number));
        found.iter().flat_map(|range| range.first..=range.last).filter(move |number| !wanted(number))
    }

    /// The same without what has tags: how the node itself is a member.
    pub(crate) fn untagged(&self) -> Self {
        let port = self.port.iter().filter(|range| range.untagged).copied().collect();
        Self { port, ..self.clone() }
    }
}

/// Of a range, what is left without one number.
fn without(number: u16, range: PortVlans) -> impl Iterator<Item = PortVlans> {
    let below = PortVlans { last: range.last.min(number.saturating_sub(1)), ..range };
    let above = PortVlans { first: range.first.max(number.saturating_add(1)), ..range };
    [below, above].into_iter().filter(|part| part.first <= part.last)
}

/// Reads the options `vlan`, `vlanTrunk` and `preserveDefaultVlan`; `None` if they ask for nothing.
pub(super) fn vlans(access: Option<i64>, trunk: &[TrunkRange], keep_default: bool) -> Result<Option<Vlans>> {
    let number = |field: &str, value: i64, least: u16| match u16::try_from(value) {
        Ok(number) if (least..=4094).contains(&number) => Ok(number),
        _ => Err(Error::config(format!("{field}: {value} is no VLAN: those are from {least} to 4094"))),
    };
    let access = number("vlan", access.unwrap_or_default(), 0)?;
    let mut port = Vec::new();
    for (index, range) in trunk.iter().enumerate() {
        let field = |name: &str| format!("vlanTrunk[{index}].{name}");
        let (min, max) = match (range.min_id, range.max_id) {
            (None, None) if range.id.is_none() => {
                return Err(Error::config(format!("vlanTrunk[{index}] has neither id nor minID and maxID")));
            }
            (None, None) => (None, None),
            (Some(min), Some(max)) => {
                (Some(number(&field("minID"), min, 1)?), Some(number(&field("maxID"), max, 1)?))
            }
            _ => return Err(Error::config(format!("vlanTrunk[{index}]: minID and maxID come together"))),
        };
        if let (Some(min), Some(max)) = (min, max) {
            if min > max {
                return Err(Error::config(format!("vlanTrunk[{index}]: minID {min} is above maxID {max}")));
            }
            port.push(PortVlans::tagged(min, max));
        }
        if let Some(id) = range.id {
            let id = number(&field("id"), id, 1)?;
            port.push(PortVlans::tagged(id, id));
        }
    }
    if access == 0 && port.is_empty() {
        return Ok(None);
    }
    // A trunk's frames without a tag are of VLAN 1 unless it says otherwise, as the reference plugin has it.
    let native = if access == 0 { DEFAULT_VLAN } else { access };
    let mut port: Vec<_> = port.into_iter().flat_map(|range| without(native, range)).collect();
    port.push(PortVlans::access(native));
    port.sort_unstable();
    port.dedup();
    Ok(Some(Vlans { access: Some(access).filter(|number| *number != 0), port, keep_default }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(access: i64, trunk: &str, keep_default: bool) -> Result<Option<Vlans>> {
        let trunk: Vec<TrunkRange> = serde_json::from_str(trunk).unwrap();
        vlans(Some(access), &trunk, keep_default)
    }

    #[test]
    fn vlans_are_read_as_the_reference_plugin_takes_them() {
        assert_eq!(read(0, "[]", false).unwrap(), None);
        let access = read(100, "[]", true).unwrap().unwrap();
        assert_eq!((access.access, access.port.as_slice()), (Some(100), &[PortVlans::access(100)][..]));
        let trunk = r#"[{"id":300},{"minID":100,"maxID":105},{"id":300},{"minID":7,"maxID":9,"id":42}]"#;
        let trunk = read(0, trunk, true).unwrap().unwrap();
        let tagged =
            [(7, 9), (42, 42), (100, 105), (300, 300)].map(|(first, last)| PortVlans::tagged(first, last));
        let expected = [&[PortVlans::access(1)][..], &tagged].concat();
        assert_eq!((trunk.access, trunk.port.as_slice()), (None, &expected[..]));
        // Both: what has no tag is of the one.
        let both = read(102, r#"[{"minID":100,"maxID":103},{"id":102}]"#, false).unwrap().unwrap();
        let expected = [PortVlans::tagged(100, 101), PortVlans::access(102), PortVlans::tagged(103, 103)];
        assert_eq!((both.access, both.port.as_slice()), (Some(102), &expected[..]));
        assert_eq!(both.untagged().port, [PortVlans::access(102)]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (access, trunk, expected) in [
            (4095, "[]", "vlan: 4095 is no VLAN: those are from 0 to 4094"),
            (-1, "[]", "vlan: -1 is no VLAN: those are from 0 to 4094"),
            (0, r#"[{"id":0}]"#, "vlanTrunk[0].id: 0 is no VLAN: those are from 1 to 4094"),
            (0, r#"[{"id":1},{"minID":5}]"#, "vlanTrunk[1]: minID and maxID come together"),
            (0, r#"[{"minID":5,"maxID":4}]"#, "vlanTrunk[0]: minID 5 is above maxID 4"),
            (
                0,
                r#"[{"minID":5,"maxID":4096}]"#,
                "vlanTrunk[0].maxID: 4096 is no VLAN: those are from 1 to 4094",
            ),
            (0, "[{}]", "vlanTrunk[0] has neither id nor minID and maxID"),
        ] {
            assert_eq!(read(access, trunk, true).unwrap_err().msg, expected);
        }
    }

    #[test]
    fn a_port_is_as_it_should_be_or_is_not() {
        let default = PortVlans { first: 1, last: 1, pvid: false, untagged: true };
        let access = |keep_default| read(100, "[]", keep_default).unwrap().unwrap();
        assert!(access(true).are(&[default, PortVlans::access(100)]));
        assert!(!access(false).are(&[default, PortVlans::access(100)]), "it is still in the default one");
        assert!(access(false).are(&[PortVlans::access(100)]));
        assert!(!access(true).are(&[default, PortVlans::tagged(100, 100)]), "it is tagged");
        let other = PortVlans { first: 10, last: 10, ..default };
        assert!(!access(false).are(&[PortVlans::access(100), other]), "or in what this bridge has for one");
        let trunk = read(0, r#"[{"minID":10,"maxID":20},{"id":15}]"#, true).unwrap().unwrap();
        let native = PortVlans::access(1);
        assert!(trunk.are(&[native, PortVlans::tagged(10, 14), PortVlans::tagged(15, 30)]));
        assert!(!trunk.are(&[native, PortVlans::tagged(10, 19)]), "one is missing");
        assert!(!trunk.are(&[default, PortVlans::tagged(10, 20)]), "what has no tag is lost");
    }
}
