//! The name of an image, by the grammar of references of the OCI distribution project. The engine would refuse another one
//! too, on an instance that is paid for; and the name is a word of the engine's command line, which must not look like an
//! option.
//!
//! ```text
//! reference := name [":" tag] ["@" digest]      name   := [domain "/"] path ("/" path)*
//! domain    := host [":" digits]                path   := [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
//! tag       := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
//! ```

use crate::problem::{Problem, Report, shortened};

/// The longest name without tag and digest, as registries have it.
const NAME_LEN_MAX: usize = 255;
const TAG_LEN_MAX: usize = 128;

pub(super) fn check_image(report: &mut Report, image: &str) {
    let Err(why) = read(image) else { return };
    let message = format!("`{}` is no name of an image: {why}", shortened(image));
    let hint = "such as `python:3.13`, `ghcr.io/team/image:tag` or `image@sha256:…`";
    report.error(Problem::new("image", message).hint(hint));
}

fn read(image: &str) -> Result<(), &'static str> {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("a digest is `sha256:` and 64 hexadecimal digits");
    }
    // A colon before the last slash belongs to the port of the registry.
    let path_from = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[path_from..].split_once(':') {
        Some((last, tag)) => (&rest[..path_from + last.len()], Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "a tag has 1 to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two",
        );
    }
    if name.len() > NAME_LEN_MAX {
        return Err("it is longer than 255 bytes");
    }
    let path = match name.split_once('/') {
        // What has a dot, a port or a capital before its first slash can only be a registry, as Docker has it.
        Some((domain, path)) if domain == "localhost" || domain.contains(['.', ':']) || !is_lower(domain) => {
            if !is_domain(domain) {
                return Err("a registry is a host, or a host and a port");
            }
            path
        }
        Some(_) | None => name,
    };
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err("its parts are small letters and digits with `.`, `_`, `__` or `-` between them")
    }
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let is_number = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_address || host.split('.').all(is_label)) && port.is_none_or(is_number)
}

/// Runs of small letters and digits, with one separator between two of them.
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let words = |at: Option<u8>| at.is_some_and(is_word);
    if !words(text.bytes().next()) || !words(text.bytes().last()) {
        return false;
    }
    let separators = text.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    separators
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_LEN_MAX).contains(&tag.len())
        && is_word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_engines_take_are_taken() {
        let digest = "0".repeat(64);
        for image in [
            "python",
            "python:3.13",
            "library/python:3.13-slim_x",
            "ghcr.io/team/image:tag",
            "GHCR.io/team/image",
            "localhost/bursar-e2e-busybox",
            "localhost:5000/a/b__c/d--e",
            "[::1]:5000/image",
            "127.0.0.1:5000/image:V1",
            &format!("image@sha256:{digest}"),
            &format!("registry:5000/image:tag@sha256:{digest}"),
        ] {
            assert_eq!(read(image), Ok(()), "{image}");
        }
    }

    #[test]
    fn what_engines_refuse_is_refused_before_anything_is_paid_for() {
        let long = "a".repeat(256);
        for (image, why) in [
            ("", "small letters"),
            ("Localhost/UPPER:::x", "a tag"),
            ("Localhost/UPPER:x", "small letters"),
            ("UPPER", "small letters"),
            ("--privileged", "small letters"),
            ("image:", "a tag"),
            ("image:-x", "a tag"),
            ("image name", "small letters"),
            ("a//b", "small letters"),
            ("/a", "small letters"),
            ("a/", "small letters"),
            ("a.-b", "small letters"),
            ("a___b", "small letters"),
            ("-host.example/a", "a registry"),
            ("host.example:port/a", "a registry"),
            ("image@sha256:12", "a digest"),
            ("image@md5:12", "a digest"),
            (&long, "longer"),
        ] {
            let said = read(image).unwrap_err();
            assert!(said.contains(why), "{image}: {said}");
        }
    }
}
