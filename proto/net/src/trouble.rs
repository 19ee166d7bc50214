//! Why a connection could not be made, in words that say what to do.

use rustls::{AlertDescription, CertificateError, Error as Tls};
use std::error::Error;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong.
    pub what: String,
    /// What to do; empty where only waiting helps.
    pub help: String,
    /// Whether the two ends don't trust or understand each other, so that trying again doesn't help.
    pub settled: bool,
}

/// An error with its causes.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

type Cause<'a> = &'a (dyn Error + 'static);

/// What an error comes from. An I/O error hides what it wraps from `source`.
fn deeper(error: Cause<'_>) -> Option<Cause<'_>> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inside) => Some(inside),
        None => error.source(),
    }
}

fn causes(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(error), |e| deeper(*e))
}

impl Trouble {
    /// From what a connection to `url` ended with.
    #[must_use]
    pub fn of(url: &str, error: &(dyn Error + 'static)) -> Self {
        let tls = causes(error).find_map(|e| e.downcast_ref::<Tls>());
        let (what, help) = match tls {
            Some(e) => of_tls(url, e),
            // HTTP/2 keeps the text of what it comes from only.
            None if url.starts_with("https://") && chain(error).contains("received fatal alert") => {
                refuses(url)
            }
            // What a coordinator that speaks TLS answers is no frame of HTTP/2.
            None if url.starts_with("http://") && chain(error).contains("frame with invalid size") => (
                format!("{url} doesn't speak in clear text"),
                "use https:// (with --ca where the coordinator's authority is your own)",
            ),
            None => return Self { what: chain(error), help: String::new(), settled: false },
        };
        Self { what, help: help.to_owned(), settled: !help.is_empty() }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

fn of_tls(url: &str, e: &Tls) -> (String, &'static str) {
    use CertificateError as C;
    let told = |what: &str| format!("{url} {what}");
    match e {
        Tls::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => (
            told("shows a certificate that isn't signed by an authority known here"),
            "give the file of its authority with --ca (or $ABLATE_CA)",
        ),
        Tls::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => (
            told("shows a certificate for other names"),
            "name the coordinator as its certificate does, or have that name put into the certificate",
        ),
        Tls::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => (
            told("shows a certificate that has expired"),
            "renew the coordinator's certificate (it is read again without a restart), or set this machine's clock",
        ),
        Tls::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            (told("shows a certificate that isn't valid yet"), "set the clocks of both machines")
        }
        Tls::InvalidCertificate(e) => (
            format!("{url} shows a certificate that can't be used: {e}"),
            "renew the coordinator's certificate",
        ),
        Tls::InvalidMessage(_) => (
            told("doesn't speak TLS"),
            "use http://, on loopback, or start the coordinator with --tls-cert and --tls-key",
        ),
        Tls::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
        ) => refuses(url),
        e => (format!("{url}: TLS failed: {e}"), ""),
    }
}

fn refuses(url: &str) -> (String, &'static str) {
    (
        format!("{url} doesn't take the certificate of --cert"),
        "use one that is valid and signed by the authority of the coordinator's --client-ca",
    )
}
