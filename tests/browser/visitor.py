"""A person at a browser, as far as tests need one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit


class Look(NamedTuple):
    """How a page is seen."""

    name: str
    width: int
    colours: str = "light"
    medium: str = "screen"


PAPER = 979
"""The width, in pixels, of a page of US Letter on its side within margins of a centimetre; A4 is wider."""
LOOKS = (
    Look("desktop", 1440),
    Look("desktop, dark", 1440, "dark"),
    Look("phone", 390),
    Look("phone, dark", 390, "dark"),
    Look("print", PAPER, medium="print"),
)
SCREENS = [look for look in LOOKS if look.medium == "screen"]

_BEYOND = """() => [...document.querySelectorAll("body *")]
  .filter(each => each.checkVisibility() && each.getBoundingClientRect().right > innerWidth + 1)
  .filter(each => {
    for (let above = each.parentElement; above; above = above.parentElement)
      if (getComputedStyle(above).overflowX !== "visible" && above !== document.body) return false;
    return true;
  }).map(each => `${each.tagName} ${each.className} ${each.textContent.trim().slice(0, 40)}`)"""


class Visitor:
    """Opens pages and notes what they ask of other machines, and their errors."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._pages: dict[str, Any] = {}
        self.asked_elsewhere: list[str] = []
        self.errors: list[str] = []

    def _page(self, colours: str) -> Any:
        # A tab for each: pages may ask only once which colours are wanted.
        if colours not in self._pages:
            page = self._browser.new_context(color_scheme=colours).new_page()
            page.on("request", lambda request: self._note(request.url))
            page.on("pageerror", lambda error: self.errors.append(str(error)))
            self._pages[colours] = page
        return self._pages[colours]

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("file", "data", "blob") and parts.hostname != "127.0.0.1":
            self.asked_elsewhere.append(url)

    def open(self, address: str | Path, look: Look) -> Any:
        """A file or an address, unless it is open already, in a look."""
        page, wanted = self._page(look.colours), address.as_uri() if isinstance(address, Path) else address
        page.set_viewport_size({"width": look.width, "height": 900})
        page.emulate_media(media=look.medium)
        if page.url != wanted:
            page.goto(wanted)
        return page

    def leave(self) -> None:
        """Close the tabs."""
        for page in self._pages.values():
            page.context.close()


def wider_than_the_window(page: Any) -> list[str]:
    """What makes a page scroll sideways; empty where it does not."""
    width = page.evaluate("() => [document.scrollingElement.scrollWidth, innerWidth]")
    return [f"{width[0]} of {width[1]} pixels", *page.evaluate(_BEYOND)] if width[0] > width[1] else []


def unreadable(page: Any, *tags: str) -> list[str]:
    """What axe-core finds against its rules with these tags; by default, against that of contrast."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_function("() => document.getAnimations().every(each => each.playState !== 'running')")
    only = {"type": "tag", "values": tags} if tags else {"type": "rule", "values": ["color-contrast"]}
    found = Axe().run(page, options={"runOnly": only, "resultTypes": ["violations"]}).response["violations"]
    return [f"{rule['id']}: {node['html'][:100]}" for rule in found for node in rule["nodes"]]


def dead_links(page: Any, root: Path) -> list[str]:
    """Links to files that are not there, or to nothing on a page, or out of a folder; and images that do not show."""
    addresses = page.evaluate('() => [...document.querySelectorAll("a[href]")].map(each => each.href)')
    dead = [address for address in dict.fromkeys(addresses) if not _leads_somewhere(address, root)]
    return dead + page.evaluate("() => [...document.images].filter(each => !each.naturalWidth).map(each => each.src)")


def _leads_somewhere(address: str, root: Path) -> bool:
    if urlsplit(address).scheme != "file":
        return urlsplit(address).scheme == "https"  # a person may follow it; nothing here does
    plain, anchor = urldefrag(address)
    file = Path(unquote(urlsplit(plain).path))
    if not file.is_file() or not file.is_relative_to(root):
        return False
    return not anchor or f'id="{unquote(anchor)}"' in file.read_text(encoding="utf-8")
