//! What an attempt runs with here, for the record.

use std::fs;

use bursar_model::RanWith;

use crate::runtime::Image;

/// What an attempt runs with: in containers of an image, or as plain processes.
pub(crate) fn ran_with(image: Option<&Image>) -> RanWith {
    let kernel = line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "of unknown version".to_owned());
    RanWith {
        bursar: env!("CARGO_PKG_VERSION").to_owned(),
        runtime: image.map_or_else(|| "process".to_owned(), |image| image.engine.clone()),
        image: image.map(|image| image.digest.clone()),
        system: format!("Linux {kernel} {}", std::env::consts::ARCH),
        driver: line("/sys/module/nvidia/version"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: the kernel says what it is")]
fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
