//! Moments as files write them.

use bursar_model::Timestamp;

/// RFC 3339, or less: without zone (UTC), without seconds, a day, a month, a half or a quarter of a year, a year.
#[must_use]
pub fn parse_moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.replacen(' ', "T", 1).parse() {
        return Some(at);
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let date = match (date.len(), date.get(..4)?, date.get(4..)?) {
        (10, ..) => date.to_owned(),
        (7, ..) => format!("{date}-01"),
        (4, ..) => format!("{date}-01-01"),
        (6, year, "H1" | "Q1") => format!("{year}-01-01"),
        (6, year, "Q2") => format!("{year}-04-01"),
        (6, year, "H2" | "Q3") => format!("{year}-07-01"),
        (6, year, "Q4") => format!("{year}-10-01"),
        _ => return None,
    };
    let time = if time.len() == 5 { format!("{time}:00") } else { time.to_owned() };
    format!("{date}T{time}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_and_clouds_write_them() {
        for (written, meant) in [
            ("2021-03-02T05:47:29Z", "2021-03-02T05:47:29Z"),
            ("2025-10-04T00:10:00+00:00", "2025-10-04T00:10:00Z"),
            ("2023-02-15T22:08:45", "2023-02-15T22:08:45Z"),
            ("2022-10-26T22:05", "2022-10-26T22:05:00Z"),
            ("2021-12-10 13:07:45", "2021-12-10T13:07:45Z"),
            ("2022-02-09", "2022-02-09T00:00:00Z"),
            ("2023-08", "2023-08-01T00:00:00Z"),
            ("2025H1", "2025-01-01T00:00:00Z"),
            ("2025", "2025-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse_moment(written), meant.parse().ok(), "{written}");
        }
        for wrong in ["", "soon", "2023-13-01", "12:00", "2025H3", "äöüß"] {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }
}
