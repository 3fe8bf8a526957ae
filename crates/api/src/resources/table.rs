//! Every built-in resource of Kubernetes 1.36 that is served by default, in the order of upstream's discovery:
//! groups by their priority, resources by name.

use super::{ApiResource, Subresource, Verb, cluster, namespaced};
use Verb::{Create, Delete, Get, List, Patch, Update, Watch};

const ALL: &[&str] = &["all"];
const EXTENSIONS: &[&str] = &["api-extensions"];
const CREATE: &[Verb] = &[Create];
const CONNECT: &[Verb] = &[Create, Get];
const PROXY: &[Verb] = &[Create, Delete, Get, Patch, Update];
const CHANGE: &[Verb] = &[Get, Patch, Update];

const STATUS: Subresource = Subresource::of_parent("status", CHANGE);
const SCALE: Subresource = Subresource::new("scale", "autoscaling", "v1", "Scale", CHANGE);

/// See [`super::all`].
pub(super) static RESOURCES: &[ApiResource] = &[
    // core/v1
    namespaced("", "v1", "Binding", "bindings", "binding").verbs(CREATE),
    cluster(
        "",
        "v1",
        "ComponentStatus",
        "componentstatuses",
        "componentstatus",
    )
    .short(&["cs"])
    .verbs(&[Get, List]),
    namespaced("", "v1", "ConfigMap", "configmaps", "configmap").short(&["cm"]),
    namespaced("", "v1", "Endpoints", "endpoints", "endpoints").short(&["ep"]),
    namespaced("", "v1", "Event", "events", "event").short(&["ev"]),
    namespaced("", "v1", "LimitRange", "limitranges", "limitrange").short(&["limits"]),
    cluster("", "v1", "Namespace", "namespaces", "namespace")
        .short(&["ns"])
        .verbs(&[Create, Delete, Get, List, Patch, Update, Watch])
        .subresources(&[Subresource::of_parent("finalize", &[Update]), STATUS]),
    cluster("", "v1", "Node", "nodes", "node")
        .short(&["no"])
        .subresources(&[
            Subresource::new("proxy", "", "v1", "NodeProxyOptions", PROXY),
            STATUS,
        ]),
    namespaced(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
    )
    .short(&["pvc"])
    .subresources(&[STATUS]),
    cluster(
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        "persistentvolume",
    )
    .short(&["pv"])
    .subresources(&[STATUS]),
    namespaced("", "v1", "Pod", "pods", "pod")
        .short(&["po"])
        .categories(ALL)
        .subresources(&[
            Subresource::new("attach", "", "v1", "PodAttachOptions", CONNECT),
            Subresource::new("binding", "", "v1", "Binding", CREATE),
            Subresource::of_parent("ephemeralcontainers", CHANGE),
            Subresource::new("eviction", "policy", "v1", "Eviction", CREATE),
            Subresource::new("exec", "", "v1", "PodExecOptions", CONNECT),
            Subresource::of_parent("log", &[Get]),
            Subresource::new("portforward", "", "v1", "PodPortForwardOptions", CONNECT),
            Subresource::new("proxy", "", "v1", "PodProxyOptions", PROXY),
            Subresource::of_parent("resize", CHANGE),
            STATUS,
        ]),
    namespaced("", "v1", "PodTemplate", "podtemplates", "podtemplate"),
    namespaced(
        "",
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        "replicationcontroller",
    )
    .short(&["rc"])
    .categories(ALL)
    .subresources(&[SCALE, STATUS]),
    namespaced("", "v1", "ResourceQuota", "resourcequotas", "resourcequota")
        .short(&["quota"])
        .subresources(&[STATUS]),
    namespaced("", "v1", "Secret", "secrets", "secret"),
    namespaced("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount")
        .short(&["sa"])
        .subresources(&[Subresource::new(
            "token",
            "authentication.k8s.io",
            "v1",
            "TokenRequest",
            CREATE,
        )]),
    namespaced("", "v1", "Service", "services", "service")
        .short(&["svc"])
        .categories(ALL)
        .subresources(&[
            Subresource::new("proxy", "", "v1", "ServiceProxyOptions", PROXY),
            STATUS,
        ]),
    // apiregistration.k8s.io/v1
    cluster(
        "apiregistration.k8s.io",
        "v1",
        "APIService",
        "apiservices",
        "apiservice",
    )
    .categories(EXTENSIONS)
    .subresources(&[STATUS]),
    // apps/v1
    namespaced(
        "apps",
        "v1",
        "ControllerRevision",
        "controllerrevisions",
        "controllerrevision",
    ),
    namespaced("apps", "v1", "DaemonSet", "daemonsets", "daemonset")
        .short(&["ds"])
        .categories(ALL)
        .subresources(&[STATUS]),
    namespaced("apps", "v1", "Deployment", "deployments", "deployment")
        .short(&["deploy"])
        .categories(ALL)
        .subresources(&[SCALE, STATUS]),
    namespaced("apps", "v1", "ReplicaSet", "replicasets", "replicaset")
        .short(&["rs"])
        .categories(ALL)
        .subresources(&[SCALE, STATUS]),
    namespaced("apps", "v1", "StatefulSet", "statefulsets", "statefulset")
        .short(&["sts"])
        .categories(ALL)
        .subresources(&[SCALE, STATUS]),
    // events.k8s.io/v1
    namespaced("events.k8s.io", "v1", "Event", "events", "event")
        .short(&["ev"])
        .stored_as("", "v1"),
    // authentication.k8s.io/v1
    cluster(
        "authentication.k8s.io",
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
        "selfsubjectreview",
    )
    .verbs(CREATE),
    cluster(
        "authentication.k8s.io",
        "v1",
        "TokenReview",
        "tokenreviews",
        "tokenreview",
    )
    .verbs(CREATE),
    // authorization.k8s.io/v1
    namespaced(
        "authorization.k8s.io",
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
    )
    .verbs(CREATE),
    cluster(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
    )
    .verbs(CREATE),
    cluster(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
    )
    .verbs(CREATE),
    cluster(
        "authorization.k8s.io",
        "v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        "subjectaccessreview",
    )
    .verbs(CREATE),
    // autoscaling/v2
    namespaced(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
    )
    .short(&["hpa"])
    .categories(ALL)
    .subresources(&[STATUS]),
    // autoscaling/v1
    namespaced(
        "autoscaling",
        "v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
    )
    .short(&["hpa"])
    .categories(ALL)
    .subresources(&[STATUS])
    .stored_as("autoscaling", "v2"),
    // batch/v1
    namespaced("batch", "v1", "CronJob", "cronjobs", "cronjob")
        .short(&["cj"])
        .categories(ALL)
        .subresources(&[STATUS]),
    namespaced("batch", "v1", "Job", "jobs", "job")
        .categories(ALL)
        .subresources(&[STATUS]),
    // certificates.k8s.io/v1
    cluster(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificatesigningrequest",
    )
    .short(&["csr"])
    .subresources(&[Subresource::of_parent("approval", CHANGE), STATUS]),
    // networking.k8s.io/v1
    cluster(
        "networking.k8s.io",
        "v1",
        "IngressClass",
        "ingressclasses",
        "ingressclass",
    ),
    namespaced("networking.k8s.io", "v1", "Ingress", "ingresses", "ingress")
        .short(&["ing"])
        .subresources(&[STATUS]),
    cluster("networking.k8s.io", "v1", "IPAddress", "ipaddresses", "ipaddress").short(&["ip"]),
    namespaced(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        "networkpolicy",
    )
    .short(&["netpol"]),
    cluster(
        "networking.k8s.io",
        "v1",
        "ServiceCIDR",
        "servicecidrs",
        "servicecidr",
    )
    .subresources(&[STATUS]),
    // policy/v1
    namespaced(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "poddisruptionbudget",
    )
    .short(&["pdb"])
    .subresources(&[STATUS]),
    // rbac.authorization.k8s.io/v1
    cluster(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "clusterrolebinding",
    ),
    cluster(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        "clusterrole",
    ),
    namespaced(
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        "rolebinding",
    ),
    namespaced("rbac.authorization.k8s.io", "v1", "Role", "roles", "role"),
    // storage.k8s.io/v1
    cluster("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "csidriver"),
    cluster("storage.k8s.io", "v1", "CSINode", "csinodes", "csinode"),
    namespaced(
        "storage.k8s.io",
        "v1",
        "CSIStorageCapacity",
        "csistoragecapacities",
        "csistoragecapacity",
    ),
    cluster(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        "storageclass",
    )
    .short(&["sc"]),
    cluster(
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
        "volumeattachments",
        "volumeattachment",
    )
    .subresources(&[STATUS]),
    cluster(
        "storage.k8s.io",
        "v1",
        "VolumeAttributesClass",
        "volumeattributesclasses",
        "volumeattributesclass",
    )
    .short(&["vac"]),
    // admissionregistration.k8s.io/v1
    cluster(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicy",
    )
    .categories(EXTENSIONS),
    cluster(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        "mutatingadmissionpolicybinding",
    )
    .categories(EXTENSIONS),
    cluster(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
    )
    .categories(EXTENSIONS),
    cluster(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        "validatingadmissionpolicy",
    )
    .categories(EXTENSIONS)
    .subresources(&[STATUS]),
    cluster(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicybinding",
    )
    .categories(EXTENSIONS),
    cluster(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
    )
    .categories(EXTENSIONS),
    // apiextensions.k8s.io/v1
    cluster(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "customresourcedefinition",
    )
    .short(&["crd", "crds"])
    .categories(EXTENSIONS)
    .subresources(&[STATUS]),
    // scheduling.k8s.io/v1
    cluster(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        "priorityclass",
    )
    .short(&["pc"]),
    // coordination.k8s.io/v1
    namespaced("coordination.k8s.io", "v1", "Lease", "leases", "lease"),
    // node.k8s.io/v1
    cluster(
        "node.k8s.io",
        "v1",
        "RuntimeClass",
        "runtimeclasses",
        "runtimeclass",
    ),
    // discovery.k8s.io/v1
    namespaced(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "endpointslice",
    ),
    // resource.k8s.io/v1
    cluster(
        "resource.k8s.io",
        "v1",
        "DeviceClass",
        "deviceclasses",
        "deviceclass",
    ),
    namespaced(
        "resource.k8s.io",
        "v1",
        "ResourceClaim",
        "resourceclaims",
        "resourceclaim",
    )
    .subresources(&[STATUS]),
    namespaced(
        "resource.k8s.io",
        "v1",
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
        "resourceclaimtemplate",
    ),
    cluster(
        "resource.k8s.io",
        "v1",
        "ResourceSlice",
        "resourceslices",
        "resourceslice",
    ),
    // flowcontrol.apiserver.k8s.io/v1
    cluster(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "FlowSchema",
        "flowschemas",
        "flowschema",
    )
    .subresources(&[STATUS]),
    cluster(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        "prioritylevelconfiguration",
    )
    .subresources(&[STATUS]),
];
