"""Pages that are one file, need neither a network nor a server, and follow the reader's light or dark."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

_SHARED = Path(__file__).resolve().parent / "templates"


def render_page(template: Path, styles: Path, scripts: list[Path], library: str = "", **values: Any) -> str:
    """Fill in a page.

    What is not ``raw`` is escaped. Should a stranger's text become markup all the same, the page's policy lets a
    browser run no script but these and load nothing (Content Security Policy level 2, hashes).

    Args:
        template: a Jinja template; it finds ``css``, ``script`` (the shared ones first), ``library`` and ``policy``
            beside the values.
        styles, scripts: the page's own files.
        library: a script that stands by itself.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    css = "".join(path.read_text(encoding="utf-8") for path in (_SHARED / "page.css", styles))
    script = "".join(path.read_text(encoding="utf-8") for path in (_SHARED / "page.js", *scripts))
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (library, script)]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'"
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        css=raw(css), script=raw(script), library=raw(library), policy=raw(policy), **values
    )


def raw(text: str) -> Any:
    """Text that a template takes as it is."""
    from markupsafe import Markup

    return Markup(text)


def json_for_script(value: Any) -> Any:
    """JSON for a script element, in which "<" could end it or begin a comment; in JSON it can be written otherwise."""
    return raw(json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


def machine() -> str:
    """One line about the machine."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
