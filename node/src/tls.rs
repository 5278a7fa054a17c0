//! The certificate that the client port shows, and its replacement while the node runs.
//!
//! Invariants:
//! - files are compared by content, whatever became of their names: that survives the symbolic links Kubernetes swaps, and
//!   costs two small reads every few seconds;
//! - a pair that cannot serve (unreadable, of two minds, torn between two writes) changes nothing: the old one goes on, it is
//!   said once, and the next look tries again;
//! - connections that are open keep what they agreed on; the next handshake gets the new certificate.

use std::{
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_128;
use yasna::{ASN1Result, BERReader, Tag, tags::TAG_UTCTIME};

use crate::{
    context::Context,
    metrics::{Metrics, ReloadResult},
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A chain and a key are small; whatever is longer is the wrong file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A certificate chain and its key, proven to belong together.
#[derive(Debug)]
pub(crate) struct Pair {
    key: Arc<CertifiedKey>,
    /// When the certificate ends, in seconds since 1970.
    pub(crate) expires: i64,
    /// What the files held, as digests: to notice a change, no more.
    content: (u128, u128),
}

impl Pair {
    /// Reads a chain and a key from two PEM files.
    ///
    /// # Errors
    /// A sentence that says which file cannot serve, and why. Nothing was changed.
    pub(crate) fn read(cert: &Path, key: &Path) -> Result<Pair, String> {
        Pair::new(&read(cert)?, &read(key)?, cert, key)
    }

    fn new(chain: &[u8], secret: &[u8], cert: &Path, key: &Path) -> Result<Pair, String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let certificates = certificates.map_err(|error| format!("{} is not PEM: {error}", cert.display()))?;
        let leaf = certificates.first().ok_or_else(|| format!("{} holds no certificate", cert.display()))?;
        let expires = end_of(leaf)
            .map_err(|error| format!("the first certificate of {} cannot be read: {error}", cert.display()))?;
        let private = PrivateKeyDer::from_pem_slice(secret)
            .map_err(|error| format!("{} holds no private key: {error}", key.display()))?;
        let pair = CertifiedKey::from_der(certificates, private, &provider())
            .map_err(|error| format!("{} does not serve with {}: {error}", key.display(), cert.display()))?;
        Ok(Pair { key: Arc::new(pair), expires, content: (digest(chain), digest(secret)) })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(bytes)
}

fn digest(content: &[u8]) -> u128 {
    xxh3_128(content)
}

/// When a certificate ends (RFC 5280, 4.1), in seconds since 1970.
fn end_of(certificate: &[u8]) -> ASN1Result<i64> {
    yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|signed| {
            let end = signed.next().read_sequence(|fields| {
                fields.read_optional(|version| version.read_tagged(Tag::context(0), |version| version.read_der()))?;
                let _serial_number = fields.next().read_der()?;
                let _algorithm = fields.next().read_der()?;
                let _issuer = fields.next().read_der()?;
                let end = fields.next().read_sequence(|validity| {
                    let _begin = validity.next().read_der()?;
                    time(validity.next())
                })?;
                while fields.read_optional(|rest| rest.read_der())?.is_some() {}
                Ok(end)
            })?;
            let _algorithm = signed.next().read_der()?;
            let _signature = signed.next().read_der()?;
            Ok(end)
        })
    })
}

fn time(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    // Until 2049 the one, from then on the other.
    let time = if reader.lookahead_tag()? == TAG_UTCTIME {
        *reader.read_utctime()?.datetime()
    } else {
        *reader.read_generalized_time()?.datetime()
    };
    Ok(time.unix_timestamp())
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// TLS on the client port.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    files: (PathBuf, PathBuf),
}

/// The pair that the next handshake shows.
#[derive(Debug)]
struct Current(ArcSwap<Pair>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }
}

impl Tls {
    /// Reads the two files: TLS 1.2 and 1.3, HTTP/1.1.
    ///
    /// # Errors
    /// A sentence that says why the files cannot serve.
    pub(crate) fn new(cert: &Path, key: &Path, metrics: &Metrics) -> Result<Tls, String> {
        let pair = Pair::read(cert, key)?;
        metrics.tls_certificate_expiry_seconds.set(pair.expires);
        let current = Arc::new(Current(ArcSwap::from_pointee(pair)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let files = (cert.to_owned(), key.to_owned());
        Ok(Tls { config: Arc::new(config), current, files })
    }

    /// What handshakes are made with.
    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Looks at the files, and shows what they hold from now on if it is new; whether it was.
    ///
    /// # Errors
    /// A sentence that says why they cannot serve. The old pair goes on.
    fn look(&self, metrics: &Metrics) -> Result<bool, String> {
        let (cert, key) = &self.files;
        let (chain, secret) = (read(cert)?, read(key)?);
        if self.current.0.load().content == (digest(&chain), digest(&secret)) {
            return Ok(false);
        }
        let pair = Pair::new(&chain, &secret, cert, key)?;
        metrics.tls_certificate_expiry_seconds.set(pair.expires);
        self.current.0.store(Arc::new(pair));
        Ok(true)
    }
}

/// Keeps the certificate that of the files, for as long as the node lives.
pub(crate) async fn watch(context: &Context) {
    let Some(tls) = &context.tls else { return std::future::pending().await };
    let reloads = &context.metrics.tls_reloads;
    let mut told = None;
    loop {
        sleep(LOOK_EVERY).await;
        match tls.look(&context.metrics) {
            Ok(false) => told = None,
            Ok(true) => {
                told = None;
                reloads.of(ReloadResult::Replaced).inc();
                tracing::info!("the certificate of the client port was replaced");
            }
            Err(error) if told.as_ref() == Some(&error) => {}
            Err(error) => {
                reloads.of(ReloadResult::Refused).inc();
                tracing::error!(%error, "the new certificate cannot serve; the old one goes on");
                told = Some(error);
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_of_its_forms() {
        for (year, end) in [(2040, 2_208_988_800), (2060, 2_840_140_800)] {
            let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            assert_eq!(end_of(made.der()), Ok(end));
        }
        assert!(end_of(b"no certificate").is_err() && end_of(&[]).is_err());
    }
}
