"""What other tools call the settings of a recipe, and where it has none, what is done instead.

One table: the message about an unknown key goes by it, and docs/recipe-names.md is `page()` (a test keeps the two
equal).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HF, UNSLOTH, AXOLOTL, FACTORY, TUNE = "transformers, TRL", "Unsloth", "axolotl", "LLaMA-Factory", "torchtune"
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Other:
    """`names` that `tools` use. `ours`: our key with its section, empty where there is none; `value`: what it is set
    to, where the other's own value would not do. `word`: what else there is to know."""

    names: tuple[str, ...]
    tools: str
    ours: str = ""
    word: str = ""
    value: str = ""


TABLE: tuple[Other, ...] = (
    # the model
    Other(("model_name_or_path", "model_name"), f"{HF}, {UNSLOTH}, {FACTORY}", "model.name"),
    Other(("base_model", "base_model_name", "model_id", "pretrained_model"), f"{AXOLOTL}, {OTHERS}", "model.name"),
    Other(("model_revision", "base_model_revision"), f"{HF}, {AXOLOTL}", "model.revision"),
    Other(("torch_dtype", "model_dtype"), HF, "model.dtype"),
    Other(("quantization", "quantization_bit", "quantization_config"), FACTORY, "model.load_in_4bit", value="true"),
    Other(("use_4bit", "qlora"), OTHERS, "model.load_in_4bit", value="true"),
    Other(
        ("load_in_8bit", "use_8bit"),
        f"{HF}, {UNSLOTH}, {AXOLOTL}",
        word="weights are held in 16 bits, or as NF4 with model.load_in_4bit = true; 8 bits in the frozen products are "
        'train.products = "float8"',
    ),
    Other(
        ("bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "bnb_4bit_use_double_quant", "double_quantization"),
        f"{HF}, {FACTORY}",
        word="4-bit weights are NF4 with double quantisation: model.load_in_4bit = true",
    ),
    Other(
        ("flash_attention", "flash_attn", "use_flash_attention_2", "sdp_attention", "xformers_attention"),
        f"{AXOLOTL}, {FACTORY}",
        "model.attn_implementation",
        value='"auto"',
    ),
    Other(
        ("chat_template", "chat_template_path", "template"),
        f"{AXOLOTL}, {FACTORY}, {UNSLOTH}",
        "data.call_format",
        "the tokenizer's own chat template is taken; call_format says how calls are written",
        '"native"',
    ),
    # LoRA
    Other(("lora_r", "lora_rank", "rank", "lora_dim"), f"{AXOLOTL}, {FACTORY}, {TUNE}", "lora.r"),
    Other(("alpha",), OTHERS, "lora.lora_alpha"),
    Other(("dropout",), OTHERS, "lora.lora_dropout"),
    Other(
        ("lora_target", "lora_target_modules", "lora_attn_modules", "finetune_attention_modules"),
        f"{FACTORY}, {AXOLOTL}, {TUNE}",
        "lora.target_modules",
    ),
    Other(
        ("lora_target_linear", "apply_lora_to_mlp"), f"{AXOLOTL}, {TUNE}", "lora.target_modules", value='"all-linear"'
    ),
    Other(("lora_modules_to_save", "additional_target"), f"{AXOLOTL}, {FACTORY}", "lora.modules_to_save"),
    Other(("lora_bias",), OTHERS, "lora.bias"),
    Other(("peft_use_dora", "dora"), AXOLOTL, "lora.use_dora"),
    Other(("peft_use_rslora", "rslora"), AXOLOTL, "lora.use_rslora"),
    Other(
        ("adapter", "finetuning_type", "peft_type", "use_peft", "use_lora"),
        f"{AXOLOTL}, {FACTORY}, {HF}",
        word="a LoRA is trained, always; QLoRA is model.load_in_4bit = true",
    ),
    Other(
        ("init_lora_weights", "loftq_config", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
        f"HF PEFT, {UNSLOTH}",
        word="not offered; PEFT's default is taken",
    ),
    Other(
        ("rank_pattern", "alpha_pattern", "target_parameters", "trainable_token_indices", "ensure_weight_tying"),
        "HF PEFT",
        word="not offered; PEFT's default is taken",
    ),
    Other(
        ("exclude_modules",),
        "HF PEFT",
        "lora.target_modules",
        "a list has only what is adapted, and a text is a regular expression over whole names",
        '["q_proj", "v_proj"]',
    ),
    Other(("task_type", "inference_mode"), "HF PEFT", word="not needed; a causal language model is trained, always"),
    # the data
    Other(
        ("dataset", "datasets", "dataset_name", "dataset_path", "dataset_dir", "data_path", "train_file", "path"),
        f"{AXOLOTL}, {FACTORY}, {HF}",
        "data.sources.source",
        "each source is a table of its own: [[data.sources]]",
    ),
    Other(("dataset_split", "train_split"), HF, "data.sources.split"),
    Other(("dataset_config", "dataset_config_name", "subset"), f"{HF}, {FACTORY}", "data.sources.config"),
    Other(("type", "formatting", "ds_type", "dataset_type"), f"{AXOLOTL}, {FACTORY}", "data.sources.format"),
    Other(("max_samples", "max_train_samples"), f"{FACTORY}, {HF}", "data.sources.limit"),
    Other(
        ("dataset_num_proc", "dataset_processes", "preprocessing_num_workers", "dataloader_num_workers"),
        f"{HF}, {AXOLOTL}, {FACTORY}",
        "data.num_proc",
    ),
    Other(
        ("dataset_text_field", "field_messages", "message_property_mappings", "column_mapping"),
        f"{HF}, {AXOLOTL}, {FACTORY}",
        "data.sources.columns",
        "common columns are recognised by looking at them",
        '{ user = "question", assistant = "answer" }',
    ),
    Other(
        (
            "train_on_inputs",
            "train_on_prompt",
            "train_on_input",
            "assistant_only_loss",
            "completion_only_loss",
            "train_on_responses_only",
            "roles_to_train",
            "mask_history",
        ),
        f"{AXOLOTL}, {FACTORY}, {HF}, {UNSLOTH}",
        word="only what the assistant says is trained, always; `toolkit data preview` shows it",
    ),
    # training
    Other(
        ("max_seq_length", "max_seq_len", "sequence_len", "sequence_length", "cutoff_len", "model_max_length"),
        f"{UNSLOTH}, {TUNE}, {AXOLOTL}, {FACTORY}, older TRL",
        "train.max_length",
    ),
    Other(("block_size", "context_length", "max_tokens", "max_sequence_length"), OTHERS, "train.max_length"),
    Other(
        ("packing", "padding_free", "sample_packing", "neat_packing", "packed", "dataset_packed"),
        f"{HF}, {UNSLOTH}, {AXOLOTL}, {FACTORY}, {TUNE}",
        "train.micro_batch",
        "an update's chats are packed without padding; which chats it has does not change",
        '"auto"',
    ),
    Other(
        ("group_by_length", "pad_to_sequence_len"),
        f"{HF}, {AXOLOTL}",
        "train.micro_batch",
        "packed chats need no padding",
        '"auto"',
    ),
    Other(
        ("batch_size", "train_batch_size", "micro_batch_size", "per_device_batch_size"),
        f"{TUNE}, {AXOLOTL}, {OTHERS}",
        "train.per_device_train_batch_size",
        "chats of a micro-batch; times gradient_accumulation_steps an update",
    ),
    Other(
        ("grad_accum", "gradient_accumulation", "grad_accumulation_steps", "accumulation_steps"),
        OTHERS,
        "train.gradient_accumulation_steps",
    ),
    Other(("epochs", "num_epochs", "n_epochs", "max_epochs"), f"{TUNE}, {AXOLOTL}, {OTHERS}", "train.num_train_epochs"),
    Other(("steps", "num_steps", "max_steps_per_epoch", "num_train_steps", "iters"), OTHERS, "train.max_steps"),
    Other(("lr", "learningrate"), OTHERS, "train.learning_rate"),
    Other(
        ("warmup_steps", "num_warmup_steps", "lr_warmup_steps"),
        f"{HF}, {UNSLOTH}, {TUNE}",
        "train.warmup_ratio",
        "a share of all updates, as 0.1",
    ),
    Other(("warmup",), OTHERS, "train.warmup_ratio", "a share of all updates, as 0.1"),
    Other(("lr_scheduler", "scheduler", "lr_schedule"), f"{AXOLOTL}, {TUNE}", "train.lr_scheduler_type"),
    Other(("optimizer", "optimiser"), f"{AXOLOTL}, {TUNE}", "train.optim"),
    Other(("gradient_clipping", "grad_clip", "clip_grad_norm"), f"{AXOLOTL}, {TUNE}", "train.max_grad_norm"),
    Other(
        ("use_gradient_checkpointing", "activation_checkpointing", "enable_activation_checkpointing"),
        f"{UNSLOTH}, {TUNE}",
        "train.gradient_checkpointing",
        'true, false, "unsloth", or "auto" with micro_batch = "auto"',
    ),
    Other(
        ("gradient_checkpointing_kwargs", "activation_offloading", "enable_activation_offloading"),
        f"{HF}, {AXOLOTL}, {TUNE}",
        "train.gradient_checkpointing",
        "offloaded with the unsloth engine",
        '"unsloth"',
    ),
    Other(("mixed_precision", "precision"), OTHERS, "train.bf16", "or train.fp16 = true", '"auto"'),
    Other(("torch_compile", "compile_model"), f"{HF}, {AXOLOTL}", "train.engine", value='"compiled"'),
    Other(("unsloth", "use_unsloth"), FACTORY, "train.engine", value='"unsloth"'),
    Other(("random_state", "random_seed", "manual_seed"), f"{UNSLOTH}, {OTHERS}", "train.seed"),
    Other(
        ("use_wandb", "wandb_project", "wandb_entity", "wandb", "use_tensorboard", "metric_logger", "log_with"),
        f"{AXOLOTL}, {TUNE}, {OTHERS}",
        "train.report_to",
        value='["wandb"]',
    ),
    Other(("save_strategy", "saves_per_epoch", "checkpoint_steps"), f"{HF}, {AXOLOTL}", "train.save_steps"),
    Other(("logging_strategy", "log_every_n_steps", "log_steps"), f"{HF}, {TUNE}", "train.logging_steps"),
    Other(("max_train_time", "time_limit"), OTHERS, "train.max_minutes"),
    Other(
        ("stage", "task", "rl", "trainer_type"), f"{FACTORY}, {AXOLOTL}", word="supervised fine-tuning is all there is"
    ),
    Other(
        ("deepspeed", "fsdp", "fsdp_config", "ddp", "num_gpus", "tensor_parallel_size"),
        f"{HF}, {AXOLOTL}, {FACTORY}",
        word="a model is not split; `toolkit run --gpus N` shares an update's chats",
    ),
    Other(
        ("neftune_noise_alpha", "label_smoothing_factor", "loraplus_lr_ratio", "adam_epsilon", "dpo_beta", "beta"),
        f"{HF}, {AXOLOTL}, {FACTORY}",
        word="not offered",
    ),
    Other(("tf32", "data_seed", "ddp_find_unused_parameters"), HF, word="not needed; leave it out"),
    Other(
        ("remove_unused_columns", "use_cache", "do_train", "do_eval"),
        HF,
        word="not needed; leave it out",
    ),
    Other(("use_cpu", "no_cuda", "device_map"), HF, word="not needed; a GPU is taken where there is one"),
    Other(("use_liger_kernel", "use_liger", "liger_kernel"), HF, "train.engine", "its kernels are fused", '"compiled"'),
    Other(("loss_type", "dataset_kwargs", "shuffle_dataset"), HF, word="not offered"),
    Other(("trust_remote_code",), HF, word="a model's own code is never run"),
    Other(("eos_token", "pad_token"), HF, word="not needed; the tokenizer's own is taken"),
    # evaluation
    Other(
        ("val_set_size", "val_size", "eval_ratio", "test_size", "validation_split"),
        f"{AXOLOTL}, {FACTORY}, {OTHERS}",
        "eval.holdout",
        "a number of chats, or a share below 1",
    ),
    Other(
        ("eval_dataset", "test_datasets", "validation_file", "eval_file"),
        f"{FACTORY}, {AXOLOTL}, {HF}",
        "eval.sources.source",
        "each source is a table of its own: [[eval.sources]]",
    ),
    Other(
        ("eval_strategy", "evaluation_strategy", "evals_per_epoch", "eval_every", "run_val_every_n_steps"),
        f"{HF}, {AXOLOTL}, {FACTORY}, {TUNE}",
        "eval.eval_steps",
        'updates between evaluations, or "epoch"',
    ),
    Other(("eval_batch_size", "per_device_test_batch_size"), OTHERS, "eval.per_device_eval_batch_size"),
    Other(
        ("load_best_model_at_end", "metric_for_best_model", "save_best_model"),
        HF,
        "eval.best",
        "the best adapter is kept wherever eval.early_stopping_patience is above 0",
        '"auto"',
    ),
    Other(("early_stopping", "patience"), OTHERS, "eval.early_stopping_patience"),
    Other(("predict_with_generate", "do_sample_eval"), FACTORY, "eval.generate", "held-out chats to decode"),
    # what is made of it
    Other(
        ("quantization_method", "gguf_quant", "export_quantization_bit", "save_gguf"),
        f"{UNSLOTH}, {FACTORY}",
        "export.gguf",
        value='["q8_0"]',
    ),
    Other(
        ("output_dir", "run_name", "save_path", "logging_dir"),
        f"{HF}, {AXOLOTL}, {FACTORY}",
        word="not in a recipe: toolkit run RECIPE --out FOLDER",
    ),
    Other(
        ("resume_from_checkpoint", "overwrite_output_dir"),
        f"{HF}, {AXOLOTL}, {FACTORY}",
        word="not in a recipe: toolkit run RECIPE --resume FOLDER",
    ),
    Other(
        ("push_to_hub", "hub_model_id", "hub_token", "hub_strategy", "token"),
        f"{HF}, {AXOLOTL}, {UNSLOTH}",
        word="not in a recipe: toolkit push RUN NAME/MODEL, once it is trained",
    ),
)
BY_NAME: dict[str, Other] = {name: other for other in TABLE for name in other.names}

SECTIONS = {
    **dict.fromkeys(("training", "trainer", "training_args", "sft", "optim", "optimizer", "hyperparameters"), "train"),
    **dict.fromkeys(("dataset", "datasets"), "data"),
    **dict.fromkeys(("peft", "lora_config", "adapter", "peft_config"), "lora"),
    **dict.fromkeys(("evaluation", "validation", "val", "test"), "eval"),
    **dict.fromkeys(("save", "gguf", "ollama"), "export"),
}
"""Tables that others have, and ours."""


def written(other: Other) -> str:
    """Our key as it is written in a recipe, with the value where one is given: `micro_batch = "auto"` of [train]."""
    key = other.ours.rpartition(".")[2]
    return f"{key} = {other.value}" if other.value else key


MADE_BY = """python -c "from toolkit.recipe.names import page; print(page(), end='')" > docs/recipe-names.md"""


def page() -> str:
    """docs/recipe-names.md."""
    return "\n".join([*_page(), ""])


def _page() -> Iterator[str]:
    yield "# What other tools call it"
    yield ""
    yield "Names that transformers, TRL, Unsloth, axolotl, LLaMA-Factory, torchtune and others have, and ours."
    yield "An unknown key in a recipe is answered from this table, which is made by"
    yield ""
    yield f"    {MADE_BY}"
    yield ""
    yield "| other tools' name | used by | here | |"
    yield "|---|---|---|---|"
    for other in TABLE:
        section = other.ours.rpartition(".")[0]
        heading = f"[[{section}]]" if "." in section else f"[{section}]"
        here = f"`{heading}` `{written(other)}`" if other.ours else "no such setting"
        names = ", ".join(f"`{name}`" for name in other.names)
        yield f"| {names} | {other.tools} | {here} | {other.word} |"
