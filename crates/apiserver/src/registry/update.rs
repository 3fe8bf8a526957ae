//! PUT and PATCH of an object or a part of it. Upstream: `registry.Store.Update`, `rest.BeforeUpdate`.

use super::admit;
use super::call::Call;
use super::create::DUPLICATE_OWNERS;
use super::object::{draft, durability, key, parse};
use super::options::WriteOptions;
use super::render::Content;
use super::{Registry, managed_fields, metadata};
use crate::authz::{authorize, forbidden};
use crate::http::no_such_resource;
use crate::plugin::{Decision, Operation};
use coracle_meta::Status;
use coracle_meta::field::{FieldError, FieldPath};
use coracle_meta::object::ObjectExt;
use coracle_meta::patch::apply::ignore_times;
use coracle_store::{Expected, Object, WriteError};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// Upstream's wording of a lost race.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Attempts of a change that does not insist on a revision.
const ATTEMPTS: usize = 20;

/// Which part of an object a request may change.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// All but the status.
    Whole,
    /// The status.
    Status,
    /// What another subresource of the kind is about: `finalize`, `approval`, `ephemeralcontainers`, `resize`.
    Subresource,
    /// What the server itself has changed.
    Own,
}

/// A change: from the stored object, if there is one, to the wanted one. Both in the storage version.
pub(crate) type Change<'a> = &'a (dyn Fn(Option<&Value>) -> Result<Value, Status> + Send + Sync);

impl Registry {
    /// Changes an object, again and again while others change it too, unless the wanted object names a revision.
    /// An absent object is created where the kind or the request (`create`) allows it.
    pub(crate) async fn update(
        &self,
        call: &Call,
        part: Part,
        create: bool,
        options: &WriteOptions,
        change: Change<'_>,
    ) -> Result<(Content, bool), Status> {
        let key = key(call.resource, call.namespace(), &call.attributes.name);
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.store.get(&key.resource, &key.namespace, &key.name) else {
                if !create && !call.strategy.facts().create_on_update {
                    return Err(call.not_found());
                }
                let mut object = change(None)?;
                check_name(call, &mut object)?;
                self.authorize_create(call)?;
                if !object.uid().is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {}, and no existing object was found",
                        object.uid()
                    );
                    return Err(Status::conflict(&call.group_resource(), object.name(), why));
                }
                metadata::set(&mut object, "resourceVersion", "");
                return Ok((self.create(call, object, options).await?, true));
            };
            if let Some(content) = self.update_once(call, part, &stored, options, change).await? {
                return Ok((content, false));
            }
        }
        Err(Status::conflict(
            &call.group_resource(),
            &call.attributes.name,
            MODIFIED,
        ))
    }

    /// Who may only change objects must not make them in this way.
    fn authorize_create(&self, call: &Call) -> Result<(), Status> {
        let mut attributes = call.attributes.clone();
        attributes.verb = "create".to_owned();
        match authorize(&self.authorizers, &attributes, &*self.reader) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
        }
    }

    /// `None` when another write came first.
    async fn update_once(
        &self,
        call: &Call,
        part: Part,
        stored: &Arc<Object>,
        options: &WriteOptions,
        change: Change<'_>,
    ) -> Result<Option<Content>, Status> {
        let now = Timestamp::now();
        let old = parse(stored);
        let mut object = change(Some(&old))?;
        check_name(call, &mut object)?;
        check_revision(call, &object, &old)?;
        metadata::place(&mut object, call.resource.namespaced, call.namespace())?;
        metadata::keep_system_fields(&mut object, &old);
        if metadata::dedup_owners(&mut object) {
            call.warnings.add(DUPLICATE_OWNERS);
        }
        if !options.apply && !matches!(part, Part::Own) {
            managed_fields::track(call, Some(&old), &mut object, options, now);
        }

        let (gvk, raw) = (call.resource.storage_gvk(), Value::Null);
        let request = admit::request(
            call,
            &gvk,
            Operation::Update,
            Some(&mut object),
            Some(&old),
            options.dry_run,
            &raw,
        );
        let mut admitted = self.admission.admit(request)?;
        let result = async {
            let object = admitted.object();
            let errors = prepare(call, part, object, &old)?;
            if !errors.is_empty() {
                return Err(Status::invalid(
                    call.resource.group,
                    call.resource.kind,
                    object.name(),
                    &errors,
                ));
            }
            call.warnings.extend(call.strategy.warnings(object, Some(&old)));
            admitted.validate(call)?;
            ignore_times(&old, admitted.object());
            self.commit(call, stored, &old, admitted.object(), options).await
        }
        .await;
        admitted.finish(matches!(
            result,
            Ok(Some(Content::Stored(_) | Content::Removed(_)))
        ));
        if let Ok(Some(Content::Removed(_))) = &result {
            self.admission.removed(call, &old);
        }
        result
    }

    /// Stores the change, or removes the object when its last finalizer has gone.
    async fn commit(
        &self,
        call: &Call,
        stored: &Arc<Object>,
        old: &Value,
        object: &Value,
        options: &WriteOptions,
    ) -> Result<Option<Content>, Status> {
        let key = key(call.resource, stored.namespace(), stored.name());
        let durability = durability(call.resource);
        if ends(call, object, old) {
            if options.dry_run {
                return Ok(Some(Content::Unstored(object.clone())));
            }
            return match self.store.delete(key, stored.revision(), durability).await {
                Ok(_) => Ok(Some(Content::Removed(object.clone()))),
                Err(WriteError::NotFound) => Err(call.not_found()),
                Err(WriteError::Conflict(_)) => Ok(None),
                Err(error) => Err(super::failed(&error)),
            };
        }
        let draft = draft(call.resource, object)?;
        if stored.has_content(&draft) {
            return Ok(Some(Content::Stored(stored.clone())));
        }
        if options.dry_run {
            return Ok(Some(Content::Unstored(object.clone())));
        }
        match self
            .store
            .put(key, draft, Expected::Revision(stored.revision()), durability)
            .await
        {
            Ok(object) => Ok(Some(Content::Stored(object))),
            Err(WriteError::NotFound | WriteError::Conflict(_)) => Ok(None),
            Err(error) => Err(super::failed(&error)),
        }
    }
}

