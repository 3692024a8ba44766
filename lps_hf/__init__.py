"""lps_hf: make any pretrained network equivariant by probabilistic symmetrization, inside the Hugging Face ecosystem.

Importing the package registers its models and processor with transformers' Auto classes.
"""

from importlib import import_module
from typing import Any

from lps_hf.auto import ALIASES, LazyClass, make_alias, register
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.push_verbs import PUSHERS

__version__ = "0.1.0"

# Loaded at first use: they need parts of transformers, accelerate and datasets that take seconds to import.
_LAZY = {
    "DataCollatorForGraphs": "lps_hf.data.collator",
    "LPSForGraphClassification": "lps_hf.models.modeling_heads_lps",
    "LPSForImageClassification": "lps_hf.models.modeling_heads_lps",
    "LPSForLinkPrediction": "lps_hf.models.modeling_heads_lps",
    "LPSForNodeClassification": "lps_hf.models.modeling_heads_lps",
    "LPSForParticleDynamics": "lps_hf.models.modeling_heads_lps",
    "LPSForPointCloudClassification": "lps_hf.models.modeling_heads_lps",
    "LPSModel": "lps_hf.models.modeling_lps",
    "LPSPreTrainedModel": "lps_hf.models.modeling_lps",
    "LPSProcessor": "lps_hf.models.processing_lps",
    "LPSTrainer": "lps_hf.training.trainer",
    "LPSTrainingArguments": "lps_hf.training.arguments",
    "symmetrize": "lps_hf.models.symmetrized",
}

__all__ = [
    *ALIASES,
    "LPSConfig",
    "__version__",
    *_LAZY,
]

register()
# `push_to_hub` of these is a publication.
PUSHERS.update({kind: LazyClass("lps_hf.hub.pushing", f"push_{kind}") for kind in ("model", "processor", "pipeline")})


def __getattr__(name: str) -> Any:
    if name in ALIASES:
        globals()[name] = make_alias(name)
        return globals()[name]
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lps_hf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
