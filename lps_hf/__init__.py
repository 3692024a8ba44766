"""lps_hf: make any pretrained network equivariant by probabilistic symmetrization, inside the Hugging Face ecosystem.

Importing the package registers its models and processor with transformers' Auto classes.
"""

from importlib import import_module
from typing import Any

from lps_hf.auto import AutoModelForGraphClassification, register
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSForGraphClassification, LPSModel, LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

__version__ = "0.1.0"

# Loaded at first use: they import accelerate and datasets, which a prediction does not need.
_LAZY = {
    "DataCollatorForGraphs": "lps_hf.data.collator",
    "LPSTrainer": "lps_hf.training.trainer",
    "LPSTrainingArguments": "lps_hf.training.arguments",
}

__all__ = [
    "AutoModelForGraphClassification",
    "LPSConfig",
    "LPSForGraphClassification",
    "LPSModel",
    "LPSPreTrainedModel",
    "LPSProcessor",
    "__version__",
    *_LAZY,
]

register()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lps_hf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
