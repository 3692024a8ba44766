"""Distillation: the student's weights and mode, the loss, and what the Trainer does with both."""

import math

import pytest
import torch
from torch.nn import functional as F

from lps_hf.models.modeling_heads_lps import LPSForNodeClassification
from lps_hf.models.processing_lps import LPSProcessor
from lps_hf.training.distillation import (
    DataCollatorForDistillation,
    DistillationTrainer,
    canonical_student,
    distillation_loss,
    sampled_outputs,
    with_teacher,
)
from lps_hf.training.short_runs import fit
from tests.tiny import random_rows, tiny_classifier, tiny_config

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def processor_of(model):
    return LPSProcessor.from_config(model.config)


def test_a_student_has_the_teachers_weights_and_one_element_without_noise():
    teacher = tiny_classifier(num_samples=3, num_eval_samples=7)
    student = canonical_student(teacher).eval()
    assert (student.config.distribution, student.config.num_samples, student.config.num_eval_samples) == ("canonical", 1, 1)
    assert (teacher.config.distribution, teacher.config.num_samples, teacher.config.num_eval_samples) == ("learned", 3, 7)
    for (name, own), (other, parameter) in zip(student.named_parameters(), teacher.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(own, parameter)
        assert own.data_ptr() != parameter.data_ptr()
    batch = processor_of(teacher)(random_rows(4), return_tensors="pt")
    assert student(**batch).group_elements.shape[1] == 1
    # The element is the interface's own without noise: given to the teacher it gives the same logits.
    elements = student(**batch).group_elements
    torch.testing.assert_close(student(**batch, group_elements=elements).logits, teacher(**batch, group_elements=elements).logits)


def test_a_teacher_without_interface_is_refused():
    with pytest.raises(ValueError, match="teacher: expected distribution='learned', got 'haar'"):
        canonical_student(tiny_classifier(distribution="haar"))


def test_single_samples_average_to_the_models_own_output():
    model = tiny_classifier()
    rows, processor = random_rows(5), processor_of(model)
    draws = sampled_outputs(model, processor, rows, 50, batch_size=3)
    assert draws.shape == (50, 5, 3)
    assert torch.equal(draws, sampled_outputs(model, processor, rows, 50, batch_size=3))
    assert not torch.equal(draws[0], draws[1])
    with torch.no_grad():
        output = model(**processor(rows, return_tensors="pt"), num_samples=50)
    error = draws.std(dim=0) / 50**0.5 + output.standard_error
    assert ((draws.mean(dim=0) - output.logits).abs() < 4 * error + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
def test_the_loss_vanishes_at_the_teacher_alone_and_leaves_it_alone(problem_type, dtype):
    teacher = torch.randn(6, 4, dtype=dtype, requires_grad=True)
    student = teacher.detach().clone().requires_grad_(True)
    loss = distillation_loss(student, teacher, problem_type)
    (gradient,) = torch.autograd.grad(loss, student)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    assert abs(loss.item()) < tolerance
    assert gradient.abs().max() < tolerance
    assert distillation_loss(student + torch.randn_like(student), teacher, problem_type) > 0.01
    assert not torch.autograd.grad(distillation_loss(2 * student, teacher, problem_type).sum(), teacher, allow_unused=True)[0]


def test_the_loss_is_the_divergence_of_softened_probabilities():
    student, teacher = torch.tensor([[0.0, math.log(3.0) * 2]]), torch.tensor([[0.0, 0.0]])
    expected = 4 * (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert distillation_loss(student, teacher, SINGLE, softening=2.0).item() == pytest.approx(expected, rel=1e-5)
    # One label on or off is two classes, of logits x and 0.
    on_or_off = distillation_loss(student[:, 1:], teacher[:, 1:], MULTI, softening=2.0)
    assert on_or_off.item() == pytest.approx(expected, rel=1e-5)
    assert distillation_loss(student, teacher, REGRESSION).item() == pytest.approx((2 * math.log(3)) ** 2 / 2, rel=1e-5)


def test_without_softening_the_gradient_is_that_of_soft_labels():
    student, teacher = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.randn(5, 3, dtype=torch.float64)
    soft = F.cross_entropy(student, teacher.softmax(-1))
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (soft, distillation_loss(student, teacher, SINGLE, 1.0))]
    torch.testing.assert_close(*gradients)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"one shape \(batch, num_labels\) or .*, got \(2, 3\) and \(2, 2\)"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 2), SINGLE)
    with pytest.raises(ValueError, match="softening: expected a positive number"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), SINGLE, softening=0)
    with pytest.raises(ValueError, match="problem_type: expected one of"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), "ranking")
    with pytest.raises(ValueError, match="one for each of the 2 rows, got 3"):
        with_teacher(random_rows(2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="distillation_weight: expected a number from 0 to 1, got 2"):
        DistillationTrainer(distillation_weight=2)


def test_the_collator_hands_the_teacher_on_beside_the_batch():
    model, rows = tiny_classifier(), random_rows(3)
    collator = DataCollatorForDistillation(processor_of(model))
    outputs = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    batch = collator(with_teacher(rows, outputs))
    assert torch.equal(batch.pop("teacher_output"), outputs)
    plain = collator(rows)
    assert set(batch) == set(plain)
    assert all(torch.equal(batch[key], plain[key]) for key in batch)


def train_student(weight, outputs, rows):
    student = canonical_student(tiny_classifier())
    options = {"trainer_class": DistillationTrainer, "distillation_weight": weight}
    trainer = fit(student, processor_of(student), with_teacher(rows, outputs), 6, 1e-2, 8, 0, **options)
    return trainer, sampled_outputs(student, processor_of(student), rows, 1)[0]


def test_training_moves_the_student_to_the_teacher_or_to_the_labels():
    rows = [{**row, "y": [2]} for row in random_rows(24)]
    # A teacher that always disagrees with the labels.
    outputs = torch.tensor([[3.0, 0.0, 0.0]]).expand(24, 3)
    _, by_teacher = train_student(1.0, outputs, rows)
    trainer, by_labels = train_student(0.0, outputs, rows)
    assert (by_teacher.argmax(-1) == 0).all()
    assert (by_labels.argmax(-1) == 2).all()
    # Evaluation looks at labels, also of rows that have a teacher.
    loss = trainer.evaluate(with_teacher(rows, outputs))["eval_loss"]
    assert loss == pytest.approx(trainer.evaluate(rows)["eval_loss"])


def node_model():
    torch.manual_seed(0)
    return LPSForNodeClassification(tiny_config(output="n 3")).eval()


def node_rows(count, label=2):
    return [{**row, "y": [label] * row["num_nodes"]} for row in random_rows(count)]


def test_outputs_of_nodes_have_no_numbers_on_padding_and_none_in_the_rows():
    model, rows = node_model(), node_rows(5)
    processor = processor_of(model)
    # Batches of their own sizes, joined.
    draws = sampled_outputs(model, processor, rows, 2, batch_size=2)
    sizes = [row["num_nodes"] for row in rows]
    assert draws.shape == (2, 5, max(sizes), 3)
    assert (~draws.isnan()).all(dim=-1).sum(dim=-1).tolist() == [sizes] * 2
    taught = with_teacher(rows, draws[0])
    assert [len(row["teacher_output"]) for row in taught] == sizes
    batch = DataCollatorForDistillation(processor)(taught)
    torch.testing.assert_close(batch["teacher_output"], draws[0], equal_nan=True)


def test_the_loss_leaves_out_what_the_teacher_does_not_say():
    student, teacher = torch.randn(2, 4, 3, requires_grad=True), torch.randn(2, 4, 3)
    known = torch.tensor([[True, True, False, False], [True, True, True, False]])
    loss = distillation_loss(student, teacher.masked_fill(~known.unsqueeze(-1), torch.nan), SINGLE)
    torch.testing.assert_close(loss, distillation_loss(student[known], teacher[known], SINGLE))
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all()
    assert not gradient[~known].any()


def test_students_of_nodes_follow_their_teacher():
    rows = node_rows(16)
    student = canonical_student(node_model())
    outputs = torch.tensor([3.0, 0.0, 0.0]).expand(16, 8, 3)
    options = {"trainer_class": DistillationTrainer, "distillation_weight": 1.0}
    fit(student, processor_of(student), with_teacher(rows, outputs), 6, 1e-2, 8, 0, **options)
    draws = sampled_outputs(student, processor_of(student), rows, 1)[0]
    assert (draws[~draws.isnan().any(dim=-1)].argmax(dim=-1) == 0).all()


def test_regressions_are_compared_in_units_of_each_targets_spread():
    options = {"num_labels": 2, "problem_type": REGRESSION, "label_mean": [0.0, 5.0], "label_std": [1.0, 100.0]}
    student = canonical_student(tiny_classifier(**options))
    rows = [{**row, "y": [0.0, 5.0]} for row in random_rows(4)]
    trainer = fit(
        student, processor_of(student), rows, 0.5, 0.0, 4, 0, trainer_class=DistillationTrainer, distillation_weight=1.0
    )
    outputs = sampled_outputs(student, processor_of(student), rows, 1)[0]
    wrong = outputs + torch.tensor([2.0, 200.0])
    batch = DataCollatorForDistillation(processor_of(student))(with_teacher(rows, wrong))
    student.train()
    torch.manual_seed(0)
    loss = trainer.compute_loss(student, batch)
    # Batch statistics move the student a little; two spreads off in both targets, and not two hundred in one.
    assert 2 < loss.item() < 8
