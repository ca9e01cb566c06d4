//! One line of the access log, as nginx's syslog sends it.

use crate::metrics::{Class, Route};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) class: Class,
    pub(crate) route: Route,
    pub(crate) seconds: f64,
}

impl Line {
    /// `<190>Nov 29 12:00:00 gateway: 200 0.001 /recommendations`: priority, time and tag are syslog's; then come status, seconds and
    /// route. `None`: it is not like that.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        let (_, message) = text.split_once(" gateway: ")?;
        let mut fields = message.trim_end().split(' ');
        let (status, seconds, route) = (fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() {
            return None;
        }
        let seconds: f64 = seconds.parse().ok()?;
        (seconds.is_finite() && seconds >= 0.0).then_some(Self {
            class: Class::of(status.parse().ok()?)?,
            route: Route::of(route)?,
            seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_status_duration_and_route() {
        let parse = |message: &str| Line::parse(format!("<190>Nov 29 12:00:00 gateway: {message}").as_bytes());
        let recommendations = Route::Recommendations;
        for (message, class, route, seconds) in [
            ("200 0.001 /recommendations", Class::Success, recommendations, 0.001),
            ("502 0.000 /recommendations", Class::ServerError, recommendations, 0.0),
            ("499 3.000 /recommendations", Class::ClientClosed, recommendations, 3.0),
            ("404 0.000 other", Class::ClientError, Route::Other, 0.0),
        ] {
            assert_eq!(parse(message), Some(Line { class, route, seconds }), "{message}");
        }
        for message in [
            "",
            "200",
            "200 0.001",
            "200 0.001 /x",
            "099 0.001 other",
            "200 - other",
            "200 -1 other",
            "200 0.1 other x",
        ] {
            assert_eq!(parse(message), None, "{message}");
        }
        assert_eq!(Line::parse(b"200 0.001 other"), None);
        assert_eq!(Line::parse(&[0xff, 0xfe]), None);
    }
}
