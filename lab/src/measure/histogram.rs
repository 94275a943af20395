//! What the replicas count, as `/metrics` shows it: what was added between two looks at all pages, and which value of a
//! histogram a share of all did not exceed.

use std::collections::BTreeMap;

pub type Pages = BTreeMap<String, String>;

/// Values that were added to the buckets of a histogram, each with all smaller ones in it. The keys are the bits of the upper
/// bounds, which are in the order of the bounds, as none is negative; the last one is infinite.
#[derive(Debug, Default, PartialEq)]
pub struct Histogram(BTreeMap<u64, f64>);

impl Histogram {
    /// Of the series that have the label, such as `result="granted"`.
    pub fn between(before: &Pages, after: &Pages, name: &str, label: &str) -> Self {
        let name = format!("{name}_bucket");
        let mut added = Self::default();
        for (pages, sign) in [(before, -1.0), (after, 1.0)] {
            for (labels, count) in pages.values().flat_map(|page| series(page, &name, label)) {
                let bound =
                    labels.split(',').find_map(|it| it.strip_prefix("le=\"")?.strip_suffix('"')?.parse::<f64>().ok());
                if let Some(bound) = bound {
                    *added.0.entry(bound.to_bits()).or_default() += sign * count;
                }
            }
        }
        added
    }

    /// The value that the share `quantile` of all does not exceed, taking the values of a bucket as evenly spread; `None`
    /// without values. A value beyond the last finite bound counts as that bound.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = quantile * self.0.last_key_value()?.1;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bits, &count) in &self.0 {
            let upper = f64::from_bits(*bits);
            if count >= rank && count > below {
                let share = (rank - below) / (count - below);
                return Some(if upper.is_finite() { lower + (upper - lower) * share } else { lower });
            }
            (lower, below) = (upper, count);
        }
        None
    }
}

/// What was added at each replica to a counter: to the sum of its series that have the label; an empty one means all.
pub fn counted(before: &Pages, after: &Pages, name: &str, label: &str) -> BTreeMap<String, f64> {
    let count = |page: &String| series(page, name, label).map(|(_, count)| count).sum::<f64>();
    let since = |replica: &String| before.get(replica).map_or(0.0, count);
    after.iter().map(|(replica, page)| (replica.clone(), count(page) - since(replica))).collect()
}

/// The series of a metric on a page that have the label: all their labels, and the value.
fn series<'a>(page: &'a str, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    let of_line = move |line: &'a str| {
        let rest = line.strip_prefix(name)?;
        // A series without labels has a space here, and a longer name is another metric.
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        // An exemplar may follow the value.
        let value = value.split(' ').next()?.parse().ok()?;
        (label.is_empty() || labels.split(',').any(|it| it == label)).then_some((labels, value))
    };
    page.lines().filter_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is a replica's.
    fn pages(pages: impl IntoIterator<Item = String>) -> Pages {
        (1..).map(|number: u32| format!("replica-{number}")).zip(pages).collect()
    }

    #[test]
    fn a_counter_is_the_sum_of_the_series_that_have_the_label() {
        let page = "issue_total{code=\"A\",outcome=\"issued\"} 3\nissue_total{code=\"B\",outcome=\"issued\"} 4\n\
                    issue_total{code=\"B\",outcome=\"sold-out\"} 50\nissue_totals{outcome=\"issued\"} 900\n\
                    size_count 3 1.5\nsize_counted 9\n";
        for (name, label, expected) in
            [("issue_total", "outcome=\"issued\"", 7.0), ("issue_total", "", 57.0), ("size_count", "", 3.0)]
        {
            let found = counted(&Pages::new(), &pages([page.to_owned()]), name, label);
            assert_eq!(found, BTreeMap::from([("replica-1".to_owned(), expected)]));
        }
    }

    fn page([a, b, c, all]: [u32; 4]) -> String {
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

    fn granted(before: &[[u32; 4]], after: &[[u32; 4]]) -> Histogram {
        let [before, after] = [before, after].map(|counts| pages(counts.iter().copied().map(page)));
        Histogram::between(&before, &after, "wait_seconds", "result=\"granted\"")
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_and_not_beyond_the_last_bound() {
        let quantiles = |counts, wanted: &[f64]| {
            wanted.iter().map(|it| granted(&[], &[counts]).quantile(*it)).collect::<Option<Vec<_>>>()
        };

        let found = quantiles([50, 90, 100, 100], &[0.25, 0.5, 0.7, 0.95, 1.0]);
        assert_eq!(found.unwrap(), [0.5, 1.0, 1.5, 3.0, 4.0]);
        assert_eq!(quantiles([0, 0, 10, 10], &[0.5]).unwrap(), [3.0]);
        assert_eq!(quantiles([0, 0, 0, 10], &[0.5]).unwrap(), [4.0]);
        assert_eq!(quantiles([0, 0, 0, 0], &[0.5]), None);
        assert_eq!(granted(&[], &[]).quantile(0.99), None);
    }

    #[test]
    fn what_came_between_two_looks_is_the_sum_of_all_replicas() {
        let between = granted(&[[10, 10, 10, 10], [1, 1, 1, 1]], &[[10, 20, 30, 30], [1, 2, 3, 4]]);

        assert_eq!(between, granted(&[], &[[0, 11, 22, 23]]));
    }
}
