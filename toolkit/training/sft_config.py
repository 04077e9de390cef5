"""TRL's SFTConfig out of a recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.utils import logging
from trl import SFTConfig

from toolkit.ranks import here
from toolkit.training.prepared import Prepared


@contextlib.contextmanager
def as_one_process() -> Iterator[None]:
    """transformers is not told of other ranks, and would warn that there is a group of processes all the same."""
    level = logging.get_verbosity()
    if here().size > 1:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@as_one_process()
def sft_config(prepared: Prepared, output: Path) -> Any:
    """Every value that matters is set, because Unsloth changes TRL's defaults.

    With a budget, and where ranks share an update, the loader gives all chats of an update at once, and the trainer
    cuts them itself. Of ranks only the first reports to trackers.
    """
    recipe, updates, cuda = prepared.recipe, prepared.updates, prepared.cuda
    packed, checkpointed = prepared.budget is not None, prepared.budget and prepared.budget.checkpointed
    whole = packed or here().size > 1
    train = recipe.train
    by_epoch = train.save_steps == "epoch"
    eval_by_epoch = recipe.eval.eval_steps == "epoch"
    evaluated = prepared.tables.evaluation is not None
    args = SFTConfig(
        output_dir=str(output),
        per_device_train_batch_size=recipe.chats_per_update if whole else train.per_device_train_batch_size,
        per_device_eval_batch_size=recipe.eval.per_device_eval_batch_size,
        gradient_accumulation_steps=1 if whole else train.gradient_accumulation_steps,
        num_train_epochs=train.num_train_epochs,
        max_steps=train.max_steps if updates.planned is None else updates.total,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=updates.warmup,
        weight_decay=train.weight_decay,
        optim=train.optim,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=1e-8,
        max_grad_norm=train.max_grad_norm,
        max_length=train.max_length,
        bf16=prepared.precision == "bf16",
        fp16=prepared.precision == "fp16",
        use_cpu=not cuda,
        # Unsloth turns its own checkpointing on in get_peft_model; for the trainer it is on or off
        gradient_checkpointing=bool(train.gradient_checkpointing if checkpointed is None else checkpointed),
        gradient_checkpointing_kwargs={"use_reentrant": False},
        seed=train.seed,
        data_seed=train.seed,
        logging_steps=train.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="epoch" if by_epoch else "steps",
        save_steps=500 if by_epoch else train.save_steps,
        save_total_limit=train.save_total_limit,
        eval_strategy="no" if not evaluated else "epoch" if eval_by_epoch else "steps",
        eval_steps=None if eval_by_epoch else recipe.eval.eval_steps,
        eval_on_start=evaluated,
        prediction_loss_only=True,
        report_to=(here().first_one and list(train.report_to)) or "none",
        packing=False,
        padding_free=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        # -log p alone on every device, for routers are frozen; TRL would ask Granite 4, which has none, for its experts
        router_aux_loss_coef=0.0,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        # a copy that the host waits for waits for the update before, too
        accelerator_config={"non_blocking": cuda and packed},
        torch_empty_cache_steps=None,
        disable_tqdm=True,
    )
    args._n_gpu = min(args.n_gpu, 1)  # with more in sight transformers would split each batch among them
    return args
