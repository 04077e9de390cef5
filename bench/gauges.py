"""What a worker reads off torch, its profiler and trainer. `device`: "cuda" or "cpu". Bytes, seconds and FLOP/s."""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.profiler import ProfilerActivity, profile

from toolkit.bench_results import IDLE
from toolkit.data.table import IGNORED
from toolkit.kernels import cuda_graphs as graphs
from toolkit.training.packing import MICRO_BATCHES

PROBES = 8  # single trained tokens whose loss is compared between variants
PROBE_TOKENS = 256
NARROW = "(8|16|24|32|40|48|64)"  # sides of a tile
# what a kernel's name says it does; the first that fits counts
KINDS: tuple[tuple[str, str], ...] = (
    ("attention", r"flash|attention|fmha|cutlassF|cutlassB"),
    ("matrix products in float8", r"nvjet\w*_q|e4m3|fp8"),
    (
        "thin matrix products",
        rf"nvjet_sm\d+_[a-z]+_({NARROW}x\d+|\d+x{NARROW})_|splitKred|gemv",
    ),
    ("matrix products", r"nvjet|gemm|cutlass|xmma|dot_kernel"),
    ("NF4 to 16 bits", r"[dD]equantize"),
    ("rows to float8", r"round_rows"),
    ("loss of the head", r"cross_entropy|softmax|_fused_linear"),
    ("optimizer", r"multi_tensor_apply|FusedAdam|foreach"),
    ("copies and fills", r"^Mem(cpy|set)|direct_copy|copy_kernel|FillFunctor|CatArray"),
    ("elementwise and reductions, compiled", r"^triton_"),
)
OTHER = "others"
LONGEST = 150  # characters of a name


def product(device: str, kind: torch.dtype) -> float:
    """FLOP/s of a large matrix product: the best of a few."""
    size, times = (8192, 4) if device == "cuda" else (512, 1)
    left = torch.randn(size, size, device=device, dtype=kind)
    right = torch.randn(size, size, device=device, dtype=kind)
    best = 0.0
    for _ in range(6):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(times):
            left @ right
        synchronize(device)
        best = max(best, times * 2 * size**3 / (time.perf_counter() - started))
    del left, right
    empty(device)
    return best


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def mark(device: str) -> Any:
    """A moment on the device's own clock: when it has done what it was handed so far."""
    if device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds(start: Any, end: Any) -> float:
    """Between two marks that the device has passed."""
    return float(end - start) if isinstance(start, float) else float(start.elapsed_time(end)) / 1e3


def empty(device: str) -> None:
    """Give memory that is not in use back, so that other variants have room."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def reset_peak(device: str) -> None:
    if device == "cuda":
        graphs.reset_peak()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident now


def peaks(device: str) -> tuple[int, int]:
    """(allocated, reserved) peak bytes; on a CPU both are the process's peak resident bytes."""
    if device == "cuda":
        return graphs.peak_allocated(), int(torch.cuda.max_memory_reserved())
    resident = peak_resident()
    return resident, resident


def reserved(device: str) -> int:
    """Bytes that torch holds now, in use or not."""
    return int(torch.cuda.memory_reserved()) if device == "cuda" else 0


