//! Which strategy a kind has. Upstream: the storage constructors under `pkg/registry`.

use crate::strategy::{Facts, Kind};
use crate::{
    admissionregistration, apiextensions, apiregistration, apiserverinternal, apps, autoscaling, batch,
    certificates, coordination, core, discovery, flowcontrol, networking, node, policy, rbac, resource,
    scheduling, storage, storagemigration,
};

static NAMESPACED: Kind = Kind::new(Facts::NAMESPACED);

/// The strategy of a kind.
pub(crate) fn kind(group: &str, kind: &str) -> &'static Kind {
    match group {
        "" => core(kind),
        "admissionregistration.k8s.io" => admission(kind),
        "apps" => match kind {
            "ControllerRevision" => &apps::controller_revision::STRATEGY,
            "DaemonSet" => &apps::daemon_set::STRATEGY,
            "Deployment" => &apps::deployment::STRATEGY,
            "ReplicaSet" => &apps::replica_set::STRATEGY,
            "StatefulSet" => &apps::stateful_set::STRATEGY,
            _ => &NAMESPACED,
        },
        "networking.k8s.io" => match kind {
            "IPAddress" => &networking::ip_address::STRATEGY,
            "Ingress" => &networking::ingress::STRATEGY,
            "IngressClass" => &networking::ingress_class::STRATEGY,
            "NetworkPolicy" => &networking::network_policy::STRATEGY,
            "ServiceCIDR" => &networking::service_cidr::STRATEGY,
            _ => &NAMESPACED,
        },
        "rbac.authorization.k8s.io" => match kind {
            "ClusterRole" => &rbac::cluster_role::STRATEGY,
            "ClusterRoleBinding" => &rbac::cluster_role_binding::STRATEGY,
            "Role" => &rbac::role::STRATEGY,
            "RoleBinding" => &rbac::role_binding::STRATEGY,
            _ => &NAMESPACED,
        },
        "storage.k8s.io" => match kind {
            "CSIDriver" => &storage::csi_driver::STRATEGY,
            "CSINode" => &storage::csi_node::STRATEGY,
            "CSIStorageCapacity" => &storage::csi_storage_capacity::STRATEGY,
            "StorageClass" => &storage::storage_class::STRATEGY,
            "VolumeAttachment" => &storage::volume_attachment::STRATEGY,
            "VolumeAttributesClass" => &storage::volume_attributes_class::STRATEGY,
            _ => &NAMESPACED,
        },
        "resource.k8s.io" => match kind {
            "DeviceClass" => &resource::DEVICE_CLASS,
            "DeviceTaintRule" => &resource::DEVICE_TAINT_RULE,
            "ResourceClaim" => &resource::RESOURCE_CLAIM,
            "ResourceClaimTemplate" => &resource::RESOURCE_CLAIM_TEMPLATE,
            "ResourceSlice" => &resource::RESOURCE_SLICE,
            _ => &NAMESPACED,
        },
        _ => other(group, kind),
    }
}

fn core(kind: &str) -> &'static Kind {
    match kind {
        "ComponentStatus" => &core::component_status::STRATEGY,
        "ConfigMap" => &core::config_map::STRATEGY,
        "Endpoints" => &core::endpoints::STRATEGY,
        "Event" => &core::event::STRATEGY,
        "LimitRange" => &core::limit_range::STRATEGY,
        "Namespace" => &core::namespace::STRATEGY,
        "Node" => &core::node::STRATEGY,
        "PersistentVolume" => &core::persistent_volume::STRATEGY,
        "PersistentVolumeClaim" => &core::persistent_volume_claim::STRATEGY,
        "Pod" => &core::pod::STRATEGY,
        "PodTemplate" => &core::pod_template::STRATEGY,
        "ReplicationController" => &core::replication_controller::STRATEGY,
        "ResourceQuota" => &core::resource_quota::STRATEGY,
        "Secret" => &core::secret::STRATEGY,
        "Service" => &core::service::STRATEGY,
        "ServiceAccount" => &core::service_account::STRATEGY,
        _ => &NAMESPACED,
    }
}

fn admission(kind: &str) -> &'static Kind {
    use admissionregistration::{policy, policy_binding, webhook_configuration};
    match kind {
        "MutatingAdmissionPolicy" => &policy::MUTATING,
        "MutatingAdmissionPolicyBinding" => &policy_binding::MUTATING,
        "MutatingWebhookConfiguration" => &webhook_configuration::MUTATING,
        "ValidatingAdmissionPolicy" => &policy::VALIDATING,
        "ValidatingAdmissionPolicyBinding" => &policy_binding::VALIDATING,
        "ValidatingWebhookConfiguration" => &webhook_configuration::VALIDATING,
        _ => &NAMESPACED,
    }
}

/// Groups of one to three kinds.
fn other(group: &str, kind: &str) -> &'static Kind {
    match (group, kind) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            &apiextensions::custom_resource_definition::STRATEGY
        }
        ("apiregistration.k8s.io", "APIService") => &apiregistration::api_service::STRATEGY,
        ("autoscaling", "HorizontalPodAutoscaler") => &autoscaling::horizontal_pod_autoscaler::STRATEGY,
        ("batch", "CronJob") => &batch::cron_job::STRATEGY,
        ("batch", "Job") => &batch::job::STRATEGY,
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            &certificates::certificate_signing_request::STRATEGY
        }
        ("certificates.k8s.io", "ClusterTrustBundle") => &certificates::cluster_trust_bundle::STRATEGY,
        ("certificates.k8s.io", "PodCertificateRequest") => &certificates::pod_certificate_request::STRATEGY,
        ("coordination.k8s.io", "Lease") => &coordination::lease::STRATEGY,
        ("coordination.k8s.io", "LeaseCandidate") => &coordination::lease_candidate::STRATEGY,
        ("discovery.k8s.io", "EndpointSlice") => &discovery::endpoint_slice::STRATEGY,
        // One set of events under two groups, stored as core has them.
        ("events.k8s.io", "Event") => &core::event::STRATEGY,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &flowcontrol::flow_schema::STRATEGY,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            &flowcontrol::priority_level_configuration::STRATEGY
        }
        ("internal.apiserver.k8s.io", "StorageVersion") => &apiserverinternal::STORAGE_VERSION,
        ("node.k8s.io", "RuntimeClass") => &node::runtime_class::STRATEGY,
        ("policy", "PodDisruptionBudget") => &policy::pod_disruption_budget::STRATEGY,
        ("scheduling.k8s.io", "PodGroup") => &scheduling::POD_GROUP,
        ("scheduling.k8s.io", "PriorityClass") => &scheduling::priority_class::STRATEGY,
        ("scheduling.k8s.io", "Workload") => &scheduling::WORKLOAD,
        ("storagemigration.k8s.io", "StorageVersionMigration") => {
            &storagemigration::STORAGE_VERSION_MIGRATION
        }
        _ => &NAMESPACED,
    }
}
