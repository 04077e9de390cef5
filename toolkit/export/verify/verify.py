"""All checks of an export, in the order in which they make sense, and the gate on their results."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import EngineError, ModelError, RunError
from toolkit.export.layout import ExportFolder, ExportRecord
from toolkit.export.verify import gate
from toolkit.export.verify.calls import compare_calls
from toolkit.export.verify.material import Material, gather
from toolkit.export.verify.report import Check, CheckName, VerifyReport, show
from toolkit.export.verify.structure import Examined, examine
from toolkit.hardware import free_cores

if TYPE_CHECKING:
    from rich.console import Console

    from toolkit.export.verify.agreement import Reference
    from toolkit.export.verify.files import GgufFile
    from toolkit.inference.gguf import GgufModel

DEFAULT_CHATS = 24
_RUNNING: tuple[CheckName, ...] = ("tokenizer", "template", "agreement", "runtime", "calls")
_BATCH = 8  # chats that the trained model decodes at a time


def verify(
    folder: Path, *, chats: int = DEFAULT_CHATS, console: Console | None = None, threads: int | None = None
) -> VerifyReport:
    """Check every file of an export folder against the model that was trained; leaves export_report.* in the folder.

    `chats` held-out chats are compared on. `threads`: CPU threads, default: the free cores. A file that fails to open
    or to match is a failed check, never an exception. Raises `RunError` when `folder` is no export folder or holds no
    GGUF, or what it was made from (base, adapter) is not there any more.
    """
    place = ExportFolder(folder)
    record = place.record()
    if not any(file.kind == "gguf" for file in record.files):
        raise RunError(f"{folder}: no GGUF in this export, so there is nothing to verify")
    for name in filter(None, (record.base.folder, record.adapter, record.tokenizer["folder"])):
        if not Path(name).is_dir():
            raise RunError(f"{folder}: was made from {name}, which is not there any more; the files can't be compared")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="toolkit-verify-") as scratch:
        work = _Work(place, record, chats, threads or free_cores(), Path(scratch), console)
        with work.torch_threads():
            report = work.go()
    report.seconds = round(time.perf_counter() - started, 1)
    report.save(folder)
    if console is not None:
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
        with self._busy("reading the files and the merged weights") as tell:
            files, checks = examine(self.folder, self.record, tell)
        self._add(*checks)
        material = gather(self.record, self.chats)
        problem = _runtime_problem()
        self._describe(material, problem)
        self._models(files, material, problem)
        return self.report

    def _models(self, files: list[Examined], material: Material, problem: str) -> None:
        """Everything that takes running models, one of them in memory at a time."""
        from toolkit.export.verify import agreement

        with self._busy("the trained model on held-out chats"):
            model = agreement.load_trained(self.record, self.dtype, self.device)
            vocabulary = int(model.config.vocab_size)
        with agreement.reference_of(model, material.rows, vocabulary, self.scratch) as reference:
            self.report.how["positions"] = len(reference.logprobs)
            control = None
            if self.record.adapter is not None:
                with model.disable_adapter():
                    control = agreement.compare(model, reference).numbers()
            written = self._decode(model, material)
            del model
            agreement.release()
            for one in files:
                if one.gguf is not None and not one.broken:
                    self._file(one, one.gguf, material, reference, written, problem)
                else:
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
        written: list[str],
        problem: str,
    ) -> None:
        from toolkit.export.verify import agreement

        name, kind = one.record.name, one.record.type
        with self._busy(f"{name}, dequantised"):
            model = agreement.load_file(file, self.record, self.dtype, self.device)
            found = agreement.compare(model, reference).numbers()
            self._add(gate.agreement(name, kind, found))
            texts = self._decode(model, material) if problem else []
            del model
            agreement.release()
        if problem:
            missing: tuple[CheckName, ...] = ("tokenizer", "template", "runtime")
            self._add(*(Check(check, name, "skip", problem) for check in missing))
        else:
            texts = self._in_llama_cpp(one, material, reference)
        if len(texts) == len(written):
            same, flips = compare_calls(written, texts, material.call_format)
            route = "transformers, dequantised" if problem else "llama.cpp"
            self._add(gate.calls(name, kind, same, flips, route))

    def _in_llama_cpp(self, one: Examined, material: Material, reference: Reference) -> list[str]:
        from toolkit.export.verify import runtime
        from toolkit.inference.gguf import GgufModel

        name, kind = one.record.name, one.record.type
        try:
            with self._busy(f"{name}, in llama.cpp"), self._open(one, material, GgufModel) as model:
                self._add(gate.tokenizer(name, runtime.compare_tokenizers(model, material), material))
                different = runtime.compare_templates(model, material.prompts, material.template_options)
                self._add(gate.template(name, different, len(material.prompts)))
                found, written = runtime.run_file(model, material, reference)
                self._add(gate.runtime(name, kind, found.numbers()))
        except ModelError as error:
            self._add(Check("runtime", name, "fail", str(error), advice="The file does not run in llama.cpp"))
            return []
        from toolkit.evaluation.decode import read_tokens

        stops = material.renderer.end_token_ids
        return [read_tokens(material.tokenizer, ids, stops).text for ids in written]

    def _open(self, one: Examined, material: Material, kind: type[GgufModel]) -> GgufModel:
        longest = max(len(row.ids) for row in material.rows)
        prompts = max(len(material.ids(prompt.text)) for prompt in material.asked)
        context = max(longest, prompts + material.max_new_tokens) + 8
        return kind(one.path, n_ctx=context, threads=self.threads)

    def _decode(self, model: Any, material: Material) -> list[str]:
        from toolkit.evaluation.decode import decode

        made = decode(
            model,
            material.tokenizer,
            [prompt.text for prompt in material.asked],
            max_new_tokens=material.max_new_tokens,
            batch_size=_BATCH,
            stop_ids=material.renderer.end_token_ids,
            progress=False,
        )
        return [one.text for one in made]

    def _describe(self, material: Material, problem: str) -> None:
        from importlib import metadata

        kinds: dict[str, int] = {}
        for chat in material.chats:
            kinds[chat.kind] = kinds.get(chat.kind, 0) + 1
        self.report.how = {
            "chats": len(material.chats),
            "chats_from": material.source,
            "kinds": kinds,
            "prompts": len(material.prompts),
            "call_format": material.call_format,
            "max_new_tokens": material.max_new_tokens,
            "trained_model": "base and PEFT adapter, unmerged" if self.record.adapter else "the model itself",
            "base_weights": self.record.merge_base.base,
            "precision": self.dtype,
            "device": self.device,
            "threads": self.threads,
            "llama_cpp": problem or f"xllamacpp {metadata.version('xllamacpp')}",
            "notes": list(dict.fromkeys(material.notes)),
        }

    def _add(self, *checks: Check) -> None:
        for check in checks:
            self.report.checks.append(check)
            if self.console is not None:
                show(self.console, check)

    @contextlib.contextmanager
    def _busy(self, what: str) -> Iterator[Callable[[str], None]]:
        """A line that says what goes on, on a terminal."""
        if self.console is None or not self.console.is_terminal:
            yield lambda detail: None
            return
        with self.console.status(f"verifying  {what}") as status:
            yield lambda detail: status.update(f"verifying  {what}: {detail}")

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
    """(dtype, device) of the models compared: float32 wherever it fits."""
    import psutil
    import torch

    from toolkit.export.architecture import read_architecture

    if torch.cuda.is_available():
        return "float32", "cuda"
    needed = 4 * read_architecture(Path(record.base.folder)).shape.parameters
    return ("float32" if 1.4 * needed < psutil.virtual_memory().available else "bfloat16"), "cpu"


def _runtime_problem() -> str:
    """Why llama.cpp can't run here, or an empty string."""
    from toolkit.inference.gguf import runtime

    try:
        runtime()
    except EngineError as error:
        return str(error)
    return ""
