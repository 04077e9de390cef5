"""What a token takes from those before it other than by attention, closed at the edges of packed rows.

LFM2's short convolutions and Qwen3.5's gated delta rules carry what they saw from one token to the next, and would do
so from chat to chat. The packages causal-conv1d and flash-linear-attention take rows' edges, PyTorch's own way in
transformers does not. So while rows are packed the functions of transformers' module that a family names
(`Family.row_functions`) are replaced by those here: they hand the edges on where what is installed has agreed on this
device that it keeps to them, and else keep to them themselves, exactly, on any device.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import pad

from toolkit.models.families import family_of

Function = Callable[..., Any]
CHUNK = 64  # tokens that the gated delta rule takes at one time
AGREE = 0.02  # of the largest value: 16-bit products in another order
EDGES = (0, 70, 71, 150)  # of the rows that functions are tried on


def lacking(base: Any) -> str | None:
    """Why the functions of a transformers model can't be replaced, in words; None where they can, or need not be."""
    module = sys.modules[type(base).__module__]
    missing = sorted(name for name in family_of(base).replaced(base.config.to_dict()) if not hasattr(module, name))
    return f"{module.__name__} has no {' and '.join(missing)}; another transformers may" if missing else None


@contextmanager
def closed(base: Any) -> Iterator[None]:
    """Close a transformers model's layers that have a state at the edges of packed rows, forward and backward."""
    names = family_of(base).replaced(base.config.to_dict())
    module = sys.modules[type(base).__module__]
    usual = {name: getattr(module, name) for name in names}
    hook = base.model.register_forward_pre_hook(_with_rows, with_kwargs=True) if names else None
    for name, function in usual.items():
        setattr(module, name, CLOSING[name](function))
    try:
        yield
    finally:
        for name, function in usual.items():
            setattr(module, name, function)
        if hook is not None:
            hook.remove()


