//! Administrative changes and the audit. Every change locks the event row first, so changes come one after the other, and
//! bumps the generation, so that replicas drop what they remember.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use serde::Serialize;
use sqlx::Row;
use sqlx::mysql::{MySql, MySqlArguments, MySqlRow};
use sqlx::query::Query;
use tokio::time::Instant;

use super::{CHANGE_PATIENCE, Store, StoreError, Tx, time};
use crate::coupons::{Code, Timestamp, Window};

const LOCK_EVENT: &str = "SELECT round FROM event FOR UPDATE";
const BUMP_GENERATION: &str = "UPDATE event SET generation = generation + 1";
const ISSUED: &str = "SELECT total - remaining FROM coupon WHERE code = ? FOR UPDATE";

const CREATE: &str = "INSERT INTO coupon (code, discount_percent, total, remaining, round, scope, opens_at, closes_at) \
SELECT ?, ?, ?, ?, round, 0, TIMESTAMPADD(MICROSECOND, ?, '1970-01-01'), TIMESTAMPADD(MICROSECOND, ?, '1970-01-01') FROM event";

/// A retired coupon comes back as a new one, in its old row. The version goes on: an order that read the row before must not write it now.
const REVIVE: &str = "UPDATE coupon SET code = ?, retired_code = NULL, discount_percent = ?, total = ?, remaining = ?, \
       next_serial = 1, version = version + 1, round = (SELECT round FROM event), \
       opens_at = TIMESTAMPADD(MICROSECOND, ?, '1970-01-01'), closes_at = TIMESTAMPADD(MICROSECOND, ?, '1970-01-01') \
 WHERE retired_code = ?";

/// Also the rows are asked whether there is one: under `unlocked` the counter loses some of them.
const HOLDERS: &str = "SELECT GREATEST(CAST(c.total AS SIGNED) - CAST(c.remaining AS SIGNED), \
       EXISTS (SELECT 1 FROM wallet AS w WHERE w.coupon_id = c.id AND w.round = c.round)) FROM coupon AS c WHERE c.id = ?";
const LOCK_COUPON: &str = "SELECT id FROM coupon WHERE code = ? FOR UPDATE";
const RETIRE: &str = "UPDATE coupon SET retired_code = code, code = NULL WHERE id = ?";

const CHANGE: &str = "UPDATE coupon SET discount_percent = ?, total = ?, remaining = ?, \
       opens_at = TIMESTAMPADD(MICROSECOND, ?, '1970-01-01'), closes_at = TIMESTAMPADD(MICROSECOND, ?, '1970-01-01') \
 WHERE code = ?";

const CHANGE_EVENT: &str = "UPDATE event SET exclusive_next = ?, \
       opens_at = TIMESTAMPADD(MICROSECOND, ?, '1970-01-01'), closes_at = TIMESTAMPADD(MICROSECOND, ?, '1970-01-01')";

/// The event's rule and window as every coupon row carries them.
macro_rules! copy_event {
    ($which:literal) => {
        concat!(
            "UPDATE coupon AS c JOIN event AS e ON TRUE \
                SET c.scope = IF(e.exclusive, 0, c.id), c.event_opens_at = e.opens_at, c.event_closes_at = e.closes_at \
              WHERE c.code ",
            $which
        )
    };
}
const COPY_EVENT: &str = copy_event!("IS NOT NULL");
const COPY_EVENT_TO_ONE: &str = copy_event!("= ?");

const NEXT_ROUND: &str = "UPDATE event SET round = round + 1, exclusive = exclusive_next WHERE round = ?";

const REFILL: &str = "UPDATE coupon AS c JOIN event AS e ON TRUE \
   SET c.round = e.round, c.remaining = c.total, c.next_serial = 1, c.version = 0 WHERE c.code IS NOT NULL";

