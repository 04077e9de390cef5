"""A chat while it is being made: it styles the user's words and runs every call in the world."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from toolkit.chats import ToolCall, Turn
from toolkit.world.catalog import Catalog
from toolkit.world.framing import framing
from toolkit.world.language import (
    Filled,
    Piece,
    Template,
    answer,
    capital,
    compose,
    fill,
    lower,
    misspell,
    parse,
    phrases,
    plain,
    said,
    splice,
    wording,
)
from toolkit.world.lexicon import person, words
from toolkit.world.paraphrase import paraphrase
from toolkit.world.rationale import rationale
from toolkit.world.spec import TOOLS, Sampler, Unsuitable
from toolkit.world.world import World

_REGISTERS = ("plain", "terse", "polite", "rambling")
_REGISTER_WEIGHTS = (0.3, 0.2, 0.2, 0.3)
_TYPO_RATE = 0.07
_COMPOSED = {"frame": 0.4, "both": 0.7}  # how often training's wording comes from the grammar
_WITHOUT_NAMING = 0.7  # of training's answers that no tool fits


class Draft:
    """Turns so far, the tools they need, and what the user's words leave to the system turn."""

    def __init__(self, r: Random, world: World, catalog: Catalog) -> None:
        self.r = r
        self.world = world
        self.catalog = catalog
        self.turns: list[Turn] = []
        self.needed: list[str] = []
        self.used: list[str] = []
        self.templates: list[str] = []
        self.dated = False
        self.satisfied = True  # whether the user would say "great" before the next request
        self.told = ""  # what the system turn says about the user
        self.invented: dict[str, dict[str, Any]] = {}  # schemas of tools that only this chat has
        self._reason = ""  # stands before the next call

    # the user

    def pick(self, entry: Mapping[str, Any], accept: Callable[[Template], bool] | None = None) -> str:
        """A template of this split from a phrase entry, noted for the chat's meta."""
        sources: list[str] = entry.get(self.catalog.key, [])
        if self.catalog.varied:
            sources = sources + entry.get("more", [])
        if accept is not None:
            sources = [source for source in sources if accept(parse(source))]
        if not sources:
            raise Unsuitable("no phrase")
        source = self.r.choice(sources)
        self.templates.append(source)
        return source

    def fill(self, source: str, slots: Mapping[str, Any], *, vary: bool = True) -> Filled:
        """The template with its slots filled; `vary` lets training say it in other words."""
        filled = fill(source, slots)
        if vary and self.catalog.varied:
            filled = paraphrase(self.r, filled)
        self.dated = self.dated or filled.dated
        return filled

    def user(self, *requests: Filled, neutral: bool = False) -> None:
        """One user turn that asks for one thing, or for two imperatives at once.

        `neutral` leaves out all names and days around the request, so that nothing reads like an answer to what the
        assistant is going to ask.
        """
        later = any(turn.role == "user" for turn in self.turns)
        if len(requests) == 2:
            x, y = (request.pieces for request in requests)
            core = capital(splice(self._wording("both"), {"x": x, "y": y}))
            pieces = self._dress(core, neutral=neutral)
        elif later:
            pieces = self._follow(requests[0])
        else:
            pieces = self._open(requests[0], neutral=neutral)
        if self.r.random() < _TYPO_RATE:
            pieces = misspell(self.r, pieces)
        self.turns.append(Turn("user", plain(pieces)))

    def reply(self, value: Any) -> None:
        """The user's answer to a question: the value, in a few words."""
        item = said(value)
        self.dated = self.dated or item.dated
        options: list[str] = wording()["reply"][self.catalog.question_key]
        if self.catalog.varied and self.r.random() < 0.5:
            options = [framing(self.r, "reply")]
        frame = self.r.choice(options)
        pieces = splice(frame, {"x": (Piece(item.text, literal=False),)})
        if self.r.random() < 0.3:
            pieces = (*pieces, Piece(" "), *self._around("closer", neutral=False))
        self.turns.append(Turn("user", plain(capital(pieces))))

    def with_sentence(self, request: Filled, part: str, name: str, value: Any = None) -> Filled:
        """The request and a sentence about an argument: what it is (`detail`) or that the user has it (`hint`)."""
        item = said("" if value is None else value)
        self.dated = self.dated or item.dated
        source = framing(self.r, part).replace("{name}", name).replace("{Name}", name[:1].upper() + name[1:])
        core = self._framed(request) if request.imperative else capital(ended(request.pieces))
        sentence = capital(splice(source, {"x": (Piece(item.text, literal=False),)}))
        order = (sentence, core) if part == "detail" and self.r.random() < 0.3 else (core, sentence)
        return replace(request, pieces=(*order[0], Piece(" "), *order[1]), imperative=False)

    def _wording(self, name: str) -> str:
        if self.catalog.varied and name in _COMPOSED and self.r.random() < _COMPOSED[name]:
            return framing(self.r, name)
        options: list[str] = wording()[name][self.catalog.frame_key]
        if self.catalog.varied:
            options = options + wording()[name].get("more", [])
        return self.r.choice(options)

    def _around(self, name: str, neutral: bool) -> tuple[Piece, ...]:
        options: Sequence[str] = wording()[name][self.catalog.frame_key]
        if self.catalog.varied and self.r.random() < 0.5:
            options = [framing(self.r, f"neutral_{name}" if neutral and name != "opener" else name)]
        if neutral:
            options = [source for source in options if set(parse(source).slots) <= {"_topic"}]
        return capital(fill(self.r.choice(options), context_slots(self.r, self.world)).pieces)

    def _open(self, request: Filled, neutral: bool) -> tuple[Piece, ...]:
        register = self.r.choices(_REGISTERS, _REGISTER_WEIGHTS)[0]
        if register == "terse":
            core = request.pieces
            if request.imperative:
                core = splice(self._wording("terse"), {"x": core})
            return _unpunctuated(lower(core))
        core = self._framed(request) if request.imperative else capital(ended(request.pieces))
        if register == "plain":
            return core
        return self._dress(core, neutral=neutral, rambling=register == "rambling")

    def _framed(self, request: Filled) -> tuple[Piece, ...]:
        """A polite or plain frame, without "for me" or "please" twice."""
        literal = plain(piece for piece in request.pieces if piece.literal)
        once = {"me", "please"} & set(re.findall(r"\w+", literal.lower()))
        while True:
            frame = self._wording("frame")
            if not once & set(re.findall(r"\w+", frame.lower())):
                return capital(splice(frame, {"x": request.pieces}))

    def _dress(self, core: Sequence[Piece], *, neutral: bool, rambling: bool | None = None) -> tuple[Piece, ...]:
        """Greeting, context and closing around a request."""
        if rambling is None:
            rambling = self.r.random() < 0.4
        before: list[tuple[Piece, ...]] = []
        after = rambling and self.catalog.varied and self.r.random() < 0.3
        if self.r.random() < (0.5 if rambling else 0.6):
            before.append(self._around("opener", neutral))
        if rambling and not after:
            before.append(self._around("context", neutral))
        parts: list[Piece] = []
        for stretch in before:
            parts += [*_after(parts, stretch), Piece(" ")]
        parts += _after(parts, tuple(core))
        if after:
            parts += [Piece(" "), *self._around("context", neutral)]
        if self.r.random() < 0.5:
            parts += [Piece(" "), *self._around("closer", neutral)]
        return capital(parts)

    def _follow(self, request: Filled) -> tuple[Piece, ...]:
        if not self.satisfied or self.r.random() < 0.15:
            return self._open(request, neutral=False)
        if request.imperative:
            return capital(splice(self._wording("next"), {"x": request.pieces}))
        return splice(self._wording("next_sentence"), {"x": capital(request.pieces)})

    # the assistant and the tools

    def invent(self, name: str, schema: dict[str, Any], alias: dict[str, Any]) -> None:
        """Let the world run a tool that only this chat has. Raises Unsuitable where another one has the name."""
        if name in self.invented:
            raise Unsuitable("one name for two tools")
        self.invented[name] = schema
        self.world.aliases[name] = alias

    def peek(self, name: str, arguments: dict[str, Any]) -> Any:
        """What an invented tool is going to return."""
        return json.loads(self.world.call(name, arguments))

    def schema(self, name: str) -> dict[str, Any]:
        return self.invented.get(name) or TOOLS[name].schema

    def because(self, way: str, *, holds: bool = True, **fields: Any) -> str:
        """What decides the next call, for the assistant to write before it; "" where chats have no rationales.

        Its wording has a chance of its own, so that chats are the same with and without.
        """
        if self.catalog.rationales:
            chance = Random(f"rationale {self.world.seed} {len(self.turns)}")
            self._reason = rationale(chance, way, fields, holds=holds)
        return self._reason

    def call(self, *calls: tuple[str, Mapping[str, Any]], may_fail: bool = False) -> list[Any]:
        """One assistant turn with these calls, and a tool turn for each with what the tool returned."""
        made = tuple(ToolCall(name, self._in_order(name, arguments)) for name, arguments in calls)
        self.turns.append(Turn("assistant", self._reason, tool_calls=made))
        self._reason = ""
        results: list[Any] = []
        for item in made:
            text = self.world.call(item.name, item.arguments)
            self.turns.append(Turn("tool", text, name=item.name))
            result = json.loads(text)
            if not may_fail and isinstance(result, dict) and "error" in result:
                raise Unsuitable(f"{item.name}: {result['error']}")
            results.append(result)
            self.used.append(item.name)
        return results

    def _in_order(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments in the schema's order."""
        properties = self.schema(name)["function"]["parameters"]["properties"]
        return {key: arguments[key] for key in properties if key in arguments}

    def say(self, text: str) -> None:
        self.turns.append(Turn("assistant", text))

    def stock(self, name: str, **fields: Any) -> str:
        return compose(self.r.choice(wording()["answers"][name]), fields)

    def decline(self, does: str, others: Sequence[str]) -> None:
        """Say that no tool on offer does what was asked (`does`); some name what one of the `others` does.

        What the tool wanted is called stands nowhere in the chat, so most of training says it without that; so does
        all of it where `does` is empty.
        """
        if self.catalog.varied and (not does or self.r.random() < _WITHOUT_NAMING):
            text, also = _capital(framing(self.r, "no_tool")), 0.2
        else:
            text, also = self.stock("lacking", does=does), 0.5
        if others and self.r.random() < also:
            text += " " + self.stock("instead", other=self.r.choice(others))
        self.say(text)

    def report(self, *calls: tuple[str, Mapping[str, Any], Any]) -> None:
        """The answer made from the results of (tool, arguments, result)."""
        seed = self.r.getrandbits(32)
        # one wording for results of one tool, so that a comparison reads like one
        texts = [answer(Random(seed), phrases()[name], arguments, result) for name, arguments, result in calls]
        self.say(
            (" " if all(text.endswith((".", "!", "?")) and "\n" not in text for text in texts) else "\n").join(texts)
        )

    def serve(self, name: str, arguments: Mapping[str, Any], *, may_fail: bool = False) -> Any:
        """Call one tool and answer from its result."""
        (result,) = self.call((name, arguments), may_fail=may_fail)
        self.report((name, arguments, result))
        return result


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def context_slots(r: Random, world: World) -> dict[str, str]:
    """Values for the slots of openers, contexts, closers and system turns."""
    return {
        "_person": person(r),
        "_first": r.choice(words("first")),
        "_me": world.first_name,
        "_my_name": world.name,
        "_company": r.choice(words("company")),
        "_topic": r.choice(words("topic")),
        "_weekday": r.choice(words("weekday")),
    }


def draw(sampler: Sampler, r: Random, world: World) -> dict[str, Any]:
    """Slot values from this world; Unsuitable where earlier calls have used up what the sampler picks from."""
    try:
        return sampler(r, world)
    except IndexError:  # random.choice of nothing
        raise Unsuitable("nothing left to pick from") from None


def sample(r: Random, world: World, name: str) -> dict[str, Any]:
    return draw(TOOLS[name].sample, r, world)


def _after(before: Sequence[Piece], core: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """The core's first letter in lower case where what stands before ends in a comma or colon."""
    ends = [piece.text for piece in before if piece.text.strip()]
    first = core[0]
    if not ends or not ends[-1].rstrip().endswith((",", ":")) or not first.literal:
        return core
    if first.text.startswith(("I ", "I'")):
        return core
    return (Piece(first.text[:1].lower() + first.text[1:]), *core[1:])


def ended(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """A sentence with a full stop if nothing else ends it."""
    done = plain(pieces).rstrip('"').endswith((".", "?", "!"))
    return tuple(pieces) if done else (*pieces, Piece("."))


def _unpunctuated(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    last = pieces[-1]
    return (*pieces[:-1], Piece(last.text.rstrip(".?!"))) if last.literal else tuple(pieces)
