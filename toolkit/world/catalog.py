"""What a split, a choice of domains and a limit on tools leave to make chats from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random
from typing import Any

from toolkit.chats import BUILTIN, TEST_SET
from toolkit.errors import DataError, Problem, did_you_mean
from toolkit.world.language import phrases
from toolkit.world.spec import CHAINS, TOOLS, Chain, Unsuitable

# domains that training may choose from; the test set has more
DOMAINS: tuple[str, ...] = tuple(sorted({tool.domain for tool in TOOLS.values() if tool.trained}))
_ALL_DOMAINS: tuple[str, ...] = tuple(sorted({tool.domain for tool in TOOLS.values()}))
SPLITS = ("train", "phrasing", "tools")
DECISIONS, PURPOSES = "decisions", "purposes"  # ways of making chats, which are then of the kinds below
ONLY_VARIED = 'only for training chats over all domains, with split = "train" and max_tools of at least 4'
TEST_SIZE = 1000
MIX: Mapping[str, float] = {
    "single": 0.35,
    "parallel": 0.10,
    "multi_step": 0.25,
    "clarify": 0.10,
    "refuse": 0.10,
    "irrelevance": 0.10,
}

# for training on all domains: more calls at once and more questions about what is missing, and fewer requests that no
# tool fits. With 10% of questions the model called or declined where it had to ask (24 of 120); with 18% less so (6 to
# 11), but it asked back for what had been said in 9 of the 35 calls that two of three seeds got wrong
# (docs/benchmarks/2026-11-30-quality.md)
TRAINING_MIX: Mapping[str, float] = {
    "single": 0.31,
    "parallel": 0.12,
    "multi_step": 0.24,
    "clarify": 0.15,
    "refuse": 0.11,
    "irrelevance": 0.07,
}

# for the test set: enough of every kind for an interval of +-8 points
TEST_MIX: Mapping[str, float] = {
    "single": 0.20,
    "parallel": 0.16,
    "multi_step": 0.16,
    "clarify": 0.16,
    "refuse": 0.16,
    "irrelevance": 0.16,
}

# domains whose tools could serve a request of another domain of the same set
_KIN = (
    {"files", "shell", "git", "http"},
    {"math", "finance", "text", "database"},
    {"calendar", "notes"},
    {"mail", "contacts"},
    {"maps", "travel", "weather"},
    {"shopping", "finance"},
    # domains that only the test set has
    {"library", "shopping"},
    {"library", "notes"},
    {"library", "maps"},
    {"fitness", "notes"},
    {"fitness", "calendar"},
    {"fitness", "math"},
    {"vehicle", "home"},
    {"vehicle", "maps"},
    {"vehicle", "travel"},
    {"pets", "calendar"},
    {"pets", "notes"},
    {"pets", "shopping"},
)

# tools that can do almost anything within their kin
_GENERAL = ("shell_exec", "http_get")


@dataclass(frozen=True)
class Catalog:
    """Tools, chains and refusals that one call of `chats` draws from, and how many tools it offers at most."""

    split: str
    domains: tuple[str, ...]
    max_tools: int
    test: bool = False
    rationales: bool = False  # whether the assistant writes what decides before a call

    @property
    def name(self) -> str:
        """The split's name among those of both sets, which its chance hangs on."""
        return f"test {self.split}" if self.test else self.split

    @property
    def source(self) -> str:
        """What recipes and `toolkit eval` call the chats."""
        return TEST_SET if self.test else BUILTIN

    @property
    def key(self) -> str:
        """Which list of a phrase entry is used."""
        if self.test:
            return "test"
        return "held" if self.split == "phrasing" else "say"

    @property
    def frame_key(self) -> str:
        """The same for what goes around a request: unseen tools may be asked for in the training frames."""
        return "say" if self.split == "tools" else self.key

    @property
    def varied(self) -> bool:
        """Whether tools go under other names and invented ones join them: for training on all domains."""
        return is_varied(self.split, self.domains, self.max_tools)

    @property
    def question_key(self) -> str:
        """The same for questions that have nothing to do with a tool: only training may use training's."""
        return "test" if self.test else "say" if self.split == "train" else "held"

    def _callable(self, name: str) -> bool:
        """Whether the expected calls of this split may use the tool, whatever its domain."""
        if self.split != "tools":
            return TOOLS[name].trained
        return TOOLS[name].test if self.test else TOOLS[name].held_out

    @cached_property
    def tools(self) -> tuple[str, ...]:
        """Tools that may be called."""
        return tuple(name for name in TOOLS if self._callable(name) and TOOLS[name].domain in self.domains)

    @cached_property
    def offered(self) -> tuple[str, ...]:
        """Tools that may be on offer: unseen ones only in the split that is about them."""
        return tuple(
            name
            for name, tool in TOOLS.items()
            if tool.domain in self.domains and (tool.trained or self._callable(name))
        )

    def having(self, what: str) -> tuple[str, ...]:
        """Callable tools whose phrase entry has the table `what` with phrases for this split."""
        return tuple(name for name in self.tools if self.key in phrases()[name].get(what, ()))

    @cached_property
    def many(self) -> tuple[str, ...]:
        return self.having("many")

    @cached_property
    def benign(self) -> tuple[str, ...]:
        return self.having("benign")

    @cached_property
    def again(self) -> tuple[str, ...]:
        return self.having("again")

    @cached_property
    def failing(self) -> tuple[str, ...]:
        return tuple(name for name in self.tools if TOOLS[name].bad is not None)

    @cached_property
    def asks(self) -> tuple[tuple[str, str], ...]:
        """(tool, required argument) that a request may leave out."""
        return tuple(
            (name, param)
            for name in self.tools
            for param, entry in phrases()[name].get("ask", {}).items()
            if self.key in entry
        )

    @cached_property
    def told(self) -> tuple[tuple[str, str], ...]:
        """Those of `asks` for which the system turn can say what the user leaves out."""
        return tuple((name, param) for name, param in self.asks if "told" in phrases()[name]["ask"][param])

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        return tuple(
            chain
            for chain in CHAINS.values()
            if len(set(chain.tools)) <= self.max_tools
            and all(name in self.tools for name in chain.tools)
            and self.key in phrases()[f"chain {chain.name}"]
        )

    @cached_property
    def refusals(self) -> tuple[str, ...]:
        """Names of phrase entries for requests that are refused though a tool at hand could do them."""
        return tuple(
            name
            for name, entry in phrases().items()
            if name.startswith("refuse ") and self.key in entry and any(tool in self.tools for tool in entry["tools"])
        )

    @cached_property
    def foreign(self) -> tuple[str, ...]:
        """Tools of any domain whose requests this split may use where the tool is not on offer.

        Not those for sums and texts: there it is open whether to say that no tool fits or to work it out.
        """
        return tuple(
            name
            for name, tool in TOOLS.items()
            if (self._callable(name) or (self.test and tool.test)) and tool.domain not in ("math", "text")
        )

    def possible(self, kind: str) -> bool:
        return bool(
            {
                "single": self.tools,
                "parallel": self.many or (len(self.tools) > 1 and self.max_tools > 1),
                "multi_step": self.chains,
                "clarify": self.asks,
                "refuse": self.refusals,
                "irrelevance": self.offered,
            }[kind]
        )

    def offer(self, r: Random, needed: Sequence[str], unfit: Callable[[str], bool] | None = None) -> tuple[str, ...]:
        """Names of the tools on offer, in mixed order: those needed and distractors, half of them from near by.

        Varied training also has distractors whose names share a word with those needed.
        """
        chosen = list(dict.fromkeys(needed))
        if len(chosen) > self.max_tools:
            raise Unsuitable("more tools needed than may be on offer")
        others = [name for name in self.offered if name not in chosen and not (unfit and unfit(name))]
        near = {TOOLS[name].domain for name in chosen}
        alike = frozenset().union(*(_alike(name) for name in needed if name in TOOLS)) if self.varied else frozenset()
        target = r.randint(min(max(len(chosen), 2), self.max_tools), self.max_tools)
        while len(chosen) < target and others:
            same = [name for name in others if TOOLS[name].domain in near]
            if alike and r.random() < 0.3:
                same = [name for name in others if name in alike]
            pick = r.choice(same if same and r.random() < (0.65 if self.varied else 0.5) else others)
            others.remove(pick)
            chosen.append(pick)
        if not chosen:
            raise Unsuitable("no tool that may be on offer")
        r.shuffle(chosen)
        return tuple(chosen)


