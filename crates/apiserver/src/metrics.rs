//! `/metrics`: counts of requests and objects in Prometheus' text form.

use coracle_store::Store;
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Counters of a server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
}

impl Metrics {
    /// Counts an answer; for watches, their begin.
    pub fn count(&self, verb: &str, code: StatusCode) {
        *self
            .requests
            .lock()
            .entry((verb.to_owned(), code.as_u16()))
            .or_default() += 1;
    }

    /// The text.
    pub fn text(&self, store: &Store) -> String {
        let mut out = String::from(
            "# HELP apiserver_request_total Answered requests by verb and code.\n# TYPE apiserver_request_total counter\n",
        );
        for ((verb, code), count) in self.requests.lock().iter() {
            let _ = writeln!(
                out,
                "apiserver_request_total{{verb=\"{verb}\",code=\"{code}\"}} {count}"
            );
        }
        out.push_str(
            "# HELP apiserver_storage_objects Stored objects by resource.\n# TYPE apiserver_storage_objects gauge\n",
        );
        for (resource, count) in store.counts() {
            let resource = resource.trim_start_matches('/');
            let _ = writeln!(
                out,
                "apiserver_storage_objects{{resource=\"{resource}\"}} {count}"
            );
        }
        let revision = store.revision();
        out.push_str(
            "# HELP apiserver_storage_revision Revision of the last write.\n# TYPE apiserver_storage_revision counter\n",
        );
        let _ = writeln!(out, "apiserver_storage_revision {revision}");
        out
    }
}
