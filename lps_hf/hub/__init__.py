"""Sharing: checkpoints that carry their code, published, fetched, described, verified and converted."""

from .checkpoints import save_checkpoint
from .conversion import Conversion, convert_published
from .fetching import fetch
from .loading import load_checkpoint
from .model_card import LPSModelCardData, make_model_card
from .publishing import PublishPlan, publish, publish_folder
from .verification import Verification, verify

__all__ = [
    "Conversion",
    "LPSModelCardData",
    "PublishPlan",
    "Verification",
    "convert_published",
    "fetch",
    "load_checkpoint",
    "make_model_card",
    "publish",
    "publish_folder",
    "save_checkpoint",
    "verify",
]
