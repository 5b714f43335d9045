"""Archives: what is in them, or one readable line; never a path outside, never a part taken for the whole."""

import contextlib
import io
import pickle
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from recu.base.errors import DataError
from recu.data.manifest import MANIFEST_NAME, read_manifest
from recu.data.prepare.archives import iter_members
from recu.data.prepare.cifar import safe_unpickle
from recu.data.prepare.preparation import prepare
from recu.experiment.params import load_datasets
from tests.fuzz.mutation import mutated

FORMS = ("tar", "tar.gz", "tar.xz", "zip")


def _pack(folder: Path, form: str) -> bytes:
    """The tiny images as an archive."""
    buffer = io.BytesIO()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if form == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{form.partition('.')[2]}") as archive:
            for file in files:
                archive.add(file, str(file.relative_to(folder)))
    return buffer.getvalue()


def _members(file: Path):
    """What the archive holds, or None where it was refused in one line."""
    try:
        return [(member.name, member.data) for member in iter_members(file, lambda name: True)]
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("no_code_runs")
def test_a_mutated_archive_holds_the_same_or_is_refused(tmp_path, tiny_project, form):
    whole = _pack(tiny_project / "images" / "test", form)
    file = tmp_path / "archive"
    file.write_bytes(whole)
    content = _members(file)

    @given(mutated(whole, most=2))
    def check(data):
        file.write_bytes(data)
        found = _members(file)
        if form == "tar":  # only its headers have checksums
            assert found is None or all(_is_safe(name) for name, _ in found)
        else:
            assert found is None or found == content

    check()


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_a_mutated_archive_is_prepared_whole_or_not_at_all(tmp_path, tiny_project, form):
    dataset = load_datasets(tiny_project / "params")["tiny"]
    whole = _pack(tiny_project / "images", form)
    file = tmp_path / "archive"
    file.write_bytes(whole)
    fingerprint = prepare("tiny", dataset, folder=tmp_path / "whole", source=file, workers=0).manifest.fingerprint

    @settings(max_examples=40)
    @given(mutated(whole, most=1))
    def check(data):
        file.write_bytes(data)
        folder = tmp_path / "data"
        try:
            prepare("tiny", dataset, folder=folder, source=file, workers=0)
        except DataError as error:
            assert "\n" not in str(error)
            assert not (folder / MANIFEST_NAME).exists()
        else:
            assert read_manifest(folder).fingerprint == fingerprint
        shutil.rmtree(folder, ignore_errors=True)

    check()


names = st.lists(
    st.sampled_from(["..", ".", "", "train", "class0", "a.png", "~", "C:", "\\", "..\\..", "x" * 120, "é", " "])
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
).map("/".join)


def test_a_damaged_name_in_a_zip_does_not_make_an_image_disappear(tmp_path, tiny_project):
    dataset = load_datasets(tiny_project / "params")["tiny"]
    data = bytearray(_pack(tiny_project / "images", "zip"))
    # The last mention of a name is the one in the archive's directory; the other one stands beside the content.
    data[data.rindex(b"train/class0/3.png") + 1] ^= 1
    (tmp_path / "archive.zip").write_bytes(data)
    with pytest.raises(DataError, match="differ"):
        prepare("tiny", dataset, folder=tmp_path / "data", source=tmp_path / "archive.zip", workers=0)


TAR_KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
ZIP_KINDS = (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO)


@given(names, st.sampled_from(TAR_KINDS), st.binary(max_size=20))
@example("../../outside", tarfile.REGTYPE, b"x")
@example("/etc/passwd", tarfile.REGTYPE, b"x")
@example("inside", tarfile.SYMTYPE, b"")
def test_any_member_of_a_tar_is_safe_or_refused(tmp_path, name, kind, data):
    file = tmp_path / "archive.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(data) if info.size else None)
    found = _members(file)
    if found is None:
        return
    assert kind in (tarfile.REGTYPE, tarfile.DIRTYPE)
    assert all(_is_safe(inner) for inner, _ in found)


@given(names, st.sampled_from(ZIP_KINDS), st.binary(max_size=20))
@example("../outside", stat.S_IFREG, b"x")
def test_any_member_of_a_zip_is_safe_or_refused(tmp_path, name, mode, data):
    assume(name.strip("/"))
    file = tmp_path / "archive.zip"
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode | 0o644) << 16
        archive.writestr(info, data)
    found = _members(file)
    if found is None:
        return
    assert mode in (0, stat.S_IFREG, stat.S_IFDIR)
    assert all(_is_safe(inner) for inner, _ in found)


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_an_absurd_size_is_refused_before_anything_is_read(tmp_path, form):
    file = tmp_path / "archive"
    if form == "tar":
        info = tarfile.TarInfo("train/class0/a.png")
        info.size = 1 << 50
        file.write_bytes(info.tobuf() + b"\0" * 1024)
    else:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("train/a.png", "w") as stream:
            for _ in range(300):
                stream.write(b"\0" * (1 << 20))  # 300 MB in 300 KB
    with pytest.raises(DataError, match=r"more than the|truncated or damaged"):
        list(iter_members(file, lambda name: True))


@pytest.mark.usefixtures("no_code_runs")
@given(st.binary(max_size=120) | mutated(b"\x80\x02}q\x00(U\x04dataq\x01]q\x02K\x01aU\x06labelsq\x03]q\x04K\x02au."))
@example(b"cos\nsystem\n(S'touch ran'\ntR.")
@example(b"cbuiltins\neval\n(S'1'\ntR.")
@example(b"cnumpy\nload\n(S'x'\ntR.")
def test_a_batch_of_cifar_never_runs_anything(content):
    with contextlib.suppress(pickle.UnpicklingError):
        safe_unpickle(content)


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name
