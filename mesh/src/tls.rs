//! Who may talk: certificates derived from the cluster key, and the check that a peer is the node it says.
//!
//! Invariants: the authority's key comes from the cluster key by HKDF, so whoever holds the key is a node and nobody else;
//! every process signs its own leaf with a fresh key; both sides verify; TLS 1.3 only, no early data, no tickets (a replayed
//! frame is never worth a saved round trip). Certificates do not expire: their key lives as long as the process.
//!
//! Two keys at once: both sides of a handshake name the authorities they accept (`certificate_authorities`, RFC 8446 4.2.4),
//! each named after its key, and the other side shows a leaf of the newest that both know. So nodes with the old key, both
//! keys and the new key talk as long as each pair shares one, in whatever order they were told.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SerialNumber,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{ClusterKey, ClusterKeys, NodeId};

/// What the endpoint speaks; a peer with another value cannot finish its handshake.
const ALPN: &[u8] = b"starling-mesh/1";
/// A name every node's certificate has: seeds are dialled before we know who they are.
pub(crate) const ANY_NODE: &str = "any.starling";
/// DER of a PKCS#8 version 1 wrapper around a 32-byte Ed25519 seed (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// The name in the certificate of `node`.
pub(crate) fn name_of(node: NodeId) -> String {
    format!("{node}.starling")
}

/// Both directions of the endpoint, and whom they trust.
pub(crate) struct Crypto {
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) client: Arc<QuicClientConfig>,
    pub(crate) trust: Trust,
}

/// The authorities of the keys we accept.
pub(crate) struct Trust {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    /// Whether the certificate of this connection, which its handshake verified, would be accepted now.
    pub(crate) fn accepts(&self, connection: &quinn::Connection) -> bool {
        leaf_of(connection).is_some_and(|leaf| self.accepts_leaf(&leaf))
    }

    fn accepts_leaf(&self, leaf: &CertificateDer<'_>) -> bool {
        let Ok(parsed) = ParsedCertificate::try_from(leaf) else { return false };
        let (roots, algorithms) = (&self.roots, self.algorithms.all);
        // Our certificates do not expire: any time of theirs would do, and the handshake asks this clock too.
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], UnixTime::now(), algorithms).is_ok()
    }
}

/// Certificates and configurations for `node`; an error is a defect of this build.
pub(crate) fn crypto(keys: &ClusterKeys, node: NodeId) -> Result<Crypto, String> {
    let defect = |error: &dyn std::fmt::Display| error.to_string();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (mut roots, mut leaves) = (RootCertStore::empty(), Vec::new());
    for key in keys.iter() {
        let (authority, chain, leaf_key) = certificates(key, node).map_err(|error| defect(&error))?;
        roots.add(authority).map_err(|error| defect(&error))?;
        let leaf = CertifiedKey::from_der(chain, leaf_key, &provider).map_err(|error| defect(&error))?;
        leaves.push(Arc::new(leaf));
    }
    let (roots, names) = (Arc::new(roots.clone()), roots.subjects());
    let leaves = Arc::new(Leaves(names.iter().cloned().zip(leaves).collect()));

    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| defect(&error))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| defect(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(leaves.clone());
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.max_early_data_size = 0;
    server.send_tls13_tickets = 0;

    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| defect(&error))?;
    let algorithms = provider.signature_verification_algorithms;
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| defect(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Telling { verifier, names }))
        .with_client_cert_resolver(leaves);
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.enable_early_data = false;

    Ok(Crypto {
        server: Arc::new(QuicServerConfig::try_from(server).map_err(|error| defect(&error))?),
        client: Arc::new(QuicClientConfig::try_from(client).map_err(|error| defect(&error))?),
        trust: Trust { roots, algorithms },
    })
}

/// Our certificates, newest key first, each with the name of the authority that signed it.
#[derive(Debug)]
struct Leaves(Vec<(DistinguishedName, Arc<CertifiedKey>)>);

