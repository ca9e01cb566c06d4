//! One line of the access log, as nginx's syslog sends it.

/// Labels are bounded: every other path is `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Recommendations,
    Other,
}

impl Route {
    pub(crate) const ALL: [Self; 2] = [Self::Recommendations, Self::Other];

    /// As `$gateway_route` of deploy/nginx/gateway/http.conf.
    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.label() == text)
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Recommendations => "/recommendations",
            Self::Other => "other",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Success,
    Redirect,
    ClientError,
    /// nginx's 499: the client closed the connection before the answer came.
    ClientClosed,
    ServerError,
}

impl Class {
    pub(crate) const ALL: [Self; 5] =
        [Self::Success, Self::Redirect, Self::ClientError, Self::ClientClosed, Self::ServerError];

    pub(crate) fn of(status: u16) -> Option<Self> {
        match status {
            499 => Some(Self::ClientClosed),
            200..=299 => Some(Self::Success),
            300..=399 => Some(Self::Redirect),
            400..=498 => Some(Self::ClientError),
            500..=599 => Some(Self::ServerError),
            _ => None,
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ClientClosed => "499",
            Self::ServerError => "5xx",
        }
    }
}

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
