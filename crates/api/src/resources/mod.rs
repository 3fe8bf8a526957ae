//! The built-in resources: what discovery announces (`kubectl api-resources`) and the router serves.
//! Upstream: the `rest` packages of each group under `pkg/registry`, and `api/discovery`.

mod table;
#[cfg(test)]
mod tests;

use coracle_meta::{GroupResource, GroupVersionKind, GroupVersionResource};
use std::collections::HashMap;
use std::sync::LazyLock;

/// A verb of the API, as authorisation and discovery name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// POST of a new object, or of an action's argument.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of many.
    DeleteCollection,
    /// GET of one.
    Get,
    /// GET of many.
    List,
    /// PATCH, server-side apply included.
    Patch,
    /// PUT.
    Update,
    /// GET of the changes to come.
    Watch,
}

impl Verb {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// What most resources do.
const STORED: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// A resource in one version of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiResource {
    /// API group, `""` for core.
    pub group: &'static str,
    /// Version, such as `v1`.
    pub version: &'static str,
    /// Kind of one object; lists have the kind [`ApiResource::list_kind`].
    pub kind: &'static str,
    /// Lower-case plural: the segment of the path.
    pub plural: &'static str,
    /// Lower-case singular.
    pub singular: &'static str,
    /// Abbreviations for the command line.
    pub short_names: &'static [&'static str],
    /// Groups of resources with a name, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [Verb],
    /// Paths below an object.
    pub subresources: &'static [Subresource],
    /// Group under which objects are stored: two API groups may show the same objects.
    pub storage_group: &'static str,
    /// Version in which objects are stored.
    pub storage_version: &'static str,
}

/// A path below an object, such as `pods/NAME/log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// The last segment of the path.
    pub name: &'static str,
    /// Group, version and kind of the body; `None` is the parent's.
    pub gvk: Option<(&'static str, &'static str, &'static str)>,
    /// What can be done with it.
    pub verbs: &'static [Verb],
}

impl Subresource {
    const fn of_parent(name: &'static str, verbs: &'static [Verb]) -> Self {
        Self {
            name,
            gvk: None,
            verbs,
        }
    }

    const fn new(
        name: &'static str,
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        verbs: &'static [Verb],
    ) -> Self {
        Self {
            name,
            gvk: Some((group, version, kind)),
            verbs,
        }
    }
}

const fn cluster(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> ApiResource {
    ApiResource {
        group,
        version,
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: false,
        verbs: STORED,
        subresources: &[],
        storage_group: group,
        storage_version: version,
    }
}

const fn namespaced(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> ApiResource {
    ApiResource {
        namespaced: true,
        ..cluster(group, version, kind, plural, singular)
    }
}

/// The builder of the table.
impl ApiResource {
    const fn short(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }

    const fn categories(self, categories: &'static [&'static str]) -> Self {
        Self { categories, ..self }
    }

    const fn verbs(self, verbs: &'static [Verb]) -> Self {
        Self { verbs, ..self }
    }

    const fn subresources(self, subresources: &'static [Subresource]) -> Self {
        Self { subresources, ..self }
    }

    const fn stored_as(self, storage_group: &'static str, storage_version: &'static str) -> Self {
        Self {
            storage_group,
            storage_version,
            ..self
        }
    }
}

impl ApiResource {
    /// The kind of a list of these.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Group, version and kind of one object.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group, self.version, self.kind)
    }

    /// Group, version and plural.
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.group, self.version, self.plural)
    }

    /// The resource in messages.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }

    /// The resource under which objects are stored; shared by every group and version that shows them.
    pub fn storage(&self) -> GroupResource {
        GroupResource::new(self.storage_group, self.plural)
    }

    /// Group, version and kind of the stored form.
    pub fn storage_gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.storage_group, self.storage_version, self.kind)
    }

    /// The wire's `apiVersion`.
    pub fn api_version(&self) -> String {
        coracle_meta::gvk::join_api_version(self.group, self.version)
    }

    /// Whether a verb is served.
    pub fn has_verb(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects of it are stored; reviews and bindings are only answered.
    pub fn is_stored(&self) -> bool {
        self.has_verb(Verb::Delete)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Group, version and kind of what a subresource speaks.
    pub fn subresource_gvk(&self, subresource: &Subresource) -> GroupVersionKind {
        match subresource.gvk {
            Some((group, version, kind)) => GroupVersionKind::new(group, version, kind),
            None => self.gvk(),
        }
    }
}

/// All built-in resources, in the order of discovery.
pub fn all() -> &'static [ApiResource] {
    table::RESOURCES
}

/// Group and version of every served API, in the order of discovery. The first version of a group is preferred.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut seen = Vec::new();
    for resource in all() {
        if !seen.contains(&(resource.group, resource.version)) {
            seen.push((resource.group, resource.version));
        }
    }
    seen
}

/// The resources of one group and version.
pub fn of_group_version(group: &str, version: &str) -> impl Iterator<Item = &'static ApiResource> {
    all()
        .iter()
        .filter(move |r| r.group == group && r.version == version)
}

type Key = (&'static str, &'static str, &'static str);

static BY_GVR: LazyLock<HashMap<Key, &'static ApiResource>> = LazyLock::new(|| {
    all()
        .iter()
        .map(|r| ((r.group, r.version, r.plural), r))
        .collect()
});

static BY_GVK: LazyLock<HashMap<Key, &'static ApiResource>> =
    LazyLock::new(|| all().iter().map(|r| ((r.group, r.version, r.kind), r)).collect());

/// The resource at a path.
pub fn by_gvr(group: &str, version: &str, plural: &str) -> Option<&'static ApiResource> {
    BY_GVR.get(&(group, version, plural)).copied()
}

/// The resource of a kind. Kinds that only subresources speak (`Scale`, `Eviction`) have none.
pub fn by_gvk(gvk: &GroupVersionKind) -> Option<&'static ApiResource> {
    BY_GVK
        .get(&(gvk.group.as_str(), gvk.version.as_str(), gvk.kind.as_str()))
        .copied()
}

/// The preferred version of a resource.
pub fn by_group_resource(resource: &GroupResource) -> Option<&'static ApiResource> {
    all()
        .iter()
        .find(|r| r.group == resource.group && r.plural == resource.resource)
}
