//! What clients were told: the entries they were answered with, as a test collects them or as k6's console output has
//! them. Nothing is judged here.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::history::Ack;

/// Reads a file with one entry a line: bare JSON, or k6's console output (`time="..." level=info msg="{...}"`, or
/// `{"msg":"{...}"}`). Lines without an object are other output and are skipped; an object that is no entry is an
/// error, for evidence must not get lost silently. Only an unfinished last line is forgiven: the run may still go on. An
/// empty file is a run that promised nothing, or kept nothing of it (`ACKS=0`); one that holds something else and not a
/// single entry is another file than was meant, and would prove nothing.
pub fn read_acks(path: &Path) -> anyhow::Result<Vec<Ack>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; give the file that k6 --console-output wrote", path.display()))?;
    let mut acks = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match parse(line.trim()) {
            Ok(Some(ack)) => acks.push(ack),
            Ok(None) => {}
            Err(_) if !line.ends_with('\n') => {}
            Err(error) => bail!("line {} of {} is no acknowledged coupon: {error}", index + 1, path.display()),
        }
    }
    ensure!(
        !acks.is_empty() || text.trim().is_empty(),
        "{} holds no acknowledged coupon: give the file that k6 --console-output or `lab load issue --acks` wrote, \
         or one wallet entry a line",
        path.display()
    );
    Ok(acks)
}

fn parse(line: &str) -> serde_json::Result<Option<Ack>> {
    let logged = [r#""msg":"#, " msg="].iter().find_map(|name| Some(line.split_once(name)?.1));
    let message = match logged {
        // The logger quotes as Go does, which for an entry's characters is how JSON quotes. More fields may follow.
        Some(quoted) if quoted.starts_with('"') => {
            serde_json::Deserializer::from_str(quoted).into_iter::<String>().next().transpose()?.unwrap_or_default()
        }
        Some(_) => return Ok(None),
        None => line.to_owned(),
    };
    if message.starts_with('{') { serde_json::from_str(&message).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    const ENTRY: &str =
        r#"{"code":"A001","userId":"u-1","serial":7,"round":3,"requestId":"0f","issuedAt":"1970-01-01T00:00:00Z"}"#;

    fn ack() -> Ack {
        let [code, user_id, request_id] = ["A001", "u-1", "0f"].map(str::to_owned);
        Ack { code, user_id, serial: Some(7), round: 3, request_id, issued_at: OffsetDateTime::UNIX_EPOCH }
    }

    #[test]
    fn every_log_format_of_k6_reads_the_same() {
        let quoted = serde_json::to_string(ENTRY).unwrap();
        let text = format!(r#"time="2026-01-01T00:00:00Z" level=info msg={quoted} source=console"#);
        let json = format!(r#"{{"level":"info","msg":{quoted},"time":"2026-01-01T00:00:00Z"}}"#);

        for line in [ENTRY, &text, &json] {
            assert_eq!(parse(line).unwrap(), Some(ack()), "{line}");
        }
    }

    #[test]
    fn a_line_without_an_object_is_other_output() {
        for line in ["", "starting", r#"time="..." level=error msg="no stock""#, "level=info msg=plain"] {
            assert_eq!(parse(line).unwrap(), None, "{line}");
        }
    }

    /// What is read from a file with this content.
    fn read(name: &str, text: &str) -> Result<Vec<Ack>, String> {
        let path = std::env::temp_dir().join(format!("coupon-lab-acks-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        let acks = read_acks(&path).map_err(|error| error.to_string());
        fs::remove_file(&path).unwrap();
        acks
    }

    #[test]
    fn half_an_entry_is_an_error_unless_the_run_still_writes_it() {
        let half = &ENTRY[..20];

        assert_eq!(read("growing", &format!("{ENTRY}\n{half}")), Ok(vec![ack()]));
        assert!(read("damaged", &format!("{half}\n{ENTRY}\n")).unwrap_err().starts_with("line 1 of "));
    }

    #[test]
    fn a_file_without_a_single_entry_is_an_error_that_names_the_cure_unless_it_is_empty() {
        for text in ["starting\ndone\n", r#"{"metrics":{}}"#, &format!("[{ENTRY}]\n"), &ENTRY[..20]] {
            assert!(read("other", text).unwrap_err().contains("k6 --console-output"), "{text}");
        }
        for text in ["", "\n"] {
            assert_eq!(read("empty", text), Ok(vec![]));
        }
    }
}
