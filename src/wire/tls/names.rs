//! Who a certificate names.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 6;
const UTF8_STRING: u8 = 12;
const PRINTABLE_STRING: u8 = 19;
const IA5_STRING: u8 = 22;

/// Where in a client's certificate its user stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameFrom {
    /// The subject's common name, the last one where there are several.
    #[default]
    CommonName,
    /// The first DNS name.
    Dns,
    /// The first URI, as SPIFFE has it.
    Uri,
}

/// The user that a certificate names; none if there is no such name. The certificate has been checked already.
pub(super) fn user_of(certificate: &CertificateDer<'_>, from: NameFrom) -> Option<Box<str>> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    match from {
        NameFrom::CommonName => common_name(certificate.subject()).map(Into::into),
        NameFrom::Dns => certificate.valid_dns_names().next().map(Into::into),
        NameFrom::Uri => certificate.valid_uri_names().next().map(Into::into),
    }
}

/// The DNS names of a certificate, in lower case. A name may begin with `*.`.
pub(super) fn dns_names(certificate: &CertificateDer<'_>) -> Option<Vec<Box<str>>> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    Some(certificate.valid_dns_names().map(|name| name.to_ascii_lowercase().into()).collect())
}

/// The last common name of a subject, RFC 5280 §4.1.2.4, whose names are in order from the general to the particular.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    let mut found = None;
    while !subject.is_empty() {
        let mut relative = element(&mut subject, SET)?;
        while !relative.is_empty() {
            let mut attribute = element(&mut relative, SEQUENCE)?;
            if element(&mut attribute, OBJECT_IDENTIFIER)? == COMMON_NAME {
                let tag = *attribute.first()?;
                let value = element(&mut attribute, tag)?;
                // Others have alphabets of their own, which nobody has used for long.
                if matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) {
                    found = core::str::from_utf8(value).ok();
                }
            }
        }
    }
    found.filter(|name| !name.is_empty())
}

/// Takes an element of DER off the front: its content, if it has this tag.
fn element<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&first, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // Names are shorter than 64 KiB.
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    (first == tag).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_common_name_of_a_subject_counts_and_other_names_do_not() {
        let name = |tag: u8, oid: &[u8], value: &[u8]| {
            let inner = [&[6, oid.len() as u8][..], oid, &[tag, value.len() as u8], value].concat();
            [&[SET, inner.len() as u8 + 2, SEQUENCE, inner.len() as u8][..], &inner].concat()
        };
        let subject = [
            name(PRINTABLE_STRING, &[0x55, 4, 6], b"DE"),
            name(UTF8_STRING, COMMON_NAME, b"unit"),
            name(UTF8_STRING, COMMON_NAME, "zoë".as_bytes()),
        ]
        .concat();
        assert_eq!(common_name(&subject), Some("zoë"));
        assert_eq!(common_name(&name(30, COMMON_NAME, b"\0a")), None, "a BMPString");
        assert_eq!(common_name(&name(UTF8_STRING, COMMON_NAME, b"")), None);
        assert_eq!(common_name(&name(UTF8_STRING, COMMON_NAME, b"\xff")), None);
        for end in 0..subject.len() {
            let cut = common_name(&subject[..end]);
            assert!(cut.is_none() || cut == Some("unit"), "cut off after {end}");
        }
    }
}
