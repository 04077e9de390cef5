"""All checks of an export, in the order in which they make sense, and the gate on their results."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from toolkit.errors import EngineError, ModelError, RunError
from toolkit.export.architecture import read_architecture
from toolkit.export.tokenizer import chat_template
from toolkit.export.verify import agreement, gate
from toolkit.export.verify.agreement import Reference
from toolkit.export.verify.calls import compare_calls
from toolkit.export.verify.clock import Advance, Clock
from toolkit.export.verify.page import save
from toolkit.export.verify.runtime import compare_templates, compare_tokenizers, run_file
from toolkit.export.verify.structure import Examined, examine
from toolkit.export.verify.verification_data import Material, gather
from toolkit.export.verify.vocabulary import file_differs
from toolkit.export_report import Check, CheckName, VerifyReport, show
from toolkit.exports import ExportFolder, ExportRecord
from toolkit.hardware import free_cores
from toolkit.inference.decode import Generated, decode
from toolkit.inference.gguf import GgufModel, runtime
from toolkit.versions import version_of

if TYPE_CHECKING:
    from rich.console import Console

    from toolkit.export.architecture import Architecture
    from toolkit.export.verify.files import GgufFile

_RUNNING: tuple[CheckName, ...] = ("tokenizer", "template", "agreement", "runtime", "calls")
_BATCH = {"cuda": 8, "cpu": 2}  # chats that the trained model decodes at a time
# Shares of the time that is left: what the trained model predicts, which every file's weights take once more, and what
# it writes. The rest goes to the files in llama.cpp.
_PREDICTING, _WRITING = 0.4, 0.3
_CONTROL = 6  # chats that the model without its adapter is asked about: it has to be three times as far, not measured


def verify(
    folder: Path,
    *,
    chats: int = 24,
    max_minutes: float = 10.0,
    console: Console | None = None,
    threads: int | None = None,
) -> VerifyReport:
    """Check every file of an export folder against the model that was trained; leaves export_report.* in the folder.

    `chats` held-out chats are compared on, or as many of them as `max_minutes` allow, but at least one: the report says
    how many. What is read whole (tensors, tokens, prompts) is not cut. `threads`: CPU threads, default: the free cores.
    A file that fails to open or to match is a failed check, never an exception. Raises `RunError` when `folder` is no
    export folder or holds no GGUF, or what it was made from (base, adapter) is not there any more.
    """
    place = ExportFolder(folder)
    record = place.record()
    if not any(file.kind == "gguf" for file in record.files):
        raise RunError(f"{folder}: no GGUF in this export, so there is nothing to verify")
    for name in filter(None, (record.base.folder, record.adapter, record.tokenizer["folder"])):
        if not Path(name).is_dir():
            raise RunError(f"{folder}: was made from {name}, which is not there any more; the files can't be compared")
    clock = Clock(60 * max_minutes, console)
    with tempfile.TemporaryDirectory(prefix="toolkit-verify-") as scratch:
        work = _Work(place, record, chats, threads or free_cores(), Path(scratch), console, clock)
        with work.torch_threads():
            report = work.go()
    report.seconds = round(clock.spent, 1)
    report.steps = clock.steps
    save(report, folder)
    if console is not None:
        console.print(f"time       {report.seconds:g} s: {report.times}", markup=False)
        console.print(f"verified   {report.verdict}; {folder / 'export_report.html'}", markup=False)
    return report


@dataclass(slots=True)
class _Work:
    folder: ExportFolder
    record: ExportRecord
    chats: int
    threads: int
    scratch: Path
    console: Console | None
    clock: Clock
    report: VerifyReport = field(init=False)
    dtype: str = field(init=False)
    device: str = field(init=False)

    def __post_init__(self) -> None:
        self.dtype, self.device = _precision(self.record)
        files = [
            {"name": file.name, "kind": file.kind, "type": file.type, "bytes": file.bytes} for file in self.record.files
        ]
        self.report = VerifyReport(self.record.name, datetime.now(UTC).isoformat(timespec="seconds"), files, {})

    def go(self) -> VerifyReport:
        with self.clock.step("weights", of=len(_architecture(self.record).tensors)) as advance:
            files, checks = examine(self.folder, self.record, self.threads, advance)
        self._add(*checks)
        with self.clock.step("the chats"):
            material = gather(self.folder, self.record, self.chats)
        problem = _runtime_problem()
        self._describe(material, problem)
        self._models(files, material, problem)
        self._tell_cuts()
        return self.report

    def _models(self, files: list[Examined], material: Material, problem: str) -> None:
        """Everything that takes running models, one of them in memory at a time."""
        sound = [one for one in files if one.gguf is not None and not one.broken]
        count, adapted = len(material.chats), self.record.adapter is not None
        with self.clock.step("the trained model"):
            model = agreement.load_trained(self.record, self.dtype, self.device)
            vocabulary = int(model.config.vocab_size)
        with contextlib.ExitStack() as stack:
            with self.clock.step("its predictions", of=count) as advance:
                in_time = self.clock.share(_PREDICTING / (1 + adapted + len(sound)))
                reference = stack.enter_context(
                    agreement.reference_of(model, material, vocabulary, self.scratch, advance, in_time)
                )
            self.report.how["positions"] = reference.positions
            control = None
            if adapted:
                few = min(reference.chats, _CONTROL)
                with self.clock.step("without the adapter", of=few) as advance, model.disable_adapter():
                    control = agreement.compare(model, reference, few, advance).numbers()
            with self.clock.step("its answers", of=count) as advance:
                written = self._decode(model, material, count, advance, self.clock.share(_WRITING))
            del model
            agreement.release()
            for number, one in enumerate(sound):
                assert one.gguf is not None
                self._file(one, one.gguf, material, reference, written, problem, 1 / (len(sound) - number))
            for one in files:
                if one not in sound:
                    why = "the file's structure is wrong"
                    self._add(*(Check(name, one.record.name, "skip", why) for name in _RUNNING))
            agreed = [check for check in self.report.checks if check.name == "agreement" and check.outcome != "skip"]
            self._add(gate.control(control, {str(check.file): check.numbers for check in agreed}))

    def _file(
        self,
        one: Examined,
        file: GgufFile,
        material: Material,
        reference: Reference,
        written: list[Generated],
        problem: str,
        share: float,
    ) -> None:
        name, kind = one.record.name, one.record.type
        with self.clock.step("dequantised", name, reference.chats) as advance:
            model = agreement.load_file(file, self.record, self.dtype, self.device)
            found = agreement.compare(model, reference, reference.chats, advance).numbers()
            self._add(gate.agreement(name, kind, found))
        texts: list[str] = []
        if problem:
            with self.clock.step("its answers", name, len(written)) as advance:
                made = self._decode(model, material, len(written), advance, self.clock.share(share))
            texts = [one.text for one in made]
        del model
        agreement.release()
        if problem:
            missing: tuple[CheckName, ...] = ("tokenizer", "template", "runtime")
            self._add(*(Check(check, name, "skip", problem) for check in missing))
        else:
            texts = self._in_llama_cpp(one, file, material, reference, written, share)
        if texts:
            trained = [one.text for one in written[: len(texts)]]
            same, flips = compare_calls(trained, texts, material.call_format)
            route = "transformers, dequantised" if problem else "llama.cpp"
            self._add(gate.calls(name, kind, same, flips, route))

    def _in_llama_cpp(
        self,
        one: Examined,
        file: GgufFile,
        material: Material,
        reference: Reference,
        written: list[Generated],
        share: float,
    ) -> list[str]:
        name, kind = one.record.name, one.record.type
        folder, rows = Path(self.record.tokenizer["folder"]), reference.logprobs.shape[1]
        try:
            with self.clock.step("loading", name):
                model = self._open(one, material)
            with model:
                with self.clock.step("tokens and prompts", name):
                    tokens = compare_tokenizers(model, file, material)
                    self._add(gate.tokenizer(name, tokens, material, lambda: file_differs(file, folder, rows)))
                    different = compare_templates(
                        model, material.tokenizer, material.prompts, material.template_options
                    )
                    other = file.value("tokenizer.chat_template") != chat_template(material.tokenizer)
                    self._add(gate.template(name, different, len(material.prompts), other))
                with self.clock.step("in llama.cpp", name, max(len(written), reference.chats)) as advance:
                    in_time = self.clock.share(share)
                    found, texts = run_file(model, material, reference, written, advance, in_time)
                self._add(gate.runtime(name, kind, found.numbers()))
        except (ModelError, EngineError) as error:
            self._add(Check("runtime", name, "fail", str(error), advice="The file does not run in llama.cpp"))
            return []
        return texts

    def _open(self, one: Examined, material: Material) -> GgufModel:
        longest = max(len(row.ids) for row in material.rows)
        prompts = max(len(material.ids(prompt.text)) for prompt in material.asked)
        context = max(longest, prompts + material.max_new_tokens) + 8
        return GgufModel(one.path, n_ctx=context, threads=self.threads)

    def _decode(
        self, model: Any, material: Material, count: int, advance: Advance, goes_on: Callable[[], bool]
    ) -> list[Generated]:
        """What a model writes for the first answers of up to `count` chats; ends early when `goes_on` says so."""
        made: list[Generated] = []
        prompts = [prompt.text for prompt in material.asked[:count]]
        while len(made) < len(prompts) and (not made or goes_on()):
            made += decode(
                model,
                material.tokenizer,
                prompts[len(made) : len(made) + _BATCH[self.device]],
                max_new_tokens=material.max_new_tokens,
                batch_size=_BATCH[self.device],
                stop_ids=material.renderer.end_token_ids,
                progress=False,
                done=lambda index, one: advance(),
            )
        return made

    def _tell_cuts(self) -> None:
        """Say where the time was too short for all chats."""
        cut = [step for step in self.clock.steps if step.done < step.of and step.name != "weights"]
        if not cut:
            return
        fewest = min(cut, key=lambda step: step.done)
        note = (
            f"{fewest.done} of {self.report.how['chats']} chats were compared in every step: more did not fit into "
            f"{self.clock.seconds / 60:g} minutes; --max-minutes allows more"
        )
        self.report.how["notes"].append(note)
        if self.console is not None:
            self.console.print(f"note       {note}", markup=False)

    def _describe(self, material: Material, problem: str) -> None:
        kinds: dict[str, int] = {}
        for chat in material.chats:
            kinds[chat.kind] = kinds.get(chat.kind, 0) + 1
        self.report.how = {
            "chats": len(material.chats),
            "chats_from": material.source,
            "kinds": kinds,
            "prompts": len(material.prompts),
            "call_format": material.call_format,
            "calls_read_by": dict(self.record.calls_read_by),
            "max_new_tokens": material.max_new_tokens,
            "max_minutes": self.clock.seconds / 60,
            "trained_model": "base and PEFT adapter, unmerged" if self.record.adapter else "the model itself",
            "base_weights": self.record.merge_base.base,
            "precision": self.dtype,
            "device": self.device,
            "threads": self.threads,
            "llama_cpp": problem or f"xllamacpp {version_of('xllamacpp')}",
            "notes": list(dict.fromkeys(material.notes)),
        }

    def _add(self, *checks: Check) -> None:
        for check in checks:
            self.report.checks.append(check)
            if self.console is not None:
                show(self.console, check)

    @contextlib.contextmanager
    def torch_threads(self) -> Iterator[None]:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _precision(record: ExportRecord) -> tuple[str, str]:
    """(dtype, device) of the models compared: a GPU where they fit, float32 wherever it fits."""
    import torch

    needed = 1.4 * 4 * _architecture(record).shape.parameters
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        for dtype, factor in (("float32", 1.0), ("bfloat16", 0.5)):
            if factor * needed < free:
                return dtype, "cuda"
    return ("float32" if needed < psutil.virtual_memory().available else "bfloat16"), "cpu"


def _architecture(record: ExportRecord) -> Architecture:
    return read_architecture(Path(record.base.folder))


def _runtime_problem() -> str:
    """Why llama.cpp can't run here, or an empty string."""
    try:
        runtime()
    except EngineError as error:
        return str(error)
    return ""
