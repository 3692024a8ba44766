"""TensorBoard through `report_to`: what `LPSTrainer` logs arrives in the event file."""

import pytest

from lps_hf.evaluation.metrics import compute_metrics_for
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.trainer import LPSTrainer
from tests.tiny import random_rows, tiny_classifier

pytest.importorskip("tensorboard")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard and its protocol buffers
def test_losses_and_metrics_are_in_the_event_file(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    model = tiny_classifier()
    arguments = LPSTrainingArguments(
        str(tmp_path / "run"),
        max_steps=4,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="no",
        report_to="tensorboard",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = LPSTrainer(
        model,
        arguments,
        processing_class=LPSProcessor.from_config(model.config),
        train_dataset=random_rows(12),
        eval_dataset=random_rows(6, seed=1),
        compute_metrics=compute_metrics_for("graph-classification", "single_label_classification"),
    )
    trainer.train()

    (file,) = (tmp_path / "events").rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    for tag, key in (
        ("train/loss", "loss"),
        ("train/entropy_loss", "entropy_loss"),
        ("eval/loss", "eval_loss"),
        ("eval/accuracy", "eval_accuracy"),
    ):
        logged = [(entry["step"], entry[key]) for entry in trainer.state.log_history if key in entry]
        assert logged
        assert [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)] == logged
