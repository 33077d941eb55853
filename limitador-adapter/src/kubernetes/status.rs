//! The status of a policy, according to Gateway API's conventions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a policy.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation of the policy that this status describes.
    pub observed_generation: Option<i64>,
    /// The conditions of the policy as a whole: Accepted and Enforced.
    #[serde(default)]
    #[schemars(length(max = 8), schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The conditions for each Gateway that the policy's target belongs to.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub ancestors: Vec<Ancestor>,
}

/// A Gateway that the policy's target belongs to.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    /// The Gateway.
    pub ancestor_ref: AncestorReference,
    /// The controller that wrote these conditions.
    pub controller_name: String,
    /// Accepted and Enforced.
    #[schemars(length(max = 8), schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// A Gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorReference {
    /// gateway.networking.k8s.io.
    pub group: String,
    /// Gateway.
    pub kind: String,
    /// The namespace of the Gateway.
    pub namespace: String,
    /// The name of the Gateway.
    pub name: String,
    /// The listener, if the policy targets one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Merges by type, so that applying one condition keeps the others.
fn conditions(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = generator.subschema_for::<Condition>();
    schemars::json_schema!({
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
