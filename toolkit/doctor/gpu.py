"""What keeps a GPU from being used as it could be: the driver, torch's build, libraries beside it, other versions."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from toolkit.doctor.facts import Facts
from toolkit.doctor.report import Line
from toolkit.words import counted

DRIVERS = {12: "525.60.13", 13: "580.65.06"}  # the oldest for a major version of CUDA, on Linux
EXTRAS = "'.[gpu,gguf,serve]'"
_MOST_NAMED = 4
Hint = tuple[str, str]


def library_lines(facts: Facts) -> Iterator[Line]:
    """A line for each library that was loaded, where there is a GPU for it."""
    for one in facts.torch.libraries if facts.torch and facts.gpus else ():
        if not one.error:
            yield Line(one.package, f"{one.file} loads", True)
        elif one.package == "xformers":
            note = "attention runs without it; Unsloth leaves xformers aside then"
            yield Line(one.package, f"{one.file} does not load: {one.error}", None, note)
        else:
            yield Line(one.package, f"does not load: {one.error}", False)
    if facts.torch and facts.gpus and facts.torch.attention:
        yield Line("packed chats", f"attend by {facts.torch.attention}", True)


def gpu_hints(facts: Facts) -> Iterator[Hint]:
    """What is wrong with a GPU's software, each with the command that mends it."""
    if not facts.gpus or facts.torch is None or facts.torch.error:
        return
    yield from _torch(facts)
    for one in facts.torch.libraries:
        if one.error and one.package != "xformers":
            lacks = f"for want of {one.missing}" if one.missing else f"({one.error})"
            yield f"4-bit weights and 8-bit optimizers: {one.package}'s {one.file} does not load {lacks}", one.command
    yield from _versions(facts)


def _torch(facts: Facts) -> Iterator[Hint]:
    """Why torch sees no GPU though there is one, and whether it is the build that is wanted."""
    torch, version = facts.torch, facts.installed.get("torch", "")
    assert torch is not None
    hosted = facts.pins == "constraints-colab.txt"
    again = (
        "start a new session, and install with the image's torch held: notebooks/colab.ipynb"
        if hosted
        else f"python -m pip install --force-reinstall {f'-c {facts.pins} ' if facts.pins else ''}torch"
    )
    if torch.cuda is None:
        yield f"torch {version} is a build without CUDA, though there is a GPU: another took its place?", again
        return
    if not torch.gpus:
        driver, wanted = facts.gpus[0].driver, DRIVERS.get(int(torch.cuda.partition(".")[0]), "")
        if wanted and _older(driver, wanted):
            what = f"driver {driver} is too old for torch {version}, built for CUDA {torch.cuda}: it wants {wanted}"
            other = ", or take torch's build for CUDA 12" if torch.cuda.startswith("13") else ""
            yield what, f"update the NVIDIA driver{other}"
        else:
            what = "torch can't use the GPU: take a build for the driver's CUDA"
            yield what, f'python -m pip install --upgrade "{_required(facts)}"'
    if hosted and version and "+cu12" not in version:
        yield f"torch {version} is not the image's, which is built for CUDA 12: another took its place", again


def _required(facts: Facts) -> str:
    return next((one for one in facts.required if one.startswith("torch")), "torch")


def _older(found: str, wanted: str) -> bool:
    try:
        return Version(found) < Version(wanted)
    except InvalidVersion:
        return False


def _versions(facts: Facts) -> Iterator[Hint]:
    """Versions other than those that were tested together, where the GPU's packages are there at all."""
    there = any(Requirement(text).name in facts.installed for text in facts.extra)
    if facts.pins not in ("constraints-gpu.txt", "constraints-colab.txt") or not there:
        return
    have: dict[str, str] = {canonicalize_name(name): version for name, version in facts.installed.items()}
    other = [
        f"{name} {have[name]} (tested {tested})"
        for name, tested in facts.tested.items()
        if name in have and _public(have[name]) != _public(tested)
    ]
    if other:
        more = f" and {len(other) - _MOST_NAMED} more" if len(other) > _MOST_NAMED else ""
        what = f"{counted(len(other), 'package')} not as tested together: {', '.join(other[:_MOST_NAMED])}{more}"
        yield what, f"python -m pip install -c {facts.pins} -e {EXTRAS}"


def _public(version: str) -> str:
    return version.partition("+")[0]
