//! POST of a new object. Upstream: `registry.Store.Create`, `rest.BeforeCreate`.

use super::admit;
use super::call::Call;
use super::object::{draft, durability, key};
use super::options::WriteOptions;
use super::render::Content;
use super::{Registry, managed_fields, metadata};
use crate::plugin::Operation;
use coracle_meta::Status;
use coracle_meta::object::ObjectExt;
use coracle_store::{Expected, WriteError};
use jiff::Timestamp;
use serde_json::Value;

/// How often a taken generated name is replaced by another. Upstream: `maxNameGenerationCreateAttempts`.
const ATTEMPTS: usize = 8;

impl Registry {
    /// Creates an object that has been decoded to its storage version.
    pub(crate) async fn create(
        &self,
        call: &Call,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Content, Status> {
        metadata::wipe(&mut object);
        metadata::place(&mut object, call.resource.namespaced, call.namespace())?;
        if call.resource.namespaced && call.namespace().is_empty() {
            return Err(Status::bad_request(
                "an empty namespace may not be set during creation",
            ));
        }
        if !object.resource_version().is_empty() && object.resource_version() != "0" {
            // Upstream's storage layer says this without a reason.
            return Err(Status::failure(
                500,
                "",
                "resourceVersion should not be set on objects to be created",
            ));
        }
        if metadata::dedup_owners(&mut object) {
            call.warnings.add(DUPLICATE_OWNERS);
        }
        let generated = metadata::needs_name(&object);
        for _ in 1..ATTEMPTS {
            match self.create_once(call, object.clone(), options).await {
                Err(error) if generated && error.is_already_exists() => {}
                result => return result,
            }
        }
        self.create_once(call, object, options).await
    }

    async fn create_once(
        &self,
        call: &Call,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Content, Status> {
        let now = Timestamp::now();
        metadata::fill(&mut object, now);
        metadata::name_from_prefix(&mut object);
        if !options.apply {
            managed_fields::track(call, None, &mut object, options, now);
        }

        let (gvk, raw) = (call.resource.storage_gvk(), Value::Null);
        let request = admit::request(
            call,
            &gvk,
            Operation::Create,
            Some(&mut object),
            None,
            options.dry_run,
            &raw,
        );
        let mut admitted = self.admission.admit(request)?;
        let result = async {
            let object = admitted.object();
            call.strategy.default(object);
            call.strategy.prepare_for_create(object);
            let errors = call.strategy.validate(object);
            if !errors.is_empty() {
                return Err(Status::invalid(
                    call.resource.group,
                    call.resource.kind,
                    object.name(),
                    &errors,
                ));
            }
            call.warnings.extend(call.strategy.warnings(object, None));
            admitted.validate(call)?;
            let object = admitted.object();
            let key = key(call.resource, object.namespace(), object.name());
            if options.dry_run {
                return match self.store.get(&key.resource, &key.namespace, &key.name) {
                    Some(_) => Err(Status::already_exists(&call.group_resource(), &key.name)),
                    None => Ok(Content::Unstored(object.clone())),
                };
            }
            let draft = draft(call.resource, object)?;
            let name = key.name.clone();
            match self
                .store
                .put(key, draft, Expected::Absent, durability(call.resource))
                .await
            {
                Ok(object) => Ok(Content::Stored(object)),
                Err(WriteError::Exists(existing)) => {
                    Err(exists(call, &name, &super::object::parse(&existing)))
                }
                Err(error) => Err(super::failed(&error)),
            }
        }
        .await;
        admitted.finish(matches!(result, Ok(Content::Stored(_))));
        result
    }
}

pub(super) const DUPLICATE_OWNERS: &str = ".metadata.ownerReferences contains duplicate entries; API server dedups \
     owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests";

fn exists(call: &Call, name: &str, existing: &Value) -> Status {
    let mut status = Status::already_exists(&call.group_resource(), name);
    if existing.is_terminating() {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}
