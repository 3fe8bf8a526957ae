//! DELETE of one object and of collections. Upstream: `registry.Store.Delete`, `DeleteCollection`.

use super::admit;
use super::call::Call;
use super::deletion::{self, Step};
use super::object::{draft, durability, key, parse};
use super::options::{DeleteOptions, ListOptions};
use super::render::Content;
use super::{Registry, failed};
use crate::plugin::Operation;
use coracle_meta::object::ObjectExt;
use coracle_meta::{Status, StatusDetails};
use coracle_store::{Expected, Object, WriteError};
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// Deletions of a collection that are under way at once: they share transactions.
const CONCURRENT: usize = 64;

impl Registry {
    /// Deletes the object that the request names.
    pub(crate) async fn delete(&self, call: &Call, options: &DeleteOptions) -> Result<Content, Status> {
        self.delete_named(call, call.namespace(), &call.attributes.name, options)
            .await
    }

    async fn delete_named(
        &self,
        call: &Call,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Content, Status> {
        let key = key(call.resource, namespace, name);
        loop {
            let Some(stored) = self.store.get(&key.resource, namespace, name) else {
                return Err(Status::not_found(&call.group_resource(), name));
            };
            if let Some(content) = self.delete_once(call, &stored, options).await? {
                return Ok(content);
            }
        }
    }

    /// `None` when another write came first.
    async fn delete_once(
        &self,
        call: &Call,
        stored: &Arc<Object>,
        options: &DeleteOptions,
    ) -> Result<Option<Content>, Status> {
        let old = parse(stored);
        check_preconditions(call, &old, options)?;
        let gvk = call.resource.storage_gvk();
        let request = admit::request(
            call,
            &gvk,
            Operation::Delete,
            None,
            Some(&old),
            options.dry_run,
            &options.raw,
        );
        let mut admitted = self.admission.admit(request)?;
        let result = async {
            admitted.validate(call)?;
            self.delete_step(call, stored, &old, options).await
        }
        .await;
        admitted.finish(!options.dry_run && matches!(result, Ok(Some(_))));
        result
    }

    async fn delete_step(
        &self,
        call: &Call,
        stored: &Arc<Object>,
        old: &Value,
        options: &DeleteOptions,
    ) -> Result<Option<Content>, Status> {
        let key = key(call.resource, stored.namespace(), stored.name());
        let (durability, revision) = (durability(call.resource), stored.revision());
        match deletion::step(call.resource, call.strategy, old, options, Timestamp::now()) {
            Step::Pending => Ok(Some(Content::Stored(stored.clone()))),
            Step::Mark(object) if options.dry_run => Ok(Some(Content::Unstored(object))),
            Step::Remove if options.dry_run => Ok(Some(answer(call, stored, old))),
            Step::Mark(object) => {
                let draft = draft(call.resource, &object)?;
                match self
                    .store
                    .put(key, draft, Expected::Revision(revision), durability)
                    .await
                {
                    Ok(object) => Ok(Some(Content::Stored(object))),
                    Err(WriteError::NotFound | WriteError::Conflict(_)) => Ok(None),
                    Err(error) => Err(failed(&error)),
                }
            }
            Step::Remove => match self.store.delete(key, revision, durability).await {
                Ok(last) => {
                    self.admission.removed(call, old);
                    Ok(Some(answer(call, &last, old)))
                }
                Err(WriteError::NotFound | WriteError::Conflict(_)) => Ok(None),
                Err(error) => Err(failed(&error)),
            },
        }
    }

    /// Deletes all objects that a LIST with these options returns, and answers the list.
    pub(crate) async fn delete_collection(
        &self,
        call: &Call,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Content, Status> {
        let list = self.list(call, list)?;
        let deletions = list.objects.clone().into_iter().map(|object| async move {
            match self
                .delete_named(call, object.namespace(), object.name(), options)
                .await
            {
                Err(status) if status.is_not_found() => Ok(()),
                result => result.map(|_| ()),
            }
        });
        let results: Vec<Result<(), Status>> = futures::stream::iter(deletions)
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        results.into_iter().collect::<Result<(), Status>>()?;
        Ok(Content::List(list))
    }
}

fn check_preconditions(call: &Call, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let conflict = |why: String| Err(Status::conflict(&call.group_resource(), old.name(), why));
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != old.uid()) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            old.uid()
        ));
    }
    let found = old.resource_version();
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != found)
    {
        return conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({found}). The object might have been modified"
        ));
    }
    Ok(())
}

/// Some kinds answer a removal with the object, most with a `Status`. Upstream: `ReturnDeletedObject`.
fn answer(call: &Call, last: &Arc<Object>, old: &Value) -> Content {
    let returns_object = match call.resource.group {
        "" => matches!(
            call.resource.plural,
            "pods"
                | "services"
                | "namespaces"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
        ),
        "storage.k8s.io" => call.resource.plural != "csistoragecapacities",
        "resource.k8s.io" => true,
        _ => false,
    };
    if returns_object {
        return Content::Stored(last.clone());
    }
    let mut status = Status::success();
    status.details = Some(StatusDetails {
        name: old.name().to_owned(),
        group: call.resource.group.to_owned(),
        kind: call.resource.plural.to_owned(),
        uid: old.uid().to_owned(),
        ..StatusDetails::default()
    });
    Content::Status(status.into())
}
