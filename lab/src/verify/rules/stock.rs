//! What the counters say, against the rows.

use super::super::report::{CouponReport, Finding, Kind};

pub(super) fn check_stock(report: &CouponReport, findings: &mut Vec<Finding>) {
    let CouponReport { code, total, remaining, rows, lost_updates, .. } = report;
    if *rows > *total as usize {
        let count = rows - *total as usize;
        let evidence = format!("{rows} rows for {total} pieces");
        findings.push(Finding::new(Kind::Oversold, Some(code), count, evidence));
    }
    if *lost_updates != 0 {
        let what = if *lost_updates > 0 { "lost updates" } else { "pieces taken that nobody holds" };
        let count = usize::try_from(lost_updates.unsigned_abs()).unwrap_or(usize::MAX);
        let evidence = format!("{count} {what}: total {total}, remaining {remaining}, rows {rows}");
        findings.push(Finding::new(Kind::Conservation, Some(code), count, evidence));
    }
}
