use super::*;

fn connect(bytes: &[u8]) -> Result<ConnectProperties<'_>, DecodeError> {
    ConnectProperties::decode(&mut Reader::new(bytes))
}

#[test]
fn mqtt5_2_2_2_2_a_property_is_there_once_but_user_properties_repeat() {
    assert_eq!(connect(&[6, 0x21, 0, 1, 0x21, 0, 1]), Err(TWICE));
    let twice = [14, 0x26, 0, 1, b'a', 0, 1, b'b', 0x26, 0, 1, b'a', 0, 1, b'c'];
    let user = connect(&twice).expect("user properties repeat").user;
    assert_eq!(user, UserProperties::borrowed(&[("a", "b"), ("a", "c")]));
    assert_eq!(user.iter().count(), 2);
    assert!(!user.is_empty());
}

#[test]
fn a_property_of_another_packet_is_a_protocol_error_and_an_unknown_one_malformed() {
    assert_eq!(connect(&[3, 0x23, 0, 1]), Err(NOT_HERE));
    assert_eq!(WillProperties::decode(&mut Reader::new(&[3, 0x23, 0, 1])), Err(NOT_HERE));
    for id in [0x00, 0x04, 0x0A, 0x10, 0x14, 0x1B, 0x1D, 0x20, 0x2B, 0x3F, 0x40, 0x7F] {
        assert!(matches!(connect(&[2, id, 0]), Err(DecodeError::Malformed(_))), "{id:#x}");
    }
    assert!(matches!(connect(&[3, 0x81, 0x01, 0]), Err(DecodeError::Malformed(_))));
}

#[test]
fn zero_is_refused_where_the_specification_refuses_it() {
    assert_eq!(connect(&[3, 0x21, 0, 0]), Err(ZERO));
    assert_eq!(connect(&[5, 0x27, 0, 0, 0, 0]), Err(ZERO));
    assert_eq!(SubscribeProperties::decode(&mut Reader::new(&[2, 0x0B, 0])), Err(ZERO));
    assert_eq!(PublishProperties::decode(&mut Reader::new(&[3, 0x23, 0, 0])), Err(DecodeError::TopicAlias));
    assert!(connect(&[3, 0x21, 0, 1]).is_ok());
    assert!(connect(&[5, 0x27, 0, 0, 0, 1]).is_ok());
    assert!(connect(&[3, 0x22, 0, 0]).is_ok());
}

#[test]
fn a_flag_is_zero_or_one() {
    for id in [0x17, 0x19] {
        assert!(connect(&[2, id, 0]).is_ok());
        assert!(connect(&[2, id, 1]).is_ok());
        assert!(matches!(connect(&[2, id, 2]), Err(DecodeError::Protocol(_))));
    }
    let maximum_qos = |byte| ConnAckProperties::decode(&mut Reader::new(&[2, 0x24, byte])).map(|p| p.maximum_qos);
    assert_eq!(maximum_qos(1), Ok(Some(Qos::AtLeastOnce)));
    assert!(matches!(maximum_qos(2), Err(DecodeError::Protocol(_))));
}

#[test]
fn a_section_that_is_longer_or_shorter_than_its_properties_is_malformed() {
    for bytes in [&[][..], &[1], &[2, 0x21, 0, 1], &[4, 0x21, 0, 1], &[4, 0x21, 0, 1, 0x21], &[0x80, 0x00]] {
        assert!(matches!(connect(bytes), Err(DecodeError::Malformed(_))), "{bytes:x?}");
    }
}

#[test]
fn mqtt5_3_3_2_3_8_publish_has_many_subscription_identifiers_and_subscribe_one() {
    let bytes = [7, 0x0B, 1, 0x0B, 0xFF, 0xFF, 0xFF, 0x7F];
    let ids = PublishProperties::decode(&mut Reader::new(&bytes)).expect("two identifiers").subscription_ids;
    assert_eq!(ids.iter().map(SubscriptionId::get).collect::<Vec<_>>(), [1, VARINT_MAX]);
    assert_eq!(SubscribeProperties::decode(&mut Reader::new(&bytes)), Err(TWICE));
}

#[test]
fn a_subscription_identifier_is_from_one_to_the_largest_varint() {
    for (value, fits) in [(0, false), (1, true), (VARINT_MAX - 1, true), (VARINT_MAX, true), (VARINT_MAX + 1, false)] {
        assert_eq!(SubscriptionId::new(value).is_some(), fits);
    }
}
