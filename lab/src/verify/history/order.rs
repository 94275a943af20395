//! Real time: a user that asks after another was told a serial gets a higher one.

use super::super::report::Kind;
use super::super::rules::Evidence;
use super::scene::{Scene, TellsSerial};

pub(super) fn check<'a>(scene: &Scene<'a>, evidence: &mut Evidence<'a>) {
    let mut told = scene.told.clone();
    told.sort_unstable_by_key(|tells| tells.answered);
    let mut wins: Vec<_> = scene.wins.iter().collect();
    wins.sort_unstable_by_key(|win| win.asked);
    let (mut told, mut highest) = (told.into_iter().peekable(), None::<TellsSerial>);
    for win in wins {
        while let Some(tells) = told.next_if(|tells| tells.answered < win.asked) {
            highest = highest.filter(|known| known.serial > tells.serial).or(Some(tells));
        }
        let (Some(serial), Some(before)) = (win.serial, highest) else { continue };
        if serial < before.serial && before.user != win.user {
            let later = win.asked - before.answered;
            let what = format!(
                "{} got {serial}, asking {later} µs after {} was told {}",
                win.user, before.user, before.serial
            );
            evidence.add(Kind::OutOfOrder, Some(scene.code), what);
        }
    }
}
