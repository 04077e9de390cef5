"""What the doctor concludes from what it finds."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from packaging.requirements import Requirement

from toolkit import doctor
from toolkit.doctor import Facts, Report, Torch, judge
from toolkit.planning.cards import SeenGpu
from toolkit.terminal import new_console

GIB = 2**30
T4 = SeenGpu("Tesla T4", 15 * GIB, (7, 5), "550.54")
FINE = Facts(
    python="3.12.1",
    platform="Linux",
    cpu="a processor",
    cores=2,
    cpu_flags=frozenset({"avx2", "avx512_bf16"}),
    memory=16 * GIB,
    disk={"cache": 50 * GIB, "here": 50 * GIB},
    gpus=[],
    installed={"torch": "2.11.0+cpu", "peft": "0.21.2"},
    required=["torch>=2.11", "peft>=0.21"],
    extra=["unsloth==2026.10.7"],
    python_wanted=">=3.11",
    torch=Torch(),
)
GPU = replace(
    FINE,
    gpus=[T4],
    installed={**FINE.installed, "torch": "2.11.0", "unsloth": "2026.10.7"},
    torch=Torch("13.0", ("Tesla T4",)),
)


def text(report: Report) -> str:
    file = StringIO()
    report.render(new_console(file=file, width=40))
    return file.getvalue()


def test_a_machine_without_a_gpu_can_run() -> None:
    report = judge(FINE)
    assert report.ok
    assert not report.hints
    shown = text(report)
    assert "peft               can run on the CPU" in shown
    assert "unsloth            can't run: it needs an NVIDIA GPU" in shown
    assert "compiled           made for GPUs: runs on a CPU where asked for, no faster; packed chats only" in shown
    assert "avx512_bf16" in shown
    assert "toolkit run works here" in shown


def test_a_machine_with_a_gpu() -> None:
    report = judge(GPU)
    assert report.ok
    assert not report.hints
    shown = text(report)
    assert "Tesla T4           15.0 GiB, compute capability 7.5, driver 550.54  (no bfloat16: fp16" in shown
    assert "unsloth            can run\n" in shown


@pytest.mark.parametrize(
    ("facts", "problem", "command"),
    [
        (replace(FINE, installed={"torch": "2.11.0"}), "peft (not installed)", 'pip install "peft>=0.21"'),
        (replace(FINE, installed={"torch": "2.9.1", "peft": "0.21.2"}), "torch (2.9.1)", 'pip install "torch>=2.11"'),
        (replace(FINE, torch=Torch(error="libcudart.so.12")), "libcudart.so.12", '--force-reinstall "torch>=2.11"'),
        (replace(FINE, python="3.10.2"), "Python 3.10.2 is not >=3.11", "install a newer Python"),
        (replace(FINE, disk={"cache": GIB}), "disk, cache: 1.0 GiB free", "TOOLKIT_CACHE"),
        (replace(FINE, memory=2 * GIB), "memory: 2.0 GiB", ""),
    ],
)
def test_what_stops_a_run(facts: Facts, problem: str, command: str) -> None:
    report = judge(facts)
    assert not report.ok
    assert len(report.problems) == 1
    assert problem in report.problems[0][0]
    assert command in report.problems[0][1]
    assert "toolkit run does not work here yet" in text(report)


def test_all_missing_packages_in_one_command() -> None:
    report = judge(replace(FINE, installed={}, torch=None))
    assert [command for _, command in report.problems] == ['python -m pip install "torch>=2.11" "peft>=0.21"']
    assert "can't run: packages are missing" in text(report)


@pytest.mark.parametrize(
    ("facts", "hint", "command"),
    [
        (replace(GPU, installed=FINE.installed), "unsloth (not installed)", '"unsloth==2026.10.7"'),
        (replace(GPU, torch=Torch()), "torch can't use the GPU", '--upgrade "torch>=2.11"'),
    ],
)
def test_what_would_make_the_fast_engine_run(facts: Facts, hint: str, command: str) -> None:
    report = judge(facts)
    assert report.ok, "plain PEFT runs all the same"
    assert len(report.hints) == 1
    assert hint in report.hints[0][0]
    assert command in report.hints[0][1]
    assert "unsloth            can't run: see below" in text(report)


def test_flash_attention_is_advised_where_the_card_is_made_for_it() -> None:
    hopper = replace(GPU, gpus=[replace(T4, capability=(9, 0))])
    assert any("FlashAttention 4" in hint and "[flash4]" in command for hint, command in judge(hopper).hints)
    has = replace(hopper, installed={**hopper.installed, "flash-attn-4": "4.0.0b36"})
    assert not judge(has).hints and not judge(GPU).hints


def test_optional_parts_are_told_of_and_how_to_get_them() -> None:
    extras = {"gguf": ["libgguf==0.2.2"], "serve": ["httpx>=0.28", "uvicorn>=0.40"]}
    report = judge(replace(FINE, extras=extras, installed={**FINE.installed, "libgguf": "0.2.2", "httpx": "0.28.1"}))
    assert report.ok, "a run goes without"
    assert "gguf               installed" in text(report) and "serve              not installed" in text(report)
    ((hint, command),) = report.hints
    assert "uvicorn (not installed)" in hint and command == 'python -m pip install "uvicorn>=0.40"'
    old = judge(replace(FINE, extras={"gguf": ["libgguf==0.2.2"]}, installed={**FINE.installed, "libgguf": "0.1"}))
    assert "libgguf (0.1)" in old.hints[0][0]


def test_a_gpu_that_is_too_old() -> None:
    report = judge(replace(GPU, gpus=[replace(T4, capability=(6, 0))]))
    assert "unsloth            can't run: it needs compute capability 7.0" in text(report)


def test_the_facts_are_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_torch", lambda: Torch())
    facts = doctor._facts()
    names = {Requirement(text).name for text in facts.required}
    assert {"torch", "transformers", "trl", "peft"} <= names
    assert set(facts.extras) == set(doctor.OPTIONAL) and any("unsloth" in text for text in facts.extra)
    assert "xllamacpp" in {Requirement(text).name for text in facts.extras["serve"]}
    assert "unsloth" in {Requirement(text).name for text in facts.extra}
    assert facts.installed["typer"]
    assert facts.cores >= 1
    assert facts.memory > GIB // 2
    assert min(facts.disk.values()) > 0


def test_requirements_of_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    told = ["torch>=2", 'unsloth==1; extra == "gpu"', 'httpx; extra == "serve"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: told)
    monkeypatch.setattr(doctor.metadata, "metadata", lambda name: {"Requires-Python": ">=3.11"})
    extras = {"gpu": ['unsloth==1; extra == "gpu"'], "gguf": [], "serve": ['httpx; extra == "serve"']}
    assert doctor._requirements() == (["torch>=2"], extras, ">=3.11")
    assert doctor._tested() == {}