def is_varied(split: str, domains: Sequence[str], max_tools: int) -> bool:
    """See `Catalog.varied`; no domains mean all."""
    return split == "train" and set(domains or DOMAINS) == set(DOMAINS) and max_tools >= 4


def too_much(decisions: float, purposes: float) -> str:
    """What is wrong with the two shares together, to stand behind "decisions = "; nothing where they fit."""
    total = decisions + purposes
    return f"{decisions:g} and purposes = {purposes:g} are {total:g}, wanted at most 1 together" if total > 1 else ""


@cache
def _alike(name: str) -> frozenset[str]:
    """Tools whose names share a word with this one's."""
    parts = set(name.split("_"))
    return frozenset(other for other in TOOLS if not parts.isdisjoint(other.split("_")))


def kin(domain: str, other: str) -> bool:
    """Whether a tool of one domain might serve a request of the other."""
    return any(domain in group and other in group for group in _KIN)


def could_serve(name: str, wanted: str) -> bool:
    """Whether the tool might, even in part, serve a request for the tool wanted."""
    if name == wanted:
        return True
    if TOOLS[name].domain == TOOLS[wanted].domain and name not in _GENERAL:
        near = TOOLS[wanted].near
        return near is None or name in near
    return kin(TOOLS[name].domain, TOOLS[wanted].domain)


