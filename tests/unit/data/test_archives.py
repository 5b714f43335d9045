import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from recu.data.archives import iter_members
from recu.errors import DataError

from .builders import write_folder, write_tar, write_tar_with, write_zip

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
