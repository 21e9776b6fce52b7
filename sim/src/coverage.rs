//! What of the protocol the clients of runs make use of: every RPC, every field of its request, and which
//! kinds of values in it, by the role of the member that it was called at. It is taken from the messages as
//! handlers are given them, whatever client sent them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET).expect("our compiler wrote it")
});

/// Messages within a message that are looked into: a txn has txns.
const DEPTH_MAX: usize = 3;
const LARGE_BYTES: usize = 1_024;
/// Packages of services that clients call.
const PACKAGES: [&str; 3] = ["etcdserverpb", "v3lockpb", "v3electionpb"];

/// A field of an RPC's request, by its path from there, as `compare.range_end`; empty for the call itself.
type Place = (String, String);

/// What was used, and at which roles.
#[derive(Clone, Debug, Default)]
pub struct Uses(BTreeMap<Place, BTreeMap<&'static str, BTreeSet<&'static str>>>);

impl Uses {
    /// A request of the RPC at `path`, which looks like `/etcdserverpb.KV/Range`.
    pub fn add(&mut self, path: &str, role: &'static str, message: &[u8]) {
        let name = path.trim_start_matches('/');
        let Some(input) = input(name) else { return };
        let Ok(message) = DynamicMessage::decode(input, message) else { return };
        self.note(name, String::new(), "called", role);
        self.look(name, "", &message, role, 0);
    }

    pub fn extend(&mut self, other: Self) {
        for (place, values) in other.0 {
            let of = self.0.entry(place).or_default();
            values
                .into_iter()
                .for_each(|(value, roles)| of.entry(value).or_default().extend(roles));
        }
    }

    fn note(&mut self, name: &str, field: String, value: &'static str, role: &'static str) {
        let of = self.0.entry((name.to_owned(), field)).or_default();
        of.entry(value).or_default().insert(role);
    }

    fn look(
        &mut self,
        name: &str,
        before: &str,
        message: &DynamicMessage,
        role: &'static str,
        depth: usize,
    ) {
        for field in message.descriptor().fields() {
            let place = format!("{before}{}", field.name());
            if field.supports_presence() && !message.has_field(&field) {
                self.note(name, place, "unset", role);
                continue;
            }
            let value = message.get_field(&field);
            let all = match &*value {
                Value::List(list) if list.is_empty() => {
                    self.note(name, place, "none", role);
                    continue;
                }
                Value::List(list) => {
                    self.note(
                        name,
                        place.clone(),
                        if list.len() == 1 { "one" } else { "many" },
                        role,
                    );
                    list.clone()
                }
                one => vec![one.clone()],
            };
            for one in all {
                match &one {
                    Value::Message(inner) => {
                        self.note(name, place.clone(), "set", role);
                        if depth < DEPTH_MAX {
                            self.look(name, &format!("{place}."), inner, role, depth + 1);
                        }
                    }
                    _ => self.note(name, place.clone(), kind_of(&one), role),
                }
            }
        }
    }

    /// A line a field: its values, each with the roles at which it was used; then what never was.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for ((name, field), values) in &self.0 {
            let shown = values.iter().map(|(value, roles)| {
                let roles: String =
                    roles.iter().map(|role| &role[..2]).collect::<Vec<_>>().join("+");
                format!("{value} ({roles})")
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            let place = if field.is_empty() { name.clone() } else { format!("  {field}") };
            writeln!(text, "{place:<48} {shown}").expect("a string grows");
        }
        text
    }

    /// RPCs that were never called, fields of the others that were never set, and edges of numbers that were
    /// never passed.
    pub fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        for (name, input) in rpcs() {
            if !self.0.contains_key(&(name.clone(), String::new())) {
                missing.rpcs.push(name);
                continue;
            }
            for field in input.fields() {
                let place = (name.clone(), field.name().to_owned());
                let values = self.0.get(&place);
                let used = |value: &str| values.is_some_and(|values| values.contains_key(value));
                let empty = ["unset", "none", "zero", "false", "empty"];
                let set = values.is_some_and(|values| values.keys().any(|it| !empty.contains(it)));
                let label = format!("{name} {}", field.name());
                if !set {
                    missing.fields.push(label);
                } else if is_number(&field) {
                    let never = EDGES.iter().filter(|edge| !used(edge));
                    missing.edges.extend(never.map(|edge| format!("{label} {edge}")));
                }
            }
        }
        missing
    }
}

/// What no run has used.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    pub rpcs: Vec<String>,
    pub fields: Vec<String>,
    pub edges: Vec<String>,
}

const EDGES: [&str; 4] = ["zero", "negative", "largest", "smallest"];

/// Every RPC that clients may call, by name, and its request.
pub fn rpcs() -> Vec<(String, MessageDescriptor)> {
    let services = DESCRIPTORS.services();
    let ours = services.filter(|service| PACKAGES.contains(&service.package_name()));
    let methods = ours.flat_map(|service| service.methods().collect::<Vec<_>>());
    let named = methods.map(|method| {
        let name = format!("{}/{}", method.parent_service().full_name(), method.name());
        (name, method.input())
    });
    named.collect()
}

fn input(name: &str) -> Option<MessageDescriptor> {
    let (service, method) = name.split_once('/')?;
    let service = DESCRIPTORS.get_service_by_name(service)?;
    service.methods().find(|it| it.name() == method).map(|method| method.input())
}

fn is_number(field: &FieldDescriptor) -> bool {
    !field.is_list() && matches!(field.kind(), Kind::Int64 | Kind::Sint64)
}

/// What sort of value it is: those of one sort are treated alike.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::I64(i64::MAX) | Value::U64(u64::MAX) => "largest",
        Value::I64(i64::MIN) => "smallest",
        Value::I64(0) | Value::U64(0) | Value::I32(0) | Value::U32(0) => "zero",
        Value::I64(number) if *number < 0 => "negative",
        Value::I32(number) if *number < 0 => "negative",
        Value::I64(_) | Value::U64(_) | Value::I32(_) | Value::U32(_) => "positive",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::EnumNumber(0) => "first",
        Value::EnumNumber(number) if *number > 0 => "other",
        Value::EnumNumber(_) => "negative",
        Value::Bytes(bytes) => of_bytes(bytes),
        Value::String(text) => of_bytes(text.as_bytes()),
        _ => "set",
    }
}

fn of_bytes(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "empty",
        [0] => "nul",
        _ if bytes.len() > LARGE_BYTES => "large",
        _ => "text",
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use quorate_proto::etcdserverpb::RangeRequest;

    use super::*;

    #[test]
    fn what_is_used_is_told_from_what_is_not() {
        let mut uses = Uses::default();
        let range = RangeRequest { key: "a".into(), limit: -1, ..RangeRequest::default() };
        uses.add("/etcdserverpb.KV/Range", "leader", &range.encode_to_vec());
        let missing = uses.missing();
        assert!(!missing.rpcs.contains(&"etcdserverpb.KV/Range".to_owned()));
        assert!(missing.rpcs.contains(&"etcdserverpb.KV/Put".to_owned()));
        let of =
            |list: &[String], name: &str| list.contains(&format!("etcdserverpb.KV/Range {name}"));
        assert!(of(&missing.fields, "range_end") && !of(&missing.fields, "key"));
        assert!(of(&missing.edges, "limit largest") && !of(&missing.edges, "limit negative"));
    }
}
