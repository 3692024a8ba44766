"""What `LPSTrainer` makes batches of: graphs of similar size where it is asked to, and rows read as arrays."""

from itertools import chain

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler

from lps_hf.data import DataCollatorForGraphs
from lps_hf.data.arrow_rows import ArrowRows
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.arguments import LPSTrainingArguments
from lps_hf.training.trainer import LPSTrainer
from tests.tiny import random_rows, tiny_classifier

ROWS = [{**row, "id": number} for number, row in enumerate(random_rows(50))]
NUM_EDGES = np.array([len(row["edge_index"][0]) for row in ROWS])


class Recorder(DataCollatorForGraphs):
    """A collator that remembers which rows it was given."""

    def __call__(self, rows):
        self.seen = [*getattr(self, "seen", []), [row["id"] for row in rows]]
        self.kinds = {type(row["edge_index"]) for row in rows}
        return super().__call__(rows)


def make_trainer(folder, rows=ROWS, model=None, **options):
    defaults = {
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "train_sampling_strategy": "group_by_length",
    }
    arguments = LPSTrainingArguments(
        output_dir=str(folder), report_to="none", use_cpu=True, disable_tqdm=True, **{**defaults, **options}
    )
    model = tiny_classifier() if model is None else model
    processor = LPSProcessor.from_config(model.config)
    return LPSTrainer(
        model, arguments, data_collator=Recorder(processor), processing_class=processor, train_dataset=rows, eval_dataset=rows
    )


def batches_of(trainer, num_epochs=1):
    """The numbers of the rows of every batch, by epoch."""
    loader = trainer.get_train_dataloader()
    epochs = []
    for epoch in range(num_epochs):
        loader.set_epoch(epoch)
        trainer.data_collator.seen = []
        list(loader)
        epochs.append(trainer.data_collator.seen)
    return epochs


def mean_span(batches):
    """How much the numbers of edges in a batch differ."""
    return np.mean([np.ptp(NUM_EDGES[batch]) for batch in batches if len(batch) == 8])


def test_batches_hold_graphs_of_similar_size_and_change_from_epoch_to_epoch(tmp_path):
    first, second = batches_of(make_trainer(tmp_path), num_epochs=2)
    for batches in (first, second):
        assert [len(batch) for batch in batches] == [8] * 6 + [2]
        assert sorted(chain(*batches)) == list(range(50))
        assert mean_span(batches) < 4
    assert first != second
    (plain,) = batches_of(make_trainer(tmp_path, train_sampling_strategy="random"))
    assert mean_span(plain) > 8


def test_the_order_is_that_of_the_seed_for_rows_of_every_kind(tmp_path):
    (expected,) = batches_of(make_trainer(tmp_path))
    torch.manual_seed(77)
    for rows in (Dataset.from_list(ROWS), Dataset.from_list(ROWS).with_format("numpy"), ROWS):
        assert batches_of(make_trainer(tmp_path, rows)) == [expected]
    assert batches_of(make_trainer(tmp_path, data_seed=42, seed=7)) == [expected]
    assert batches_of(make_trainer(tmp_path, seed=7)) != [expected]


def test_lengths_may_come_from_a_column(tmp_path):
    cost = np.random.default_rng(0).permutation(50)
    rows = Dataset.from_list([{**row, "cost": int(cost[number])} for number, row in enumerate(ROWS)])
    (batches,) = batches_of(make_trainer(tmp_path, rows, length_column_name="cost"))
    spans = [np.ptp(cost[batch]) for batch in batches[:-1]]
    assert max(spans) < 12
    assert mean_span(batches) > 8


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    settings = {"max_steps": 12, "save_strategy": "steps", "save_steps": 3}  # in the middle of the first of two epochs
    runs = [make_trainer(tmp_path, **settings), make_trainer(tmp_path, model=tiny_classifier(seed=1), **settings)]
    runs[0].train()
    runs[1].train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    whole, resumed = (run.model.state_dict() for run in runs)
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
    assert runs[1].data_collator.seen[-8:] == runs[0].data_collator.seen[-8:]


def test_predictions_are_in_the_order_of_the_rows(tmp_path):
    trainer = make_trainer(tmp_path)
    assert isinstance(trainer._get_eval_sampler(ROWS), SequentialSampler)
    output = trainer.predict(ROWS)
    assert list(chain(*trainer.data_collator.seen)) == list(range(50))
    assert output.label_ids.tolist() == [row["y"][0] for row in ROWS]


def test_balanced_batches_know_the_number_of_edges(tmp_path):
    for rows in (ROWS, Dataset.from_list(ROWS)):
        sampler = make_trainer(tmp_path, rows, train_sampling_strategy="batch_rebalance")._get_train_sampler()
        assert sampler.lengths == NUM_EDGES.tolist()
        assert sampler.effective_batch_size == 8


def test_rows_without_a_length_are_refused(tmp_path):
    trainer = make_trainer(tmp_path, [{"image": None}] * 9)
    with pytest.raises(ValueError, match=r"^rows: expected one of the columns 'length', "):
        trainer.get_train_dataloader()


def test_streamed_rows_come_in_their_own_order(tmp_path):
    stream = Dataset.from_list(ROWS).to_iterable_dataset()
    trainer = make_trainer(tmp_path, stream)
    trainer.train()
    assert trainer.data_collator.seen[:3] == [list(range(start, start + 8)) for start in (0, 8, 16)]


def test_data_sets_are_read_as_arrays_and_train_as_lists_do(tmp_path):
    losses = []
    for rows, kind in ((Dataset.from_list(ROWS), np.ndarray), (ROWS, list)):
        trainer = make_trainer(tmp_path, rows, train_sampling_strategy="random")
        trainer.train()
        assert trainer.data_collator.kinds == {kind}
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        assert isinstance(trainer.get_eval_dataloader().dataset, ArrowRows if kind is np.ndarray else list)
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def test_the_trainers_own_collator_pads_as_the_arguments_say(tmp_path):
    options = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "pad_to_power_of": 2.0}
    model = tiny_classifier()
    processor = LPSProcessor.from_config(model.config)
    trainer = LPSTrainer(model, LPSTrainingArguments(**options), processing_class=processor, train_dataset=ROWS)
    lengths = {batch["edge_index"].shape[2] for batch in trainer.get_train_dataloader()}
    assert lengths <= {2**power for power in range(8)}
