use super::*;
use std::collections::HashSet;

#[test]
fn lookups_agree() {
    for resource in all() {
        assert_eq!(by_gvk(&resource.gvk()), Some(resource));
        assert_eq!(
            by_gvr(resource.group, resource.version, resource.plural),
            Some(resource)
        );
    }
    assert_eq!(by_gvr("", "v2", "pods"), None);
    let hpa = by_group_resource(&GroupResource::new("autoscaling", "horizontalpodautoscalers"));
    assert_eq!(hpa.map(|r| r.version), Some("v2"));
}

#[test]
fn no_abbreviation_means_two_things_in_one_group() {
    let mut names = HashSet::new();
    for resource in all() {
        for name in resource.short_names.iter().chain([&resource.plural]) {
            assert!(names.insert((resource.group, resource.version, *name)), "{name}");
        }
    }
}

#[test]
fn two_groups_show_the_same_events() {
    let core = by_gvr("", "v1", "events").expect("core events");
    let grouped = by_gvr("events.k8s.io", "v1", "events").expect("grouped events");
    assert_eq!(core.storage(), grouped.storage());
    assert_eq!(grouped.storage_gvk().api_version(), "v1");
}

#[test]
fn subresources_name_their_kinds() {
    let deployments = by_gvr("apps", "v1", "deployments").expect("deployments");
    let scale = deployments.subresource("scale").expect("scale");
    assert_eq!(
        deployments.subresource_gvk(scale),
        GroupVersionKind::new("autoscaling", "v1", "Scale")
    );
    let pods = by_gvr("", "v1", "pods").expect("pods");
    let status = pods.subresource("status").expect("status");
    assert_eq!(pods.subresource_gvk(status).kind, "Pod");
    assert_eq!(pods.subresource("scale"), None);
    assert!(
        !by_gvr("authorization.k8s.io", "v1", "subjectaccessreviews")
            .expect("review")
            .is_stored()
    );
}

#[test]
fn storage_versions_are_served() {
    for resource in all() {
        let stored = by_gvr(resource.storage_group, resource.storage_version, resource.plural);
        assert!(stored.is_some(), "{}", resource.plural);
    }
}
