//! `/metrics` and `docs/METRICS.md` say the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Setup;

const DOCUMENT: &str = include_str!("../../docs/METRICS.md");

/// Labels by metric.
type Metrics = BTreeMap<String, BTreeSet<String>>;

/// The rows of the document's table.
fn documented() -> Metrics {
    let names_in = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').collect();
            (names_in(cells[1]).remove(0), names_in(cells[3]).into_iter().collect())
        })
        .collect()
}

/// The series of an exposition, without what a histogram adds.
fn exposed(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        let labels = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
        metrics.entry(name.to_owned()).or_default().extend(labels.filter(|label| label != "le"));
    }
    metrics
}

#[tokio::test]
async fn the_document_names_every_metric_and_label_and_no_other() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    let answer = cluster.client.get(&format!("{}/metrics", cluster.replicas[0].ops_url)).await;
    assert_eq!(exposed(&answer.text), documented());
    cluster.finish().await;
}
