//! A key as `Authorization: Bearer KEY`, for clients that can send no other header.

use crate::support::cluster::Cluster;

#[test]
fn a_bearer_token_is_taken_where_the_header_of_keys_is() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let key = cluster.key_text("team-a", "viewer");
    let other = cluster.key_text("team-b", "viewer");
    let status = |headers: &[(&str, &str)]| cluster.request("GET", "/metrics", headers, b"").status;
    let bearer = format!("Bearer {key}");
    assert_eq!(status(&[("Authorization", &bearer)]), 200);
    assert_eq!(status(&[("authorization", &format!("bEARER   {key}"))]), 200);
    // The header of keys counts first: a proxy may have put its own token into the other one.
    assert_eq!(status(&[("X-API-Key", &key), ("Authorization", "Bearer of-something-else")]), 200);
    assert_eq!(status(&[("X-API-Key", "wrong"), ("Authorization", &bearer)]), 403);
    assert_eq!(status(&[("X-API-Key", &bearer)]), 200);
    // None, another scheme, a wrong one, and two of them.
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("Authorization", "Basic dXNlcjpwYXNz")]), 401);
    assert_eq!(status(&[("Authorization", "Bearer ")]), 401);
    assert_eq!(status(&[("Authorization", "Bearer wrong")]), 403);
    let two = [("Authorization", bearer.as_str()), ("Authorization", bearer.as_str())];
    assert_eq!(status(&two), 403);
    // Who it is counts, not how it was shown.
    let runs = |key: &str| {
        let bearer = format!("Bearer {key}");
        cluster.request("GET", "/runs", &[("Authorization", &bearer)], b"").json()
    };
    let submitter = cluster.as_key(&cluster.key_text("team-a", "submitter"));
    let run_id = submitter.submit_flow("default", "main", serde_json::json!({}));
    assert_eq!(runs(&key)[0]["run_id"], run_id.as_str());
    assert_eq!(runs(&other), serde_json::json!([]));
}
