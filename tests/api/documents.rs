//! What the documents say of the tests.

use std::path::Path;

/// The tests that the README names, as `[`name`](tests/api/file.rs)`.
fn named(readme: &str) -> Vec<(&str, &str)> {
    let links = readme.split("[`").skip(1).filter_map(|link| {
        let (name, rest) = link.split_once("`](")?;
        Some((name, rest.split_once(')')?.0))
    });
    links.filter(|(_, file)| file.starts_with("tests/")).collect()
}

#[test]
fn every_promise_in_the_readme_names_tests_that_exist() {
    let readme = include_str!("../../README.md");
    for promise in 1..=7 {
        let row = readme.lines().find(|line| line.starts_with(&format!("| P{promise} |"))).unwrap();
        assert!(!named(row).is_empty(), "P{promise} names no test");
    }
    for (name, file) in named(readme) {
        let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file);
        let is_module = file.ends_with(&format!("/{name}.rs"));
        assert!(is_module || source.contains(&format!("fn {name}(")), "{file} has no {name}");
    }
}