fn check_name(call: &Call, object: &mut Value) -> Result<(), Status> {
    let wanted = &call.attributes.name;
    if object.name().is_empty() {
        metadata::set(object, "name", wanted);
    }
    if object.name() == wanted {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the name of the object ({}) does not match the name on the URL ({wanted})",
        object.name()
    )))
}

fn check_revision(call: &Call, object: &Value, old: &Value) -> Result<(), Status> {
    let conflict = |why: &str| {
        Err(Status::conflict(
            &call.group_resource(),
            &call.attributes.name,
            why,
        ))
    };
    let (uid, old_uid) = (object.uid(), old.uid());
    if !uid.is_empty() && uid != old_uid {
        return conflict(&format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}",
            call.resource.plural, call.attributes.name
        ));
    }
    match object.resource_version() {
        "" | "0" if call.strategy.facts().unconditional_update => Ok(()),
        "" | "0" => {
            let path = FieldPath::new("metadata.resourceVersion");
            let error = FieldError::invalid(&path, 0, "must be specified for an update");
            let (group, resource) = (call.resource.group, call.resource.plural);
            Err(Status::invalid(group, resource, &call.attributes.name, &[error]))
        }
        version if version == old.resource_version() => Ok(()),
        _ => conflict(MODIFIED),
    }
}

/// Applies the kind's rules; returns what is wrong.
fn prepare(call: &Call, part: Part, object: &mut Value, old: &Value) -> Result<Vec<FieldError>, Status> {
    let strategy = call.strategy;
    Ok(match part {
        Part::Whole => {
            strategy.default(object);
            strategy.prepare_for_update(object, old);
            strategy.validate_update(object, old)
        }
        Part::Status => {
            strategy.prepare_for_status_update(object, old);
            strategy.validate_status_update(object, old)
        }
        Part::Subresource => {
            if !strategy.prepare_for_subresource_update(&call.attributes.subresource, object, old) {
                return Err(no_such_resource());
            }
            Vec::new()
        }
        Part::Own => Vec::new(),
    })
}

/// Whether this update takes away the last thing that kept a deleted object.
/// Upstream: `ShouldDeleteDuringUpdate`, and that of namespaces.
fn ends(call: &Call, object: &Value, old: &Value) -> bool {
    let namespace = call.resource.group.is_empty() && call.resource.kind == "Namespace";
    old.is_terminating()
        && metadata::finalizers(object).is_empty()
        && old
            .int_at(&["metadata", "deletionGracePeriodSeconds"])
            .unwrap_or(0)
            == 0
        && !(namespace && super::deletion::has_spec_finalizers(object))
}
