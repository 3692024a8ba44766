"""The registration table: every class of the package that a transformers Auto class can find."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSForGraphClassification, LPSModel
from lps_hf.models.processing_lps import LPSProcessor

# Head class and the Auto class that finds it, with the package installed and, written as `auto_map`, without it.
AUTO_CLASSES = {
    LPSConfig: AutoConfig,
    LPSProcessor: AutoProcessor,
    LPSModel: AutoModel,
    LPSForGraphClassification: AutoModelForSequenceClassification,
}


class AutoModelForGraphClassification(_BaseAutoModelClass):
    """Readable alias: loads `LPSForGraphClassification` checkpoints, as `AutoModelForSequenceClassification` does."""

    _model_mapping = AutoModelForSequenceClassification._model_mapping


def register() -> None:
    """Register every class of the table; calling it again changes nothing."""
    AutoConfig.register(LPSConfig.model_type, LPSConfig, exist_ok=True)
    for cls, auto_class in AUTO_CLASSES.items():
        if cls is not LPSConfig:
            auto_class.register(LPSConfig, cls, exist_ok=True)
