//! Answers from memory: after the sell-out nothing reaches the database or Redis, and no answer is wrong.

use futures_util::future::join_all;

use std::collections::BTreeMap;

use crate::support::{Answer, Cluster, PrivateRedis, Setup, added, eventually};

/// Questions after the sell-out, in waves of [`WAVE`].
const QUESTIONS: usize = 2_000;
const WAVE: usize = 100;

/// What a question after the sell-out must get.
struct Question {
    code: &'static str,
    user: String,
    key: &'static str,
    status: u16,
    /// The entry that the answer must hold.
    entry: Option<serde_json::Value>,
}

impl Question {
    fn check(&self, answer: &Answer) {
        let Self { code, user, key, .. } = self;
        assert_eq!(answer.status, self.status, "{user} asks for {code} with {key}: {}", answer.text);
        let entry = match answer.status {
            200 => Some(answer.json()),
            409 => Some(answer.member("entry")),
            _ => None,
        };
        assert_eq!(entry, self.entry, "{user} asks for {code} with {key}");
    }
}

/// Asks both replicas all of it, wave after wave.
async fn ask_all(cluster: &Cluster, questions: &[Question]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for wave in questions.chunks(WAVE) {
        let asks = wave.iter().enumerate().map(|(place, it)| cluster.issue(place % 2, it.code, &it.user, it.key));
        answers.extend(join_all(asks).await);
    }
    answers
}

/// Asks one replica all of it at once.
async fn ask(cluster: &Cluster, replica: usize, questions: &[Question]) -> Vec<Answer> {
    join_all(questions.iter().map(|it| cluster.issue(replica, it.code, &it.user, it.key))).await
}

/// Every question has its answer, for which none of the replicas sends Redis anything, nor the database anything but `statements`.
async fn assert_reaches_at_most(statements: &[&str], cluster: &Cluster, redis: &PrivateRedis, questions: &[Question]) {
    let calls = redis.calls().await;
    let (answers, sent) = cluster.statements_during(ask_all(cluster, questions)).await;
    questions.iter().zip(&answers).for_each(|(question, answer)| question.check(answer));
    assert!(sent.iter().all(|sent| statements.contains(&sent.as_str())), "{sent:?}");
    let more = added(&calls, &redis.calls().await);
    assert!(more.iter().all(BTreeMap::is_empty), "{more:?}");
}

