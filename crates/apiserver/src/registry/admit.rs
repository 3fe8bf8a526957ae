//! Runs the admission plugins around a write, and tells them exactly once how it ended.

use crate::plugin::{Admission, AdmissionRequest, Operation, Reader};
use crate::registry::call::Call;
use coracle_meta::{GroupVersionKind, Status};
use serde_json::Value;
use std::sync::Arc;

/// The admission plugins in order.
pub(crate) struct Chain {
    plugins: Vec<Arc<dyn Admission>>,
    reader: Arc<dyn Reader>,
}

/// An admitted request whose end the plugins wait for.
pub(crate) struct Admitted<'a> {
    chain: &'a Chain,
    /// How many plugins have admitted it.
    reached: usize,
    request: AdmissionRequest<'a>,
}

impl Chain {
    pub fn new(plugins: Vec<Arc<dyn Admission>>, reader: Arc<dyn Reader>) -> Self {
        Self { plugins, reader }
    }

    /// Runs all `admit`; the plugins that did are told of a refusal by a later one.
    pub fn admit<'a>(&'a self, request: AdmissionRequest<'a>) -> Result<Admitted<'a>, Status> {
        let mut admitted = Admitted {
            chain: self,
            reached: 0,
            request,
        };
        for plugin in &self.plugins {
            if let Err(refusal) = plugin.admit(&mut admitted.request, &*self.reader) {
                admitted.finish(false);
                return Err(refusal);
            }
            admitted.reached += 1;
        }
        Ok(admitted)
    }

    /// An object has left the store.
    pub fn removed(&self, call: &Call, old: &Value) {
        let resource = call.resource.storage();
        for plugin in &self.plugins {
            plugin.removed(&resource, old);
        }
    }
}

impl Admitted<'_> {
    /// The object, which admission may have changed.
    pub fn object(&mut self) -> &mut Value {
        self.request
            .object
            .as_deref_mut()
            .expect("only creates and updates ask for their object")
    }

    /// Runs all `validate`, and hands the warnings on.
    pub fn validate(&mut self, call: &Call) -> Result<(), Status> {
        call.warnings.extend(std::mem::take(&mut self.request.warnings));
        self.chain
            .plugins
            .iter()
            .try_for_each(|plugin| plugin.validate(&self.request, &*self.chain.reader))
    }

    /// Tells the plugins how the request ended.
    pub fn finish(self, committed: bool) {
        for plugin in &self.chain.plugins[..self.reached] {
            plugin.finish(&self.request, committed);
        }
    }
}

/// A request about a write, before the plugins have seen it.
pub(crate) fn request<'a>(
    call: &'a Call,
    kind: &'a GroupVersionKind,
    operation: Operation,
    object: Option<&'a mut Value>,
    old: Option<&'a Value>,
    dry_run: bool,
    options: &'a Value,
) -> AdmissionRequest<'a> {
    AdmissionRequest {
        operation,
        attributes: &call.attributes,
        kind,
        object,
        old,
        dry_run,
        options,
        warnings: Vec::new(),
    }
}
