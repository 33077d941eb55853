//! The CustomResourceDefinitions for `kubectl apply`.

use super::schema::TokenRateLimitPolicy;
use kube::CustomResourceExt;
use serde_json::Value;

/// An API group of policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Group {
    /// Weir's own group.
    #[default]
    #[value(name = "weir.dev")]
    Weir,
    /// Kuadrant's group, for clusters without Kuadrant: its policies apply unchanged.
    #[value(name = "kuadrant.io")]
    Kuadrant,
}

impl Group {
    pub fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir.dev",
            Self::Kuadrant => "kuadrant.io",
        }
    }

    /// The short name for kubectl. Kuadrant's own definition has the same one.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Weir => "wtrlp",
            Self::Kuadrant => "trlp",
        }
    }
}

/// Generates the definition of this group's TokenRateLimitPolicy.
pub fn definition(group: Group) -> Result<Value, serde_json::Error> {
    let mut definition = TokenRateLimitPolicy::crd();
    definition.metadata.name = Some(format!("{}.{}", definition.spec.names.plural, group.name()));
    definition.spec.group = group.name().to_owned();
    definition.spec.names.short_names = Some(vec![group.short_name().to_owned()]);
    let mut definition = serde_json::to_value(definition)?;
    tidy(&mut definition);
    Ok(definition)
}

/// Removes what the generator adds and Kubernetes does not need: fields are not nullable, and strings have no
/// format.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("nullable");
            if fields.get("type").is_some_and(|kind| kind == "string") {
                fields.retain(|name, value| name != "format" || value == "date-time");
            }
            if let Some(words) = fields.get_mut("enum").and_then(Value::as_array_mut) {
                words.retain(|word| !word.is_null());
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
