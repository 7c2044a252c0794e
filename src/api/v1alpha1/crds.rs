//! The CRDs as `chancery crds` prints them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::{OidcProvider, SigningKey, Subscription, TechnicalUser, User};

/// The CRDs of all kinds, in the order in which a person meets them.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    [
        SigningKey::crd(),
        Subscription::crd(),
        TechnicalUser::crd(),
        OidcProvider::crd(),
        User::crd(),
    ]
    .into_iter()
    .map(finish)
    .collect()
}

/// What the derive can not say: a status that is there before the operator's first visit, so that
/// `helm --wait`, Flux and Argo CD see "in progress" (kstatus takes no status for all is well).
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut());
        let Some(schema) = schema else { continue };
        tidy(schema);
        let Some(properties) = schema.properties.as_mut() else {
            continue;
        };
        let Some(status) = properties.get_mut("status") else {
            continue;
        };
        status.default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
        // A default of a field inside status would be filled in beside the one above.
        for field in status.properties.iter_mut().flat_map(|p| p.values_mut()) {
            field.default = None;
        }
    }
    crd
}

/// An optional field is absent, never null; and `kubectl explain` breaks lines itself.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(description) = &mut schema.description {
        *description = description.replace('\n', " ");
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// The CRDs as YAML documents.
pub fn to_yaml(crds: &[CustomResourceDefinition]) -> Result<String, String> {
    let mut yaml = String::new();
    for crd in crds {
        yaml.push_str("---\n");
        yaml.push_str(&serde_saphyr::to_string(crd).map_err(|e| e.to_string())?);
    }
    Ok(yaml)
}