def peak_resident() -> int:
    """This process's peak resident bytes since the last reset."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def at_failure(device: str) -> dict[str, int]:
    """What the card had left when memory ran out, and what this process had of it."""
    if device != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info()
    allocated, reserved = peaks(device)
    return {"free": int(free), "total": int(total), "allocated": allocated, "reserved": reserved}


def static_parts(model: Any, optimizer: Any) -> dict[str, int]:
    """Bytes at rest by part, counted from the tensors themselves; a storage that is shared counts once."""
    seen: set[int] = set()

    def size(tensor: Any) -> int:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen:
            return 0
        seen.add(storage.data_ptr())
        return int(storage.nbytes())

    frozen = trained = gradients = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            trained += size(parameter.data)
            gradients += parameter.numel() * parameter.element_size()
            continue
        frozen += size(parameter.data)
        frozen += sum(size(tensor) for tensor in _quantisation(getattr(parameter, "quant_state", None)))
    frozen += sum(size(buffer) for buffer in model.buffers())
    optimizer = getattr(optimizer, "optimizer", optimizer)  # inside Accelerate's
    states = [value for state in optimizer.state.values() for value in state.values()]
    held = sum(size(value) for value in states if hasattr(value, "untyped_storage"))
    return {"frozen weights": frozen, "trained weights": trained, "gradients": gradients, "optimizer states": held}


def _quantisation(state: Any) -> list[Any]:
    """Tensors of a bitsandbytes quantisation state, and of the state of its own scales."""
    if state is None:
        return []
    own = [value for value in vars(state).values() if hasattr(value, "untyped_storage")]
    return own + _quantisation(getattr(state, "state2", None))


def probe(trainer: Any, collate: Any, table: Any, *, packed: bool) -> list[float]:
    """Loss of single trained tokens of the first rows, through the trainer's own loss in evaluation mode.

    A mean over many tokens hides a layer left out or a mask ignored; single tokens do not. `packed`: the collator packs
    rows, and each row stands behind another, which it must not see.
    """
    model = trainer.model
    model.eval()
    found = []
    for index in range(PROBES):
        ids, labels = table.row(index % table.n_rows)
        trained = [i for i, label in enumerate(labels) if label != IGNORED and i > 0]
        spot = trained[(index * 7) % len(trained)]
        start = max(0, spot + 1 - PROBE_TOKENS)
        single = labels.copy()
        single[:] = IGNORED
        single[spot] = ids[spot]
        rows = [(ids[start : spot + 1], single[start : spot + 1])]
        if packed:
            other, silent = table.row((index + 1) % table.n_rows)
            rows.insert(0, (other[:PROBE_TOKENS], np.full_like(silent[:PROBE_TOKENS], IGNORED)))
        batch = collate([{"rows": rows}])
        batch.pop("real_tokens")
        batch = trainer._prepare_inputs(batch)
        if packed:
            summed, count = trainer.held_out_loss(batch)
            found.append(round(summed / count, 5))
            continue
        with torch.no_grad(), trainer.compute_loss_context_manager():
            found.append(round(float(trainer.compute_loss(model, batch)), 5))
    model.train()
    for values in getattr(trainer, "_metrics", {}).values():
        values.clear()
    return found


def packed_sizes(trainer: Any, updates: int) -> list[int]:
    """Token counts, filling included, of the micro-batches of the trainer's first updates."""
    found: set[int] = set()
    recording = trainer.data_collator
    trainer.data_collator = recording.collate
    try:
        with torch.random.fork_rng():
            for update in itertools.islice(trainer.get_train_dataloader(), updates):
                found |= {int(one["input_ids"].shape[1]) for one in update[MICRO_BATCHES]}
    finally:
        trainer.data_collator = recording
    return sorted(found)


def warm_shapes(trainer: Any, sizes: list[int], longest: int) -> None:
    """Run a micro-batch of each size forward and backward, so that no update that is timed waits for a compiler."""
    collate = trainer.data_collator.collate
    with torch.random.fork_rng():
        for size in sizes:
            ids = np.full(size, collate.pad_token_id, dtype=np.int64)
            labels = np.where(np.arange(size) % 8 == 0, ids, IGNORED)
            rows = [(ids[i : i + longest], labels[i : i + longest]) for i in range(0, size, longest)]
            packed = collate.pack(rows, collate.multiple)
            items = torch.tensor(int((labels != IGNORED).sum()), device=trainer.args.device)
            trainer.training_step(trainer.model, {MICRO_BATCHES: [packed]}, items)
            trainer.model.zero_grad()


def sample(model: Any) -> list[Any]:
    """A few trained matrices as they are now, to see later whether training moved them.

    Not norms, whose 16-bit weights of about 1 a small rate can't move, nor the first matrix, the embedding where all
    weights train, many of whose rows no chat has touched.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim == 2][1:]
    step = max(1, len(trained) // 8)
    return [parameter.detach().flatten()[:4096].float().cpu().clone() for parameter in trained[::step]]


def moved(before: list[Any], after: list[Any]) -> bool:
    """Whether every sampled tensor has changed."""
    return bool(before) and all(bool((a != b).any()) for a, b in zip(before, after, strict=True))


def checkpointed(model: Any) -> int:
    """How many modules have gradient checkpointing turned on."""
    return sum(bool(getattr(module, "gradient_checkpointing", False)) for module in model.modules())


def kernel_kind(name: str) -> str:
    """What a kernel does, read off its name."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), OTHER)


def profiler() -> Any:
    """torch's profiler for the card's work alone, so that the host is held up as little as can be."""
    return profile(activities=[ProfilerActivity.CUDA], acc_events=True)


def kernel_intervals(profile: Any) -> list[tuple[str, float, float]]:
    """(name, start, end) of all that ran on the card, in seconds, by start."""
    found = [
        (event.name, event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in profile.events()
        if event.device_type.name == "CUDA"
    ]
    return sorted(found, key=lambda item: item[1])


def sum_kernels(events: Sequence[tuple[str, float, float]], updates: int) -> list[dict[str, Any]]:
    """Rows of `Kernel` without the variant, the longest first, and one of the time in which the card did nothing.

    Kernels that run at one time each count whole; idle is what no kernel covers between the first and the last.
    """
    calls: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    covered, idle = events[0][1] if events else 0.0, 0.0
    for name, start, end in events:
        calls[name[:LONGEST]] += 1
        seconds[name[:LONGEST]] += end - start
        idle += max(0.0, start - covered)
        covered = max(covered, end)
    rows = [
        {"name": name, "kind": kernel_kind(name), "calls": calls[name] / updates, "seconds": seconds[name] / updates}
        for name in sorted(seconds, key=lambda name: -seconds[name])
    ]
    return [*rows, {"name": IDLE, "kind": IDLE, "calls": 0.0, "seconds": idle / updates}]
