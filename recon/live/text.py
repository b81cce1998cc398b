"""Words for the panel, which takes Markdown with HTML in it."""

from __future__ import annotations

_MARKUP = frozenset("\\`*_{}[]<>#|&~!$")


def plain(text: str) -> str:
    """Escape a stranger's text (names, notes): Markdown shows it as it is, and no HTML comes of it."""
    return "".join("\\" + c if c in _MARKUP else c for c in " ".join(text.splitlines()))


def thousands(count: int) -> str:
    """Write a number with narrow spaces between its thousands."""
    return f"{count:,}".replace(",", "\u202f")
