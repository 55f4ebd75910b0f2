"""Prose paragraphs from the manuals that Debian packages install.

Only permissively licensed manuals are read (see `SOURCES`). Paragraphs keep the words of
inline code, lose every other markup, and are dropped when they read like code, tables or lists.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

DOC_ROOT = Path("/usr/share/doc")

SHORTEST = 100
"""Characters: shorter paragraphs are mostly captions and links."""

LONGEST = 2400
"""Characters: longer ones are mostly run-together tables."""

LEAST_PROSE = 0.93
"""Share of letters, spaces and plain punctuation below which a paragraph counts as code."""


@dataclass(frozen=True, slots=True)
class Source:
    """One manual: the Debian package, the folder of HTML under `/usr/share/doc`, its licence."""

    package: str
    folder: str
    licence: str
    skip: str
    """Regular expression of relative paths that hold no prose (indexes, change lists)."""


SOURCES = (
    Source("python3.11-doc", "python3.11/html", "PSF-2.0", r"_sources|genindex|whatsnew/changelog"),
    Source("postgresql-doc-15", "postgresql-doc-15/html", "PostgreSQL", r"^release|bookindex"),
    Source("python-django-doc", "python-django-doc/html", "BSD-3-Clause", r"_modules|genindex"),
    Source("sqlite3-doc", "sqlite3", "public domain", r"releaselog|changes|syntax/"),
)

_PLAIN = re.compile(r"[A-Za-z ,.;:'()\-]")
_STRAIGHT = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "¶": None, "\xa0": " ", "…": "..."}
)


class _Paragraphs(HTMLParser):
    """Collects the text of `<p>` elements outside tables, scripts and preformatted blocks."""

    _MUTE = frozenset({"pre", "script", "style", "table", "nav", "head"})
    _BLOCK = frozenset({"p", "div", "dt", "dd", "li", "ul", "ol", "dl", "section", "blockquote"})
    _HEADING = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._mute = 0
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._MUTE:
            self._flush()
            self._mute += 1
        elif tag in self._BLOCK or tag in self._HEADING:
            self._flush()
            if tag == "p" and not self._mute:
                self._text = []

    def handle_endtag(self, tag: str) -> None:
        if tag in self._MUTE:
            self._mute = max(0, self._mute - 1)
        elif tag in self._BLOCK:
            self._flush()

    def handle_data(self, data: str) -> None:
        if self._text is not None and not self._mute:
            self._text.append(data)

    def _flush(self) -> None:
        if self._text is not None:
            self.found.append("".join(self._text))
            self._text = None


def is_prose(text: str) -> bool:
    """Whether a paragraph reads as English sentences rather than code, a list or a heading."""
    return (
        SHORTEST <= len(text) <= LONGEST
        and text.isascii()
        and text[0].isupper()
        and text[-1] in ".!?:"
        and len(_PLAIN.findall(text)) / len(text) >= LEAST_PROSE
        and text.count(".") <= len(text) / 25
        and " the " in f" {text.lower()} "
    )


def paragraphs(source: Source) -> Iterator[str]:
    """Paragraphs of one manual, files in sorted order, repeats left in.

    Raises `FileNotFoundError` naming the package to install when the manual is not there.
    """
    folder = DOC_ROOT / source.folder
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: apt-get install {source.package}")
    skip = re.compile(source.skip)
    for path in sorted(folder.rglob("*.html")):
        if skip.search(path.relative_to(folder).as_posix()):
            continue
        parser = _Paragraphs()
        parser.feed(path.read_text(encoding="utf-8", errors="replace"))
        parser.close()
        for raw in parser.found:
            text = re.sub(r"\s+", " ", raw.translate(_STRAIGHT)).strip()
            if text and is_prose(text):
                yield text


def load(held_out: float = 0.04) -> tuple[list[str], list[str]]:
    """(training, validation) paragraphs, no text in both, split by the hash of each paragraph."""
    training: list[str] = []
    validation: list[str] = []
    seen: set[str] = set()
    for source in SOURCES:
        for text in paragraphs(source):
            key = re.sub(r"\W+", " ", text.lower())
            if key in seen:
                continue
            seen.add(key)
            share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
            (validation if share < held_out else training).append(text)
    return training, validation


if __name__ == "__main__":
    for each in SOURCES:
        texts = list(dict.fromkeys(paragraphs(each)))
        print(f"{each.package:20} {len(texts):6} paragraphs {sum(map(len, texts)):9} characters")
