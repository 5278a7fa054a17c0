//! Who may talk: certificates derived from the cluster key, and the check that a peer is the node it says.
//!
//! Invariants: the authority's key comes from the cluster key by HKDF, so whoever holds the key is a node and nobody else;
//! every process signs its own leaf with a fresh key; both sides verify; TLS 1.3 only, no early data, no tickets (a replayed
//! frame is never worth a saved round trip). Certificates do not expire: their key lives as long as the process.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SerialNumber,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::{ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};

use crate::{BindError, ClusterKey, NodeId};

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

/// Both directions of the endpoint.
pub(crate) struct Crypto {
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) client: Arc<QuicClientConfig>,
}

/// Certificates and configurations for `node`.
pub(crate) fn crypto(key: &ClusterKey, node: NodeId) -> Result<Crypto, BindError> {
    let defect = |error: &dyn std::fmt::Display| BindError::Certificate(error.to_string());
    let (authority, chain, leaf_key) = certificates(key, node).map_err(|error| defect(&error))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(|error| defect(&error))?;
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());

    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| defect(&error))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| defect(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), leaf_key.clone_key())
        .map_err(|error| defect(&error))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.max_early_data_size = 0;
    server.send_tls13_tickets = 0;

    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| defect(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, leaf_key)
        .map_err(|error| defect(&error))?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.enable_early_data = false;

    Ok(Crypto {
        server: Arc::new(QuicServerConfig::try_from(server).map_err(|error| defect(&error))?),
        client: Arc::new(QuicClientConfig::try_from(client).map_err(|error| defect(&error))?),
    })
}

/// Whether the certificate of this connection was made for `node`. The chain was verified by the handshake already.
pub(crate) fn is_node(connection: &quinn::Connection, node: NodeId) -> bool {
    let Some(identity) = connection.peer_identity() else { return false };
    let Ok(chain) = identity.downcast::<Vec<CertificateDer<'static>>>() else { return false };
    chain.first().is_some_and(|leaf| names(leaf, node))
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
    authority.distinguished_name = named("starling mesh authority");
    authority.serial_number = Some(SerialNumber::from(1));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_certificate = authority.self_signed(&authority_key)?;

    let leaf_key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut leaf = CertificateParams::new(vec![name_of(node), ANY_NODE.to_owned()])?;
    leaf.distinguished_name = named(&name_of(node));
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(authority, &authority_key))?;

    let leaf_key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    Ok((authority_certificate.der().clone(), vec![leaf.der().clone()], leaf_key))
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
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
    fn configurations_build_from_a_key() {
        assert!(crypto(&key(1), NodeId(65535)).is_ok());
    }
}
