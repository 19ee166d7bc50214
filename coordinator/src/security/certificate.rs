//! Who a client's certificate says that it is: its roles are the URIs `ablate://role/NAME` among its subject alternative names. Whether
//! it is genuine was checked by TLS against the operator's authority before.

use crate::token::Role;
use ablate_net::pem;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// What stands before a role's name.
const ROLE: &str = "ablate://role/";
/// Most characters of a name that are shown.
const NAME: usize = 64;

/// The bearer of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Its common name, or serial number.
    pub name: String,
    /// Its roles.
    pub roles: Vec<Role>,
    /// When it ends, in UNIX seconds.
    pub until: i64,
}

impl Certified {
    /// Reads a certificate that TLS found genuine.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let certificate = pem::parsed(der)?;
        let mut roles = Vec::new();
        let names = certificate.subject_alternative_name().map_err(|e| e.to_string())?;
        for name in names.iter().flat_map(|n| &n.value.general_names) {
            if let GeneralName::URI(uri) = name
                && let Some(role) = uri.strip_prefix(ROLE).and_then(Role::named)
            {
                roles.push(role);
            }
        }
        let common = certificate.subject().iter_common_name().next().and_then(|n| n.as_str().ok());
        let name = match common {
            Some(name) => name.chars().filter(|c| !c.is_control()).take(NAME).collect(),
            None => certificate.raw_serial_as_string(),
        };
        Ok(Self { name, roles, until: certificate.validity().not_after.timestamp() })
    }
}
