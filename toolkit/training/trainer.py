"""TRL's SFTTrainer over the token table.

The class is made by a function because `trl.SFTTrainer` is another class once Unsloth is imported.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data.table import IGNORED
from toolkit.errors import TrainingError
from toolkit.planning.steps import Updates, learning_rate
from toolkit.recipe.schema import Recipe
from toolkit.training.dataset import Collator, chat_dataset

if TYPE_CHECKING:
    from toolkit.data.table import TokenTable
    from toolkit.engines import Loaded


def sft_config(recipe: Recipe, precision: str, has_gpu: bool, output: Path, updates: Updates, packed: bool) -> Any:
    """TRL's SFTConfig with every value that matters set, because Unsloth changes TRL's defaults.

    `packed`: the loader gives all chats of an update at once, and the trainer cuts them itself.
    """
    from trl import SFTConfig

    train = recipe.train
    by_epoch = train.save_steps == "epoch"
    eval_by_epoch = recipe.eval.eval_steps == "epoch"
    return SFTConfig(
        output_dir=str(output),
        per_device_train_batch_size=recipe.chats_per_update if packed else train.per_device_train_batch_size,
        per_device_eval_batch_size=recipe.eval.per_device_eval_batch_size,
        gradient_accumulation_steps=1 if packed else train.gradient_accumulation_steps,
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
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not has_gpu,
        # Unsloth turns its own checkpointing on in get_peft_model; for the trainer it is on or off
        gradient_checkpointing=bool(train.gradient_checkpointing),
        gradient_checkpointing_kwargs={"use_reentrant": False},
        seed=train.seed,
        data_seed=train.seed,
        logging_steps=train.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="epoch" if by_epoch else "steps",
        save_steps=500 if by_epoch else train.save_steps,
        save_total_limit=train.save_total_limit,
        eval_strategy="epoch" if eval_by_epoch else "steps",
        eval_steps=None if eval_by_epoch else recipe.eval.eval_steps,
        eval_on_start=True,
        prediction_loss_only=True,
        report_to=list(train.report_to) or "none",
        packing=False,
        padding_free=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=has_gpu,
        # a copy that the host waits for waits for the update before, too
        accelerator_config={"non_blocking": has_gpu and packed},
        torch_empty_cache_steps=None,
        disable_tqdm=True,
    )


def build_trainer(
    recipe: Recipe,
    loaded: Loaded,
    train_table: TokenTable,
    eval_table: TokenTable | None,
    output: Path,
    updates: Updates,
    callbacks: Sequence[Any],
    loss: Callable[[Any, Any, Any], Any] | None = None,
    adapter_in_fp32: bool = True,
    measure: Callable[[int], dict[str, float]] | None = None,
    token_budget: int | None = None,
    checkpointed: int | None = None,
    carry: Callable[[Path], None] = lambda folder: None,
) -> Any:
    """The trainer, with the adapter in fp32 (TRL casts QLoRA's to bf16, which fp16 loss scaling can't take).

    `loss` takes the place of the head on trained tokens: (model, inputs, tokens trained in the update) -> loss.
    `adapter_in_fp32` = False leaves what trains as it was loaded. `measure` gives more metrics for each evaluation,
    handed the number of updates made. `token_budget`: an update's chats are packed into micro-batches of at most so
    many tokens; None pads `per_device_train_batch_size` chats at a time. `checkpointed`: how many layers, the first
    ones, recompute; None leaves it to `train.gradient_checkpointing`. `carry` adds to the folder of a checkpoint.
    """
    import torch
    import trl
    from transformers import PrinterCallback, ProgressCallback, TrainerState

    from toolkit.engines.base import FILLED, Packing, always
    from toolkit.kernels.head_loss import summed_loss
    from toolkit.kernels.packed_attention import packed
    from toolkit.planning.budget import recomputes
    from toolkit.training import checkpoints
    from toolkit.training.deferred_logging import LateLog
    from toolkit.training.disk_full import checkpoint_bytes, saving
    from toolkit.training.packing import MICRO_BATCHES, KnownLengths, PackingCollator

    class ChatTrainer(LateLog, trl.SFTTrainer):  # type: ignore[misc]
        """Counts real tokens, and weighs the evaluation loss by trained tokens."""

        settled = False  # all modules have been put into training mode
        updates: Updates  # how many there are to be; a time budget changes it on the way
        saving_in = output  # where checkpoints go; another place while one is not whole yet
        # mean loss of the same groups of held-out chats at every evaluation: tells a change from noise
        eval_groups: Sequence[float] = ()

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
            if token_budget is not None:
                whole = [fill(update) for update in itertools.islice(epoch_iterator, num_batches)]
                self.real_tokens += sum(update.pop("real_tokens") for update in whole)
                # filled in by the card: a copy of a number makes the host wait
                return whole, torch.full((), sum(update.pop("trained") for update in whole), device=device)
            batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
            if batches and items is None:
                raise TrainingError(
                    "the trained tokens of an update were not counted, so its loss would depend on how it is cut into "
                    "micro-batches; the versions installed are not the tested ones: see `toolkit doctor`"
                )
            for batch in batches:
                self.real_tokens += batch.pop("real_tokens", 0)
            return batches, items

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            if MICRO_BATCHES not in inputs:
                return super().training_step(model, inputs, num_items_in_batch)
            if not (self.settled and model.training):  # a new model says so of its wrapper alone
                model.train()
                self.settled = True
            with packing.training(self.model), without_train(model):
                losses = [
                    super(ChatTrainer, self).training_step(model, one, num_items_in_batch)
                    for one in inputs[MICRO_BATCHES]
                ]
            return torch.stack(losses).sum()

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if train.max_minutes is None:
                return super().create_scheduler(num_training_steps, optimizer)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer if optimizer is None else optimizer,
                lambda update: learning_rate(train, self.updates, update) / train.learning_rate,
            )
            self._created_lr_scheduler = True
            return self.lr_scheduler

        def floating_point_ops(self, inputs: Any) -> int:
            return 0  # transformers' own count knows neither adapters nor packed rows; the planner has one

        def evaluate(
            self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
        ) -> dict[str, float]:
            model = self.model
            was_training = model.training
            model.eval()
            if loaded.recorder is not None:
                loaded.recorder.make_room()
            total, count = 0.0, 0
            groups: list[tuple[float, int]] = []
            for batch in self.get_eval_dataloader(eval_dataset):
                batch.pop("real_tokens", None)
                summed, trained = self._held_out_loss(self._prepare_inputs(batch))
                total += summed
                count += trained
                groups.append((summed / max(trained, 1), trained))
            self.eval_groups = fold_groups(groups)
            model.train(was_training)
            metrics = {f"{metric_key_prefix}_loss": total / max(count, 1)}
            if measure is not None:
                metrics |= measure(self.state.global_step)
            for values in getattr(self, "_metrics", {}).values():
                values.clear()
            self.log(dict(metrics))
            self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

        def _held_out_loss(self, batch: Any) -> tuple[float, int]:
            """(summed loss, trained tokens) of a batch."""
            summed, count = 0.0, 0
            with torch.no_grad(), self.compute_loss_context_manager():
                for one in batch.get(MICRO_BATCHES, [batch]):
                    trained = (one["labels"][:, 1:] != IGNORED).sum()
                    with packing.evaluating(self.model) if MICRO_BATCHES in batch else contextlib.nullcontext():
                        mean = self.compute_loss(self.model, one, num_items_in_batch=trained)
                    summed += float(mean) * int(trained)
                    count += int(trained)
            return summed, count

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if loss is not None:
                return loss(model, inputs, num_items_in_batch)
            if has_gpu and token_budget is None:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # TRL's fused head is a Triton kernel, which a CPU can't run; packed rows bypass the model's own forward
            half = torch.float16 if self.args.fp16 else torch.bfloat16
            where = "cuda" if has_gpu else "cpu"
            with torch.autocast(where, dtype=half, enabled=self.args.fp16 or self.args.bf16):
                given = inputs
                if "cu_seq_lens" in inputs:
                    given = packing.packed_inputs(inputs) | {"predicting": inputs["predicting"]}
                total, count = summed_loss(self.model, given)
            items = count if num_items_in_batch is None else num_items_in_batch
            return total / torch.as_tensor(items).clamp(min=1)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            target = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            needed = checkpoint_bytes(self.model, self.optimizer)
            with saving(target, needed, "a checkpoint"), checkpoints.writing(target, carry) as self.saving_in:
                super()._save_checkpoint(model, trial)
            self.saving_in = target.parent
            checkpoints.drop_old(target.parent, recipe.train.save_total_limit)

        def _get_output_dir(self, trial: Any) -> str:
            return str(self.saving_in)

        def take(self, checkpoint: Path) -> None:
            """The weights and the state of a checkpoint after which nothing is left to train.

            `train` would make one more update where the last epoch is not a whole one.
            """
            self._load_from_checkpoint(str(checkpoint))
            self.model_wrapped = self.accelerator.prepare(self.model)  # which decoding would see after training
            self.state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE))

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """The run folder says what a card would say."""

    train = recipe.train
    has_gpu = torch.cuda.is_available()
    packing = loaded.packing or Packing(dict, packed, packed, always(FILLED if has_gpu else 1))
    args = sft_config(recipe, loaded.report.precision.value, has_gpu, output, updates, token_budget is not None)
    args._n_gpu = min(args.n_gpu, 1)  # with more in sight transformers would split each batch among them
    if checkpointed is not None:
        args.gradient_checkpointing = checkpointed > 0
    if eval_table is None:
        args.eval_strategy, args.eval_on_start = "no", False
    fill: Callable[[dict[str, Any]], dict[str, Any]] = dict
    collator: Any = Collator(loaded.tokenizer.pad_token_id, multiple=8 if has_gpu else 1)
    if token_budget is not None:
        recorded = loaded.recorder is not None and not recomputes(recipe, checkpointed)
        multiple = recipe.train.pad_to_multiple_of or packing.multiple(token_budget, recorded=recorded)
        collator = PackingCollator(loaded.tokenizer.pad_token_id, token_budget, multiple, packing.edges)
        fill = KnownLengths(collator) if packing.known_lengths else fill
    trainer = ChatTrainer(
        model=loaded.model,
        args=args,
        processing_class=loaded.tokenizer,
        data_collator=collator,
        train_dataset=chat_dataset(train_table),
        eval_dataset=None if eval_table is None else chat_dataset(eval_table),
        callbacks=list(callbacks),
    )
    trainer.updates = updates
    # scaled gradients and padded batches make the host wait for the card in each update anyway
    trainer.ahead = has_gpu and token_budget is not None and not args.fp16 and args.world_size == 1
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if checkpointed is not None:
        trainer.add_callback(checkpoint_first(checkpointed))
    for parameter in trainer.model.parameters():
        if adapter_in_fp32 and parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.to(torch.float32)
    return trainer


@contextlib.contextmanager
def without_train(model: Any) -> Iterator[None]:
    """transformers puts a model into training mode at each micro-batch: a walk over all modules, while a GPU waits."""
    model.train = lambda mode=True: model
    try:
        yield
    finally:
        del model.train


def checkpoint_first(count: int) -> Any:
    """A callback that leaves gradient checkpointing on in the first `count` decoder layers when training begins.

    The first: backward reaches them last, when what the other layers kept is gone already.
    """
    from transformers import TrainerCallback

    class CheckpointFirst(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            decoder = model.get_base_model().model
            decoder.gradient_checkpointing = False  # its layers decide, each for itself
            for number, layer in enumerate(decoder.layers):
                layer.gradient_checkpointing = number < count

    return CheckpointFirst()


MOST_GROUPS = 48


def fold_groups(batches: Sequence[tuple[float, int]]) -> list[float]:
    """Mean losses of at most `MOST_GROUPS` groups of batches, each given as (mean loss, trained tokens)."""
    groups = []
    for first in range(min(MOST_GROUPS, len(batches))):
        part = batches[first::MOST_GROUPS]
        groups.append(sum(mean * count for mean, count in part) / max(1, sum(count for _, count in part)))
    return groups
