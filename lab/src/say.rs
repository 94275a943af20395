//! What a person is told. A reader that has gone away, as `tee` has after a Ctrl-C, must not cost what was measured: the macros of the
//! standard library would panic.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

/// Says on standard output what somebody asked for.
pub fn result(text: impl Display) {
    let _ = writeln!(stdout(), "{text}");
}

/// Says on standard error how it goes.
pub fn aside(text: impl Display) {
    let _ = writeln!(stderr(), "{text}");
}