impl Leaves {
    /// The newest whose authority the peer `accepts`. A peer that accepts none gets the newest, and its refusal says why.
    fn accepted_by(&self, accepts: impl Fn(&[u8]) -> bool) -> Option<Arc<CertifiedKey>> {
        let known = self.0.iter().find(|(name, _)| accepts(name.as_ref()));
        known.or(self.0.first()).map(|(_, leaf)| leaf.clone())
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let authorities = hello.certificate_authorities().unwrap_or_default();
        self.accepted_by(|name| authorities.iter().any(|authority| authority.as_ref() == name))
    }
}

impl ResolvesClientCert for Leaves {
    fn resolve(&self, authorities: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.accepted_by(|name| authorities.contains(&name))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The usual verification of a server, which also tells the server whom we accept: it then shows a certificate we do.
#[derive(Debug)]
struct Telling {
    verifier: Arc<WebPkiServerVerifier>,
    names: Vec<DistinguishedName>,
}

impl ServerCertVerifier for Telling {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.names)
    }
}

/// Whether the certificate of this connection was made for `node`. The chain was verified by the handshake already.
pub(crate) fn is_node(connection: &quinn::Connection, node: NodeId) -> bool {
    leaf_of(connection).is_some_and(|leaf| names(&leaf, node))
}

fn leaf_of(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

fn names(leaf: &CertificateDer<'_>, node: NodeId) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(leaf), ServerName::try_from(name_of(node))) else {
        return false;
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

type Certificates = (CertificateDer<'static>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The authority, the same on every node, and a fresh leaf of ours signed by it.
fn certificates(key: &ClusterKey, node: NodeId) -> Result<Certificates, rcgen::Error> {
    let pkcs8 = [&PKCS8_ED25519[..], &key.derive("mesh authority")].concat();
    let authority_key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name = called(&format!("starling mesh authority {}", key.name()));
    authority.serial_number = Some(SerialNumber::from(1));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_certificate = authority.self_signed(&authority_key)?;

    let leaf_key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut leaf = CertificateParams::new(vec![name_of(node), ANY_NODE.to_owned()])?;
    leaf.distinguished_name = called(&name_of(node));
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(authority, &authority_key))?;

    let leaf_key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    Ok((authority_certificate.der().clone(), vec![leaf.der().clone()], leaf_key))
}

fn called(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8) -> ClusterKey {
        let mut bytes = *b"0123456789abcdef0123456789abcdef";
        bytes[31] = last;
        ClusterKey::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn every_node_derives_the_same_authority_and_another_key_gives_another() {
        let authority = |key: &ClusterKey, node| certificates(key, NodeId(node)).unwrap().0;
        assert_eq!(authority(&key(1), 0), authority(&key(1), 9));
        assert_ne!(authority(&key(1), 0), authority(&key(2), 0));
    }

    #[test]
    fn a_leaf_names_its_node_and_no_other() {
        let leaf = &certificates(&key(1), NodeId(3)).unwrap().1[0];
        assert!(names(leaf, NodeId(3)));
        assert!(!names(leaf, NodeId(4)));
    }

    #[test]
    fn configurations_build_from_one_key_and_from_two() {
        assert!(crypto(&key(1).into(), NodeId(65535)).is_ok());
        assert!(crypto(&ClusterKeys { current: key(2), previous: Some(key(1)) }, NodeId(0)).is_ok());
    }

    #[test]
    fn a_certificate_is_accepted_as_long_as_one_of_the_keys_signed_it() {
        let leaf = &certificates(&key(1), NodeId(3)).unwrap().1[0];
        let accepts = |keys: &ClusterKeys| crypto(keys, NodeId(0)).unwrap().trust.accepts_leaf(leaf);
        assert!(accepts(&key(1).into()));
        assert!(accepts(&ClusterKeys { current: key(2), previous: Some(key(1)) }));
        assert!(!accepts(&key(2).into()));
    }
}
