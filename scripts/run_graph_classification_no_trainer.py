#!/usr/bin/env python
"""The twin of run_graph_classification.py with the training loop in sight: Accelerate in place of the Trainer, same flags.

Example: `accelerate launch scripts/run_graph_classification_no_trainer.py scripts/recipes/mutag.yaml --fold 3`
"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_scheduler
from transformers.trainer_utils import EvalPrediction

from lps_hf import DataCollatorForGraphs
from lps_hf.training.graph_classification import make_results, parse_arguments, prepare_task, run_and_report, save_run
from lps_hf.training.trainer import set_backbone_learning_rate


def main() -> None:
    model_arguments, data_arguments, arguments = parse_arguments()
    precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "no"
    accelerator = Accelerator(
        gradient_accumulation_steps=arguments.gradient_accumulation_steps, mixed_precision=precision, cpu=arguments.use_cpu
    )
    if arguments.eval_strategy != "no" or arguments.load_best_model_at_end or arguments.save_strategy not in ("no", "steps"):
        raise ValueError(
            "eval_strategy, load_best_model_at_end, save_strategy: this script evaluates once, at the end, and saves every so "
            f"many steps; got {arguments.eval_strategy}, {arguments.load_best_model_at_end}, {arguments.save_strategy}. Use "
            "run_graph_classification.py."
        )
    run = partial(train, accelerator, model_arguments, data_arguments, arguments)
    run_and_report(run, data_arguments, arguments, accelerator.is_main_process)


def train(accelerator: Accelerator, model_arguments, data_arguments, arguments, from_scratch: bool | None) -> dict:
    accelerator.free_memory()  # of the run before
    set_seed(arguments.seed)
    task = prepare_task(model_arguments, data_arguments, arguments, from_scratch)
    collator = DataCollatorForGraphs(task.processor)
    order = torch.Generator()
    train_rows = DataLoader(
        task.splits["train"], arguments.per_device_train_batch_size, shuffle=True, generator=order, collate_fn=collator
    )
    test_rows = DataLoader(task.splits["test"], arguments.per_device_eval_batch_size, collate_fn=collator)

    # Biases, norms and scalars are not decayed.
    matrices = [parameter for parameter in task.model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in task.model.parameters() if parameter.dim() <= 1]
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
                accelerator.save_state(str(Path(arguments.output_dir) / f"checkpoint-{step}"))
            if step >= num_steps:
                break
        epoch += 1
    progress.close()

    metrics = evaluate(accelerator, model, test_rows, task.compute_metrics, arguments.seed)
    results = make_results(task, metrics, losses, step, arguments.seed)
    if accelerator.is_main_process:
        save_run(task, accelerator.unwrap_model(model), arguments, results)
    return results


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: torch.nn.Module, rows: DataLoader, compute_metrics, seed: int) -> dict:
    model.eval()
    generator = torch.Generator(accelerator.device).manual_seed(seed)
    logits, labels = [], []
    for batch in tqdm(rows, disable=not accelerator.is_local_main_process):
        outputs = model(**batch, generator=generator)
        gathered = accelerator.gather_for_metrics((outputs.logits.float(), batch["labels"]))
        for kept, new in zip((logits, labels), gathered, strict=True):
            kept.append(new.cpu().numpy())
    return compute_metrics(EvalPrediction(np.concatenate(logits), np.concatenate(labels)))


if __name__ == "__main__":
    main()
