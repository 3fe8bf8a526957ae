//! What the API server must know of a kind beyond its schema: defaults, preparation of writes, validation,
//! warnings, selectable fields, table. Upstream: `pkg/registry/*/*/strategy.go`.

use crate::object_meta;
use crate::semantic;
use crate::table::{PLAIN, TableSpec};
use coracle_meta::FieldError;
use coracle_meta::object::ObjectExt;
use serde_json::Value;

/// The errors of a validation, in upstream's order.
pub type Errors = Vec<FieldError>;

/// How objects of a kind may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS subdomain (RFC 1123): most kinds.
    Subdomain,
    /// A DNS label (RFC 1123): namespaces, services.
    Label,
    /// Anything that is one segment of a URL path: RBAC.
    PathSegment,
    /// An address or a kind's own form, which the kind's `check` verifies.
    Own,
}

/// The facts of a kind on which the common rules of writing depend.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The form of names.
    pub name: NameRule,
    /// Whether `status` is a subresource: dropped on create, kept on update.
    pub status: bool,
    /// Whether a create may bring its status along.
    pub status_on_create: bool,
    /// Whether `metadata.generation` counts the changes of everything but metadata and status.
    pub generation: bool,
    /// Whether a PUT of an absent object creates it.
    pub create_on_update: bool,
    /// Whether an update may come without a resource version.
    pub unconditional_update: bool,
}

impl Facts {
    /// A namespaced kind with spec, status and generation.
    pub const NAMESPACED: Self = Self {
        namespaced: true,
        name: NameRule::Subdomain,
        status: true,
        status_on_create: false,
        generation: true,
        create_on_update: false,
        unconditional_update: true,
    };
    /// A cluster-wide kind with spec, status and generation.
    pub const CLUSTER: Self = Self {
        namespaced: false,
        ..Self::NAMESPACED
    };
    /// A namespaced kind without status and generation.
    pub const NAMESPACED_DATA: Self = Self {
        status: false,
        generation: false,
        ..Self::NAMESPACED
    };
    /// A cluster-wide kind without status and generation.
    pub const CLUSTER_DATA: Self = Self {
        namespaced: false,
        ..Self::NAMESPACED_DATA
    };
}

/// What the API server must know of a kind beyond its schema.
///
/// The order of a write: decode, [`default`](Self::default), admission, `prepare_for_…`, `validate…`, store.
/// Nulls have been removed by the decoder. `old` is the stored object, which is in its defaulted form.
pub trait Strategy: Sync {
    /// The facts on which the common rules depend.
    fn facts(&self) -> &Facts;

    /// The columns of `kubectl get`.
    fn table(&self) -> &'static TableSpec;

    /// Fills in what the user may leave out. Idempotent; runs on every decode of a write.
    fn default(&self, _object: &mut Value) {}

    /// Before validation of a create: drops what users may not set.
    fn prepare_for_create(&self, object: &mut Value) {
        prepare_for_create(self.facts(), object);
    }

    /// Before validation of an update: keeps the status, counts the generation.
    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        prepare_for_update(self.facts(), object, old);
    }

    /// Before validation of an update of the status: keeps everything else.
    fn prepare_for_status_update(&self, object: &mut Value, old: &Value) {
        prepare_for_status_update(object, old);
    }

    /// Before validation of an update through another subresource than `status` (`finalize`, `approval`,
    /// `ephemeralcontainers`, `resize`): keeps what the subresource is not about. False if the kind has no such
    /// subresource.
    fn prepare_for_subresource_update(&self, _subresource: &str, _object: &mut Value, _old: &Value) -> bool {
        false
    }

    /// What is wrong with the fields of this kind in a new object; metadata aside.
    fn check(&self, _object: &Value, _errors: &mut Errors) {}

    /// What is wrong with an update, immutable fields included; metadata aside.
    fn check_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        self.check(object, errors);
    }

    /// What is wrong with an update of the status; metadata aside.
    fn check_status_update(&self, _object: &Value, _old: &Value, _errors: &mut Errors) {}

    /// All errors of a create.
    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Errors::new();
        object_meta::validate(self.facts(), object, &mut errors);
        self.check(object, &mut errors);
        errors
    }

    /// All errors of an update, immutable metadata included.
    fn validate_update(&self, object: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        object_meta::validate_update(self.facts(), object, old, &mut errors);
        self.check_update(object, old, &mut errors);
        errors
    }

    /// All errors of an update of the status.
    fn validate_status_update(&self, object: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        object_meta::validate_update(self.facts(), object, old, &mut errors);
        self.check_status_update(object, old, &mut errors);
        errors
    }

    /// Advice about what the user wrote; for the `Warning` header.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// What every request for this kind warns of, reads too.
    fn request_warning(&self) -> Option<&'static str> {
        None
    }

    /// The fields by which objects can be selected, `metadata.name` and `metadata.namespace` aside.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The seconds an object is given to end when it is deleted, from the period that the request asks for;
    /// `None` for kinds that go at once.
    fn grace_period(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }
}

