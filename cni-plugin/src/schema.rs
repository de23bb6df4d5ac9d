//! Holds `docs/cni-schema.json` to what [`crate::config`] reads.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, de::Visitor, forward_to_deserialize_any};
use serde_json::Value;

use crate::config::{
    Bandwidth, CniArgs, Config, ConfigArgs, Dns, Ipam, PortMapping, RangeConfig, RouteConfig, RuntimeConfig,
    RuntimeDns, TrunkRange,
};

/// Learns a structure's field names by having it deserialized from nothing.
struct Fields<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("not a structure"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend(fields);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<T: for<'de> Deserialize<'de>>() -> BTreeSet<String> {
    let mut names = Vec::new();
    let _ = T::deserialize(Fields(&mut names));
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_schema_has_the_fields_that_are_read_and_no_others() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cni-schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let properties = |pointer: &str| -> BTreeSet<String> {
        schema.pointer(pointer).expect(pointer)["properties"]
            .as_object()
            .expect(pointer)
            .keys()
            .cloned()
            .collect()
    };
    let same = |pointer: &str, read: BTreeSet<String>, not_for_users: &[&str], not_read: &[&str]| {
        let mut expected: BTreeSet<String> =
            read.into_iter().filter(|field| !not_for_users.contains(&field.as_str())).collect();
        expected.extend(not_read.iter().map(|field| (*field).to_owned()));
        assert_eq!(properties(pointer), expected, "{pointer}");
    };
    // `capabilities` is the runtime's to read.
    same("", fields::<Config>(), &[], &["capabilities"]);
    same("/properties/vlanTrunk/items", fields::<TrunkRange>(), &[], &[]);
    same("/properties/ipam", fields::<Ipam>(), &[], &[]);
    same("/$defs/range", fields::<RangeConfig>(), &[], &[]);
    same("/$defs/route", fields::<RouteConfig>(), &[], &[]);
    same("/properties/dns", fields::<Dns>(), &[], &[]);
    same("/properties/args", fields::<ConfigArgs>(), &[], &[]);
    same("/properties/args/properties/cni", fields::<CniArgs>(), &[], &[]);
    same("/properties/runtimeConfig", fields::<RuntimeConfig>(), &[], &[]);
    same("/$defs/bandwidth", fields::<Bandwidth>(), &[], &[]);
    same("/properties/runtimeConfig/properties/portMappings/items", fields::<PortMapping>(), &[], &[]);
    same("/properties/runtimeConfig/properties/dns", fields::<RuntimeDns>(), &[], &[]);
}
