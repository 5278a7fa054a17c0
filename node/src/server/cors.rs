//! Which other sites' pages may talk to this node, on every handshake and every poll (`interface.md` 1, `reliability.md` 4.2).
//!
//! Invariants: an origin is compared whole (scheme, host, port) or not at all; a page served by this very host is always
//! allowed; the answer names one origin, never `*`, since clients may send credentials.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::{config::Origins, transport::Body};

/// Whether a request with these headers may reach a session.
pub(super) fn may_connect(allowed: &Origins, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.to_str().is_ok_and(|origin| allowed.allows(origin, host))
}

/// Lets the page of `origin` read the answer.
pub(super) fn allow(allowed: &Origins, origin: &HeaderValue, answer: &mut HeaderMap) {
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
    // A page of this very host needs no permission from its browser.
    if origin.to_str().is_ok_and(|origin| allowed.allows(origin, None)) {
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

    fn headers(origin: &'static str, host: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        headers.insert(header::HOST, HeaderValue::from_static(host));
        headers
    }

    #[test]
    fn a_page_of_this_host_needs_no_permission_and_another_port_does() {
        let nobody = Origins::default();
        assert!(may_connect(&nobody, &headers("http://localhost:3000", "localhost:3000")));
        assert!(!may_connect(&nobody, &headers("http://localhost:3001", "localhost:3000")));
        assert!(may_connect(&nobody, &HeaderMap::new()), "not a browser's page");
    }

    #[test]
    fn an_answer_names_its_one_origin() {
        let mut answer = HeaderMap::new();
        allow(&Origins::any(), &HeaderValue::from_static("http://a.example"), &mut answer);
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://a.example");
        assert_eq!(answer[header::VARY], "Origin");
    }
    #[test]
    fn a_browser_may_send_any_method_and_gets_our_own_refusal() {
        let methods = preflight(&HeaderMap::new()).headers()[header::ACCESS_CONTROL_ALLOW_METHODS].clone();
        assert_eq!(methods, "GET,HEAD,PUT,PATCH,POST,DELETE");
    }
}
