"""The comparison as one page."""

from __future__ import annotations

from typing import Any


def as_html(data: dict[str, Any], picture_folders: object) -> str:
    return "<!doctype html>"