const EVENT: &str = "SELECT name, round, exclusive, exclusive_next, \
       TIMESTAMPDIFF(MICROSECOND, '1970-01-01', opens_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', closes_at) FROM event";

/// One statement, and so one moment: the event, and the books of its round.
const AUDIT: &str = "SELECT e.round, e.exclusive, c.code, c.total, c.remaining, COUNT(w.user_id), COUNT(DISTINCT w.user_id), \
       CAST(MIN(w.serial) AS UNSIGNED), CAST(MAX(w.serial) AS UNSIGNED), CAST(MAX(w.arrived_ms) AS UNSIGNED) \
  FROM event AS e LEFT JOIN coupon AS c ON c.code IS NOT NULL LEFT JOIN wallet AS w ON w.coupon_id = c.id AND w.round = c.round \
 GROUP BY c.id ORDER BY c.code";

/// Runs of a change before it is given up; each waits a second for its rows.
const RUNS_MAX: u32 = 4;

/// Runs a change again if a rush has locked its rows for longer than one wait, and while another member may become the primary: such a
/// run has written nothing.
macro_rules! patiently {
    ($store:ident.$change:ident($($argument:expr),*)) => {{
        let (mut run, end) = (1, Instant::now() + CHANGE_PATIENCE);
        loop {
            match $store.$change($($argument),*).await {
                Err(StoreError::Contended(_)) if run < RUNS_MAX => run += 1,
                Err(StoreError::NotPrimary(_)) if $store.has_several_members() && Instant::now() < end => {}
                decided => break decided,
            }
        }
    }};
}

/// What an administrator wants a coupon to be.
#[derive(Clone, Debug)]
pub struct CouponChange {
    /// 1 to 100.
    pub discount_percent: u8,
    /// Pieces in the round, 0 to 1,000,000.
    pub total: u32,
    /// Its own window.
    pub window: Window,
}

/// What became of a change of a coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It did not exist before.
    Created,
    /// It did, and is different now.
    Changed,
    /// More than the new total are issued already; nothing was changed. The number issued.
    BelowIssued(u32),
    /// It did not exist, and no further one can: every number that a coupon may have is taken.
    NoRoom,
}

/// What became of a coupon that was to be retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It is no coupon any more.
    Retired,
    /// So many hold it in the current round; nothing was changed.
    Held(u64),
    /// There is no such coupon.
    Unknown,
}

/// What became of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// This round has begun.
    Began(u32),
    /// Another round than the one to be ended is under way; nothing was changed.
    Refused {
        /// That one.
        current: u32,
    },
}

/// The event as an administrator sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What people call it.
    pub name: String,
    /// The current round.
    pub round: u32,
    /// The rule of the current round.
    pub exclusive: bool,
    /// The rule from the next round on.
    pub exclusive_next: bool,
    /// When anything may be issued at all.
    #[serde(flatten)]
    pub window: Window,
}

/// The books of the current round.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The round.
    pub round: u32,
    /// Its rule.
    pub exclusive: bool,
    /// Those of each code.
    pub books: Vec<Audited>,
}

/// One code's books in the current round.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audited {
    /// The coupon.
    pub code: Code,
    /// Pieces in the round.
    pub total: u32,
    /// Pieces left by the counter.
    pub remaining: u32,
    /// Wallet rows.
    pub rows: u64,
    /// Users among them.
    pub distinct_users: u64,
    /// Lowest serial given; `None` without rows or without serials.
    pub lowest_serial: Option<u64>,
    /// Highest serial given.
    pub highest_serial: Option<u64>,
    /// When the last of the winners reached nginx.
    pub latest_winner_arrival: Option<Timestamp>,
}

impl Store {
    /// Creates or changes a coupon. A new total moves what remains by the difference.
    pub async fn put_coupon(&self, code: &Code, change: &CouponChange) -> Result<Changed, StoreError> {
        patiently!(self.try_put_coupon(code, change))
    }

