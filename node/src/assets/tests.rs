//! Tests of the served files: tags, compression, policies, and that the bundle is the one it claims to be.

use std::io::Read;

use flate2::read::GzDecoder;

use super::*;

fn assets() -> Assets {
    Assets::new(&Options { path: "/socket.io/", builtin_prefix: "room:", serve_client: true, demo: true })
}

fn get(assets: &Assets, path: &str, headers: &[(HeaderName, &str)]) -> Response<Bytes> {
    let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect();
    assets.respond(path, &headers).unwrap()
}

fn header(response: &Response<Bytes>, name: HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

const GZIP: (HeaderName, &str) = (header::ACCEPT_ENCODING, "deflate, gzip;q=0.8");

#[test]
fn every_file_unpacks_to_what_is_served_plain_and_the_bundle_shrinks_to_a_third() {
    let assets = assets();
    for path in assets.files.keys() {
        let (plain, packed) = (get(&assets, path, &[]), get(&assets, path, &[GZIP]));
        let mut unpacked = Vec::new();
        GzDecoder::new(&packed.body()[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(&unpacked, plain.body(), "{path}");
        assert_eq!(header(&packed, header::CONTENT_ENCODING), "gzip");
        assert_eq!(header(&plain, header::CONTENT_ENCODING), "");
        assert_eq!(header(&plain, header::VARY), "Accept-Encoding");
        assert_ne!(
            header(&plain, header::ETAG),
            header(&packed, header::ETAG),
            "a strong tag names one representation"
        );
    }
    let packed = get(&assets, "/socket.io/socket.io.min.js", &[GZIP]);
    assert!(packed.body().len() * 3 < get(&assets, "/socket.io/socket.io.min.js", &[]).body().len());
}

#[test]
fn a_copy_the_client_has_is_not_sent_again() {
    let assets = assets();
    let tag = header(&get(&assets, "/socket.io/socket.io.js", &[GZIP]), header::ETAG).to_owned();
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let response = get(&assets, "/socket.io/socket.io.js", &[GZIP, (header::IF_NONE_MATCH, &known)]);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert!(response.body().is_empty());
        assert_eq!(header(&response, header::ETAG), tag);
        assert_eq!(header(&response, header::CACHE_CONTROL), "public, max-age=0, must-revalidate");
    }
    for unknown in ["\"x\"", "", &tag[1..tag.len() - 1]] {
        let response = get(&assets, "/socket.io/socket.io.js", &[GZIP, (header::IF_NONE_MATCH, unknown)]);
        assert_eq!(response.status(), StatusCode::OK, "{unknown}");
    }
    let plain = get(&assets, "/socket.io/socket.io.js", &[(header::IF_NONE_MATCH, &tag)]);
    assert_eq!(plain.status(), StatusCode::OK, "the compressed copy is no use to a client that asks for the plain one");
}

#[test]
fn compression_follows_what_the_client_accepts() {
    let cases = [
        ("gzip", true),
        ("gzip;q=0", false),
        ("gzip; q=0.0, *", false),
        ("identity", false),
        ("br, *", true),
        ("*;q=0", false),
        ("gzip;q=nonsense", true),
        ("", false),
    ];
    let assets = assets();
    for (accepted, compressed) in cases {
        let response = get(&assets, "/", &[(header::ACCEPT_ENCODING, accepted)]);
        assert_eq!(header(&response, header::CONTENT_ENCODING) == "gzip", compressed, "{accepted}");
    }
}

#[test]
fn pages_may_load_nothing_from_elsewhere_and_have_nothing_inline() {
    let page = get(&assets(), "/", &[]);
    assert!(header(&page, header::CONTENT_SECURITY_POLICY).starts_with("default-src 'self';"));
    assert_eq!(header(&page, header::CONTENT_TYPE), "text/html; charset=utf-8");
    let text = std::str::from_utf8(page.body()).unwrap();
    for inline in ["http:", "https:", "style=", "onclick", "<style", "<script>", "//"] {
        assert!(!text.contains(inline), "{inline}");
    }
}

#[test]
fn every_file_the_page_names_is_served() {
    let assets = assets();
    let page = get(&assets, "/demo/", &[]);
    let text = std::str::from_utf8(page.body()).unwrap();
    let named: Vec<_> = text.split(['"']).filter(|word| word.starts_with('/')).collect();
    assert_eq!(named.len(), 4, "{named:?}");
    for path in named {
        assert_eq!(get(&assets, path, &[]).status(), StatusCode::OK, "{path}");
    }
}

#[test]
fn the_page_follows_the_configured_path_and_prefix() {
    let options = Options { path: "/ws/", builtin_prefix: "r\"<:", serve_client: true, demo: true };
    let assets = Assets::new(&options);
    let page = get(&assets, "/", &[]);
    let text = std::str::from_utf8(page.body()).unwrap();
    assert!(text.contains("src=\"/ws/socket.io.min.js\"") && text.contains("data-prefix=\"r&quot;&lt;:\""), "{text}");
    assert!(assets.respond("/ws/socket.io.min.js", &HeaderMap::new()).is_some());
    assert!(assets.respond("/socket.io/socket.io.min.js", &HeaderMap::new()).is_none());
}

#[test]
fn what_is_switched_off_is_not_there() {
    let none = Assets::new(&Options { path: "/socket.io/", builtin_prefix: "room:", serve_client: false, demo: false });
    for path in assets().files.keys() {
        assert!(none.respond(path, &HeaderMap::new()).is_none(), "{path}");
    }
    for path in ["", "/nothing", "/demo/../secret", "/socket.io/", "/SOCKET.IO/socket.io.js"] {
        assert!(assets().respond(path, &HeaderMap::new()).is_none(), "{path}");
    }
}

#[test]
fn the_bundle_is_the_version_it_claims_to_be() {
    for (name, body) in CLIENT {
        let text = std::str::from_utf8(body).unwrap();
        assert!(text.starts_with("/*!\n * Socket.IO v4.8.4\n"), "{name}");
    }
}
