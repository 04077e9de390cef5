"""A bench row a family at a true small shape, with random weights: `python -m tests.gpu.families ROWS.jsonl`.

Stock Unsloth and PEFT against the best of ours, and memory as it was planned. Each row is a line of ROWS.jsonl as soon
as it is known; logs, at most 100 kB each, go to a folder beside it. Cards are those of CUDA_VISIBLE_DEVICES, or the
first. A family that fails, or takes too long, costs its own rows alone. Needs Qwen3's tokenizer in TOOLKIT_TEST_MODELS,
whose first tokens every model here gets. With two cards all of it ends within --seconds, 235 by default;
a second time with the same --cache it takes less, as what was compiled is there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.gpu.family_models import SHAPES, make
from tests.gpu.processes import ended
from toolkit.bench_results import Arm, Results
from toolkit.words import counted

BEST, NOT_COMPILED = "compiled-fused-autockpt", "peft-packed-autockpt"
GIB = 2**30
LOG_BYTES = 100_000
RECIPE = """[model]
name = {folder}
[lora]
r = 16
lora_alpha = 32
lora_dropout = 0.05
[data]
call_format = "native"
[[data.sources]]
source = "builtin:tools"
size = {chats}
[train]
learning_rate = 2e-4
per_device_train_batch_size = 4
gradient_accumulation_steps = 4
micro_batch = "auto"
num_train_epochs = 3
max_length = 2048
gradient_checkpointing = "auto"
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one variant of a family. Memory in GiB; `off`: planned / measured - 1."""

    family: str
    variant: str
    status: str
    message: str = ""
    tokens_per_s: float | None = None
    s_an_update: float | None = None
    peak_gib: float | None = None
    planned_gib: float | None = None
    off: float | None = None
    attention: str = ""
    patched: dict[str, int] = field(default_factory=dict)
    gates_failed: list[str] = field(default_factory=list)
    beside_others: bool = False
    """Measured while other families still loaded on the card: its times are too long."""


def rows_of(family: str, results: Results) -> list[Row]:
    """A row for each variant of a bench's results."""
    return [_row(family, results, arm) for arm in results.arms.values()]


def _row(family: str, results: Results, arm: Arm) -> Row:
    name = arm.variant
    seconds, throughput, peak = results.seconds(name), results.throughput(name), results.peak(name)
    planned = arm.predicted_memory
    return Row(
        family,
        name,
        arm.status,
        ": ".join(filter(None, (arm.stage, arm.message)))[:300] or ("" if arm.status == "measured" else "cut off"),
        round(throughput, 1) if throughput else None,
        round(seconds.median, 4) if seconds else None,
        round(peak / GIB, 3) if peak else None,
        round(planned / GIB, 3) if planned else None,
        round(planned / peak - 1, 4) if planned and peak else None,
        arm.attention,
        arm.patched,
        [f"{gate.name}: {gate.detail}" for gate in results.failed_gates(name)] if arm.status == "measured" else [],
        bool(results.run.get("beside_others")),
    )


def table(rows: list[Row]) -> str:
    """Short, for a terminal."""
    lines = [f"{'family':14}{'variant':26}{'tokens/s':>10}{'s/update':>10}{'GiB':>8}{'planned':>9}{'off':>7}"]
    for row in rows:
        figures = (row.tokens_per_s, row.s_an_update, row.peak_gib, row.planned_gib)
        texts = [
            f"{'' if value is None else format(value, '.2f'):>{w}}"
            for value, w in zip(figures, (10, 10, 8, 9), strict=True)
        ]
        off = "" if row.off is None else f"{row.off:+.0%}"
        told = (
            f"  {row.status}: {row.message[:60]}" if row.status != "measured" else "  beside others" * row.beside_others
        )
        lines.append(f"{row.family:14}{row.variant:26}{''.join(texts)}{off:>7}{told}")
    return "\n".join(lines)


