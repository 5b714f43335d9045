"""docs/architecture.md lists every file, and whatever the pages name exists."""

import pkgutil
import re

import pytest

from recu.experiment.paths import PROJECT_DIR
from tests import architecture

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "params/*.yaml", "params/suites/*.yaml")
    for page in PROJECT_DIR.glob(pattern)
)
EXAMPLES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def test_the_list_of_files_is_up_to_date():
    assert architecture.PAGE.read_text() == architecture.page(), "run: .venv/bin/python -m tests.architecture"


def exists(name: str) -> bool:
    """A module or what is in it, or a name that the package gives to others, as a tag."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return any(f'"{name}"' in file.read_text() for file in (PROJECT_DIR / "recu").rglob("*.py"))
    return True


def test_links_between_pages_lead_somewhere():
    dead = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
            file = page.parent / target if target else page
            headings = (
                re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
                if file.suffix == ".md" and file.exists()
                else []
            )
            if not file.exists() or (anchor and anchor not in map(anchor_of, headings)):
                dead.append(f"{page.name}: {target}#{anchor}")
    assert dead == []


def anchor_of(heading: str) -> str:
    """As code hosts make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_DIR)))
def test_paths_and_names_exist(page):
    text = page.read_text()
    made_here = set(re.findall(r"^```python\n# (\S+)$", text, re.MULTILINE))
    paths = set(re.findall(r"(?<![\w/.~-])(?:recu|tests|benchmarks|workflow)/[\w./-]*\w", text)) - made_here
    assert [path for path in paths if not (PROJECT_DIR / path.partition("/__pycache__")[0]).exists()] == []
    names = set(re.findall(r"(?<![\w/.~-])recu(?:\.(?!py\b)[A-Za-z_]\w*)+", EXAMPLES.sub("", text)))
    assert [name for name in names if not exists(name)] == []
