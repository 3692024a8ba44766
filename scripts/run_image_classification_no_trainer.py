#!/usr/bin/env python
"""The twin of run_image_classification.py on Accelerate: same flags, the loop is in lps_hf/training/accelerate_run.py.

accelerate launch scripts/run_image_classification_no_trainer.py scripts/recipes/digits_small.yaml
"""

from lps_hf.training.accelerate_run import run_with_accelerate

if __name__ == "__main__":
    run_with_accelerate("image-classification")
