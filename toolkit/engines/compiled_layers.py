"""Decoder layers compiled by torch.compile, for packed micro-batches.

Layers of a model are alike, so one is compiled and all run it. `train.compile = "static"` makes code for each length:
micro-batches are filled up to a multiple of a thousand tokens and their edges to one of `EDGES`, so that there are few,
and nothing that is a Python number and changes between micro-batches reaches a layer. "dynamic" makes one code for all
lengths. Where no layer recomputes, a micro-batch's kernels are recorded for each length and replayed
(`toolkit.kernels.cuda_graphs`). Layers run compiled while they train only: evaluation and decoding, whose shapes
differ, run as they would without.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cache import cache_root
from toolkit.engines.base import Multiple, Packing
from toolkit.errors import EngineError
from toolkit.models.families import family_of

if TYPE_CHECKING:
    import torch

    from toolkit.kernels.cuda_graphs import Recorder
    from toolkit.kernels.packed_attention import Kernel

BACKEND = "inductor"
EDGES = 32
# What forward keeps for backward: products and attention, and whatever can be made from these by reading them once is
# made again (torch would keep norms, products of gate and up, and casts that a kernel needs as they are).
KEEP_LITTLE = {
    "ban_recompute_used_far_apart": False,
    "ban_recompute_long_fusible_chains": False,
    "ban_recompute_materialized_backward": False,
    "ban_recompute_reductions": False,
}
OPTIONS = {"comprehensive_padding": False}  # it would copy what float8 products read, rows of no round number of bytes
CACHE_OWN = "autograd_cache_allow_custom_autograd_functions"
MOST_SHAPES = 64  # that a layer may be compiled for before torch gives up and runs it as it is


def keep_code() -> None:
    """Keep what is compiled between runs, under the toolkit's cache unless the environment says where."""
    usual = Path(tempfile.gettempdir())  # where torch itself has it, and puts into the environment when it looks
    said = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if said is None or (Path(said).parent == usual and Path(said).name.startswith("torchinductor_")):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(code_folder())


def code_folder() -> Path:
    """Where compiled code is kept, by the text of functions with gradients of their own, which torch does not read."""
    kernels = Path(__file__).parents[1] / "kernels"
    texts = [path.read_bytes() for path in (Path(__file__), *sorted(kernels.glob("*.py")))]
    return cache_root() / "inductor" / hashlib.sha256(b"".join(texts)).hexdigest()[:12]


