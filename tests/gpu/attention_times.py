"""xformers against PyTorch's kernels called by ourselves, and against attention a row at a time: numbers and time.

python -m tests.gpu.attention_times      # on a card, with a libcudart that xformers' library loads with
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from toolkit.kernels.row_attention import attend_rows
from toolkit.kernels.xformers_rows import why_not, xformers_rows

HEADS, SHARED, SIZE, LONGEST = 16, 8, 128, 2048  # Qwen3-1.7B's
SCALE = SIZE**-0.5
ROUNDS = 20
AHEAD = 20_000_000  # cycles the card sleeps, about 10 ms: the host has launched everything when it begins


class Case:
    """Rows of a packed micro-batch of `tokens`, as long as chats are."""

    def __init__(self, tokens: int, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        draw, left = random.Random(tokens), tokens
        self.sizes: list[int] = []
        while left:
            self.sizes.append(min(LONGEST, max(40, int(draw.lognormvariate(6.7, 0.6))), left))
            left -= self.sizes[-1]
        self.edges = torch.tensor([0, *self.sizes]).cumsum(0).to("cuda", torch.int32)
        self.parts = [
            torch.randn(tokens, heads, SIZE, device="cuda").to(dtype).requires_grad_()
            for heads in (HEADS, SHARED, SHARED)
        ]
        self.gradient = torch.randn(tokens, HEADS, SIZE, device="cuda").to(dtype)

    def rows(self) -> torch.Tensor:
        return attend_rows(*self.parts, self.edges, LONGEST, SCALE)[0]

    def xformers(self) -> torch.Tensor:
        return xformers_rows(*self.parts, self.edges, LONGEST, SCALE)[0]

    def segments(self) -> torch.Tensor:
        """PyTorch's attention a row at a time, as Unsloth's dispatcher does without xformers."""
        wide = (part.transpose(0, 1)[None].repeat_interleave(HEADS // part.shape[1], 1) for part in self.parts)
        q, k, v = (part.split(self.sizes, 2) for part in wide)
        with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
            made = [
                scaled_dot_product_attention(a, b, c, is_causal=True, scale=SCALE)
                for a, b, c in zip(q, k, v, strict=True)
            ]
        return torch.cat(made, 2)[0].transpose(0, 1)

    def gradients(self, out: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(out, self.parts, self.gradient)


def on_the_card(case: Case, attend: Callable[[], torch.Tensor]) -> tuple[float, float]:
    """Milliseconds forward and backward."""
    marks: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
    torch.cuda._sleep(AHEAD)  # type: ignore[no-untyped-call]
    marks[0].record()
    out = attend()
    marks[1].record()
    case.gradients(out)
    marks[2].record()
    torch.cuda.synchronize()
    return marks[0].elapsed_time(marks[1]), marks[1].elapsed_time(marks[2])


def on_the_host(case: Case, attend: Callable[[], torch.Tensor]) -> float:
    """Milliseconds of launching both."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(5):
        case.gradients(attend())
    return (time.perf_counter() - started) / 5 * 1e3


def compare(tokens: int, dtype: torch.dtype) -> None:
    case = Case(tokens, dtype)
    ways = {"rows": case.rows, "xformers": case.xformers, "segments": case.segments}
    outs = [way() for way in (case.rows, case.xformers)]
    same = [torch.equal(*pair) for pair in (outs, *zip(*map(case.gradients, outs), strict=True))]
    print(f"{tokens} tokens, {len(case.sizes)} rows, {dtype}: out, dq, dk, dv the same to the last bit: {same}")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            found[name].append(on_the_card(case, way))
    middle = {name: [statistics.median(times) for times in zip(*taken, strict=True)] for name, taken in found.items()}
    for name, (forward, backward) in middle.items():
        ratio = (forward + backward) / sum(middle["rows"])
        host = on_the_host(case, ways[name])
        print(f"  {name:9} {forward:.3f} ms forward, {backward:.3f} backward, x{ratio:.2f}; {host:.2f} ms of launching")


if __name__ == "__main__":
    print(torch.__version__, torch.cuda.get_device_name())
    for length in (2048, 8192, 16_384):
        for kind in (torch.float16, torch.bfloat16):
            if refused := why_not(torch.device("cuda", 0), kind, SIZE):
                raise SystemExit(refused)
            compare(length, kind)
