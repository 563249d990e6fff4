"""Reads a page back: its sections, tables and attributes, with a check that every tag is closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "col", "br", "img", "link", "input", "hr"}


@dataclass
class ReadTable:
    """A table's caption, heads and rows."""

    caption: str = ""
    heads: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    scopes: list[str | None] = field(default_factory=list)


class Page(HTMLParser):
    """What stands on a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: list[str] = []
        self.tables: dict[str, list[ReadTable]] = {}
        self.words: dict[str, str] = {}
        self.listing = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(found["id"] or "")
        if tag == "table":
            self.tables.setdefault(self.sections[-1], []).append(ReadTable())
        if tag == "tr" and "tbody" in self.open:
            self._table.rows.append([])
        if tag in ("th", "td"):
            (self._table.rows[-1] if "tbody" in self.open else self._table.heads).append("")
        if tag == "th":
            self._table.scopes.append(found.get("scope"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.sections:
            self.words[self.sections[-1]] = self.words.get(self.sections[-1], "") + data
        if "caption" in self.open:
            self._table.caption += data
        elif "th" in self.open or "td" in self.open:
            cells = self._table.rows[-1] if "tbody" in self.open else self._table.heads
            cells[-1] += data
        elif "code" in self.open:
            self.listing += data

    @property
    def _table(self) -> ReadTable:
        return self.tables[self.sections[-1]][-1]
