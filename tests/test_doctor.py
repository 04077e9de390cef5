"""What the doctor concludes from what it finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from io import StringIO
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from toolkit.doctor import facts as doctor
from toolkit.doctor.facts import Facts, Torch
from toolkit.doctor.judge import judge
from toolkit.doctor.libraries import PACKAGES, Loaded, bitsandbytes_library, load_libraries
from toolkit.doctor.report import Report
from toolkit.planning.cards import SeenGpu, smi_failure
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
    extra=["unsloth==2026.10.9"],
    python_wanted=">=3.11",
    torch=Torch(),
)
GPU = replace(
    FINE,
    gpus=[T4],
    installed={**FINE.installed, "torch": "2.11.0", "unsloth": "2026.10.9"},
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
        (replace(GPU, installed=FINE.installed), "unsloth (not installed)", '"unsloth==2026.10.9"'),
        (
            replace(GPU, torch=Torch()),
            "torch 2.11.0 is a build without CUDA, though there is a GPU",
            "--force-reinstall",
        ),
        (
            replace(GPU, torch=Torch("13.0")),
            "driver 550.54 is too old for torch 2.11.0, built for CUDA 13.0: it wants 580.65.06",
            "update the NVIDIA driver, or take torch's build for CUDA 12",
        ),
        (replace(GPU, torch=Torch("12.8")), "torch can't use the GPU", '--upgrade "torch>=2.11"'),
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
    hybrid = {"hybrid": ["flash-linear-attention>=0.6,<0.7"]}
    for machine, hinted in ((GPU, True), (FINE, False)):
        report = judge(replace(machine, extras=hybrid))
        assert "hybrid             not installed  (fast layers of LFM2 and Qwen3.5" in text(report)
        assert any(hint.startswith("hybrid: ") for hint, _ in report.hints) == hinted, "of no use without a GPU"
    (command,) = (line for _, line in judge(replace(GPU, extras={"hybrid": ["causal-conv1d>=1.7,<1.8"]})).hints)
    assert command == 'python -m pip install --no-build-isolation "causal-conv1d<1.8,>=1.7"'
    old = judge(replace(FINE, extras={"gguf": ["libgguf==0.2.2"]}, installed={**FINE.installed, "libgguf": "0.1"}))
    assert "libgguf (0.1)" in old.hints[0][0]


def test_a_gpu_that_is_too_old() -> None:
    report = judge(replace(GPU, gpus=[replace(T4, capability=(6, 0))]))
    assert "unsloth            can't run: it needs compute capability 7.0" in text(report)


def test_the_facts_are_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_torch", lambda: Torch())
    facts = doctor.look()
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
    monkeypatch.setattr(metadata, "requires", lambda name: told)
    monkeypatch.setattr(metadata, "metadata", lambda name: {"Requires-Python": ">=3.11"})
    extras = {"gpu": ['unsloth==1; extra == "gpu"'], "gguf": [], "serve": ['httpx; extra == "serve"'], "hybrid": []}
    assert doctor._requirements() == (["torch>=2"], extras, ">=3.11")
    assert doctor._tested(doctor._pins(gpu=True)) == {}


BNB = Loaded("bitsandbytes", "libbitsandbytes_cuda130.so", "no libnvJitLink.so.13", "libnvJitLink.so.13")
XFORMERS = Loaded("xformers", "_C.so", "no libcudart.so.12", "libcudart.so.12")


def test_libraries_that_do_not_load_and_what_mends_them() -> None:
    broken = replace(GPU, torch=Torch("13.0", ("Tesla T4",), libraries=(BNB, XFORMERS)))
    report = judge(broken)
    assert report.ok and "bitsandbytes       does not load: no libnvJitLink.so.13" in text(report)
    ((bnb, bnb_command),) = report.hints
    assert (
        "4-bit weights and 8-bit optimizers: bitsandbytes's libbitsandbytes_cuda130.so does not load for want of" in bnb
    )
    assert bnb_command == "python -m pip install nvidia-nvjitlink"
    assert "_C.so does not load: no libcudart.so.12  (attention runs without it" in text(report)
    there = replace(BNB, found="/venv/nvidia/cu13/lib")
    hints = judge(replace(broken, torch=Torch("13.0", ("Tesla T4",), libraries=(there,)))).hints
    assert hints[0][1] == 'export LD_LIBRARY_PATH="/venv/nvidia/cu13/lib:$LD_LIBRARY_PATH"'


def test_a_driver_that_fails_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for script, said in (
        ("echo; echo Failed to initialize NVML: Driver/library version mismatch >&2; exit 18", "Failed to initialize"),
        ("exit 9", "it fails"),
        ("exit 0", ""),
    ):
        smi.write_text(f"#!/bin/sh\n{script}\n")
        smi.chmod(0o755)
        assert smi_failure().startswith(said) and bool(smi_failure()) == bool(said)
    failing = judge(replace(FINE, no_gpus="Driver/library version mismatch"))
    assert "no GPU                nvidia-smi fails: Driver/library version mismatch" in text(failing)


def test_what_attends_on_a_card_where_that_is_tried() -> None:
    said = "sdpa by rows; xformers gives other numbers on this card than PyTorch"
    seen = judge(replace(GPU, torch=Torch("12.8", ("Tesla T4",), attention=said)))
    assert f"packed chats       attend by {said}" in text(seen)
    assert "attend by" not in text(judge(replace(GPU, torch=Torch("12.8", ("NVIDIA L4",)))))


def test_a_torch_that_is_not_the_images() -> None:
    colab = replace(GPU, pins="constraints-colab.txt", installed={**GPU.installed, "torch": "2.11.0+cu128"})
    assert not judge(colab).hints
    (hint,) = judge(replace(colab, installed={**colab.installed, "torch": "2.13.0+cu130"})).hints
    assert "torch 2.13.0+cu130 is not the image's" in hint[0] and "notebooks/colab.ipynb" in hint[1]


def test_versions_that_were_not_tested_together() -> None:
    tested = {"torch": "2.11.0", "trl": "1.15.0", "torchao": "0.18.0", "unsloth": "2026.10.9"}
    installed = {**GPU.installed, "torch": "2.11.0+cu130", "trl": "1.15.1", "torchao": "0.10.0"}
    facts = replace(GPU, pins="constraints-gpu.txt", tested=tested, installed=installed)
    (hint,) = judge(facts).hints
    told = "2 packages not as tested together: trl 1.15.1 (tested 1.15.0), torchao 0.10.0 (tested 0.18.0)"
    assert hint == (told, "python -m pip install -c constraints-gpu.txt -e '.[gpu,gguf,serve]'")
    assert not judge(replace(facts, gpus=[], torch=Torch())).hints, "on a CPU they are not used"


def test_the_pins_are_those_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.HOSTED:
        monkeypatch.delenv(name, raising=False)
    assert doctor._tested(doctor._pins(gpu=False))["torch"] == "2.13.0"
    gpu = doctor._tested(doctor._pins(gpu=True))
    assert gpu["torch"] == "2.11.0" and gpu["numpy"] == ("2.4.6" if sys.version_info < (3, 12) else "2.5.2")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    assert "torch" not in doctor._tested(doctor._pins(gpu=True))


@pytest.mark.parametrize(
    ("cuda", "found"), [("13.0", 130), ("13.1", 130), ("12.8", 128), ("12.7", 126), ("12.0", 124), ("11.8", 118)]
)
def test_which_library_bitsandbytes_takes(tmp_path: Path, cuda: str, found: int) -> None:
    for number in (124, 126, 128, 130, 132):
        (tmp_path / f"libbitsandbytes_cuda{number}.so").touch()
    assert bitsandbytes_library(tmp_path, cuda).name == f"libbitsandbytes_cuda{found}.so"


def test_why_a_real_library_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is linked to another which is not there, as packages' are to CUDA's."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    folder = tmp_path / "bitsandbytes"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (tmp_path / "x.c").write_text("int cuda(void) { return 1; }\n")
    other, library = tmp_path / "libnvJitLink.so.99", folder / "libbitsandbytes_cuda130.so"
    shared = ["cc", "-shared", "-fPIC", str(tmp_path / "x.c"), "-o"]
    subprocess.run([*shared, str(other), "-Wl,-soname,libnvJitLink.so.99"], check=True)
    subprocess.run([*shared, str(library), "-Wl,--no-as-needed", str(other)], check=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(PACKAGES, "libnvJitLink.so.99", "nvidia-nvjitlink")
    place = tmp_path / "nvidia" / "cu13" / "lib"
    place.mkdir(parents=True)
    other.rename(place / other.name)
    (found,) = load_libraries("13.0")
    assert (found.missing, found.found) == ("libnvJitLink.so.99", str(place))
    (place / other.name).unlink()
    (found,) = load_libraries("13.0")
    assert found.error.startswith("libnvJitLink.so.99: cannot open") and found.command.endswith("nvidia-nvjitlink")
    assert list(load_libraries(None)) == []
