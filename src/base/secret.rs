//! What somebody shows to prove who they are. It is passed on and looked at, and never printed.

use core::fmt;

/// Bytes that no log line and no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// They.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_kept_and_not_printed() {
        let secret = Secret::from("correct horse");
        assert_eq!(secret.bytes(), b"correct horse");
        assert!(!format!("{secret:?}").contains("horse"));
    }
}
