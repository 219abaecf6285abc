"""MkDocs hook: pages may link to files of the repository that lie outside docs/, which then belong to the site.

Results of benchmarks, model cards, SECURITY.md: what a page links to is taken in under ``repo/``, and the links lead
there. So the site needs neither a network nor the address of a repository to be read whole. A page that would fetch
anything from a network ends the build.
"""

from __future__ import annotations

import html
import posixpath
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = "repo/"
BARRED = re.compile(r"`([^`\n]*\\\|[^`\n]*)`")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")


FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>"
)


def on_config(config: Any) -> Any:
    """Lay the packages under one roof, where mkdocstrings reads them."""
    runpy.run_path(str(ROOT / "tools" / "tree.py"), run_name="__main__")
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside docs/ that a page links to, and what those link to in turn."""
    waiting = [_in_repository(f.src_uri) for f in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        for target in _links(waiting.pop()):
            if target in seen or target.startswith("docs/") or not (ROOT / target).is_file():
                continue
            seen.add(target)
            files.append(File.generated(config, OUTSIDE + target, abs_src_path=str(ROOT / target)))
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at where their targets lie in the site."""
    here = _in_repository(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        target = _target(here, found[1])
        there = _in_site(target)
        # What is not there keeps its link: a strict build then names it.
        known = (ROOT / target).is_file() and (here.startswith("docs/") is False or not target.startswith("docs/"))
        if not known:
            return found[0]
        return posixpath.relpath(there, posixpath.dirname(page.file.src_uri) or ".") + (found[2] or "")

    return BARRED.sub(_in_html, LINK.sub(moved, markdown))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that needs a network to be read."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} fetches from a network: {found[0]}")
    return output


def _in_html(found: re.Match[str]) -> str:
    """Code in a table that holds bars: the tables here keep the backslash that GitHub takes away."""
    return f"<code>{html.escape(found[1]).replace(chr(92) + '|', '&#124;')}</code>"


def _links(source: str) -> Iterator[str]:
    text = (ROOT / source).read_text("utf-8")
    return (_target(source, found[1]) for found in LINK.finditer(text))


def _target(source: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _in_repository(uri: str) -> str:
    return uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else f"docs/{uri}"


def _in_site(path: str) -> str:
    return path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE + path
