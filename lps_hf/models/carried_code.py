"""What transformers leaves out where it saves a model that came with its code: the model's pipeline."""

import json
from pathlib import Path

from transformers.dynamic_module_utils import custom_object_save

from .configuration_lps import LPSConfig


def add_pipeline(folder: Path, config: LPSConfig) -> None:
    """Complete a checkpoint that carries the code of its model, as `lps_hf.hub.save_checkpoint` would have written it.

    Args:
        folder: Where `PreTrainedModel.save_pretrained` has written a model with code.
        config: The model's configuration; its `custom_pipelines` name the pipeline.
    """
    # Not before it is needed, as it imports the models. To transformers it is a requirement all the same: who loads a model with
    # its code gets the pipeline's code too, and has it to save.
    from .pipeline_lps import LPSPipeline

    pipelines = dict(getattr(config, "custom_pipelines", None) or {})
    if not pipelines:
        return
    custom_object_save(LPSPipeline, folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["auto_map"] = {**settings.get("auto_map", {}), "AutoModel": "modeling_lps.LPSModel"}
    settings["custom_pipelines"] = pipelines
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
