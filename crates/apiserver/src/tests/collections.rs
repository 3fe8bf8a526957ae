//! DELETE of collections.

use super::*;

#[tokio::test]
async fn a_collection_goes_by_selector() {
    let server = server();
    for name in ["a", "b", "c"] {
        server.post(PODS, pod(name)).await.ok();
    }
    let deleted = server
        .delete(&format!("{PODS}?labelSelector=app+in+(a,b)"))
        .await
        .ok();
    assert_eq!(deleted["kind"], "PodList");
    assert_eq!(names(&deleted), ["a", "b"]);
    assert_eq!(names(&server.get(PODS).await.ok()), ["c"]);
    let refused = server.delete("/api/v1/namespaces").await.refused();
    assert_eq!(refused.0, 405);
}
