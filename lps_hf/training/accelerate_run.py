"""What every `scripts/run_<task>_no_trainer.py` does: the training loop in sight, with Accelerate in place of the Trainer."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_scheduler
from transformers.trainer_utils import EvalPrediction

from lps_hf.data.arrow_rows import with_fast_rows
from lps_hf.data.collator import DataCollatorForGraphs
from lps_hf.hub.checkpoints import save_checkpoint

from .arguments import LPSTrainingArguments
from .task_arguments import DataArguments, ModelArguments, parse_arguments
from .tasks import make_results, measure_sampling, prepare_task, run_and_report, save_run
from .trainer import set_backbone_learning_rate


def run_with_accelerate(task_name: str, arguments: Sequence[str] | None = None) -> None:
    """Run a task from flags or a recipe, print its figures and save the model.

    Args:
        task_name: A key of `TASKS`.
        arguments: Command-line arguments; those of the process by default.

    Raises:
        ValueError: If a flag asks for what only the Trainer does.
    """
    model_arguments, data_arguments, training_arguments = parse_arguments(arguments)
    precision = "bf16" if training_arguments.bf16 else "fp16" if training_arguments.fp16 else "no"
    accelerator = Accelerator(
        gradient_accumulation_steps=training_arguments.gradient_accumulation_steps,
        mixed_precision=precision,
        cpu=training_arguments.use_cpu,
    )
    given = [getattr(training_arguments, name) for name in ("eval_strategy", "load_best_model_at_end", "save_strategy")]
    if given[0] != "no" or given[1] or given[2] not in ("no", "steps"):
        raise ValueError(
            "eval_strategy, load_best_model_at_end, save_strategy: this script evaluates once, at the end, and saves every so "
            f"many steps; got {', '.join(map(str, given))}. Use the script without _no_trainer."
        )
    if data_arguments.streaming:
        raise ValueError("streaming: this script goes through whole epochs. Use the script without _no_trainer.")
    run = partial(_train, accelerator, task_name, model_arguments, data_arguments, training_arguments)
    run_and_report(run, data_arguments, training_arguments, accelerator.is_main_process)


def _train(
    accelerator: Accelerator,
    task_name: str,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: LPSTrainingArguments,
    from_scratch: bool | None,
) -> dict[str, Any]:
    accelerator.free_memory()  # of the run before
    set_seed(arguments.seed)
    task = prepare_task(task_name, model_arguments, data_arguments, arguments, from_scratch)
    collator = DataCollatorForGraphs(task.processor, pad_to_power_of=arguments.pad_to_power_of)
    order = torch.Generator()
    train_rows = DataLoader(
        with_fast_rows(task.splits["train"]),
        arguments.per_device_train_batch_size,
        shuffle=True,
        generator=order,
        collate_fn=collator,
    )
    test_rows = DataLoader(with_fast_rows(task.splits["test"]), arguments.per_device_eval_batch_size, collate_fn=collator)

    # Biases, norms and scalars are not decayed.
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() > 1]
    vectors = [parameter for parameter in trained if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": arguments.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=(arguments.adam_beta1, arguments.adam_beta2))
    if arguments.backbone_learning_rate is not None:
        set_backbone_learning_rate(optimizer, task.model, arguments.backbone_learning_rate)

    steps_per_epoch = math.ceil(len(train_rows) / accelerator.num_processes / arguments.gradient_accumulation_steps)
    num_steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * steps_per_epoch)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type, optimizer, arguments.get_warmup_steps(num_steps), num_training_steps=num_steps
    )
    model, optimizer, train_rows, test_rows = accelerator.prepare(task.model, optimizer, train_rows, test_rows)
    accelerator.register_for_checkpointing(scheduler)
    first_step = 0
    if arguments.resume_from_checkpoint:
        accelerator.load_state(arguments.resume_from_checkpoint)
        first_step = scheduler.last_epoch

    def every(steps: float) -> int:
        """Numbers below 1 are shares of the run, as for the Trainer."""
        return int(steps) if steps >= 1 else max(1, math.ceil(steps * num_steps))

    losses: list[float] = []
    recent: list[torch.Tensor] = []
    step, epoch = first_step, first_step // steps_per_epoch
    start = time.perf_counter()
    progress = tqdm(total=num_steps, initial=first_step, disable=not accelerator.is_local_main_process)
    while step < num_steps:
        # A resumed run goes on with the batches that the interrupted one had not seen: an epoch has an order of its own.
        skipped = (step - epoch * steps_per_epoch) * arguments.gradient_accumulation_steps
        rows = accelerator.skip_first_batches(train_rows, skipped) if skipped else train_rows
        order.manual_seed(arguments.seed + epoch)
        model.train()
        for batch in rows:
            with accelerator.accumulate(model):
                outputs = model(**batch)
                accelerator.backward(outputs.loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            recent.append(outputs.loss.detach())
            if not accelerator.sync_gradients:
                continue
            scheduler.step()
            step += 1
            progress.update()
            if step % every(arguments.logging_steps) == 0 or step == num_steps:
                losses.append(torch.stack(recent).mean().item())
                recent.clear()
                progress.set_postfix(loss=f"{losses[-1]:.3f}")
            if arguments.save_strategy == "steps" and step % every(arguments.save_steps) == 0:
                accelerator.save_state(str(Path(str(arguments.output_dir)) / f"checkpoint-{step}"))
            if step >= num_steps:
                break
        epoch += 1
    progress.close()
    train_seconds = time.perf_counter() - start
    if accelerator.is_main_process:
        # An evaluation that fails costs no weights.
        save_checkpoint(accelerator.unwrap_model(model), task.processor, str(arguments.output_dir))

    report = measure_sampling(task, data_arguments, arguments, train_seconds)
    metrics = _evaluate(accelerator, model, test_rows, task.metrics_of("test"), arguments.seed)
    results = make_results(task, metrics, losses, step, arguments, report)
    if accelerator.is_main_process:
        save_run(task, accelerator.unwrap_model(model), arguments, results)
    return results


@torch.no_grad()
def _evaluate(
    accelerator: Accelerator,
    model: torch.nn.Module,
    rows: DataLoader,
    compute_metrics: Callable[[EvalPrediction], dict[str, float]],
    seed: int,
) -> dict[str, float]:
    """Metrics of a whole split; rows of different length are filled up with -100, as the Trainer does."""
    model.eval()
    generator = torch.Generator(accelerator.device).manual_seed(seed)
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for batch in tqdm(rows, disable=not accelerator.is_local_main_process):
        outputs = model(**batch, generator=generator)
        pair = accelerator.pad_across_processes((outputs.logits.float(), batch["labels"]), dim=1, pad_index=-100)
        for kept, new in zip((logits, labels), accelerator.gather_for_metrics(pair), strict=True):
            kept.append(new.cpu().numpy())
    return compute_metrics(EvalPrediction(_join(logits), _join(labels)))


def _join(batches: list[np.ndarray]) -> np.ndarray:
    longest = max(array.shape[1] if array.ndim > 1 else 0 for array in batches)
    padded = [
        np.pad(array, [(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)], constant_values=-100)
        if array.ndim > 1
        else array
        for array in batches
    ]
    return np.concatenate(padded)
