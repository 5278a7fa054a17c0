//! Files that the client port serves from memory: the stock Socket.IO client and the demo page.
//!
//! Invariants:
//! - Everything is compressed and tagged once, at the start; a request costs a map look-up and two cheap clones.
//! - A strong tag names one representation: the compressed one has its own.
//! - Pages may load nothing from elsewhere; only the demo may connect to other ports of this machine.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use xxhash_rust::xxh3::xxh3_128;

/// What is served.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Path of the Socket.IO endpoint, `/socket.io/`.
    pub path: &'a str,
    /// Prefix of the built-in events, which the page uses.
    pub builtin_prefix: &'a str,
    /// Serve the client bundle below `path`.
    pub serve_client: bool,
    /// Serve the demo page at `/` and `/demo/`.
    pub demo: bool,
}

/// The files, by path.
#[derive(Debug)]
pub struct Assets {
    files: BTreeMap<String, File>,
}

#[derive(Clone, Debug)]
struct File {
    kind: &'static str,
    plain: Representation,
    gzip: Representation,
}

#[derive(Clone, Debug)]
struct Representation {
    body: Bytes,
    tag: HeaderValue,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";
const PAGE: &str = "text/html; charset=utf-8";

/// The dist files of socket.io-client 4.8.4, unchanged (see `assets/client/README.md`).
const CLIENT: [(&str, &[u8]); 4] = [
    ("socket.io.js", include_bytes!("../assets/client/socket.io.js")),
    ("socket.io.min.js", include_bytes!("../assets/client/socket.io.min.js")),
    ("socket.io.esm.min.js", include_bytes!("../assets/client/socket.io.esm.min.js")),
    ("socket.io.msgpack.min.js", include_bytes!("../assets/client/socket.io.msgpack.min.js")),
];

/// What the demo page loads.
const DEMO: [(&str, &str, &[u8]); 3] = [
    ("/demo/app.js", SCRIPT, include_bytes!("../assets/demo/app.js")),
    ("/demo/icon.svg", ICON, include_bytes!("../assets/demo/icon.svg")),
    ("/demo/style.css", STYLE, include_bytes!("../assets/demo/style.css")),
];

/// The files have no version in their names: a copy may be kept, but must be asked about before it is used.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=0, must-revalidate");

/// `starling dev` puts nodes on other ports of this machine; the page may move between them and nowhere else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; connect-src 'self' http://127.0.0.1:* ws://127.0.0.1:* http://localhost:* ws://localhost:*; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
);

impl Assets {
    /// Compresses and tags what `options` ask for; takes some milliseconds.
    pub fn new(options: &Options<'_>) -> Assets {
        let mut files = BTreeMap::new();
        if options.serve_client {
            for (name, body) in CLIENT {
                files.insert(format!("{}{name}", options.path), File::new(SCRIPT, Bytes::from_static(body)));
            }
        }
        if options.demo {
            let page = include_str!("../assets/demo/index.html")
                .replace("/socket.io/", options.path)
                .replace("data-prefix=\"room:\"", &format!("data-prefix=\"{}\"", escape(options.builtin_prefix)));
            let page = File::new(PAGE, Bytes::from(page));
            for path in ["/", "/demo", "/demo/"] {
                files.insert(path.to_owned(), page.clone());
            }
            for (path, kind, body) in DEMO {
                files.insert(path.to_owned(), File::new(kind, Bytes::from_static(body)));
            }
        }
        Assets { files }
    }

    /// The answer to a GET (or, without its body, a HEAD) of `path`, which has no query; `None` if no file is there.
    pub fn respond(&self, path: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
        let file = self.files.get(path)?;
        let compressed = accepts_gzip(headers);
        let chosen = if compressed { &file.gzip } else { &file.plain };
        let unchanged = is_known(headers, &chosen.tag);
        let (status, body) =
            if unchanged { (StatusCode::NOT_MODIFIED, Bytes::new()) } else { (StatusCode::OK, chosen.body.clone()) };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let mut set = |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
        set(header::ETAG, chosen.tag.clone());
        set(header::CACHE_CONTROL, CACHE);
        set(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if !unchanged {
            set(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
            set(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if compressed {
                set(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            if file.kind == PAGE {
                set(header::CONTENT_SECURITY_POLICY, POLICY);
                set(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            }
        }
        Some(response)
    }
}

impl File {
    fn new(kind: &'static str, body: Bytes) -> File {
        let digest = format!("{:032x}", xxh3_128(&body));
        let gzip = Bytes::from(compress(&body));
        File {
            kind,
            plain: Representation { body, tag: tag(&digest, "") },
            gzip: Representation { body: gzip, tag: tag(&digest, "-gzip") },
        }
    }
}

fn tag(digest: &str, suffix: &str) -> HeaderValue {
    // Hexadecimal digits and a word are always a valid header value.
    HeaderValue::try_from(format!("\"{digest}{suffix}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn compress(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to a vector cannot fail, so what comes back is complete.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

/// Whether the client takes gzip: named with a weight above zero (RFC 9110 12.5.3), or covered by `*`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    for item in values(headers, header::ACCEPT_ENCODING) {
        let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
        let accepted = weight.is_none_or(|q| q > 0.0);
        match coding.trim() {
            "gzip" | "x-gzip" => return accepted,
            "*" => any = accepted,
            _ => {}
        }
    }
    any
}

/// Whether `If-None-Match` names the tag; the comparison is weak (RFC 9110 13.1.2).
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    values(headers, header::IF_NONE_MATCH)
        .any(|item| item == "*" || item.strip_prefix("W/").unwrap_or(item).as_bytes() == tag.as_bytes())
}

/// The items of a list header, however many lines it came in.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests;