/// Issues a coupon and returns its entry.
async fn entry(cluster: &Cluster, code: &str, user: &str) -> serde_json::Value {
    let answer = cluster.issue(0, code, user, "k").await;
    assert_eq!(answer.status, 201, "{user}: {}", answer.text);
    answer.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_sell_out_two_thousand_right_answers_reach_neither_database_nor_redis() {
    let redis = PrivateRedis::start().await;
    for (strategy, exclusive) in [("batched", false), ("batched", true), ("redlock", false)] {
        let mut setup = Setup::new(strategy).coupons([("A", 5), ("B", 3)]).set("--redis-urls", redis.urls());
        if exclusive {
            setup = setup.exclusive();
        } else {
            setup = setup.coupons([("A", 5), ("B", 3), ("OPEN", 10)]);
        }
        let cluster = setup.start().await;
        let mut held = vec![];
        for (code, stock) in [("A", 5), ("B", 3)] {
            for user in 0..stock {
                let user = format!("{code}-{user}");
                held.push((code, user.clone(), entry(&cluster, code, &user).await));
            }
            cluster.until_state(code, "sold-out").await;
        }
        let questions: Vec<_> = (0..QUESTIONS)
            .map(|number| {
                let (code, user, entry) = held[number % held.len()].clone();
                let asked = if number % 2 == 0 { "A" } else { "B" };
                let (key, is_own) = (if number % 3 == 0 { "k" } else { "another" }, asked == code);
                match number % 5 {
                    // A holder; in an exclusive event whichever code is asked for.
                    0..=2 if is_own || exclusive => {
                        let status = if is_own && key == "k" { 200 } else { 409 };
                        Question { code: asked, user, key, status, entry: Some(entry) }
                    }
                    _ => Question { code: asked, user: format!("nobody-{number}"), key, status: 410, entry: None },
                }
            })
            .collect();
        assert!([200, 409, 410].iter().all(|status| questions.iter().any(|it| it.status == *status)));
        println!("{strategy}, exclusive: {exclusive}");
        assert_reaches_at_most(&[], &cluster, &redis, &questions).await;
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_another_code_of_an_exclusive_event_is_open_sold_out_answers_are_right_and_take_no_lock() {
    let redis = PrivateRedis::start().await;
    let setup = Setup::new("batched").exclusive().coupons([("A", 5), ("OPEN", 1_000)]);
    let cluster = setup.set("--redis-urls", redis.urls()).start().await;
    let mut held = vec![];
    for user in 0..5 {
        held.push(entry(&cluster, "A", &format!("a-{user}")).await);
    }
    cluster.until_state("A", "sold-out").await;
    for user in 0..20 {
        // Issued by one replica; the other has to know at once.
        held.push(entry(&cluster, "OPEN", &format!("open-{user}")).await);
    }
    let questions: Vec<_> = (0..QUESTIONS / 4)
        .map(|number| {
            let entry = held[number % held.len()].clone();
            let user = entry["userId"].as_str().unwrap().to_owned();
            let key = if number % 3 == 0 { "k" } else { "another" };
            match number % 2 {
                0 => {
                    let status = if key == "k" && entry["code"] == "A" { 200 } else { 409 };
                    Question { code: "A", user, key, status, entry: Some(entry) }
                }
                _ => Question { code: "A", user: format!("nobody-{number}"), key, status: 410, entry: None },
            }
        })
        .collect();
    assert_reaches_at_most(&["SELECT"], &cluster, &redis, &questions).await;
    cluster.finish().await;
}

/// Polls until both replicas tell `user` this, as memory learns of what was done by hand only by looking.
async fn until_both_tell(cluster: &Cluster, user: &str, status: u16) {
    for replica in 0..2 {
        let told = async || cluster.issue(replica, "A", user, "k").await.status == status;
        eventually(&format!("{user} is told {status}"), told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_are_read_anew_when_a_row_was_corrected_by_hand() {
    let reissue = "START TRANSACTION; DELETE FROM wallet WHERE user_id = 'u-1'; \
        INSERT INTO wallet (round, scope, user_id, coupon_id, serial, request_id, issued_at) \
          SELECT 1, scope, 'by-hand', id, next_serial, UNHEX(REPEAT('0', 32)), UTC_TIMESTAMP(6) FROM coupon; \
        UPDATE coupon SET next_serial = next_serial + 1; COMMIT";
    for strategy in ["batched", "redlock"] {
        let cluster = Setup::new(strategy).coupons([("A", 2)]).start().await;
        for user in ["u-1", "u-2"] {
            entry(&cluster, "A", user).await;
        }
        cluster.until_state("A", "sold-out").await;
        until_both_tell(&cluster, "late", 410).await;

        // One piece more; memory may see it, or only that it is gone again.
        cluster.run("UPDATE coupon SET total = total + 1, remaining = remaining + 1").await;
        eventually("the user gets it", async || cluster.issue(0, "A", "late", "k").await.status == 201).await;
        cluster.until_state("A", "sold-out").await;
        until_both_tell(&cluster, "late", 200).await;

        // A piece is taken from one user and given to another at one moment: as many are issued as before.
        cluster.run(reissue).await;
        until_both_tell(&cluster, "by-hand", 409).await;
        until_both_tell(&cluster, "u-1", 410).await;
        until_both_tell(&cluster, "u-2", 200).await;
        cluster.discard().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_places_for_holders_go_to_the_code_that_is_asked_for() {
    let redis = PrivateRedis::start().await;
    let setup = Setup::new("batched").replicas(1).coupons([("OLD", 3), ("YOUNG", 3)]);
    let cluster = setup.set("--redis-urls", redis.urls()).start().await;
    let mut held = vec![];
    for user in 0..3 {
        entry(&cluster, "OLD", &format!("old-{user}")).await;
        held.push(entry(&cluster, "YOUNG", &format!("young-{user}")).await);
    }
    cluster.until_state("YOUNG", "sold-out").await;
    // By the counter there are too many holders for both; there are no more rows.
    cluster.run("UPDATE coupon SET total = 60000; UPDATE event SET generation = generation + 1").await;
    let questions: Vec<_> = (0..WAVE)
        .map(|number| match held.get(number) {
            Some(entry) => {
                let user = format!("young-{number}");
                Question { code: "YOUNG", user, key: "k", status: 200, entry: Some(entry.clone()) }
            }
            None => Question { code: "YOUNG", user: format!("nobody-{number}"), key: "k", status: 410, entry: None },
        })
        .collect();
    let asked = async || {
        let (answers, sent) = cluster.statements_during(ask(&cluster, 0, &questions)).await;
        questions.iter().zip(&answers).for_each(|(question, answer)| question.check(answer));
        sent.is_empty()
    };
    eventually("the answers come from memory", asked).await;
    // The other one has lost its place, and its answers are as right.
    assert_eq!(cluster.issue(0, "OLD", "old-1", "k").await.status, 200);
    assert_eq!(cluster.issue(0, "OLD", "nobody", "k").await.status, 410);
    cluster.discard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_see_changes_any_more_does_not_trust_its_memory() {
    let mut cluster = Setup::new("batched").replicas(1).coupons([("A", 1)]).start().await;
    let proxy = cluster.join_through_proxy().await;
    let held = entry(&cluster, "A", "u-1").await;
    cluster.until_state("A", "sold-out").await;
    proxy.refuse();
    let url = format!("{}/readyz", cluster.replicas[1].ops_url);
    eventually("its memory is too old", async || cluster.client.get(&url).await.status == 503).await;

    let blind = cluster.issue(1, "A", "u-2", "k").await;
    let unknown = cluster.issue(1, "X", "u-2", "k").await;
    let list = cluster.get(1, "/coupons").await;
    proxy.heal();
    eventually("it sees again", async || cluster.client.get(&url).await.status == 200).await;
    let replay = cluster.issue(1, "A", "u-1", "k").await;

    assert_eq!((blind.status, unknown.status, list.status), (503, 503, 503));
    assert_eq!((replay.status, replay.json()), (200, held));
    cluster.finish().await;
}
