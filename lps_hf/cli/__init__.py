"""The command `lps-hf`: thin, every subcommand calls a room."""

from .main import main

__all__ = ["main"]
