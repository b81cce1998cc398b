"""The command line: one file for each verb; nothing heavy is imported before a command runs."""

from recon.cli.app import main

__all__ = ["main"]
