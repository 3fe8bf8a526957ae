//! Who a pod of a StatefulSet is: its name, its host name, its claims.
//! Upstream: `pkg/controller/statefulset/stateful_set_utils.go`.

use crate::controller_history::REVISION_HASH;
use crate::{controller_ref, pod_template};
use coracle_reconcile::{Action, Cache, PatchType};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use serde_json::json;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a pod of the set with this name.
pub(super) fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let (parent, ordinal) = name.rsplit_once('-')?;
    let digits = ordinal.bytes().all(|byte| byte.is_ascii_digit());
    (parent == set && digits).then(|| ordinal.parse().ok())?
}

/// The template that a revision keeps.
pub(super) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The pod of an ordinal in one version.
pub(super) struct Identity<'a> {
    pub set: &'a StatefulSet,
    pub ordinal: i32,
    /// The name of the version.
    pub revision: &'a str,
    pub template: &'a PodTemplateSpec,
}

impl Identity<'_> {
    /// The pod's name.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.set_name(), self.ordinal)
    }

    fn set_name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    fn claim_templates(&self) -> impl Iterator<Item = &PersistentVolumeClaim> {
        let spec = self.set.spec.as_ref();
        spec.into_iter()
            .flat_map(|spec| spec.volume_claim_templates.iter().flatten())
    }

    fn claim_name(&self, template: &PersistentVolumeClaim) -> String {
        let template = template.metadata.name.as_deref().unwrap_or_default();
        format!("{template}-{}-{}", self.set_name(), self.ordinal)
    }

    /// The pod.
    pub(super) fn pod(&self) -> Pod {
        let mut pod = pod_template::pod(self.template, self.set);
        let name = self.name();
        pod.metadata.generate_name = None;
        pod.metadata.name = Some(name.clone());
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(POD_NAME.to_owned(), name.clone());
        labels.insert(POD_INDEX.to_owned(), self.ordinal.to_string());
        labels.insert(REVISION_HASH.to_owned(), self.revision.to_owned());
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(name);
        spec.subdomain = self.set.spec.as_ref().and_then(|spec| spec.service_name.clone());
        let claimed: Vec<Volume> = self
            .claim_templates()
            .map(|template| Volume {
                name: template.metadata.name.clone().unwrap_or_default(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: self.claim_name(template),
                    read_only: None,
                }),
                ..Volume::default()
            })
            .collect();
        let mut volumes = spec.volumes.take().unwrap_or_default();
        volumes.retain(|volume| claimed.iter().all(|claim| claim.name != volume.name));
        volumes.splice(0..0, claimed);
        spec.volumes = (!volumes.is_empty()).then_some(volumes);
        pod
    }

    /// Creations of the claims that do not exist.
    pub(super) fn missing_claims(&self, cache: &Cache) -> Vec<Action> {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        let missing = self.claim_templates().filter(|template| {
            let name = self.claim_name(template);
            cache.get::<PersistentVolumeClaim>(namespace, &name).is_none()
        });
        let claims = missing.map(|template| {
            let mut claim = template.clone();
            claim.metadata.name = Some(self.claim_name(template));
            claim.metadata.namespace = self.set.metadata.namespace.clone();
            let labels = claim.metadata.labels.get_or_insert_default();
            let selector = self
                .set
                .spec
                .as_ref()
                .and_then(|spec| spec.selector.match_labels.clone());
            labels.extend(selector.unwrap_or_default());
            claim.status = None;
            Action::create(&claim)
        });
        claims.collect()
    }

    /// Puts the labels back that say who a pod is.
    pub(super) fn correct(&self, pod: &Pod) -> Option<Action> {
        let name = self.name();
        let labels = pod.metadata.labels.as_ref();
        let is_right = labels.and_then(|labels| labels.get(POD_NAME)) == Some(&name);
        // Its owner is settled by adoption; until then the patch would only be in its way.
        let owned = controller_ref::controller(&pod.metadata)
            .is_some_and(|owner| Some(&owner.uid) == self.set.metadata.uid.as_ref());
        if is_right || !owned {
            return None;
        }
        let body = json!({"metadata": {"uid": pod.metadata.uid, "labels": {
            POD_NAME: name, POD_INDEX: self.ordinal.to_string(),
        }}});
        Some(Action::patch(pod, PatchType::Merge, body))
    }
}
