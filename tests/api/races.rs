//! Many short races with tiny stock over two replicas: where an oversell, a double or a loss would show.

use std::collections::HashSet;

use futures_util::future::join_all;

use crate::support::{Answer, Cluster, SOUND, Setup};

/// Each code is one race.
const RACES: usize = 12;
/// Pieces per race.
const STOCK: u32 = 5;
/// Users per race; each asks both replicas at once.
const USERS: usize = 15;

/// All users of all races ask both replicas at the same time. Busy answers are asked again, as clients do.
async fn race(cluster: &Cluster) -> Vec<(String, Answer)> {
    let mut asks = Vec::new();
    for race in 0..RACES {
        for user in 0..USERS {
            for replica in 0..2 {
                let (code, user) = (format!("R{race}"), format!("u-{user}"));
                asks.push(async move {
                    let answer = cluster.decided(replica, &code, &user).await;
                    (code, answer)
                });
            }
        }
    }
    join_all(asks).await
}

fn codes() -> Vec<(String, u32)> {
    (0..RACES).map(|race| (format!("R{race}"), STOCK)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sound_strategy_oversells_doubles_or_loses() {
    for strategy in SOUND {
        let cluster = Setup::new(strategy).coupons(codes()).start().await;
        let answers = race(&cluster).await;
        for code in codes().into_iter().map(|(code, _)| code) {
            let of_code = || answers.iter().filter(|(of, _)| *of == code).map(|(_, answer)| answer);
            let winners: HashSet<_> =
                of_code().filter(|it| matches!(it.status, 200 | 201)).map(|it| it.member("serial").as_u64()).collect();
            assert_eq!(winners.len(), STOCK as usize, "{strategy}: distinct serials of {code}");
            // A winner's second ask is the same request and gets the same entry: two answers for every piece.
            let acknowledged = of_code().filter(|it| matches!(it.status, 200 | 201)).count();
            assert_eq!(acknowledged, 2 * STOCK as usize, "{strategy}: answers with an entry for {code}");
            let refused = of_code().filter(|it| it.status == 410).count();
            assert_eq!(refused, 2 * (USERS - STOCK as usize), "{strategy}: sold out for {code}");
        }
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_double_click_across_two_codes_gets_one_coupon_when_the_event_is_exclusive() {
    for strategy in SOUND {
        let cluster = Setup::new(strategy).exclusive().coupons([("A", 40), ("B", 40)]).start().await;
        let clicks = (0..30).map(|user| {
            let (cluster, user) = (&cluster, format!("u-{user}"));
            async move { tokio::join!(cluster.decided(0, "A", &user), cluster.decided(1, "B", &user)) }
        });
        for (a, b) in join_all(clicks).await {
            let mut statuses = [a.status, b.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [201, 409], "{strategy}: {} {}", a.text, b.text);
            let (won, held) =
                if a.status == 201 { (a.json(), b.member("entry")) } else { (b.json(), a.member("entry")) };
            assert_eq!(won, held, "{strategy}");
        }
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 30, "{strategy}");
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unlocked_loses_updates() {
    let cluster = Setup::new("unlocked").coupons(codes()).start().await;
    race(&cluster).await;
    let lost = cluster.verify().await.lost_updates();
    assert!(lost > 0, "no update was lost: the race did not race");
    cluster.discard().await;
}
