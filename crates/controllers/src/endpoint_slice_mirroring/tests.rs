//! Golden cases, and clean-up.

use super::*;
use crate::testing::{golden, load};
use std::path::Path;

#[test]
fn cases() {
    golden(&spec(), "endpoint_slice_mirroring");
}

#[test]
fn a_service_that_gets_a_selector_loses_its_mirror() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/endpoint_slice_mirroring/by_hand.yaml");
    let (key, mut world) = load(&spec(), &case);
    world.settle(&spec(), &key);
    assert_eq!(world.cache.list::<EndpointSlice>().count(), 2);
    let mut service = Service::clone(world.cache.get::<Service>("shop", "legacy").unwrap());
    service.spec.as_mut().unwrap().selector = Some([("app".to_owned(), "x".to_owned())].into());
    world.put(serde_json::to_value(&service).unwrap());
    world.settle(&spec(), &key);
    assert_eq!(world.cache.list::<EndpointSlice>().count(), 0);
}