@dataclass(slots=True)
class Work:
    """One run of this command. `seconds`: all that it may take."""

    out: Path
    logs: Path
    scratch: Path
    cache: Path
    tokenizer: Path
    cards: list[str]
    seconds: float
    tiny: bool
    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    rows: list[Row] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def say(self, text: str) -> None:
        with self.lock:
            print(f"{self.seconds - self.left:4.0f} s  {text}", flush=True)

    def add(self, rows: list[Row]) -> None:
        with self.lock, self.out.open("a", encoding="utf-8") as file:
            self.rows += rows
            for row in rows:
                file.write(json.dumps(asdict(row)) + "\n")

    def go(self, families: list[str]) -> None:
        """All at one time, as most of it is the host's work; what is measured on a card waits for its lock."""
        with ThreadPoolExecutor(len(families)) as pool:
            list(pool.map(self.measure, families, (self.cards[i % len(self.cards)] for i in range(len(families)))))

    def measure(self, family: str, card: str) -> None:
        folder, recipe = self.scratch / family, self.scratch / f"{family}.toml"
        try:
            words = ["-m", "tests.gpu.families", "--make", family, str(folder), str(self.tokenizer)]
            self.run([*words, *(["--tiny"] if self.tiny else [])], card, family, "make")
            recipe.write_text(RECIPE.format(folder=json.dumps(str(folder)), chats=60 if self.tiny else 500))
            shape = SHAPES[family]
            ours = NOT_COMPILED if shape.not_compiled else BEST
            variants = "peft,peft-packed" if self.tiny else ",".join((*shape.stock, ours))
            words = ["-m", "toolkit", "bench", "--recipe", str(recipe), "--shape", "real", "--variants", variants]
            words += ["--turns", "3", "--updates", "1", "--warmup", "2"]
            words += ["--lock", str(self.scratch / f"card-{card}.lock"), "--out", str(self.scratch / "out" / family)]
            self.run(words, card, family, "bench")
            results = self.results(family)
            if results is None:
                raise RuntimeError(f"no results; see {self.logs}/{family}.*")
            self.add(rows_of(family, results))
            self.say(f"{family}: {counted(len(results.arms), 'variant')}")
        except Exception as error:  # one family's failure is not the others'
            self.add([Row(family, "all", "failed", f"{type(error).__name__}: {error}"[:300])])
            self.say(f"{family}: {error}")

    def results(self, family: str) -> Results | None:
        folder = self.scratch / "out" / family
        found = Results.load(folder) if (folder / "results.jsonl").is_file() else None
        return found if found is not None and found.arms else None

    def run(self, words: list[str], card: str, family: str, step: str) -> None:
        """A process of its own, on one card, which is told to stop when its time is up: a bench writes what it has."""
        env, log = {**os.environ, "TOOLKIT_CACHE": str(self.cache / family)}, f"{family}.{step}"
        if card:
            env["CUDA_VISIBLE_DEVICES"] = card
        path = self.logs / f"{log}.txt"
        with path.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True
            )
            code = ended(process, self.left - 8, grace=6, cut=lambda: self.say(f"{log}: cut off"))
        whole = path.read_bytes()
        if len(whole) > LOG_BYTES:
            path.write_bytes(whole[: LOG_BYTES // 4] + b"\n...\n" + whole[-LOG_BYTES // 2 :])
        if code:
            self.say(f"{log}: ended with {code}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.families")
    parser.add_argument("rows", type=Path)
    parser.add_argument("families", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=235.0)
    parser.add_argument("--cache", type=Path, help="where compiled code and token tables are kept; else nowhere")
    parser.add_argument("--tiny", action="store_true", help="tiny models and two plain variants, for a CPU")
    asked = parser.parse_intermixed_args()
    if unknown := sorted(set(asked.families) - set(SHAPES)):
        parser.error(f"{', '.join(unknown)}: wanted {', '.join(SHAPES)}")
    tokenizer = Path(os.environ.get("TOOLKIT_TEST_MODELS", "")) / "qwen3-tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        parser.error("TOOLKIT_TEST_MODELS names no folder with qwen3-tokenizer in it")
    cards = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one] or [""]
    out = asked.rows.absolute()
    logs = out.with_suffix(".logs")
    logs.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="toolkit-families-"))
    try:
        cache = (asked.cache or scratch / "cache").absolute()
        work = Work(out, logs, scratch, cache, tokenizer.absolute(), cards, asked.seconds, asked.tiny)
        work.go(asked.families or list(SHAPES))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    work.say(f"all of it; rows in {out}")
    print(table(work.rows), flush=True)
    sys.exit(0 if any(row.status == "measured" for row in work.rows) else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        family, folder, tokenizer = sys.argv[2:5]
        make(SHAPES[family], Path(folder), Path(tokenizer), tiny="--tiny" in sys.argv)
    else:
        main()
