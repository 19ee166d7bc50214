//! The coordinator's certificate and the authority of its clients', read again when their files change.

use ablate_net::pem;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Where the files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificate, then those that sign it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authority of the clients' certificates; none: none are asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether browsers call, which may not speak HTTP/2.
    pub web: bool,
}

impl Files {
    fn times(&self) -> Vec<Option<SystemTime>> {
        let time = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified()).ok();
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(|p| time(p))
            .collect()
    }

    fn read(&self) -> Result<ServerConfig, String> {
        let named = |option: &'static str| move |e: String| format!("{option} {e}");
        pem::certificates(&self.cert).map_err(named("--tls-cert"))?;
        pem::key(&self.key).map_err(named("--tls-key"))?;
        let identity = pem::identity(&self.cert, &self.key).map_err(named("--tls-key"))?;
        if let Some(why) = pem::out_of_time(&self.cert)? {
            tracing::warn!("--tls-cert {why}: clients will refuse it; renew it");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = pem::roots(path).map_err(named("--client-ca"))?;
                // Those without a certificate may still have a token.
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| format!("--client-ca {}: {e}", path.display()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        if self.web {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Ok(config)
    }
}

/// What TLS is spoken with.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: Mutex<(Vec<Option<SystemTime>>, Arc<ServerConfig>)>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Says which option names an unusable file, and what is wrong with it.
    pub fn open(files: Files) -> Result<Self, String> {
        let times = files.times();
        let config = files.read()?;
        Ok(Self { files, current: Mutex::new((times, Arc::new(config))) })
    }

    /// For the next connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Reads the files again where they changed. Until they fit together again, the old ones are used.
    pub(super) fn refresh(&self) {
        let times = self.files.times();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 == times {
            return;
        }
        match self.files.read() {
            Ok(config) => {
                tracing::info!("TLS certificates were read again");
                current.1 = Arc::new(config);
            }
            Err(e) => tracing::warn!("the new TLS files can't be used, the old ones are used on: {e}"),
        }
        current.0 = times;
    }
}
