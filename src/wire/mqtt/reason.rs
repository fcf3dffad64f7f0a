//! Reason codes: MQTT 5 §2.4, and the return codes of 3.1.1 they stand for.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// A reason code. Below 0x80 it tells of success.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $code,)*
        }

        impl Reason {
            /// From the wire; none for a code that the specification does not have.
            #[inline]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Every reason code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

reasons! {
    /// Success; Normal disconnection; Granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQos1 = 0x01,
    /// Granted QoS 2.
    GrantedQos2 = 0x02,
    /// Disconnect with Will Message.
    DisconnectWithWill = 0x04,
    /// No matching subscribers.
    NoMatchingSubscribers = 0x10,
    /// No subscription existed.
    NoSubscriptionExisted = 0x11,
    /// Continue authentication.
    ContinueAuthentication = 0x18,
    /// Re-authenticate.
    ReAuthenticate = 0x19,
    /// Unspecified error.
    Unspecified = 0x80,
    /// Malformed Packet.
    MalformedPacket = 0x81,
    /// Protocol Error.
    ProtocolError = 0x82,
    /// Implementation specific error.
    ImplementationSpecific = 0x83,
    /// Unsupported Protocol Version.
    UnsupportedProtocolVersion = 0x84,
    /// Client Identifier not valid.
    ClientIdentifierNotValid = 0x85,
    /// Bad User Name or Password.
    BadUserNameOrPassword = 0x86,
    /// Not authorized.
    NotAuthorized = 0x87,
    /// Server unavailable.
    ServerUnavailable = 0x88,
    /// Server busy.
    ServerBusy = 0x89,
    /// Banned.
    Banned = 0x8A,
    /// Server shutting down.
    ServerShuttingDown = 0x8B,
    /// Bad authentication method.
    BadAuthenticationMethod = 0x8C,
    /// Keep Alive timeout.
    KeepAliveTimeout = 0x8D,
    /// Session taken over.
    SessionTakenOver = 0x8E,
    /// Topic Filter invalid.
    TopicFilterInvalid = 0x8F,
    /// Topic Name invalid.
    TopicNameInvalid = 0x90,
    /// Packet Identifier in use.
    PacketIdentifierInUse = 0x91,
    /// Packet Identifier not found.
    PacketIdentifierNotFound = 0x92,
    /// Receive Maximum exceeded.
    ReceiveMaximumExceeded = 0x93,
    /// Topic Alias invalid.
    TopicAliasInvalid = 0x94,
    /// Packet too large.
    PacketTooLarge = 0x95,
    /// Message rate too high.
    MessageRateTooHigh = 0x96,
    /// Quota exceeded.
    QuotaExceeded = 0x97,
    /// Administrative action.
    AdministrativeAction = 0x98,
    /// Payload format invalid.
    PayloadFormatInvalid = 0x99,
    /// Retain not supported.
    RetainNotSupported = 0x9A,
    /// QoS not supported.
    QosNotSupported = 0x9B,
    /// Use another server.
    UseAnotherServer = 0x9C,
    /// Server moved.
    ServerMoved = 0x9D,
    /// Shared Subscriptions not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connection rate exceeded.
    ConnectionRateExceeded = 0x9F,
    /// Maximum connect time.
    MaximumConnectTime = 0xA0,
    /// Subscription Identifiers not supported.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard Subscriptions not supported.
    WildcardSubscriptionsNotSupported = 0xA2,
}

/// The packets that carry reason codes; each allows its own (§2.4 table 2-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    ConnAck,
    /// PUBACK and PUBREC.
    Received,
    /// PUBREL and PUBCOMP.
    Released,
    SubAck,
    UnsubAck,
    Disconnect,
    Auth,
}

