//! Writer and reader together, over rotation.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::*;

fn entries(reader: &mut Reader) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        all.push(String::from_utf8(entry.log).unwrap());
    }
    all
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("line {n}\n")).collect()
}

fn write(writer: &mut Writer, range: std::ops::Range<u32>) {
    for line in numbers(range) {
        writer.write(Stream::Stdout, line.as_bytes(), Timestamp::new(1_700_000_000, 5)).unwrap();
        if let Some(path) = writer.take_compression() {
            compress_rotated(&path).unwrap();
            writer.compressed();
        }
    }
}

fn rotation(max_size: u64, max_files: u32, compress: bool) -> Rotation {
    Rotation { max_size: Some(max_size), max_files, compress }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_rotated_log_reads_as_one() {
    for compress in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut writer = Writer::open(&path, rotation(700, 3, compress), "").unwrap();
        write(&mut writer, 0..25);
        let suffix = if compress { ".gz" } else { "" };
        let wanted = [
            "x.log".into(),
            format!("x.log.1{suffix}"),
            format!("x.log.2{suffix}"),
            "x.log.offsets".into(),
        ];
        assert_eq!(names(dir.path()), wanted);
        let mut reader = Reader::open(&path).unwrap();
        let read = entries(&mut reader);
        assert_eq!(read, numbers(25 - u32::try_from(read.len()).unwrap()..25));
        assert!(read.len() > 16);
        assert_eq!(reader.position(), writer.offset());
        assert_eq!(reader.end_offset().unwrap(), writer.offset());
        for count in [0_u32, 1, 3, 9, 17] {
            reader.tail(count as usize).unwrap();
            assert_eq!(entries(&mut reader), numbers(25 - count..25), "tail {count}");
        }
        reader.tail(1000).unwrap();
        assert_eq!(entries(&mut reader), read);
    }
}

#[test]
fn with_one_file_the_log_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let mut writer = Writer::open(&path, rotation(300, 1, true), "").unwrap();
    write(&mut writer, 0..20);
    assert_eq!(names(dir.path()), ["x.log", "x.log.offsets"]);
    drop(writer);
    let mut again = Writer::open(&path, rotation(300, 1, true), "").unwrap();
    let before = again.offset();
    write(&mut again, 20..21);
    assert!(before > 1000 && again.offset() > before, "offsets count on after a restart");
}

#[test]
fn following_survives_rotation_without_loss_or_double() {
    for (max_files, compress) in [(1, false), (2, true), (3, true), (5, false)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut writer = Writer::open(&path, rotation(400, max_files, compress), "").unwrap();
        write(&mut writer, 0..2);
        let mut reader = Reader::open(&path).unwrap();
        let mut seen = entries(&mut reader);
        for n in (2..200).step_by(3) {
            write(&mut writer, n..n + 3);
            seen.extend(entries(&mut reader));
        }
        assert_eq!(seen, numbers(0..200), "max-file {max_files}, compress {compress}");
        assert_eq!(reader.position(), writer.offset());
    }
}

#[test]
fn a_reader_of_the_present_leaves_out_what_comes_later() {
    for tail in [None, Some(2)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut writer = Writer::open(&path, rotation(400, 9, false), "").unwrap();
        write(&mut writer, 0..3);
        let mut reader = Reader::open(&path).unwrap().until_now().unwrap();
        write(&mut writer, 3..30);
        let mut first = 0;
        if let Some(count) = tail {
            reader.tail(count).unwrap();
            first = 1;
        }
        assert_eq!(entries(&mut reader), numbers(first..3));
        write(&mut writer, 30..31);
        assert_eq!(entries(&mut reader), numbers(0..0));
    }
}

#[test]
fn a_slow_follower_finds_its_place_two_rotations_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let mut writer = Writer::open(&path, rotation(400, 9, true), "").unwrap();
    write(&mut writer, 0..3);
    let mut reader = Reader::open(&path).unwrap();
    let mut seen = entries(&mut reader);
    write(&mut writer, 3..30);
    seen.extend(entries(&mut reader));
    assert_eq!(seen, numbers(0..30));
    let place = reader.position();
    write(&mut writer, 30..50);
    let mut other = Reader::open(&path).unwrap();
    other.seek(place).unwrap();
    assert_eq!(entries(&mut other), numbers(30..50));
}

#[test]
fn a_follower_on_another_thread_sees_every_line_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let mut writer = Writer::open(&path, rotation(20_000, 50, false), "").unwrap();
    let follower = {
        let path = path.clone();
        std::thread::spawn(move || {
            let mut reader = Reader::open(&path).unwrap();
            let mut seen = Vec::new();
            while seen.len() < 5000 {
                seen.extend(entries(&mut reader));
                std::thread::yield_now();
            }
            seen
        })
    };
    write(&mut writer, 0..5000);
    assert_eq!(follower.join().unwrap(), numbers(0..5000));
}

