"""Task heads: the loss is that of the mean output with its regularisers, and the output must fit the task."""

import pytest
import torch
from torch.nn import functional as F

from lps_hf.models.modeling_heads_lps import LPSForGraphClassification
from tests.models.graph_cases import random_batch, seeded, tiny_config, tiny_model

SIZES = [5, 1, 7, 4]
every_mode = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@every_mode
def test_the_loss_is_that_of_the_mean_output_plus_the_entropy(training):
    model = tiny_model(LPSForGraphClassification, entropy_loss_coef=0.3).train(training)
    batch, labels = random_batch(SIZES), torch.tensor([0, 2, -100, 1])
    noise = model.lps.draw_noise(model.lps.encode(**batch), 3, seeded(0))
    result = model(**batch, noise=noise, labels=labels)
    known = labels != -100
    task = F.cross_entropy(result.logits[known], labels[known])
    torch.testing.assert_close(result.loss, task + 0.3 * result.entropy_loss)
    with torch.no_grad():
        quiet = model.eval()(**batch, noise=noise, labels=labels)
    torch.testing.assert_close(quiet.loss, F.cross_entropy(quiet.logits[known], labels[known]))
    assert quiet.entropy_loss is None
    assert model(**batch, noise=noise).loss is None
    torch.testing.assert_close(quiet.logits, model.lps(**batch, noise=noise).output)


@pytest.mark.parametrize("output", ["n 3", "n n 1"])
def test_a_graph_classifier_needs_an_invariant_output(output):
    with pytest.raises(ValueError, match=f"output: LPSForGraphClassification expects .*got '{output}'"):
        LPSForGraphClassification(tiny_config(output=output))


def test_a_graph_classifier_has_one_output_per_label():
    with pytest.raises(ValueError, match="num_labels"):
        LPSForGraphClassification(tiny_config(output="7", num_labels=3))
