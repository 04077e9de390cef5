"""Teacher-forced: the same held-out answers through the trained model, each file's weights, and without the adapter.

The trained model is the base with PEFT's adapter beside it, unmerged, in float32: nothing of the export's own merge. A
file's weights are dequantised into a transformers model whose config follows the file's keys, so that all positions and
the whole vocabulary can be compared; what llama.cpp's own arithmetic adds is measured apart, see `runtime`.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.export.architecture import read_architecture
from toolkit.export.merge import open_merged
from toolkit.export.merge_base import load_into
from toolkit.export.verify.files import GgufFile, GgufWeights
from toolkit.export.verify.verification_data import Material, ScoredRow
from toolkit.exports import ExportRecord
from toolkit.models.loading import load_config, load_model
from toolkit.progress import without_bars
from toolkit.trusted import load_adapter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Divergence:
    """Position by position, how another model differs from the trained one.

    kl: KL(trained || other) in nats. same: both have the same most probable token. loss: by how many nats the other
    predicts the token that stands there worse.
    """

    kl: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    in_call: list[bool] = field(default_factory=list)

    def numbers(self) -> dict[str, Any]:
        """Means over all positions, and over those of turns with tool calls."""
        calls = np.array(self.in_call, dtype=bool)
        found = {"all": self._part(np.ones(len(calls), dtype=bool))}
        if calls.any():
            found["tool_calls"] = self._part(calls)
        return found

    def _part(self, chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
        kl = np.array(self.kl)[chosen]
        return {
            "positions": len(kl),
            "kl_mean": float(kl.mean()),
            "kl_p99": float(np.quantile(kl, 0.99)),
            "top1_same": int(np.array(self.same)[chosen].sum()),
            "loss_difference": float(np.array(self.loss)[chosen].mean()) if self.loss else None,
        }


@dataclass(slots=True)
class Reference:
    """What the trained model predicts: log-probabilities [positions, vocabulary], kept on disk, row after row.

    `rows` are those that it was asked about: all of the first `chats` chats.
    """

    logprobs: npt.NDArray[np.float32]
    rows: list[ScoredRow] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    chats: int = 0

    @property
    def positions(self) -> int:
        return sum(len(row.positions) for row in self.rows)

    def of(self, row: int) -> npt.NDArray[np.float32]:
        """[positions of the row, vocabulary]"""
        return self.logprobs[self.starts[row] : self.starts[row] + len(self.rows[row].positions)]

    def add(self, row: ScoredRow, logprobs: npt.NDArray[np.float32]) -> None:
        start = self.positions
        self.logprobs[start : start + len(row.positions)] = logprobs
        self.starts.append(start)
        self.rows.append(row)


def load_trained(record: ExportRecord, dtype: str, device: str) -> Any:
    """The model that the export is of: base and adapter, side by side; the base as the merge took it."""
    model = load_base(Path(record.base.folder), dtype, device)
    if record.merge_base.base == "dequant":
        held = record.merge_base.held_dtype or "bfloat16"
        load_into(model, open_merged(Path(record.base.folder), None, dequant=True, held_dtype=held))
    if record.adapter is not None:
        model = load_adapter(model, record.adapter)
    return model.eval().to(device)


def load_base(folder: Path, dtype: str, device: str, config: Any = None) -> Any:
    """A transformers model from a folder, on a device, in eval mode, without progress bars."""
    import torch

    options: dict[str, Any] = {} if config is None else {"config": config}
    if device != "cpu":
        options["device_map"] = {"": device}  # straight onto it, without a copy in this machine's memory
    with without_bars():
        loaded = load_model(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", **options)
    return loaded.eval()


def load_file(file: GgufFile, record: ExportRecord, dtype: str, device: str) -> Any:
    """A GGUF as a transformers model: its tensors dequantised, rope and norm as its own keys say."""
    folder = Path(record.base.folder)
    config = load_config(folder)
    architecture = read_architecture(folder)
    setattr(config, architecture.family.norm_eps, float(file.value("{arch}.attention.layer_norm_rms_epsilon")))
    config.rope_parameters = {**config.rope_parameters, "rope_theta": float(file.value("{arch}.rope.freq_base"))}
    model = load_base(folder, dtype, device, config)
    load_into(model, GgufWeights(file, architecture))
    return model


@contextlib.contextmanager
def reference_of(
    model: Any,
    material: Material,
    vocabulary: int,
    scratch: Path,
    advance: Callable[[], None],
    goes_on: Callable[[], bool],
) -> Iterator[Reference]:
    """The trained model's log-probabilities at all positions of chat after chat, in a file of `scratch` for the block.

    Ends early, but never before the first chat, when `goes_on` says so; `advance` is called after each chat.
    """
    total = sum(len(row.positions) for row in material.rows)
    path = scratch / "reference.f32"
    kept = np.memmap(path, dtype=np.float32, mode="w+", shape=(total, vocabulary))
    reference = Reference(kept)
    try:
        for number in range(len(material.chats)):
            if number and not goes_on():
                break
            for row in material.rows:
                if row.chat == number:
                    reference.add(row, logprobs(model, row).cpu().numpy())
            reference.chats += 1
            advance()
        yield reference
    finally:
        del kept, reference.logprobs
        path.unlink(missing_ok=True)


def compare(model: Any, reference: Reference, chats: int, advance: Callable[[], None] = lambda: None) -> Divergence:
    """How `model` differs from the trained one, at every position of the first `chats` chats; `advance` is called
    after each of them."""
    found = Divergence()
    rows = [row for row in reference.rows if row.chat < chats]
    for index, row in enumerate(rows):
        add(found, reference.of(index), logprobs(model, row), row)
        if index + 1 == len(rows) or rows[index + 1].chat != row.chat:
            advance()
    return found


def add(found: Divergence, trained: npt.NDArray[np.float32], other: Tensor, row: ScoredRow) -> None:
    """Put a row's positions into `found`; both log-probabilities [positions, vocabulary]. Computed where `other` is."""
    import torch

    p, q = torch.from_numpy(np.array(trained)).to(other.device).double(), other.double()
    targets = torch.tensor([[row.ids[position]] for position in row.positions], device=other.device)
    # at least 0 by definition; rounding in float32 can put a few 1e-9 below
    found.kl += (p.exp() * (p - q)).sum(dim=1).clamp(min=0.0).tolist()
    found.same += (p.argmax(dim=1) == q.argmax(dim=1)).tolist()
    found.loss += (p.gather(1, targets) - q.gather(1, targets))[:, 0].tolist()
    found.in_call += row.in_call


def logprobs(model: Any, row: ScoredRow) -> Tensor:
    """Log-probabilities [positions, vocabulary] of what follows ids[:position], float32, where the model is."""
    import torch

    device = next(model.parameters()).device
    keep = torch.tensor([position - 1 for position in row.positions], device=device)
    ids = torch.tensor([row.ids[: row.positions[-1]]], device=device)  # what comes after is not asked about
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0]
        return torch.log_softmax(logits.float(), dim=-1)


def release() -> None:
    """Give back the memory of a model that went out of use."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
