//! Serials: the order in which pieces were given out, and a second proof of how many.

use super::super::report::{Finding, Kind};
use super::super::{Coupon, Holding};
use super::examples;

/// Serials are 1, 2, 3 … without gaps. A coupon of which nothing has one was issued by `unlocked`, which gives none.
pub(super) fn check_serials(coupon: &Coupon, rows: &[&Holding], findings: &mut Vec<Finding>) {
    let mut serials: Vec<u32> = rows.iter().filter_map(|row| row.serial).collect();
    if serials.is_empty() && !rows.is_empty() && coupon.next_serial == 1 {
        return;
    }
    let code = Some(coupon.code.as_str());
    let mut add = |kind, count, evidence: String| {
        if count > 0 {
            findings.push(Finding::new(kind, code, count, evidence));
        }
    };
    let missing: Vec<_> = rows.iter().filter(|row| row.serial.is_none()).collect();
    let users = examples(missing.iter().map(|row| &row.user_id));
    add(Kind::SerialMissing, missing.len(), format!("{} rows without a serial: {users}", missing.len()));

    serials.sort_unstable();
    let repeated: Vec<u32> = serials.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    add(Kind::SerialTwice, repeated.len(), format!("serials given more than once: {}", examples(&repeated)));

    let last = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let outside: Vec<u32> = serials.iter().copied().filter(|serial| !(1..=last).contains(serial)).collect();
    add(Kind::SerialOutOfRange, outside.len(), format!("serials outside 1..{last}: {}", examples(&outside)));

    let gaps: Vec<u32> = (1..=last).filter(|serial| serials.binary_search(serial).is_err()).collect();
    add(Kind::SerialGap, gaps.len(), format!("serials of 1..{last} that nobody holds: {}", examples(&gaps)));

    let next = coupon.next_serial;
    let wrong = usize::from(u64::from(next) != u64::from(last) + 1);
    add(Kind::NextSerial, wrong, format!("the next serial is {next} after {last} rows"));
}
