"""Errors that a user can act on."""

from __future__ import annotations


class ReconError(Exception):
    """Something is wrong with the input or the environment; the message says what to do (exit code 1)."""


class UsageError(ReconError):
    """The call itself is wrong: an unknown key, a value out of range, a file that is not there (exit code 2)."""