    async fn try_put_coupon(&self, code: &Code, change: &CouponChange) -> Result<Changed, StoreError> {
        let mut lane = self.administration.soon().await?;
        let mut tx = lane.begin_proven().await?;
        tx.fetch_optional(sqlx::query(LOCK_EVENT)).await?.ok_or(StoreError::NoEvent)?;
        let issued = tx.fetch_optional(sqlx::query(ISSUED).bind(code.as_str())).await?;
        let changed = match issued.map(|row| row.try_get::<u64, _>(0)).transpose()? {
            None if !tx.create(code, change).await? => {
                tx.roll_back().await?;
                return Ok(Changed::NoRoom);
            }
            None => Changed::Created,
            Some(issued) if issued > u64::from(change.total) => {
                tx.roll_back().await?;
                return Ok(Changed::BelowIssued(u32::try_from(issued).unwrap_or(u32::MAX)));
            }
            Some(issued) => {
                let remaining = u64::from(change.total) - issued;
                let update = sqlx::query(CHANGE).bind(change.discount_percent).bind(change.total).bind(remaining);
                tx.execute(windowed(update, change.window).bind(code.as_str())).await?;
                Changed::Changed
            }
        };
        tx.bump_and_commit().await?;
        Ok(changed)
    }

    /// Takes a coupon that nobody holds in the current round out of the event. Repeated, it finds none.
    pub async fn retire_coupon(&self, code: &Code) -> Result<Retired, StoreError> {
        patiently!(self.try_retire_coupon(code))
    }

    async fn try_retire_coupon(&self, code: &Code) -> Result<Retired, StoreError> {
        let mut lane = self.administration.soon().await?;
        let mut tx = lane.begin_proven().await?;
        tx.fetch_optional(sqlx::query(LOCK_EVENT)).await?.ok_or(StoreError::NoEvent)?;
        // An issuer locks this row first: its wallet row is there to be counted, or it finds no coupon.
        let Some(row) = tx.fetch_optional(sqlx::query(LOCK_COUPON).bind(code.as_str())).await? else {
            tx.roll_back().await?;
            return Ok(Retired::Unknown);
        };
        let id: u16 = row.try_get(0)?;
        let row = tx.fetch_optional(sqlx::query(HOLDERS).bind(id)).await?.ok_or(sqlx::Error::RowNotFound)?;
        let holders = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
        if holders > 0 {
            tx.roll_back().await?;
            return Ok(Retired::Held(holders));
        }
        tx.execute(sqlx::query(RETIRE).bind(id)).await?;
        tx.bump_and_commit().await?;
        Ok(Retired::Retired)
    }

    /// Changes the event: its window at once, its rule from the next round on.
    pub async fn put_event(&self, exclusive: bool, window: Window) -> Result<(), StoreError> {
        patiently!(self.try_put_event(exclusive, window))
    }

    async fn try_put_event(&self, exclusive: bool, window: Window) -> Result<(), StoreError> {
        let mut lane = self.administration.soon().await?;
        let mut tx = lane.begin_proven().await?;
        tx.fetch_optional(sqlx::query(LOCK_EVENT)).await?.ok_or(StoreError::NoEvent)?;
        tx.execute(windowed(sqlx::query(CHANGE_EVENT).bind(exclusive), window)).await?;
        tx.execute(sqlx::query(COPY_EVENT)).await?;
        tx.bump_and_commit().await
    }

    /// Ends the round `ends` and starts a new one: full stock, empty wallets. Safe to repeat: a round ends once.
    pub async fn reset(&self, ends: u32) -> Result<Reset, StoreError> {
        patiently!(self.try_reset(ends))
    }

