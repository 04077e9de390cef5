"""An HTML page as a tree, and text that must not become a part of one."""

from __future__ import annotations

from html.parser import HTMLParser

EVIL = '</script></style></pre><img src=x onerror="alert(1)"><script>alert(2)</script>{{ 7 * 7 }}{% x %}&amp;\'"'
VOID = {"meta", "br", "img", "link", "input"}


class Tree(HTMLParser):
    """Every element and attribute of a page; that tags close as they should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data
