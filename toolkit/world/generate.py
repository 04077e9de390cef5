"""`chats`: the built-in chats, one after another, each made in a world of its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from toolkit.chats import Chat, Turn
from toolkit.errors import DataError
from toolkit.world.catalog import DECISIONS, PURPOSES, Catalog, choose
from toolkit.world.deciding import deciding, kind_of
from toolkit.world.disguise import disguise
from toolkit.world.draft import Draft, context_slots
from toolkit.world.inventing import INVENTED
from toolkit.world.kinds import KINDS
from toolkit.world.language import compose, wording
from toolkit.world.purposes import purpose
from toolkit.world.rationale import asking, refusing
from toolkit.world.shelf.kinds import SHELF
from toolkit.world.spec import Unsuitable
from toolkit.world.workers import made_by_workers
from toolkit.world.world import World

_BLOCK = 40
_ATTEMPTS = 400

# For training on all domains: the shares of chats of the kinds that have them with tools of the shelf and with invented
# ones, and that of the other chats whose tools are under other names. A choice of domains keeps to their own tools.
_SHELF = 0.35
_INVENTED = 0.25
_DISGUISED = 0.6


def chats(
    size: int = 15_694,
    seed: int = 0,
    split: str = "train",
    domains: Sequence[str] = (),
    kinds: Mapping[str, float] | None = None,
    max_tools: int = 8,
    test: bool = False,
    workers: int = 1,
    decisions: float = 0.0,
    rationales: bool = False,
    purposes: float = 0.0,
) -> Iterator[Chat]:
    """Chats in which a user asks, tools run and the assistant answers; no user turn comes twice.

    The same arguments give the same chats in every process, and a smaller `size` gives the first of them. Training
    chats on all domains also have tools of the shelf, invented ones and tools under other names (`meta["aliases"]`
    tells the world what they are), and are asked for in more words.

    Args:
        size: how many chats.
        seed: another seed gives other chats.
        split: "train"; "phrasing", in templates never used in training; "tools", with calls to tools never seen there.
            The last two are the development set, which levers are chosen on.
        domains: only tools of these domains; empty means all.
        kinds: share of each kind, in any unit; None means the usual mix, less what the other arguments rule out.
        max_tools: most tools on offer in one chat.
        test: "phrasing" or "tools" of the test set instead: templates and tools that neither training nor the
            development set has, for final figures only.
        workers: processes that make them; 1: this one.
        decisions: share of chats in which a result decides, beside those of the kinds; the kinds share the rest.
        purposes: share of chats whose request says what it is for, harmful in half of them; likewise.
        rationales: where a result decides, the assistant writes what it decides by before the call; questions for what
            is missing begin with it, and refusals with no.

    Raises:
        DataError: an unknown split, domain or kind, a kind that can't be made, or no unused user text left.
        ToolkitError: a worker died.
    """
    catalog, shares = choose(split, domains, kinds, max_tools, test, decisions, rationales, purposes)
    source = Source(seed, catalog)
    order = zip(range(size), _order(seed, catalog.name, shares), strict=False)
    if workers == 1:
        return _unique(source, ((index, kind, None) for index, kind in order))
    return _unique(source, made_by_workers(source, order, workers))


@dataclass(frozen=True, slots=True)
class Made:
    """A chat, digests of its user turns (16 bytes each, far less than texts), and which attempt it was."""

    chat: Chat
    texts: frozenset[bytes]
    attempt: int


@dataclass(frozen=True, slots=True)
class Source:
    """Chats by their number: the same seed, catalog, number, kind and attempt give the same chat anywhere."""

    seed: int
    catalog: Catalog

    def make(self, index: int, kind: str, first: int = 0) -> Made:
        """The chat of the first attempt from `first` on that suits; DataError where none does."""
        for attempt in range(first, _ATTEMPTS):
            r = Random(f"chat {self.seed} {self.catalog.name} {index} {attempt}")
            try:
                chat = _make(r, index, kind, self.catalog)
            except Unsuitable:
                continue
            said = [_digest(turn.content) for turn in chat.turns if turn.role == "user"]
            texts = frozenset(said)
            if len(texts) == len(said):
                return Made(chat, texts, attempt)
        raise DataError(
            f"{self.catalog.source}: no unused user text left for kind {kind} after {index} chats; "
            "ask for a smaller size or for more domains"
        )


def _unique(source: Source, made: Iterable[tuple[int, str, Made | None]]) -> Iterator[Chat]:
    """The chats in order, made anew where a user turn came before. None: not made yet."""
    seen: set[bytes] = set()
    for index, kind, one in made:
        one = one or source.make(index, kind)
        while not seen.isdisjoint(one.texts):
            one = source.make(index, kind, one.attempt + 1)
        seen |= one.texts
        yield one.chat


def _order(seed: int, split: str, shares: Mapping[str, float]) -> Iterator[str]:
    """Kinds in their exact shares over every block, in mixed order within it."""
    r = Random(f"order {seed} {split}")
    total = math.fsum(shares.values())  # sum() rounds otherwise before Python 3.12, and ties then fall otherwise
    counts = dict.fromkeys(shares, 0)
    made = 0
    while True:
        block: list[str] = []
        for _ in range(_BLOCK):
            made += 1
            kind = max(counts, key=lambda name: shares[name] / total * made - counts[name])
            counts[kind] += 1
            block.append(kind)
        r.shuffle(block)
        yield from block


def _make(r: Random, index: int, kind: str, catalog: Catalog) -> Chat:
    world_seed = r.getrandbits(32)
    draft = Draft(r, World(world_seed), catalog)
    varied = catalog.varied
    if kind == DECISIONS:
        flags = deciding(draft)
        kind = kind_of(flags)
    elif kind == PURPOSES:
        flags, kind = purpose(draft)
    else:
        flags = _ways(r, kind, varied)[kind](draft)
    offer = flags.pop("offer", None) or catalog.offer(r, draft.needed)
    system = _system(draft)
    chat = Chat(
        turns=(*system, *draft.turns),
        tools=tuple(draft.schema(name) for name in offer),
        kind=kind,
        source=catalog.source,
        where=f"{catalog.source}#{f'{catalog.split}-' if catalog.test else ''}{index}",
    )
    aliases = {name: draft.world.aliases[name] for name in offer if name in draft.invented}
    if varied and r.random() < _DISGUISED:
        known = [name for name in offer if name not in draft.invented]
        chat, more = disguise(r, chat, known, keep=aliases)
        aliases |= more
    meta: dict[str, Any] = {
        "world": world_seed,
        "split": catalog.split,
        "tools_used": list(dict.fromkeys(call.name for turn in chat.turns for call in turn.tool_calls)),
        "templates": draft.templates,
        **flags,
    }
    if aliases:
        meta["aliases"] = aliases
    turns = _begun(chat, flags) if catalog.rationales else chat.turns
    return replace(chat, turns=turns, meta=meta)


def _begun(chat: Chat, flags: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns with the first answer begun as `rationales` has it, where it asks or refuses."""
    first = next(index for index, turn in enumerate(chat.turns) if turn.role == "assistant")
    said = chat.turns[first].content
    if chat.kind == "clarify":
        said = asking(said, flags["missing"])
    elif chat.kind == "refuse":
        said = refusing(said)
    return (*chat.turns[:first], replace(chat.turns[first], content=said), *chat.turns[first + 1 :])


def _ways(r: Random, kind: str, varied: bool) -> Mapping[str, Callable[[Draft], dict[str, Any]]]:
    """What makes the chat: tools of the shelf, invented ones or the built-in ones."""
    if not varied or kind not in SHELF:
        return KINDS
    which = r.random()
    return SHELF if which < _SHELF else INVENTED if which < _SHELF + _INVENTED else KINDS


def _system(draft: Draft) -> tuple[Turn, ...]:
    """A short system turn, with today's date where the user's words need it; often none."""
    r = draft.r
    lines: list[str] = []
    if r.random() < 0.5:
        lines.append(compose(r.choice(wording()["system"]["persona"]), context_slots(r, draft.world)))
    if draft.told:
        lines.append(draft.told)
    if draft.dated or r.random() < 0.15:
        today = draft.world.today
        lines.append(
            compose(r.choice(wording()["system"]["date"]), {"_day": f"{today:%A}", "_date": today.isoformat()})
        )
    return (Turn("system", " ".join(lines)),) if lines else ()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.casefold().encode(), digest_size=16).digest()
