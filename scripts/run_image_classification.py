#!/usr/bin/env python
"""Fine-tune a symmetrized model on an image data set with `LPSTrainer`.

Flags, or one YAML recipe and flags that override it:

    python scripts/run_image_classification.py scripts/recipes/digits_small.yaml
"""

from lps_hf.training.trainer_run import run_with_trainer

if __name__ == "__main__":
    run_with_trainer("image-classification")
