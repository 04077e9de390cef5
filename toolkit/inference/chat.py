"""`toolkit chat`: talk to a model; what it calls runs in the built-in world and goes back to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from toolkit.chats import ToolCall, Turn
from toolkit.data.call_parsing import Parsed, parse
from toolkit.errors import InputError
from toolkit.inference.speaker import Sampling, Speaker, open_speaker
from toolkit.inference.tools import Toolbox, choose_tools, unseen
from toolkit.terminal import say, warn
from toolkit.words import counted

HELP = "/tools shows the tools, /reset begins anew, /quit (or Ctrl-D) leaves; Ctrl-C stops an answer"


@dataclass(slots=True)
class Step:
    """One assistant turn: its text as written, what was read in it, and the calls' results (None: not run).

    `repeats`: every call was made before for the same question, and came back with the same result.
    """

    text: str
    parsed: Parsed
    results: list[str | None] = field(default_factory=list)
    repeats: bool = False

    def as_dict(self) -> dict[str, Any]:
        calls = [
            {**asdict(call), "result": result} for call, result in zip(self.parsed.calls, self.results, strict=True)
        ]
        return {
            "text": self.text,
            "content": self.parsed.text,
            "tool_calls": calls,
            "problems": list(self.parsed.problems),
        }


@dataclass(slots=True)
class Conversation:
    """A chat as it unfolds. `max_steps`: most assistant turns to one question of the user."""

    speaker: Speaker
    toolbox: Toolbox
    system: str = ""
    max_steps: int = 8
    sampling: Sampling = field(default_factory=Sampling)
    turns: list[Turn] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all but the system turn."""
        self.turns = [Turn("system", self.system)] if self.system else []

    def ask(
        self,
        question: str,
        *,
        wrote: Callable[[str], None] = lambda piece: None,
        ran: Callable[[ToolCall, str | None], None] = lambda call, result: None,
    ) -> list[Step]:
        """Put a question; the model answers, its calls run and their results go back, until it answers in words.

        `wrote` is told each piece of text, `ran` each call and its result. Ends early where calls can't be run, and
        where they say nothing new (`Step.repeats`): a model that calls again and again would not stop by itself. What
        an interrupted answer had begun is forgotten, and so is its question. Raises `InputError` for a question that
        no model can be given.
        """
        _check_text(question)
        before = list(self.turns)
        self.turns.append(Turn("user", question))
        steps: list[Step] = []
        known: set[tuple[str, str, str | None]] = set()
        try:
            while len(steps) < self.max_steps:
                step = self._step(wrote)
                steps.append(step)
                for call in step.parsed.calls:
                    result = self.toolbox.run(call)
                    step.results.append(result)
                    ran(call, result)
                    if result is not None:
                        self.turns.append(Turn("tool", result, name=call.name))
                told = {
                    (call.name, json.dumps(call.arguments, sort_keys=True), result)
                    for call, result in zip(step.parsed.calls, step.results, strict=True)
                }
                step.repeats = bool(told) and told <= known
                known |= told
                if not told or None in step.results or step.repeats:
                    break
        except BaseException:
            self.turns = before
            raise
        return steps

    def _step(self, wrote: Callable[[str], None]) -> Step:
        prompt = self.speaker.prompt(self.turns, self.toolbox.schemas)
        pieces = []
        for piece in self.speaker.stream(prompt, self.sampling):
            pieces.append(piece)
            wrote(piece)
        text = "".join(pieces)
        parsed = parse(text, self.speaker.call_format, self.toolbox.schemas)
        # what is fed back is the turn as it was read, in the call format's own writing
        self.turns.append(Turn("assistant", parsed.text, parsed.calls))
        return Step(text, parsed)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    model: str
    tools: str | None = None
    once: str | None = None
    as_json: bool = False
    execute: bool = True
    system: str = ""
    max_steps: int = 8
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    context: int = 4096
    threads: int | None = None