/// The strategy of a kind as data; what a kind does not say is the common rule.
pub(crate) struct Kind {
    pub facts: Facts,
    pub table: &'static TableSpec,
    pub default: fn(&mut Value),
    /// Runs after the common preparation.
    pub prepare_for_create: fn(&mut Value),
    /// Runs after the common preparation.
    pub prepare_for_update: fn(&mut Value, &Value),
    /// Runs after the common preparation.
    pub prepare_for_status_update: fn(&mut Value, &Value),
    pub prepare_for_subresource_update: fn(&str, &mut Value, &Value) -> bool,
    pub check: fn(&Value, &mut Errors),
    pub check_update: Option<fn(&Value, &Value, &mut Errors)>,
    pub check_status_update: fn(&Value, &Value, &mut Errors),
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    pub request_warning: Option<&'static str>,
    pub selectable_fields: fn(&Value) -> Vec<(&'static str, String)>,
    pub grace_period: fn(&Value, Option<i64>) -> Option<i64>,
}

impl Kind {
    /// A kind with nothing of its own.
    pub const fn new(facts: Facts) -> Self {
        Self {
            facts,
            table: &PLAIN,
            default: |_| {},
            prepare_for_create: |_| {},
            prepare_for_update: |_, _| {},
            prepare_for_status_update: |_, _| {},
            prepare_for_subresource_update: |_, _, _| false,
            check: |_, _| {},
            check_update: None,
            check_status_update: |_, _, _| {},
            warnings: |_, _| Vec::new(),
            request_warning: None,
            selectable_fields: |_| Vec::new(),
            grace_period: |_, _| None,
        }
    }
}

impl Strategy for Kind {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn table(&self) -> &'static TableSpec {
        self.table
    }
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }
    fn prepare_for_create(&self, object: &mut Value) {
        prepare_for_create(&self.facts, object);
        (self.prepare_for_create)(object);
    }
    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        prepare_for_update(&self.facts, object, old);
        (self.prepare_for_update)(object, old);
    }
    fn prepare_for_status_update(&self, object: &mut Value, old: &Value) {
        prepare_for_status_update(object, old);
        (self.prepare_for_status_update)(object, old);
    }
    fn prepare_for_subresource_update(&self, subresource: &str, object: &mut Value, old: &Value) -> bool {
        (self.prepare_for_subresource_update)(subresource, object, old)
    }
    fn check(&self, object: &Value, errors: &mut Errors) {
        (self.check)(object, errors);
    }
    fn check_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        match self.check_update {
            Some(check) => check(object, old, errors),
            None => (self.check)(object, errors),
        }
    }
    fn check_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        (self.check_status_update)(object, old, errors);
    }
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        (self.warnings)(object, old)
    }
    fn request_warning(&self) -> Option<&'static str> {
        self.request_warning
    }
    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        (self.selectable_fields)(object)
    }
    fn grace_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        (self.grace_period)(object, requested)
    }
}

fn prepare_for_create(facts: &Facts, object: &mut Value) {
    if facts.status
        && !facts.status_on_create
        && let Some(object) = object.as_object_mut()
    {
        object.remove("status");
    }
    set_generation(object, if facts.generation { 1 } else { 0 });
}

fn prepare_for_update(facts: &Facts, object: &mut Value, old: &Value) {
    if facts.status {
        copy_field(object, old, "status");
    }
    let changed = facts.generation && changed_beyond_metadata(object, old);
    set_generation(object, old.generation() + i64::from(changed));
}

/// A status update changes the status, and metadata as any update may; the rest stays as it is stored.
fn prepare_for_status_update(object: &mut Value, old: &Value) {
    keep_all_but(&["status"], object, old);
}

/// Undoes all changes but those of some fields and of metadata.
pub(crate) fn keep_all_but(fields: &[&str], object: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for key in ["apiVersion", "kind", "metadata"].iter().chain(fields) {
        copy_field(&mut kept, object, key);
    }
    *object = kept;
    set_generation(object, old.generation());
}

/// Makes a field of `to` what it is in `from`, absent included.
pub(crate) fn copy_field(to: &mut Value, from: &Value, key: &str) {
    let Some(to) = to.as_object_mut() else { return };
    match from.get(key) {
        Some(value) => {
            to.insert(key.to_owned(), value.clone());
        }
        None => {
            to.remove(key);
        }
    }
}

/// Sets `metadata.generation`; 0 is absent.
pub(crate) fn set_generation(object: &mut Value, generation: i64) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if generation == 0 {
        metadata.remove("generation");
    } else {
        metadata.insert("generation".to_owned(), generation.into());
    }
}

fn changed_beyond_metadata(object: &Value, old: &Value) -> bool {
    let fields = |value: &Value| -> serde_json::Map<String, Value> {
        let Some(fields) = value.as_object() else {
            return serde_json::Map::new();
        };
        fields
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    !semantic::equal(&Value::Object(fields(object)), &Value::Object(fields(old)))
}

/// The strategy of a built-in kind, in whichever version; the common rules for a namespaced kind when it is
/// unknown.
pub fn strategy(group: &str, kind: &str) -> &'static dyn Strategy {
    crate::registry::kind(group, kind)
}
