"""Options that a user can give, written once: a field of a dataclass with its default, its type and its help."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Any, TypeVar

from recon.errors import UsageError

Value = TypeVar("Value")


def image_size(text: str, option: str, largest: int = 8192) -> tuple[int, int]:
    """Read WIDTHxHEIGHT.

    Raises:
        UsageError: it is none, or a side is not 16 to ``largest`` pixels.
    """
    match = re.fullmatch(r"(\d+)[xX×](\d+)", text.strip())
    if not match or not all(16 <= int(side) <= largest for side in match.groups()):
        raise UsageError(f"{option} {text}: it is WIDTHxHEIGHT, each 16 to {largest}; for example 960x540")
    return int(match.group(1)), int(match.group(2))


def option(default: Value, help: str, **more: Any) -> Value:
    """A dataclass field that is also an option of a command.

    Args:
        default: its value where the user says nothing; an immutable one.
        help: one sentence for ``--help``.
        more: what the command line needs beside (``flags``, ``metavar``, ``min``, ``max``, ``panel``).
    """
    made: Any = field(default=default, metadata={"help": help, **more})
    return made
