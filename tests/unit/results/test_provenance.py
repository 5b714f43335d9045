"""Code, environment and device of a result."""

import json
import shutil
import subprocess
import sys

import pytest

from recu import __version__
from recu.base.errors import Interrupted
from recu.experiment import paths
from recu.results import provenance
from recu.results.records import Provenance, as_record


@pytest.fixture
def checkout(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "checkout"
    folder.mkdir()
    run(folder, "init", "--quiet")
    (folder / "a.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("results/\n")
    run(folder, "add", ".")
    run(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "first")
    return folder


def run(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def test_collect_is_json_and_names_device_and_versions():
    found = provenance.collect("cpu (2 threads)")
    assert as_record(json.loads(json.dumps(found.as_plain())), Provenance) == found
    assert found.device == "cpu (2 threads)"
    assert found.packages["recu"] == __version__
    assert found.packages["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found.packages["torch"]


@pytest.fixture(scope="module", params=["first", "second"])
def held_before(request: pytest.FixtureRequest) -> int:
    """What a fixture of a module, which is made before those of a test, finds."""
    return provenance.code_at_start.cache_info().currsize


def test_a_test_leaves_no_hash_of_its_code_to_the_next_module(held_before):
    assert held_before == 0
    provenance.code_at_start()


def test_code_that_changes_after_a_job_began_has_no_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROJECT_DIR", tmp_path)
    file = tmp_path / "recu" / "a.py"
    file.parent.mkdir()
    file.write_text("x = 1\n")
    before = provenance.code_at_start()
    assert provenance.collect("cpu").code_hash == before
    file.write_text("x = 2\n")
    with pytest.raises(Interrupted, match=r"has changed since this job began.*run the same command again"):
        provenance.collect("cpu")
    file.write_text("x = 1\n")
    assert provenance.collect("cpu").code_hash == before


def test_missing_package_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "_PACKAGES", ("no-such-distribution",))
    assert provenance.package_versions()["no-such-distribution"] is None


def test_git_state_of_a_clean_and_a_changed_checkout(checkout):
    commit, dirty = provenance.git_state(checkout)
    assert len(commit) == 40 and dirty is False
    (checkout / "results").mkdir()
    (checkout / "results" / "ignored").touch()
    assert provenance.git_state(checkout) == (commit, False)
    (checkout / "a.py").write_text("x = 2\n")
    assert provenance.git_state(checkout) == (commit, True)


def test_new_files_are_seen_whatever_git_is_configured_to_show(checkout):
    run(checkout, "config", "status.showUntrackedFiles", "no")
    (checkout / "b.py").write_text("x = 1\n")
    assert provenance.git_state(checkout)[1] is True


def test_a_worktree_and_a_submodule_have_their_own_commits(checkout, tmp_path):
    commit, _ = provenance.git_state(checkout)
    run(checkout, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"))
    assert provenance.git_state(tmp_path / "tree") == (commit, False)
    outer = tmp_path / "outer"
    outer.mkdir()
    run(outer, "init", "--quiet")
    run(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(checkout), "inner")
    assert provenance.git_state(outer / "inner") == (commit, False)


def test_variables_of_git_name_no_other_repository(checkout, tmp_path, monkeypatch):
    commit, _ = provenance.git_state(checkout)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert provenance.git_state(checkout) == (commit, False)


def test_a_bare_repository_is_no_checkout(checkout, tmp_path):
    run(checkout, "clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    assert provenance.git_state(tmp_path / "bare") == (None, None)


def test_a_folder_inside_another_checkout_is_not_given_its_commit(checkout):
    inner = checkout / "inner"
    inner.mkdir()
    assert provenance.git_state(inner) == (None, None)


def test_without_git_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(tmp_path) == (None, None)


def test_code_hash_follows_content_and_name_but_not_caches(tmp_path):
    (tmp_path / "a.py").write_text("1")
    first = provenance.code_hash(tmp_path)
    (tmp_path / "a.pyc").write_text("compiled")
    assert provenance.code_hash(tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    changed = provenance.code_hash(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, changed, provenance.code_hash(tmp_path)}) == 3


def test_code_hash_does_not_see_what_editors_leave(tmp_path):
    (tmp_path / "a.py").write_text("1")
    first = provenance.code_hash(tmp_path)
    (tmp_path / ".#a.py").symlink_to("user@host.1")
    (tmp_path / ".a.py").write_text("2")
    assert provenance.code_hash(tmp_path) == first


def test_everything_in_the_package_that_is_no_python_only_renders():
    ours = {file.suffix for file in (paths.PROJECT_DIR / "recu").rglob("*") if file.is_file()}
    assert ours <= {".py", ".pyc", ".j2"} | {".nbi", ".nbc"}, "the code hash does not cover it"


def test_environment_hash_is_stable_and_follows_versions(monkeypatch):
    first = provenance.environment_hash()
    assert provenance.environment_hash() == first
    monkeypatch.setattr(provenance.platform, "python_version", lambda: "3.99.0")
    provenance.environment_hash.cache_clear()  # read once a process
    assert provenance.environment_hash() != first
    provenance.environment_hash.cache_clear()


def test_importing_it_imports_nothing_heavy():
    code = "import sys, recu.results.provenance; print([m for m in ('torch', 'numpy', 'mlflow') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_what_computes_is_other_with_other_loops_or_another_pytorch_and_not_with_other_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROJECT_DIR", tmp_path)
    for part in ("kernels", "report"):
        (tmp_path / "recu" / part).mkdir(parents=True)
        (tmp_path / "recu" / part / "a.py").write_text("x = 1\n")
    before = provenance.what_computes()
    (tmp_path / "recu/report/a.py").write_text("x = 2\n")
    assert provenance.what_computes() == before
    versions = provenance.package_versions()
    monkeypatch.setattr(provenance, "package_versions", lambda: versions | {"torch": "9.9"})
    assert provenance.what_computes() != before
    monkeypatch.setattr(provenance, "package_versions", lambda: versions | {"mlflow": "9.9"})
    assert provenance.what_computes() == before
    (tmp_path / "recu/kernels/a.py").write_text("x = 2\n")
    assert provenance.what_computes() != before
