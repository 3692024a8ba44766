"""Sharing: checkpoints that carry their code, written and uploaded in one piece."""