def _with_rows(decoder: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Beside the edges the number of each token's row, int32 [1, tokens], by the names that transformers has."""
    if (edges := given.get("cu_seq_lens")) is None:
        return None
    places = torch.arange(given["input_ids"].shape[1], dtype=edges.dtype, device=edges.device)
    rows = torch.searchsorted(edges[1:], places, right=True).to(torch.int32)[None]
    return args, {**given, "seq_idx": rows, "cu_seq_lens_q": edges}


@functools.cache  # the same function each time, or compiled layers would be compiled again
def closed_conv(theirs: Function) -> Function:
    """`theirs`, called as transformers' causal_conv1d_fn, with taps that reach over the edge of a row left out."""

    def conv(
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        activation: str | None = None,
        seq_idx: torch.Tensor | None = None,
        **given: Any,
    ) -> torch.Tensor:
        """hidden_states [1, channels, tokens], weight [channels, taps], seq_idx [1, tokens]; returns what it has."""
        if seq_idx is not None and (
            torch.compiler.is_compiling()  # which makes one kernel of it
            or not conv_agrees(theirs, hidden_states.device, hidden_states.dtype, weight.shape[-1])
        ):
            return conv_rows(hidden_states, weight, bias, activation, seq_idx)
        made: torch.Tensor = theirs(hidden_states, weight, bias, activation=activation, seq_idx=seq_idx, **given)
        return made

    return conv


def conv_rows(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str | None,
    rows: torch.Tensor,
) -> torch.Tensor:
    """A causal convolution of each channel by itself, tap by tap, summed in at least float32; shapes as above."""
    from transformers.activations import ACT2FN

    wide = torch.promote_types(hidden.dtype, torch.float32)
    tokens, taps = hidden.shape[-1], weight.to(wide).unbind(-1)
    total = hidden.to(wide) * taps[-1][:, None]
    for back in range(1, len(taps)):
        same = pad(rows[:, back:] == rows[:, :-back], (min(back, tokens), 0))
        earlier = pad(hidden[..., :-back], (back, 0))[..., :tokens]
        total = total + torch.where(same[:, None], earlier, 0).to(wide) * taps[-1 - back][:, None]
    if bias is not None:
        total = total + bias.to(wide)[:, None]
    if activation is not None:
        total = ACT2FN[activation](total)
    return total.to(hidden.dtype)


@functools.cache
def closed_delta(theirs: Function) -> Function:
    """`theirs`, called as transformers' torch_chunk_gated_delta_rule, with a state that begins anew with each row."""

    def delta(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        cu_seqlens: torch.Tensor | None = None,
        sizes: Sequence[int] | None = None,
        **given: Any,
    ) -> tuple[torch.Tensor, Any]:
        """query, key, value [1, tokens, heads, size], and in `given` g and beta [1, tokens, heads]."""
        made: tuple[torch.Tensor, Any]
        if cu_seqlens is None:
            made = theirs(query, key, value, **given)
            return made
        if delta_agrees(theirs, query.device, query.dtype, query.shape[-1], value.shape[-1]):
            made = theirs(query, key, value, cu_seqlens=cu_seqlens, **given)
            return made
        sizes = cu_seqlens.diff().tolist() if sizes is None else sizes
        parts = {"query": query, "key": key, "value": value, "g": given.pop("g"), "beta": given.pop("beta")}
        return delta_rows(functools.partial(theirs, **given), parts, sizes), None

    return delta


def delta_rows(rule: Function, parts: dict[str, torch.Tensor], sizes: Sequence[int]) -> torch.Tensor:
    """A gated delta rule that knows no edges, over rows of `sizes` tokens: several at a time, filled up to the longest
    of them.

    Rows that stand together are of chunks between one power of two and the next, so that less than half of what is
    computed is filling. Filling stands behind a row and a token sees what is before it alone, so it changes nothing.
    """
    starts = itertools.accumulate(sizes, initial=0)
    alike: dict[int, list[tuple[int, int]]] = {}
    for start, size in zip(starts, sizes, strict=False):
        if size:
            alike.setdefault((-(-size // CHUNK) - 1).bit_length(), []).append((start, size))
    device = parts["value"].device
    made, back, before = [], torch.empty(sum(sizes), dtype=torch.int64), 0
    for group in alike.values():
        longest = max(size for _, size in group)
        begin, length = torch.tensor(group).T[..., None]
        places = torch.arange(longest)
        taken = begin + places.minimum(length - 1)  # filling repeats a row's last token
        out, _ = rule(**{name: part[0][taken.to(device)] for name, part in parts.items()})
        made.append(out.flatten(0, 1))
        flat = before + torch.arange(taken.numel()).view_as(taken)
        real = places < length
        back[taken[real]] = flat[real]
        before += taken.numel()
    return torch.cat(made)[back.to(device)][None]


CLOSING: dict[str, Callable[[Function], Function]] = {
    "causal_conv1d_fn": closed_conv,
    "torch_chunk_gated_delta_rule": closed_delta,
}
"""What closes a function of transformers', by its name there."""


@functools.cache
def conv_agrees(theirs: Function, device: torch.device, dtype: torch.dtype, taps: int) -> bool:
    """Whether a convolution keeps to rows' edges on this device, values and gradients."""
    hidden, weight = _random(device, dtype, (1, 150, 64), (64, taps))
    rows = torch.bucketize(torch.arange(150, device=device), torch.tensor(EDGES[1:], device=device), right=True)
    rows = rows.to(torch.int32)[None]

    def ours(hidden: torch.Tensor, **_: Any) -> torch.Tensor:
        return conv_rows(hidden.transpose(1, 2), weight, None, None, rows)

    def given(hidden: torch.Tensor) -> torch.Tensor:  # as projections lay them out
        made: torch.Tensor = theirs(hidden.transpose(1, 2), weight, None, activation=None, seq_idx=rows)
        return made

    return _alike(given, ours, hidden)


@functools.cache
def delta_agrees(theirs: Function, device: torch.device, dtype: torch.dtype, keys: int, values: int) -> bool:
    """The same of a gated delta rule with heads of so many features."""
    shapes = ((1, 150, 2, keys), (1, 150, 2, keys), (1, 150, 2, values), (1, 150, 2), (1, 150, 2))
    query, key, value, g, beta = _random(device, dtype, *shapes)
    parts = {"query": query, "key": key, "g": -g.float().abs(), "beta": beta.sigmoid()}
    edges = torch.tensor(EDGES, dtype=torch.int32, device=device)
    rule = functools.partial(theirs, use_qk_l2norm_in_kernel=True, output_final_state=False, initial_state=None)

    def ours(value: torch.Tensor) -> torch.Tensor:
        return delta_rows(rule, {**parts, "value": value}, edges.diff().tolist())

    def given(value: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = rule(**parts, value=value, cu_seqlens=edges)[0]
        return made

    return _alike(given, ours, value)


def _random(device: torch.device, dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    numbers = torch.Generator(device).manual_seed(0)
    return [torch.randn(shape, device=device, generator=numbers).to(dtype) for shape in shapes]


def _alike(theirs: Function, ours: Function, of: torch.Tensor) -> bool:
    found = []
    try:
        with torch.enable_grad(), torch.autocast(of.device.type, enabled=False):
            for function in (theirs, ours):
                leaf = of.detach().requires_grad_()
                out = function(leaf)
                weights = torch.linspace(0.5, 1.5, out.numel(), device=out.device).view_as(out)
                found.append((out, *torch.autograd.grad((out * weights).sum(), leaf)))
    except Exception:  # a package of another version, or not made for this card, may fail in any way
        return False
    return all(
        bool((mine.float() - other.float()).abs().max() <= AGREE * other.float().abs().max())
        for mine, other in zip(*found, strict=True)
    )
