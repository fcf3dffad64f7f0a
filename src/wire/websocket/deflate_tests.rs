use super::super::frame::decode_agreed_head;
use super::*;
use proptest::prelude::*;

fn unpacked(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Unpacked> {
    let mut into = vec![0xAA; bytes_max + 1];
    match Inflater::default().inflate(packed, &mut into) {
        Unpacked::Whole(bytes) if bytes <= bytes_max => Ok(into[..bytes].to_vec()),
        Unpacked::Whole(_) => Err(Unpacked::NoRoom),
        other => Err(other),
    }
}

/// What is in the one frame that was made of a message.
fn packed(deflater: &mut Deflater, message: &[u8]) -> Option<Vec<u8>> {
    let mut framed = b"before".to_vec();
    if !deflater.deflate(Opcode::Binary, message, &mut framed) {
        assert_eq!(framed, b"before", "nothing is appended");
        return None;
    }
    let frame = framed.strip_prefix(b"before").expect("it is appended");
    let head = decode_agreed_head(frame, true).expect("well formed").expect("whole");
    assert!(head.fin && head.packed && head.mask.is_none());
    assert_eq!(head.payload as usize, frame.len() - head.bytes);
    Some(frame[head.bytes..].to_vec())
}

#[test]
fn rfc7692_7_2_3_the_examples_are_unpacked_as_the_standard_says() {
    for example in [
        // §7.2.3.1, one block; §7.2.3.3, one without compression; §7.2.3.4, one that says it is the last;
        // §7.2.3.5, two.
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        // As the third, without the byte that should follow.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(unpacked(example, 100), Ok(b"Hello".to_vec()), "{example:x?}");
        assert_eq!(unpacked(example, 5), Ok(b"Hello".to_vec()));
        assert_eq!(unpacked(example, 4), Err(Unpacked::NoRoom));
    }
    // §7.2.3.6: an empty message.
    assert_eq!(unpacked(&[0x00], 100), Ok(Vec::new()));
}

#[test]
fn rfc7692_7_2_3_2_what_refers_to_an_earlier_message_is_broken() {
    let mut inflater = Inflater::default();
    let mut into = [0; 100];
    let first = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflater.inflate(&first, &mut into), Unpacked::Whole(5));
    assert_eq!(inflater.inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00], &mut into), Unpacked::Broken);
    assert_eq!(inflater.inflate(&first, &mut into), Unpacked::Whole(5));
    assert_eq!((inflater.totals.messages, inflater.totals.bytes, inflater.totals.bytes_packed), (2, 10, 14));
}

#[test]
fn what_is_cut_off_or_none_is_broken() {
    let whole = packed(&mut Deflater::default(), &b"kittiwake ".repeat(40)).expect("it becomes smaller");
    for end in 0..whole.len() {
        assert_eq!(unpacked(&whole[..end], 1_000), Err(Unpacked::Broken), "{end}");
    }
    for broken in [&[0xFF; 8][..], &[0x06], &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48]] {
        assert_eq!(unpacked(broken, 1_000), Err(Unpacked::Broken), "{broken:x?}");
    }
}

#[test]
fn a_bomb_stops_at_the_bound() {
    let bomb = packed(&mut Deflater::default(), &vec![0; 1 << 20]).expect("it becomes smaller");
    assert!(bomb.len() < 8_000, "{}", bomb.len());
    assert_eq!(unpacked(&bomb, (1 << 20) - 1), Err(Unpacked::NoRoom));
    assert_eq!(unpacked(&bomb, 1 << 20).map(|message| message.len()), Ok(1 << 20));
    assert_eq!(unpacked(&bomb, (1 << 20) + 1).map(|message| message.len()), Ok(1 << 20));
}

#[test]
fn the_windows_of_two_blocks_of_a_message_are_one_whichever_says_that_it_is_the_last() {
    // "Hello" in a last block, then a block that repeats its five bytes.
    let first = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0x02, 0x13, 0x00, 0x00];
    let message = [&first[..], &again].concat();
    assert_eq!(unpacked(&message, 100), Ok(b"HelloHello".to_vec()));
    assert_eq!(unpacked(&again, 100), Err(Unpacked::Broken), "alone it refers to nothing");
}

#[test]
fn what_does_not_become_smaller_is_not_packed() {
    let mut deflater = Deflater::default();
    let mut random = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    })
    .take(70_000)
    .collect();
    for message in [&b""[..], b"a", b"abc", &noise] {
        assert!(packed(&mut deflater, message).is_none(), "{} bytes", message.len());
    }
    let message = b"what came before does not show ".repeat(20);
    let after = packed(&mut deflater, &message).expect("it becomes smaller");
    assert_eq!(Some(&after), packed(&mut Deflater::default(), &message).as_ref());
    assert_eq!(unpacked(&after, 1_000), Ok(message));
}

#[test]
fn a_message_is_packed_for_windows_that_hold_all_of_it() {
    for (bytes, bits, fits) in [
        (256, 8, true),
        (257, 8, false),
        (16_384, 14, true),
        (16_385, 14, false),
        (32_769, WINDOW_BITS_MAX, true),
        (0, 8, true),
    ] {
        assert_eq!(fits_window(bytes, bits), fits, "{bytes} in {bits} bits");
    }
}

/// Something that is neither noise nor all one thing.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let words = proptest::collection::vec(prop_oneof!["[a-z]{1,9} ", Just("\"offset\":17,".to_owned())], 0..60);
    (words, 1usize..80, proptest::collection::vec(any::<u8>(), 0..60)).prop_map(|(words, times, noise)| {
        let mut message = words.concat().repeat(times).into_bytes();
        message.extend(noise);
        message
    })
}

proptest! {
    #[test]
    fn what_was_packed_is_unpacked_whatever_came_before(messages in proptest::collection::vec(message(), 1..6)) {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        for message in messages {
            let Some(packed) = packed(&mut deflater, &message) else { continue };
            prop_assert!(packed.len() < message.len());
            let mut into = vec![0; message.len() + 1];
            prop_assert_eq!(inflater.inflate(&packed, &mut into), Unpacked::Whole(message.len()));
            prop_assert_eq!(&into[..message.len()], &message);
            if !message.is_empty() {
                prop_assert_eq!(inflater.inflate(&packed, &mut into[..message.len() - 1]), Unpacked::NoRoom);
            }
        }
    }

    #[test]
    fn any_bytes_are_unpacked_within_bounds_or_refused(packed in proptest::collection::vec(any::<u8>(), 0..200), room in 0usize..600) {
        let mut into = vec![0xAA; room + 8];
        let verdict = Inflater::default().inflate(&packed, &mut into[..room]);
        prop_assert!(into[room..].iter().all(|&byte| byte == 0xAA));
        if let Unpacked::Whole(bytes) = verdict {
            prop_assert!(bytes <= room);
        }
    }
}
