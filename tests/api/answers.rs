//! Every answer of the API, as documented, from a real replica.

use crate::support::Setup;

#[tokio::test]
async fn the_first_ask_is_201_and_the_same_again_200_with_the_same_entry() {
    let cluster = Setup::new("batched").start().await;
    let first = cluster.issue(0, "A", "u-1", "k").await;
    let again = cluster.issue(1, "A", "u-1", "k").await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(first.member("serial"), 1);
    cluster.finish().await;
}
