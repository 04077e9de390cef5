"""Continuous batching: rows decode together, each at its own length, and one whose chat has ended takes the next chat.

Keys and values stand in memory that is taken once, those of a row's token p at place p: rows need no padding, and what
stands behind a row's last token is never read. A step reads one token of every row. On a GPU it is recorded once as a
CUDA graph and replayed, because Python launches its thousand kernels more slowly than the card runs them, and the host
looks at what came of it only every few steps: a row that has ended goes on until then, to no effect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

from toolkit.errors import first_line
from toolkit.inference.meter import Meter
from toolkit.inference.row_cache import Places, RowLayer

EVERY = 4  # steps on a GPU between looks at what came of them
ROUND = 64  # places of a row are a multiple: attention kernels want their masks aligned
# Prompt tokens read at a time. A CPU wants few, that what is computed between layers stays in its caches: with more, 16
# prompts of unlike length take twice the time.
AT_ONCE = {"cpu": 2048, "cuda": 16384}
CACHE_BYTES = 1 << 29  # of keys and values that a CPU decodes from together
ROOM = 0.5  # of a GPU's free memory that keys and values may take
WORTH_COMPACTING = 4  # rows; with fewer, going on costs less than copying


def is_plain(model: Any) -> bool:
    """Whether a causal LM (without a PEFT wrapper) can be decoded here: every layer keeps keys and values of all
    tokens and no more, a token's rotation depends on its own position only, masks are torch's, and what takes cache
    and mask is transformers' own code."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    others = ("attention_chunk_size", "num_kv_shared_layers") + (
        () if getattr(config, "layer_types", None) else ("sliding_window",)
    )
    if set(kinds) != {"full_attention"} or any(getattr(config, name, None) for name in others):
        return False
    if config._attn_implementation not in ("sdpa", "flash_attention_2"):
        return False
    decoder = getattr(model, model.base_model_prefix, None)
    if decoder is None or not getattr(model, "_supports_attention_backend", False):
        return False
    for module in model.modules():
        rope = str(getattr(module, "rope_type", ""))
        if "dynamic" in rope or "longrope" in rope:
            return False
        taking = module is model or module is decoder or hasattr(module, "layer_idx")
        if taking and not type(module).forward.__module__.startswith("transformers."):
            return False
    return True


