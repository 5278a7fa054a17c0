//! Which other sites' pages may talk to this node, on every handshake and every poll (`interface.md` 1, `reliability.md` 4.2).
//!
//! Invariants: an origin is compared whole (scheme, host, port) or not at all; a page served by this very host is always
//! allowed; the answer names one origin, never `*`, since clients may send credentials.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::guest::Visit;
use crate::{config::Origins, transport::Body};

/// Whether a page of `origin` may reach a session. Whoever names none is no page.
pub(super) fn may_connect(allowed: &Origins, origin: Option<&HeaderValue>, visit: &Visit) -> bool {
    let Some(origin) = origin else { return true };
    origin.to_str().is_ok_and(|origin| allowed.contains(origin) || visit.is_at_home(origin))
}

/// Lets the page of `origin` read the answer, and tells caches that the next page may not.
pub(super) fn allow(allowed: &Origins, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
    // A page of this very host needs no permission from its browser.
    if let Some(origin) = origin.filter(|origin| origin.to_str().is_ok_and(|origin| allowed.contains(origin))) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// What the reference server lets a browser send, so that a page sees our own answer to a method that means nothing here.
const METHODS: &str = "GET,HEAD,PUT,PATCH,POST,DELETE";

/// The answer to a preflight; the headers that depend on the origin are added as to every answer.
pub(super) fn preflight(request: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        asked.unwrap_or_else(|| HeaderValue::from_static("content-type")),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_one_origin() {
        let mut answer = HeaderMap::new();
        allow(&Origins::any(), Some(&HeaderValue::from_static("http://a.example")), &mut answer);
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://a.example");
        assert_eq!(answer[header::VARY], "Origin");
    }

    #[test]
    fn a_page_that_is_not_listed_may_not_read_and_no_cache_mixes_that_up() {
        let mut answer = HeaderMap::new();
        allow(&Origins::default(), Some(&HeaderValue::from_static("http://a.example")), &mut answer);
        allow(&Origins::default(), None, &mut answer);
        assert!(!answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(answer.get_all(header::VARY).iter().count(), 2);
    }

    #[test]
    fn a_browser_may_send_any_method_and_gets_our_own_refusal() {
        let methods = preflight(&HeaderMap::new()).headers()[header::ACCESS_CONTROL_ALLOW_METHODS].clone();
        assert_eq!(methods, "GET,HEAD,PUT,PATCH,POST,DELETE");
    }
}
