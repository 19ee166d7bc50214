//! PEM files, read so that whatever is wrong with one is said before anything is done with it.

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Largest PEM file that is read: bundles of a system's authorities have a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// A file's bytes.
///
/// # Errors
/// Says which file, and what is wrong.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bad = |e: std::io::Error| format!("{}: {e}", path.display());
    let size = std::fs::metadata(path).map_err(bad)?.len();
    if size > MAX_FILE {
        return Err(format!("{}: {size} bytes are too many for a PEM file", path.display()));
    }
    std::fs::read(path).map_err(bad)
}

/// The certificates of a file: a program's own first, then those that sign it; or authorities.
///
/// # Errors
/// Where it can't be read or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|e| format!("{}: not a PEM file: {e}", path.display()))?;
    if all.is_empty() {
        return Err(format!("{}: it holds no certificate (-----BEGIN CERTIFICATE-----)", path.display()));
    }
    for one in &all {
        parsed(one).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(all)
}

/// The private key of a file.
///
/// # Errors
/// Where it can't be read or holds none.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| match e {
        PemError::NoItemsFound => {
            format!("{}: it holds no private key (-----BEGIN PRIVATE KEY-----)", path.display())
        }
        // What the parser stumbled on could be a part of the key.
        _ => format!("{}: not a PEM file with a private key", path.display()),
    })
}

/// A certificate with its chain and key, which fit.
///
/// # Errors
/// Where a file is unusable, or the key belongs to another certificate.
pub fn identity(cert: &Path, key_path: &Path) -> Result<CertifiedKey, String> {
    let chain = certificates(cert)?;
    let private = key(key_path)?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, private, &provider).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            format!(
                "{}: this key doesn't belong to the certificate in {}",
                key_path.display(),
                cert.display()
            )
        }
        e => format!("{}: {e}", key_path.display()),
    })
}

/// The authorities of a file.
///
/// # Errors
/// Where it can't be read, holds none, or one of them is no authority's certificate.
pub fn roots(path: &Path) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for one in certificates(path)? {
        roots.add(one).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(Arc::new(roots))
}

/// Reads a certificate.
///
/// # Errors
/// Where it is none.
pub fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| format!("a certificate can't be read: {e}"))
}

/// What is wrong with the time of a file's first certificate; none where it is valid now.
///
/// # Errors
/// As [`certificates`].
pub fn out_of_time(path: &Path) -> Result<Option<String>, String> {
    let all = certificates(path)?;
    let validity = parsed(&all[0])?.validity().clone();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    Ok(if now > validity.not_after.timestamp() {
        Some(format!("{}: the certificate expired on {}", path.display(), validity.not_after))
    } else if now < validity.not_before.timestamp() {
        Some(format!("{}: the certificate isn't valid before {}", path.display(), validity.not_before))
    } else {
        None
    })
}