def chat(options: Options) -> None:
    """Run the command. Raises `InputError` for input that can't be used."""
    if options.as_json and options.once is None:
        raise InputError('--json goes with --once "text"')
    if options.once is not None:
        if not options.once.strip():
            raise InputError("--once: the question is empty")
        _check_text(options.once, "--once: ")
    toolbox = None
    if options.tools is not None:  # now, as a typing error should not wait for the model; once, as it may be a pipe
        toolbox = choose_tools(options.tools, seed=options.seed, execute=options.execute)
    with open_speaker(options.model, context=options.context, threads=options.threads) as speaker:
        if toolbox is None:
            toolbox = choose_tools(None, speaker.recipe, speaker.seen, seed=options.seed, execute=options.execute)
        sampling = Sampling(options.max_new_tokens, options.temperature, options.seed)
        conversation = Conversation(speaker, toolbox, options.system, options.max_steps, sampling)
        for note in (*speaker.notes, unseen(toolbox, speaker.seen)):
            if note:
                _say(f"note: {note}")
        if options.once is not None:
            if options.tools is None:
                _say(toolbox.about)
            once(conversation, options.once, as_json=options.as_json)
        else:
            talk(conversation)


def _check_text(question: str, where: str = "") -> None:
    """Raise `InputError` for bytes that are no UTF-8, which Python's words and lines carry as halves of surrogates."""
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}character {error.start + 1} of the question is not UTF-8") from None


def once(conversation: Conversation, question: str, *, as_json: bool) -> None:
    """One question for scripts: the answer on standard output, as it is written or as one JSON object."""
    if as_json:
        steps = conversation.ask(question)
        last = steps[-1].parsed
        _notes(steps)
        value = {"answer": last.text if not last.calls else None, "steps": [step.as_dict() for step in steps]}
        say(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        _shown(conversation, question)


def talk(conversation: Conversation) -> None:
    """Questions from the terminal until Ctrl-D. Ctrl-C stops an answer, and at the prompt it leaves."""
    _say(conversation.speaker.about)
    _say(conversation.toolbox.about)
    _say(HELP)
    _line_editing()
    while True:
        try:
            question = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            say()
            return
        if not question:
            continue
        if question in ("/quit", "/exit"):
            return
        if question.startswith("/"):
            _command(conversation, question)
            continue
        try:
            _shown(conversation, question)
        except KeyboardInterrupt:
            _say("\nstopped; that question is forgotten")
        except InputError as error:  # as a chat that has grown too long
            _say(f"error: {error}")


def _command(conversation: Conversation, word: str) -> None:
    if word == "/reset":
        conversation.reset()
        _say("forgotten")
    elif word == "/tools":
        for schema in conversation.toolbox.schemas:
            function = schema["function"]
            _say(f"{function['name']}: {function.get('description', '')}")
    else:
        _say(HELP)


def _shown(conversation: Conversation, question: str) -> None:
    """Ask, and show the answer while it comes; calls and results on lines of their own."""
    fresh = True

    def wrote(piece: str) -> None:
        nonlocal fresh
        say(piece, end="", flush=True)
        fresh = piece.endswith("\n")

    def ran(call: ToolCall, result: str | None) -> None:
        nonlocal fresh
        if not fresh:
            say()
            fresh = True
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        say(f"  {call.name} {arguments} -> {result if result is not None else '(not run)'}", flush=True)

    steps = conversation.ask(question, wrote=wrote, ran=ran)
    if not fresh:
        say()
    _notes(steps)
    if steps[-1].parsed.calls and None not in steps[-1].results and not steps[-1].repeats:
        _say(f"stopped after {counted(len(steps), 'step')} (--max-steps)")


def _notes(steps: list[Step]) -> None:
    """What is odd about an answer, on standard error."""
    last = steps[-1].parsed
    for problem in last.problems:
        _say(f"note: {problem}")
    if steps[-1].repeats:
        names = " and ".join(dict.fromkeys(call.name for call in last.calls))
        _say(f"stopped: {names} was called again with the same arguments, and the result is the same")
    if last.has_call and not last.calls:
        _say("note: the answer can't be read: it begins a call and is none")
    elif not last.calls and not last.text.strip():
        _say("note: the answer can't be read: there is no text and no call in it")
    elif not last.calls and _is_noise(last.text):
        _say("note: the answer can't be read: it is neither text nor a call")


def _is_noise(text: str) -> bool:
    """Whether a good part of a text is characters that no text has: bytes that are none, control characters."""
    odd = sum(one == "\ufffd" or (not one.isprintable() and not one.isspace()) for one in text)
    return odd * 10 > len(text)


def _say(line: str) -> None:
    """What is not the model's goes to standard error, so that a script reads only answers."""
    warn(line)


def _line_editing() -> None:
    """Arrow keys and history for `input`, where Python has them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