def choose(
    split: str,
    domains: Sequence[str],
    kinds: Mapping[str, float] | None,
    max_tools: int,
    test: bool = False,
    decisions: float = 0.0,
    rationales: bool = False,
    purposes: float = 0.0,
) -> tuple[Catalog, dict[str, float]]:
    """The catalog, and the share of each kind and way; no `kinds`, or empty ones, mean the usual mix.

    Raises DataError with everything that is wrong.
    """
    kinds = kinds or None  # what a recipe says that names none is empty
    problems: list[Problem] = []
    source = TEST_SET if test else BUILTIN

    def known(what: str, values: Iterable[Any], names: Iterable[str]) -> None:
        names = tuple(names)
        for value in values:
            if value not in names:
                hint = did_you_mean(str(value), names) or f"; known: {', '.join(names)}"
                problems.append(Problem(source, f"unknown {what} {value!r}{hint}"))

    known("split", [split], SPLITS[1:] if test else SPLITS)
    known("domain", domains, _ALL_DOMAINS if test else DOMAINS)
    known("kind", kinds or (), MIX)
    usual = TEST_MIX if test else TRAINING_MIX if is_varied(split, domains, max_tools) else MIX
    shares = dict(kinds or usual)
    for kind, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < float("inf"):
            problems.append(Problem(source, f"share of kind {kind} must be a number from 0 up, not {share!r}"))
    if not problems and not sum(shares.values()):
        problems.append(Problem(source, "the shares of all kinds are 0"))
    if max_tools < 1:
        problems.append(Problem(source, f"max_tools must be at least 1, not {max_tools}"))
    ways = {DECISIONS: decisions, PURPOSES: purposes}
    for name, share in ways.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            problems.append(Problem(source, f"{name} must be a share from 0 to 1, not {share!r}"))
    if not problems and (both := too_much(decisions, purposes)):
        problems.append(Problem(source, f"decisions = {both}"))
    every = _ALL_DOMAINS if test else DOMAINS
    catalog = Catalog(split, tuple(dict.fromkeys(domains)) or every, max_tools, test, rationales)
    if not problems and not catalog.varied:
        asked = [name for name, value in {**ways, "rationales": rationales}.items() if value]
        if asked:
            problems.append(Problem(source, f"{asked[0]}: {ONLY_VARIED}"))
    if problems:
        raise DataError(problems)
    missing = [kind for kind, share in shares.items() if share and not catalog.possible(kind)]
    # asked for by name it is a mistake; from the usual mix it is left out
    if missing and (kinds is not None or len(missing) == len(shares)):
        what = f"no chats of kind {', '.join(missing)} with split {split!r}, max_tools {max_tools}"
        raise DataError(Problem(source, f"{what} and domains {', '.join(catalog.domains)}: add domains or tools"))
    shares = {kind: share for kind, share in shares.items() if share and kind not in missing}
    if any(ways.values()):
        total, rest = math.fsum(shares.values()), 1 - math.fsum(ways.values())
        shares = {kind: share / total * rest for kind, share in shares.items()} | ways
    return catalog, {kind: share for kind, share in shares.items() if share > 0}
