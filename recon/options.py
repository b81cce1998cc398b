"""Options that a user can give, written once: a field of a dataclass with its default, its type and its help."""

from __future__ import annotations

from dataclasses import field
from typing import Any, TypeVar

Value = TypeVar("Value")


def option(default: Value, help: str, **more: Any) -> Value:
    """A dataclass field that is also an option of a command.

    Args:
        default: its value where the user says nothing; an immutable one.
        help: one sentence for ``--help``.
        more: what the command line needs beside (``flags``, ``metavar``, ``min``, ``max``, ``panel``).
    """
    made: Any = field(default=default, metadata={"help": help, **more})
    return made