impl Reason {
    /// The byte on the wire.
    #[inline]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it tells of a failure.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// The return code of a 3.1.1 CONNACK. None when no return code is applicable: the connection is then closed
    /// without a CONNACK `[MQTT-3.2.2-6]`.
    pub const fn to_v3_connack(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => Some(3),
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => Some(4),
            Self::NotAuthorized | Self::Banned => Some(5),
            _ => None,
        }
    }

    /// What a 3.1.1 CONNACK's return code says; none for the reserved ones.
    pub const fn from_v3_connack(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }

    /// The return code of a 3.1.1 SUBACK: every failure is 0x80.
    #[inline]
    pub const fn to_v3_suback(self) -> u8 {
        if self.is_error() { 0x80 } else { self.code() }
    }

    /// Whether a packet of this kind may carry it. One entry for each row of table 2-6.
    pub(super) const fn is_allowed_in(self, carrier: Carrier) -> bool {
        use Carrier::{Auth, ConnAck, Disconnect, Received, Released, SubAck, UnsubAck};
        match self {
            Self::Success => true,
            Self::GrantedQos1 | Self::GrantedQos2 => matches!(carrier, SubAck),
            Self::DisconnectWithWill => matches!(carrier, Disconnect),
            Self::NoMatchingSubscribers => matches!(carrier, Received),
            Self::NoSubscriptionExisted => matches!(carrier, UnsubAck),
            Self::ContinueAuthentication | Self::ReAuthenticate => matches!(carrier, Auth),
            Self::Unspecified | Self::ImplementationSpecific | Self::NotAuthorized => {
                matches!(carrier, ConnAck | Received | SubAck | UnsubAck | Disconnect)
            }
            Self::MalformedPacket
            | Self::ProtocolError
            | Self::ServerBusy
            | Self::BadAuthenticationMethod
            | Self::PacketTooLarge
            | Self::RetainNotSupported
            | Self::QosNotSupported
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => matches!(carrier, ConnAck | Disconnect),
            Self::UnsupportedProtocolVersion
            | Self::ClientIdentifierNotValid
            | Self::BadUserNameOrPassword
            | Self::ServerUnavailable
            | Self::Banned => matches!(carrier, ConnAck),
            Self::ServerShuttingDown
            | Self::KeepAliveTimeout
            | Self::SessionTakenOver
            | Self::ReceiveMaximumExceeded
            | Self::TopicAliasInvalid
            | Self::MessageRateTooHigh
            | Self::AdministrativeAction
            | Self::MaximumConnectTime => matches!(carrier, Disconnect),
            Self::TopicFilterInvalid => matches!(carrier, SubAck | UnsubAck | Disconnect),
            Self::TopicNameInvalid => matches!(carrier, ConnAck | Received | Disconnect),
            Self::PacketIdentifierInUse => matches!(carrier, Received | SubAck | UnsubAck),
            Self::PacketIdentifierNotFound => matches!(carrier, Released),
            Self::QuotaExceeded => matches!(carrier, ConnAck | Received | SubAck | Disconnect),
            Self::PayloadFormatInvalid => matches!(carrier, ConnAck | Received | Disconnect),
            Self::SharedSubscriptionsNotSupported
            | Self::SubscriptionIdentifiersNotSupported
            | Self::WildcardSubscriptionsNotSupported => matches!(carrier, SubAck | Disconnect),
        }
    }

    /// A code that this packet may carry.
    #[inline]
    pub(super) const fn decode(code: u8, carrier: Carrier) -> Result<Self, super::DecodeError> {
        match Self::from_code(code) {
            Some(reason) if reason.is_allowed_in(carrier) => Ok(reason),
            _ => Err(super::DecodeError::Malformed("a reason code that this packet does not have")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_again_and_no_other_is() {
        let known = (0..=u8::MAX).filter_map(Reason::from_code).collect::<Vec<_>>();
        assert_eq!(known, Reason::ALL);
        assert_eq!(known.len(), 43);
        assert!(Reason::ALL.iter().all(|reason| Reason::from_code(reason.code()) == Some(*reason)));
    }

    #[test]
    fn mqtt3_3_2_2_3_return_codes_map_both_ways() {
        for code in 0..=5 {
            assert_eq!(Reason::from_v3_connack(code).and_then(Reason::to_v3_connack), Some(code));
        }
        assert_eq!(Reason::from_v3_connack(6), None);
        assert_eq!(Reason::ProtocolError.to_v3_connack(), None);
        assert_eq!(Reason::QuotaExceeded.to_v3_suback(), 0x80);
        assert_eq!(Reason::GrantedQos2.to_v3_suback(), 2);
    }

    #[test]
    fn each_packet_allows_as_many_codes_as_its_table_lists() {
        for (carrier, codes) in [
            (Carrier::ConnAck, 22),
            (Carrier::Received, 9),
            (Carrier::Released, 2),
            (Carrier::SubAck, 12),
            (Carrier::UnsubAck, 7),
            // Table 2-6 gives it 0x8C, which table 3-10 has not.
            (Carrier::Disconnect, 30),
            (Carrier::Auth, 3),
        ] {
            let allowed = Reason::ALL.iter().filter(|reason| reason.is_allowed_in(carrier)).count();
            assert_eq!(allowed, codes, "{carrier:?}");
        }
    }
}
