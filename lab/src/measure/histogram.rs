//! A replica's histograms, as `/metrics` shows them: what was added between two looks, and which value a share of it did
//! not exceed.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

/// A page of metrics by replica, as [`crate::admin::Admin::metrics`] reads them.
pub type Pages = BTreeMap<String, String>;

/// Counts of a histogram by the upper bounds of its buckets, each with all smaller ones in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bound and count, in order; the last bound is infinite.
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// Reads the histogram `name` from a page of metrics: the sum of its series that have the label `label`, such as
    /// `result="granted"`; an empty label means all.
    pub fn read(page: &str, name: &str, label: &str) -> Self {
        let mut found = Self::default();
        for line in page.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bucket{")) else { continue };
            let Some((labels, value)) = rest.split_once("} ") else { continue };
            let wanted = label.is_empty() || labels.split(',').any(|it| it == label);
            let bound = labels.split(',').find_map(|it| it.strip_prefix("le=\"")?.strip_suffix('"')?.parse().ok());
            let count = value.split(' ').next().and_then(|count| count.parse().ok());
            if let (true, Some(bound), Some(count)) = (wanted, bound, count) {
                found += Self { buckets: vec![(bound, count)] };
            }
        }
        found
    }

    /// What was added to the histogram at all replicas between two looks at their pages.
    pub fn between(before: &Pages, after: &Pages, name: &str, label: &str) -> Self {
        let mut added = Self::default();
        for (replica, page) in after {
            added += Self::read(page, name, label);
            if let Some(page) = before.get(replica) {
                added -= Self::read(page, name, label);
            }
        }
        added
    }

    /// How many values are in it.
    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    /// The value that the share `quantile` of all does not exceed, taking the values of a bucket as evenly spread; `None`
    /// without values. A value beyond the last finite bound counts as that bound.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = quantile * self.count();
        let (mut lower, mut below) = (0.0, 0.0);
        for &(upper, count) in &self.buckets {
            if count >= rank && count > below {
                let share = (rank - below) / (count - below);
                return Some(if upper.is_finite() { lower + (upper - lower) * share } else { lower });
            }
            (lower, below) = (upper, count);
        }
        None
    }
}

impl AddAssign for Histogram {
    fn add_assign(&mut self, other: Self) {
        for (bound, count) in other.buckets {
            match self.buckets.binary_search_by(|(it, _)| it.total_cmp(&bound)) {
                Ok(place) => self.buckets[place].1 += count,
                Err(place) => self.buckets.insert(place, (bound, count)),
            }
        }
    }
}

impl SubAssign for Histogram {
    fn sub_assign(&mut self, mut earlier: Self) {
        for (_, count) in &mut earlier.buckets {
            *count = -*count;
        }
        *self += earlier;
    }
}

/// The sum of the series of a counter that have all of the `labels`, such as `outcome="issued"`.
pub fn counter(page: &str, name: &str, labels: &[&str]) -> f64 {
    let mut sum = 0.0;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (has, value) = match rest.strip_prefix('{').and_then(|rest| rest.split_once("} ")) {
            Some(both) => both,
            // A series without labels; a longer name is another one.
            None if rest.starts_with(' ') => ("", rest.trim_start()),
            None => continue,
        };
        if labels.iter().all(|label| has.split(',').any(|it| it == *label)) {
            sum += value.split(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0.0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counts: [u32; 4]) -> String {
        let [a, b, c, all] = counts;
        format!(
            "# TYPE wait_seconds histogram\n\
             wait_seconds_sum{{result=\"granted\"}} 1.0\n\
             wait_seconds_count{{result=\"granted\"}} {all}\n\
             wait_seconds_bucket{{le=\"1.0\",result=\"granted\"}} {a}\n\
             wait_seconds_bucket{{le=\"2.0\",result=\"granted\"}} {b}\n\
             wait_seconds_bucket{{le=\"4.0\",result=\"granted\"}} {c} # {{}} 3.1\n\
             wait_seconds_bucket{{le=\"+Inf\",result=\"granted\"}} {all}\n\
             wait_seconds_bucket{{le=\"+Inf\",result=\"expired\"}} 1000\n\
             await_seconds_bucket{{le=\"+Inf\",result=\"granted\"}} 1000\n# EOF\n"
        )
    }

    #[test]
    fn a_counter_is_the_sum_of_the_series_that_have_the_labels() {
        let page = "issue_total{code=\"A\",outcome=\"issued\"} 3\nissue_total{code=\"B\",outcome=\"issued\"} 4\n\
                    issue_total{code=\"B\",outcome=\"sold-out\"} 50\nissue_totals{outcome=\"issued\"} 900\n\
                    size_count 3 1.5\nsize_counted 9\n";

        assert!((counter(page, "issue_total", &["outcome=\"issued\""]) - 7.0).abs() < f64::EPSILON);
        assert!((counter(page, "issue_total", &["outcome=\"issued\"", "code=\"B\""]) - 4.0).abs() < f64::EPSILON);
        assert!((counter(page, "issue_total", &[]) - 57.0).abs() < f64::EPSILON);
        assert!((counter(page, "size_count", &[]) - 3.0).abs() < f64::EPSILON);
    }

    fn granted(counts: [u32; 4]) -> Histogram {
        Histogram::read(&page(counts), "wait_seconds", "result=\"granted\"")
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let histogram = granted([50, 90, 100, 100]);

        assert_eq!(histogram.quantile(0.25), Some(0.5));
        assert_eq!(histogram.quantile(0.5), Some(1.0));
        assert_eq!(histogram.quantile(0.7), Some(1.5));
        assert_eq!(histogram.quantile(0.95), Some(3.0));
        assert_eq!(histogram.quantile(1.0), Some(4.0));
    }

    #[test]
    fn what_is_beyond_the_last_bound_counts_as_that_bound() {
        assert_eq!(granted([0, 0, 0, 10]).quantile(0.5), Some(4.0));
    }

    #[test]
    fn empty_buckets_hold_no_quantile() {
        assert_eq!(granted([0, 0, 10, 10]).quantile(0.5), Some(3.0));
        assert_eq!(granted([0, 0, 0, 0]).quantile(0.5), None);
        assert_eq!(Histogram::default().quantile(0.99), None);
    }

    #[test]
    fn a_difference_is_what_came_between_and_a_sum_is_all_replicas() {
        let mut between = granted([10, 20, 30, 30]);
        between -= granted([10, 10, 10, 10]);
        assert_eq!(between, granted([0, 10, 20, 20]));

        let mut sum = granted([1, 2, 3, 4]);
        sum += granted([1, 1, 1, 1]);
        assert_eq!(sum, granted([2, 3, 4, 5]));
        assert!((sum.count() - 5.0).abs() < f64::EPSILON);
    }

    #[test]
    fn an_empty_label_takes_all_series() {
        assert!((Histogram::read(&page([0, 0, 0, 5]), "wait_seconds", "").count() - 1_005.0).abs() < f64::EPSILON);
    }
}
