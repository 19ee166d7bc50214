//! What a client or worker shows and checks, and the endpoints that follow from it.

use crate::args::{AccessArgs, Secret};
use crate::pem;
use std::net::IpAddr;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// A connection whose calls carry the token.
pub type Line = InterceptedService<Channel, Bearer>;

/// Puts the token, where there is one, into each call.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// What a program shows of itself, and whom it believes. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Access {
    ca: Option<Certificate>,
    identity: Option<Identity>,
    bearer: Bearer,
}

/// A word that can be a token, without what an editor leaves at its end.
fn token(word: &str) -> Option<MetadataValue<Ascii>> {
    let word = word.trim();
    let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
    let mut value: MetadataValue<Ascii> = format!("Bearer {word}").parse().ok().filter(|_| plain)?;
    value.set_sensitive(true);
    Some(value)
}

impl Access {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// Says which option is wrong, and how.
    pub fn open(args: &AccessArgs) -> Result<Self, String> {
        let mut access = Self::default();
        if let Some(path) = &args.ca {
            pem::roots(path).map_err(|e| format!("--ca {e}"))?;
            access.ca = Some(Certificate::from_pem(pem::read(path)?));
        }
        match (&args.cert, &args.key) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                pem::identity(cert, key).map_err(|e| format!("--cert and --key: {e}"))?;
                if let Some(why) = pem::out_of_time(cert)? {
                    return Err(format!("--cert {why}; have a new one signed"));
                }
                access.identity = Some(Identity::from_pem(pem::read(cert)?, pem::read(key)?));
            }
            _ => return Err("--cert and --key belong together; give both".to_owned()),
        }
        let word = match (&args.token_file, &args.token) {
            (Some(path), _) => {
                let text = pem::read(path).map_err(|e| format!("--token-file {e}"))?;
                Some((Secret::from(String::from_utf8_lossy(&text).into_owned()), "--token-file"))
            }
            (None, Some(word)) => Some((word.clone(), "--token")),
            (None, None) => None,
        };
        if let Some((word, option)) = word {
            // The word itself is not repeated: it is nearly a token.
            let value = token(word.reveal()).ok_or_else(|| {
                format!("{option}: not a token; give one as `ablate token create` shows it")
            })?;
            access.bearer = Bearer(Some(value));
        }
        Ok(access)
    }

    /// What to put into each call.
    #[must_use]
    pub fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }

    /// The endpoint of `http://HOST:PORT` or `https://HOST:PORT`.
    ///
    /// # Errors
    /// Says what is wrong with the URL, without naming an option. Where the program would show a token in clear text to another
    /// machine, too.
    pub fn endpoint(&self, url: &str) -> Result<Endpoint, String> {
        let bad = || "not a URL of the form http://HOST:PORT or https://HOST:PORT".to_owned();
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        if !["http", "https"].contains(&scheme)
            || rest.is_empty()
            || rest.starts_with(':')
            || rest.contains('@')
        {
            return Err(bad());
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| bad())?;
        if scheme == "http" {
            let host = endpoint.uri().host().unwrap_or_default();
            if self.bearer.0.is_some() && !loopback(host) {
                return Err(
                    "a token would travel there in clear text; use https://, or a tunnel to a loopback port"
                        .to_owned(),
                );
            }
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(ca) => tls.ca_certificate(ca.clone()),
            None => tls.with_native_roots(),
        };
        if let Some(identity) = &self.identity {
            tls = tls.identity(identity.clone());
        }
        endpoint.tls_config(tls).map_err(|e| format!("TLS can't be set up: {}", crate::trouble::chain(&e)))
    }

    /// Whether a URL names this machine.
    #[must_use]
    pub fn is_here(&self, url: &str) -> bool {
        self.endpoint(url).is_ok_and(|e| loopback(e.uri().host().unwrap_or_default()))
    }

    /// Whether a coordinator's word that another leads at `url` is followed: never from TLS to clear text.
    #[must_use]
    pub fn follows(&self, named: &str, url: &str) -> bool {
        (!named.starts_with("https://") || url.starts_with("https://")) && self.endpoint(url).is_ok()
    }
}

/// Whether a URL's host is this machine, so that nobody else hears what is said.
fn loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn with_token(word: &str) -> Result<Access, String> {
        Access::open(&AccessArgs { token: Some(word.to_owned().into()), ..AccessArgs::default() })
    }

    #[test]
    fn a_token_goes_to_this_machine_or_through_tls_only() {
        let access = with_token("ablate_1_x\n").unwrap();
        for good in
            ["http://127.0.0.1:7650", "http://localhost:1", "http://[::1]:7650", "https://db.example:7650"]
        {
            access.endpoint(good).unwrap();
        }
        for bad in ["http://10.0.0.1:7650", "http://db.example:7650", "http://localhost.example:1"] {
            let said = access.endpoint(bad).unwrap_err();
            assert!(said.contains("clear text") && !said.contains("ablate_1_x"), "{said}");
        }
        Access::default().endpoint("http://db.example:7650").unwrap();
    }

    #[test]
    fn this_machine_is_known_by_its_own_names_for_itself() {
        let here = |url| Access::default().is_here(url);
        assert!(here("http://127.0.0.1:7650") && here("http://localhost:1") && here("https://[::1]:7650"));
        assert!(!here("http://10.0.0.1:7650") && !here("http://db.example:1") && !here("nowhere"));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for bad in ["", "a:1", "ftp://a:1", "http://", "https://:1", "http://user:pw@a:1", "http://a b:1"] {
            assert!(Access::default().endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_leader_is_not_followed_from_tls_to_clear_text() {
        let access = Access::default();
        assert!(access.follows("https://a:1", "https://b:1"));
        assert!(access.follows("http://127.0.0.1:1", "http://127.0.0.1:2"));
        assert!(access.follows("http://127.0.0.1:1", "https://b:2"));
        assert!(!access.follows("https://a:1", "http://127.0.0.1:2"));
        assert!(!access.follows("https://a:1", "nowhere"));
    }

    #[test]
    fn a_secret_is_in_no_debug_text_and_no_complaint() {
        for bad in ["has space", "", "tab\there", "n\u{f6}n"] {
            let said = with_token(bad).unwrap_err();
            assert!(said.contains("--token") && (bad.is_empty() || !said.contains(bad)), "{said}");
        }
        let args = AccessArgs { token: Some("s3cret".to_owned().into()), ..AccessArgs::default() };
        let access = Access::open(&args).unwrap();
        assert!(!format!("{args:?}{access:?}{:?}", access.bearer()).contains("s3cret"));
    }
}