#[test]
fn a_torn_last_line_is_neither_read_nor_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    write(&mut Writer::open(&path, Rotation::default(), "").unwrap(), 0..2);
    let mut raw = fs::OpenOptions::new().append(true).open(&path).unwrap();
    raw.write_all(b"{\"log\":\"half").unwrap();
    let mut reader = Reader::open(&path).unwrap();
    assert_eq!(entries(&mut reader), numbers(0..2));
    let mut tail = Reader::open(&path).unwrap();
    tail.tail(1).unwrap();
    assert_eq!(entries(&mut tail), numbers(1..2));
    tail.tail(0).unwrap();
    let mut writer = Writer::open(&path, Rotation::default(), "").unwrap();
    write(&mut writer, 2..4);
    assert_eq!(entries(&mut reader), numbers(2..4));
    assert_eq!(entries(&mut tail), numbers(2..4));
}

#[test]
fn since_and_until_bound_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let mut writer = Writer::open(&path, Rotation::default(), "{\"tag\":\"t\"}").unwrap();
    for second in 0..10 {
        let line = format!("{second}\n");
        writer.write(Stream::Stderr, line.as_bytes(), Timestamp::new(second, 0)).unwrap();
    }
    let mut reader =
        Reader::open(&path).unwrap().since(Timestamp::new(3, 0)).until(Timestamp::new(6, 0));
    assert_eq!(entries(&mut reader), ["3\n", "4\n", "5\n", "6\n"]);
    assert!(reader.is_past_until());
    let first = Reader::open(&path).unwrap().next_entry().unwrap().unwrap();
    assert_eq!((first.stream, first.attrs["tag"].as_str()), (Stream::Stderr, "t"));
}

#[test]
fn the_streams_keep_their_unfinished_lines_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let mut writer = Writer::open(&path, Rotation::default(), "").unwrap();
    let now = Timestamp::new(7, 0);
    writer.write(Stream::Stdout, b"out ", now).unwrap();
    writer.write(Stream::Stderr, b"err\n", now).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), writer.offset());
    writer.write(Stream::Stdout, b"end\nlast", now).unwrap();
    writer.finish(Stream::Stdout, now).unwrap();
    writer.finish(Stream::Stderr, now).unwrap();
    let mut reader = Reader::open(&path).unwrap();
    assert_eq!(entries(&mut reader), ["err\n", "out end\n", "last"]);
}

fn few() -> proptest::prelude::ProptestConfig {
    let usual = proptest::prelude::ProptestConfig::default();
    proptest::prelude::ProptestConfig { cases: usual.cases / 16, ..usual }
}

proptest::proptest! {
    // Each writes files.
    #![proptest_config(few())]

    #[test]
    fn a_damaged_log_is_read_to_its_end(
        pieces in proptest::collection::vec(
            proptest::prelude::prop_oneof!["\\PC{0,20}", proptest::prelude::Just("\0\0\0".to_owned()), proptest::prelude::Just("\n".to_owned())],
            0..12,
        ),
        offset in proptest::prelude::prop_oneof![
            proptest::prelude::any::<u64>(),
            proptest::prelude::Just(u64::MAX - 7),
        ],
        rest in "[0-9 \n]{0,20}",
        count in 0_usize..5,
    ) {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut writer = Writer::open(&path, rotation(60, 3, false), "").unwrap();
        write(&mut writer, 0..2);
        drop(writer);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(pieces.concat().as_bytes()).unwrap();
        let inode = file.metadata().unwrap().ino();
        fs::write(dir.path().join("x.log.offsets"), format!("{inode} {offset}\n{rest}")).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        proptest::prop_assert!(entries(&mut reader).len() >= 2);
        reader.end_offset().unwrap();
        reader.tail(count).unwrap();
        proptest::prop_assert!(entries(&mut reader).len() <= count);
        // An offset no file has is a place nobody can go to.
        if reader.seek(offset).is_ok() {
            reader.next_entry().unwrap();
        }
        let mut writer = Writer::open(&path, rotation(60, 3, false), "").unwrap();
        write(&mut writer, 7..9);
        proptest::prop_assert!(entries(&mut Reader::open(&path).unwrap()).contains(&"line 8\n".to_owned()));
    }
}

#[test]
fn a_line_without_end_is_passed_over_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let mut writer = Writer::open(&path, Rotation::default(), "").unwrap();
    write(&mut writer, 0..1);
    // What a power cut leaves of a file: a hole.
    let file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length + (24 << 20)).unwrap();
    let mut reader = Reader::open(&path).unwrap();
    assert_eq!(entries(&mut reader), ["line 0\n"]);
    assert!(reader.buffered() <= 8 << 20, "{}", reader.buffered());
    let mut writer = Writer::open(&path, Rotation::default(), "").unwrap();
    write(&mut writer, 1..3);
    assert_eq!(entries(&mut reader), numbers(1..3));
    assert_eq!(reader.position(), reader.end_offset().unwrap());
}