    async fn try_reset(&self, ends: u32) -> Result<Reset, StoreError> {
        let mut lane = self.administration.soon().await?;
        let mut tx = lane.begin_proven().await?;
        let ended = tx.execute(sqlx::query(NEXT_ROUND).bind(ends)).await?.rows_affected() > 0;
        let row = tx.fetch_optional(sqlx::query(LOCK_EVENT)).await?.ok_or(StoreError::NoEvent)?;
        let current = row.try_get(0)?;
        if !ended {
            tx.roll_back().await?;
            return Ok(Reset::Refused { current });
        }
        tx.execute(sqlx::query(COPY_EVENT)).await?;
        tx.execute(sqlx::query(REFILL)).await?;
        tx.bump_and_commit().await?;
        Ok(Reset::Began(current))
    }

    /// Reads the event.
    pub async fn event(&self) -> Result<Event, StoreError> {
        let mut lane = self.administration.soon().await?;
        let rows = lane.read(|| sqlx::query(EVENT)).await?;
        let row = rows.first().ok_or(StoreError::NoEvent)?;
        Ok(Event {
            name: row.try_get(0)?,
            round: row.try_get(1)?,
            exclusive: row.try_get(2)?,
            exclusive_next: row.try_get(3)?,
            window: Window { opens_at: time(row, 4)?, closes_at: time(row, 5)? },
        })
    }

    /// The books of every code in the current round.
    pub async fn audit(&self) -> Result<Audit, StoreError> {
        let rows = self.audits.soon().await?.read(|| sqlx::query(AUDIT)).await?;
        let first = rows.first().ok_or(StoreError::NoEvent)?;
        let books = rows.iter().filter_map(|row| audited(row).transpose()).collect::<Result<_, _>>()?;
        Ok(Audit { round: first.try_get(0)?, exclusive: first.try_get(1)?, books })
    }
}

impl Tx<'_> {
    /// Makes a coupon, in the row of a retired one if it had this code; `false` when there is no number left for a new row.
    async fn create(&mut self, code: &Code, change: &CouponChange) -> Result<bool, StoreError> {
        let change = |query: &'static str| {
            let query = sqlx::query(query).bind(code.as_str()).bind(change.discount_percent);
            windowed(query.bind(change.total).bind(change.total), change.window)
        };
        if self.execute(change(REVIVE).bind(code.as_str())).await?.rows_affected() == 0 {
            // No coupon has the code: changes come one after the other. So only the number can exist already.
            match self.execute(change(CREATE)).await {
                Err(StoreError::Duplicate(_)) => return Ok(false),
                created => created.map(drop)?,
            }
        }
        self.execute(sqlx::query(COPY_EVENT_TO_ONE).bind(code.as_str())).await?;
        Ok(true)
    }

    async fn bump_and_commit(mut self) -> Result<(), StoreError> {
        self.execute(sqlx::query(BUMP_GENERATION)).await?;
        self.commit().await
    }
}

fn windowed(query: Query<'_, MySql, MySqlArguments>, window: Window) -> Query<'_, MySql, MySqlArguments> {
    query.bind(window.opens_at.map(|time| time.0)).bind(window.closes_at.map(|time| time.0))
}

/// The books in a row of the audit; `None` when the event has no coupons at all.
fn audited(row: &MySqlRow) -> Result<Option<Audited>, sqlx::Error> {
    let count = |column: usize| -> Result<u64, sqlx::Error> {
        row.try_get::<i64, _>(column).map(|count| u64::try_from(count).unwrap_or(0))
    };
    let Some(code) = row.try_get::<Option<String>, _>(2)? else { return Ok(None) };
    Ok(Some(Audited {
        code: Code::stored(&code).ok_or_else(|| sqlx::Error::Decode(format!("`{code}` is no code").into()))?,
        total: row.try_get(3)?,
        remaining: row.try_get(4)?,
        rows: count(5)?,
        distinct_users: count(6)?,
        lowest_serial: row.try_get(7)?,
        highest_serial: row.try_get(8)?,
        latest_winner_arrival: row.try_get::<Option<u64>, _>(9)?.map(Timestamp::from_millis),
    }))
}