class CompiledLayers:
    """The decoder layers of a PEFT-wrapped model, compiled while `training` holds and as they were outside of it.

    `longest`: tokens that no row has more of. `kernel`: how rows attend (`toolkit.kernels.packed_attention`).
    `dynamic` and `backend` are torch.compile's; None is Inductor. `fuse`: the dtype of the products,
    where adapters are to run within them (`toolkit.kernels.fused_lora`), frozen weights in `float8` or as they are.
    `graphs`: replay what was recorded, where no layer recomputes.
    """

    def __init__(
        self,
        model: Any,
        longest: int,
        *,
        kernel: Kernel = "rows",
        dynamic: bool = False,
        backend: str | Callable[..., Any] | None = None,
        fuse: torch.dtype | None = None,
        float8: bool = False,
        graphs: bool = False,
    ) -> None:
        import torch._dynamo
        import torch._functorch.config as functorch

        from toolkit.kernels import dropout
        from toolkit.kernels import fused_lora as products

        torch._dynamo.config.recompile_limit = max(MOST_SHAPES, torch._dynamo.config.recompile_limit)
        self.attention, self.dynamic = {"longest": longest, "kernel": kernel}, dynamic
        base = model.get_base_model()
        self.layers = list(base.model.layers)
        dropout.hash_dropout(self.layers)
        # as torch.nn.Module.compile makes it, which would leave it in place for evaluation too
        how: dict[str, Any] = {"backend": backend} if backend else {"backend": BACKEND, "options": OPTIONS}
        # None: what is marked is dynamic, and nothing else
        calls = [torch.compile(layer._call_impl, dynamic=None if dynamic else False, **how) for layer in self.layers]
        self.calls = self._marked(calls, family_of(base).kinds(base.config.to_dict()))
        self.groups = [] if fuse is None else products.fuse(self.layers, family_of(base), fuse, float8=float8)
        self.settings = dict(KEEP_LITTLE)
        if os.environ.get("TORCHINDUCTOR_CACHE_DIR") == str(code_folder()) and hasattr(functorch, CACHE_OWN):
            self.settings[CACHE_OWN] = True
        self.active = False
        self.recorder = self._recorder(model) if graphs else None

    def _recorder(self, model: Any) -> Recorder:
        from toolkit.kernels.cuda_graphs import Recorder

        decoder = model.get_base_model().model
        trained = [parameter for parameter in decoder.parameters() if parameter.requires_grad]

        def none_recomputes() -> bool:
            return not any(getattr(module, "gradient_checkpointing", False) for module in (decoder, *self.layers))

        return Recorder(decoder, trained, each=not self.dynamic, allowed=none_recomputes)

    def _marked(self, calls: list[Callable[..., Any]], kinds: Sequence[str]) -> list[Callable[..., Any]]:
        """The layers' calls, where what a layer is given is made to look alike in those that are the first of their
        kind: others of Gemma 3's kinds are handed other angles of rotation."""
        first = {kind: place for place, kind in reversed(list(enumerate(kinds or ["all"])))}
        return [self._first(call) if place in {0, *first.values()} else call for place, call in enumerate(calls)]

    def _first(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A layer's `call`, for which hidden states are made to look like those of all others.

        They want a gradient, though nobody reads it, or the first layer would need code of its own, at twice the time
        to compile; and their number of tokens is marked where one code is to serve all.
        """
        import torch

        def first(hidden: Any, *args: Any, **kwargs: Any) -> Any:
            if not hidden.requires_grad:
                hidden = hidden.detach().requires_grad_()
            if self.dynamic:
                torch._dynamo.maybe_mark_dynamic(hidden, 1)
                for value in kwargs.get("position_embeddings") or ():
                    torch._dynamo.maybe_mark_dynamic(value, 1)
                for name in ("position_ids", "seq_idx"):
                    if kwargs.get(name) is not None:
                        torch._dynamo.maybe_mark_dynamic(kwargs[name], 1)
            return call(hidden, *args, **kwargs)

        return first

    def packing(self, multiple: Multiple, *, cuda: bool) -> Packing:
        """How a trainer hands them micro-batches, filled up to a `multiple`."""
        from toolkit.kernels.packed_attention import packed

        static = cuda and not self.dynamic
        return Packing(self.packed_inputs, self.training, packed, multiple, EDGES, known_lengths=static)

    @contextmanager
    def training(self, model: Any) -> Iterator[None]:
        """Layers run compiled, forward, backward and when they recompute. Raises `EngineError` where torch can't."""
        import torch._functorch.config as functorch
        from torch._dynamo.exc import TorchDynamoException

        from toolkit.kernels.fused_lora import fused
        from toolkit.kernels.packed_attention import packed

        for layer, call in zip(self.layers, self.calls, strict=True):
            layer._compiled_call_impl = call
        self.active = True
        decoder = model.get_base_model().model
        if self.recorder is not None:
            decoder.forward = self.recorder.forward
        try:
            with packed(model), fused(self.groups), functorch.patch(self.settings):
                yield
        except TorchDynamoException as error:
            raise EngineError(cannot_compile(error)) from error
        finally:
            self.active = False
            if self.recorder is not None:
                del decoder.forward
            for layer in self.layers:
                layer._compiled_call_impl = None

    def packed_inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A packed micro-batch without the numbers that would make torch compile again."""
        if not self.active:
            return batch
        return {name: value for name, value in batch.items() if name != "sizes"} | self.attention


def cannot_compile(error: Exception) -> str:
    """What a user is told when torch fails to compile a layer: where it failed, and what goes without."""
    import torch

    inner = getattr(error, "inner_exception", error)
    said = next((line.strip() for line in str(inner).splitlines() if line.strip()), "no reason given")
    return (
        f"train.engine: torch {torch.__version__} could not compile this model's layers: "
        f'{type(inner).__name__}: {said}; --set train.engine="unsloth" or --set train.engine="peft" goes without'
    )