def rows_at_once(model: Any, tokens: int, *, plain: bool) -> int:
    """How many rows of so many tokens, with those to come, there is memory for. What is not `plain` is read as one
    padded batch, of which a CPU wants little."""
    weight = model.get_input_embeddings().weight
    if not plain and not weight.is_cuda:
        return max(1, AT_ONCE["cpu"] // tokens)
    room = CACHE_BYTES
    if weight.is_cuda:
        unused = torch.cuda.memory_reserved(weight.device) - torch.cuda.memory_allocated(weight.device)
        room = int((torch.cuda.mem_get_info(weight.device)[0] + unused) * ROOM)
    config = model.config.get_text_config(decoder=True)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * shared * head * weight.element_size()
    return max(1, int(room // (tokens * a_token)))


Replay = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a device wants rows decoded: `every` so many steps the host looks at what came, more prompts are read when
    `refill` rows are free, and `record` makes a step into what replays it. `shrinks`: fewer rows and places cost less.
    """

    every: int
    refill: int
    shrinks: bool
    record: Callable[[Callable[[], None]], Replay] | None = None


def schedule_of(model: Any, rows: int) -> Schedule:
    if model.get_input_embeddings().weight.device.type == "cpu":
        return Schedule(every=1, refill=1, shrinks=True)
    # Reading costs the host as much as a dozen steps, however few prompts are read: half the rows at a time.
    can_record = getattr(model, "_can_compile_fullgraph", False)
    return Schedule(EVERY, (rows + 1) // 2, shrinks=False, record=record if can_record else None)


def record(work: Callable[[], None]) -> Replay:
    """What launches again the kernels that `work` launches. Raises `RuntimeError` where they can't be recorded."""
    graph = torch.cuda.CUDAGraph()
    # other threads may pin memory meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay  # type: ignore[no-any-return]


class Rows:
    """`count` rows of at most `tokens` tokens in a causal LM without a PEFT wrapper; see `is_plain`.

    `problem`: why no recorded step is replayed where one should be.
    """

    def __init__(self, model: Any, count: int, tokens: int, schedule: Schedule, temperature: float = 0.0) -> None:
        self.model, self.schedule, self.temperature = model, schedule, temperature
        self.device = model.get_input_embeddings().weight.device
        self.last = tokens - 1
        capacity = -(-tokens // ROUND) * ROUND
        # each row's next token to be read, and its place
        self.tokens = torch.zeros(count, 1, dtype=torch.long, device=self.device)
        self.places = Places(count, capacity, capacity, torch.zeros_like(self.tokens))
        self.numbers = torch.arange(capacity, device=self.device)
        layers = model.config.get_text_config(decoder=True).num_hidden_layers
        self.cache = Cache(layers=[RowLayer(self.places) for _ in range(layers)])
        self.replay: Replay | None = None
        self.tried = False
        self.problem = ""

    # no_grad, not inference_mode: what a model caches meanwhile (rotary tables) must serve training afterwards.
    @torch.no_grad()
    def read(self, rows: Sequence[int], prompts: Sequence[list[int]]) -> None:
        """Put `prompts` into `rows`: all tokens but each one's last, which the next step reads."""
        decoder = getattr(self.model, self.model.base_model_prefix)
        start = 0
        while start < len(rows):
            count = max(1, AT_ONCE[self.device.type] // len(prompts[start]))
            part = prompts[start : start + count]
            width = max(map(len, part)) - 1
            if width:
                ids = torch.tensor([[*ids[:-1], *[0] * (width + 1 - len(ids))] for ids in part], device=self.device)
                self.places.reading = self._tensor(rows[start : start + count])
                decoder(
                    input_ids=ids,
                    position_ids=self.numbers[None, :width].expand(len(part), -1),
                    past_key_values=self.cache,
                    use_cache=True,
                )
                self.places.reading = None
            start += count
        where = self._tensor(rows)
        self.tokens.index_copy_(0, where, self._tensor([ids[-1] for ids in prompts])[:, None])
        self.places.positions.index_copy_(0, where, self._tensor([len(ids) - 1 for ids in prompts])[:, None])

    @torch.no_grad()
    def steps(self, count: int, limit: int) -> list[list[int]]:
        """The next `count` tokens of every row, step by step. `limit`: places that rows in use reach by then."""
        if self.schedule.shrinks:
            self.places.limit = min(limit, self.places.capacity)
        made = torch.empty(count, len(self.tokens), dtype=torch.long, device=self.device)
        for number in range(count):
            if self.replay is not None:
                self.replay()
            elif self.schedule.record is None or self.tried:
                self._step()
            else:
                self._record(self.schedule.record)
            made[number] = self.tokens[:, 0]
        return made.tolist()  # type: ignore[no-any-return]

    @torch.no_grad()
    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, which are numbered anew in the order given."""
        where = self._tensor(rows)
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[where], layer.values[where]
        self.tokens, self.places.positions = self.tokens[where], self.places.positions[where]
        self.places.rows = len(rows)

    def _step(self) -> None:
        positions = self.places.positions
        scores = self.model(
            input_ids=self.tokens,
            position_ids=positions,
            attention_mask=(self.numbers[: self.places.limit] <= positions)[:, None, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.tokens.copy_(self._picked(scores.float())[:, None])
        positions.add_(1).clamp_(max=self.last)  # rows that have ended stay within their places

    def _picked(self, scores: torch.Tensor) -> torch.Tensor:
        """Tokens [rows] of scores [rows, vocabulary]."""
        if not self.temperature:
            return scores.argmax(dim=-1)
        chances = (scores / self.temperature).softmax(dim=-1)
        # what torch.multinomial does for one draw, but that asks the card whether these are chances
        return (chances / torch.empty_like(chances).exponential_()).argmax(dim=-1)

    def _record(self, record: Callable[[Callable[[], None]], Replay]) -> None:
        """Run a step, which also has libraries make what they keep, record it, and see that a replay gives the same."""
        self.tried = True
        state = (self.tokens, self.places.positions)
        before = [one.clone() for one in state]
        self._step()
        after = [one.clone() for one in state]
        try:
            replay = record(self._step)
        except RuntimeError as error:  # torch.cuda.OutOfMemoryError too
            self.problem = first_line(error)
            return
        if not self.temperature:  # a second draw differs
            _put(state, before)
            replay()
            if not torch.equal(self.tokens, after[0]):
                self.problem = "a replay gave other tokens"
            _put(state, after)
        self.replay = None if self.problem else replay

    def _tensor(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(list(numbers), dtype=torch.long, device=self.device)


def _put(tensors: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def decode_continuously(
    model: Any,
    prompts: Sequence[list[int]],
    count: int,
    *,
    max_new_tokens: int,
    stop_ids: Collection[int],
    temperature: float,
    meter: Meter,
) -> Iterator[tuple[int, list[int]]]:
    """Decode prompts of at least one token, the longest first, in `count` rows: (index, new tokens) of each as it ends.

    The stop token is among its new tokens.
    """
    schedule = schedule_of(model, count)
    rows = Rows(model, count, len(prompts[0]) + max_new_tokens - 1, schedule, temperature)
    waiting, free = deque(range(len(prompts))), list(range(count))
    going: dict[int, int] = {}  # rows in use, and what they decode
    made: list[list[int]] = [[] for _ in prompts]
    told = False
    while waiting or going:
        if waiting and (len(free) >= schedule.refill or not going):
            taken = [waiting.popleft() for _ in free[: len(waiting)]]
            rows.read(free[: len(taken)], [prompts[index] for index in taken])
            going |= zip(free, taken, strict=False)
            free = free[len(taken) :]
        elif schedule.shrinks and not waiting and count > WORTH_COMPACTING and 2 * len(going) <= count:
            rows.keep(list(going))  # every row costs its share of a step
            count, free, going = len(going), [], dict(enumerate(going.values()))
        steps = min(schedule.every, max_new_tokens - min(len(made[index]) for index in going.values()))
        limit = max(len(prompts[index]) + len(made[index]) for index in going.values()) + steps - 1
        for tokens in rows.steps(steps, limit):
            for row, index in list(going.items()):
                made[index].append(tokens[row])
                if tokens[row] in stop_ids or len(made[index]) == max_new_tokens:
                    del going[row]
                    free.append(row)
                    yield index, made[index]
        meter.under_way(sum(len(made[index]) for index in going.values()) / max_new_tokens)
        if rows.problem and not told:
            told = True
            meter.say(f"no CUDA graph ({rows.problem}): decoding takes longer")
