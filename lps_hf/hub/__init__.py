"""Sharing: checkpoints that carry their code, written and uploaded in one piece."""

from .checkpoints import publish, save_checkpoint

__all__ = ["publish", "save_checkpoint"]
