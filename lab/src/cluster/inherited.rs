//! What a person's environment changes in every cluster of the laboratory: figures must say so.

use std::collections::BTreeMap;

/// Knobs of the cluster that are handed on to it as they are and change what is measured, with what they are when nobody sets
/// them; `make` always sets the first two.
const HANDED_ON: [(&str, &str); 12] = [
    ("DB", "mysql"),
    ("DISTANCE_MS", "0"),
    ("BALANCE", "home"),
    ("REDIS_NODES", "3"),
    ("ACCESS_LOG", "off"),
    ("POOL_SIZE", ""),
    ("LOCK_TTL_MS", ""),
    ("ON_LOCK_LOSS", ""),
    ("PROBE_TIMEOUT_MS", ""),
    ("REQUEST_DEADLINE_MS", ""),
    ("THREADS", ""),
    ("LOG", ""),
];

/// Those that are set to something else than their default, with what they are set to.
pub fn inherited() -> BTreeMap<String, String> {
    among(|name| std::env::var(name).ok())
}

fn among(set: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let given = |(name, default): &(&str, &str)| {
        let value = set(name).filter(|value| !value.is_empty() && value != default)?;
        Some(((*name).to_owned(), value))
    };
    HANDED_ON.iter().filter_map(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_make_sets_to_its_default_is_not_worth_a_word() {
        let set = BTreeMap::from([("DB", "mysql"), ("REDIS_NODES", "5"), ("THREADS", "2"), ("LOG", ""), ("HOME", "/")]);

        let found = among(|name| set.get(name).map(|value| (*value).to_owned()));

        let expected =
            [("REDIS_NODES", "5"), ("THREADS", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
    }
}
