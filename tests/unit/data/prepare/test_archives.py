import gzip
import io
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from recu.base.errors import DataError
from recu.data.prepare.archives import iter_members
from tests.unit.data.builders import write_folder, write_tar, write_tar_with, write_zip

FILES = {"a/one.txt": b"1" * 2000, "a/two.txt": b"2" * 3000, "b/three.bin": b"3"}


def contents(source: Path) -> dict[str, bytes]:
    members = iter_members(source, lambda name: name.endswith(".txt"))
    return {member.name: member.data for member in members if not member.is_folder}


@pytest.mark.parametrize("form", ["folder", "tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_all_forms_give_the_same_files_and_read_only_what_is_wanted(tmp_path: Path, form: str):
    path = tmp_path / f"x.{form}"
    if form == "folder":
        write_folder(path, FILES)
    elif form == "zip":
        write_zip(path, FILES)
    else:
        write_tar(path, FILES, "w" + form[3:].replace(".", ":"))
    assert contents(path) == {**FILES, "b/three.bin": b""}


def test_leading_dot_slash_is_dropped(tmp_path: Path):
    assert set(contents(write_tar(tmp_path / "x.tar", {"./a/b.txt": b"1"}))) == {"a/b.txt"}


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside", "..\\outside"])
@pytest.mark.parametrize("writer", [write_tar, write_zip])
def test_paths_that_leave_the_archive_are_refused(tmp_path: Path, name: str, writer):
    with pytest.raises(DataError, match=r"unsafe member.*leaves the archive"):
        contents(writer(tmp_path / "x", {name: b"1"}))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, text: str):
    info = tarfile.TarInfo("a/x.txt")
    info.type, info.linkname = kind, "target"
    with pytest.raises(DataError, match=f"unsafe member 'a/x.txt': it is {text}"):
        contents(write_tar_with(tmp_path / "x.tar", info))


def test_links_in_zips_are_refused(tmp_path: Path):
    info = zipfile.ZipInfo("link.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="it is a link"):
        contents(tmp_path / "x.zip")


def test_absurd_sizes_are_refused_before_reading(tmp_path: Path):
    header = tarfile.TarInfo("a/x.txt")
    header.size = 1 << 40
    path = tmp_path / "x.tar"
    path.write_bytes(header.tobuf() + b"\0" * 10240)
    with pytest.raises(DataError, match="1099511627776 bytes"):
        contents(path)


def test_missing_source_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        contents(tmp_path / "nothing.tar")


@pytest.mark.parametrize("data", [b"", b"not an archive at all" * 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with pytest.raises(DataError, match="neither a tar nor a zip"):
        contents(path)


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97])
def test_truncation_anywhere_is_noticed(tmp_path: Path, form: str, share: float):
    files = {f"a/{number}.txt": bytes([number]) * 700 + str(number).encode() * 50 for number in range(60)}
    path = tmp_path / f"x.{form}"
    write_zip(path, files) if form == "zip" else write_tar(path, files, "w" + form[3:].replace(".", ":"))
    if form == "tar":  # without the padding at its end
        path.write_bytes(path.read_bytes()[: 60 * 1536 + 1024])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"truncated or damaged|neither a tar nor a zip"):
        contents(path)


def test_a_tar_cut_between_two_members_is_noticed(tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", {f"{number}.txt": b"1" * 512 for number in range(4)})
    path.write_bytes(path.read_bytes()[: 3 * 1024])
    with pytest.raises(DataError, match="end mark is missing"):
        contents(path)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_tar_after_the_end_of_another_is_noticed(tmp_path: Path, compress):
    """`cat a.tar b.tar > both.tar`: who reads to the first end mark sees half of the images."""
    first, second = (write_tar(tmp_path / name, {f"{name}/x.txt": b"1"}).read_bytes() for name in "ab")
    (tmp_path / "both.tar").write_bytes(compress(first) + compress(second))
    with pytest.raises(DataError, match="several tar archives one after the other; unpack each"):
        list(iter_members(tmp_path / "both.tar", lambda _: True))


def test_flipped_bits_in_a_gzip_are_noticed(tmp_path: Path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("a.txt")
        info.size = 5000
        tar.addfile(info, io.BytesIO(b"x" * 5000))
    data = bytearray(gzip.compress(stream.getvalue(), compresslevel=0))
    data[3000] ^= 1
    path = tmp_path / "x.tar.gz"
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="truncated or damaged"):
        contents(path)


def test_flipped_bits_in_a_zip_are_noticed(tmp_path: Path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.txt", b"x" * 5000)
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="truncated or damaged"):
        contents(path)


def test_a_folder_linked_into_itself_is_refused(tmp_path: Path):
    root = write_folder(tmp_path / "data", FILES)
    (root / "a" / "loop").symlink_to(root)
    with pytest.raises(DataError, match="links back"):
        contents(root)


def test_headers_that_would_fill_the_memory_are_refused(tmp_path: Path):
    path = tmp_path / "x.tar.gz"
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        header = tarfile.TarInfo("x")
        header.type, header.size = kind, 50 << 20
        path.write_bytes(gzip.compress(header.tobuf() + bytes(50 << 20)))
        with pytest.raises(DataError, match=r"truncated or damaged \(a header claims 52428800 bytes\)|neither a tar"):
            contents(path)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("x.tar.gz", gzip.compress(b"one text file", mtime=0), "it is a text file .* compressed with gzip"),
        ("x.tar", b"7z\xbc\xaf\x27\x1c" + bytes(600), "it is a 7z archive; give a folder, tar or zip"),
        ("x.zip", b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        ("x.tar.gz", b"\x1f\x8b" + b"0" * 100, r"truncated or damaged \(it is a damaged gzip file\); fetch it again"),
    ],
)
def test_what_is_no_archive_is_named_by_what_it_is(tmp_path: Path, name: str, content: bytes, text: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text):
        contents(tmp_path / name)


def test_a_zip_that_says_less_than_it_holds_is_noticed(tmp_path: Path):
    path = write_zip(tmp_path / "x.zip", {"a.txt": bytes(100_000)})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        position = data.index(mark) + offset
        data[position : position + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"truncated or damaged"):
        contents(path)


def test_a_sparse_member_counts_with_the_size_it_stands_for(tmp_path: Path):
    source = tmp_path / "big.txt"
    with source.open("wb") as stream:
        stream.truncate(300 << 20)
    subprocess.run(["tar", "--sparse", "-cf", "x.tar", "big.txt"], cwd=tmp_path, check=True)
    assert (tmp_path / "x.tar").stat().st_size < 20_000
    with pytest.raises(DataError, match=r"big\.txt' of 314572800 bytes, more than"):
        contents(tmp_path / "x.tar")


@pytest.mark.parametrize("writer", [write_tar, write_zip])
def test_the_separator_of_windows_is_read(tmp_path: Path, writer):
    assert contents(writer(tmp_path / "x", {"a\\b.txt": b"1"})) == {"a/b.txt": b"1"}


def test_a_tar_that_mixes_both_separators_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"mixes / and backslashes; rename it and pack again"):
        contents(write_tar(tmp_path / "x.tar", {"a/b\\c.txt": b"1"}))
