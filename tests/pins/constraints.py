"""The constraints files: which extras each is for, on which Pythons, and what they pin."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Constraints:
    """A constraints file. `image`: versions that a machine has and that pip is to keep, by Python."""

    file: str
    extras: tuple[str, ...]
    pythons: tuple[str, ...]
    image: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return ROOT / self.file

    def pins(self, python: str) -> dict[str, str]:
        """Pinned versions by canonical name on a Python, as 3.12. Raises `ValueError` for a name with two."""
        found: dict[str, str] = {}
        for text in self.path.read_text(encoding="utf-8").splitlines():
            if not text or text.startswith("#"):
                continue
            one = Requirement(text)
            if one.marker is not None and not one.marker.evaluate(environment(python)):
                continue
            (spec,) = one.specifier
            name = canonicalize_name(one.name)
            if name in found or spec.operator != "==":
                raise ValueError(f"{self.file}: {text}: wanted one exact version for Python {python}")
            found[name] = spec.version
        return found


EVERY = ("3.11", "3.12", "3.13")
FILES = (
    Constraints("constraints.txt", ("dev", "gguf", "serve"), EVERY),
    Constraints("constraints-gpu.txt", ("gpu", "flash4", "gguf", "serve"), EVERY),
    Constraints(
        "constraints-colab.txt",
        ("gpu", "gguf", "serve"),
        ("3.12", "3.13"),
        image={  # Colab's lists of June and August 2026; of a local version as +cu128 an index has the public part
            "3.12": {
                "torch": "2.11.0",
                "torchvision": "0.26.0",
                "triton": "3.6.0",
                "numpy": "2.0.2",
                "pandas": "2.2.2",
            },
            "3.13": {"torch": "2.11.0", "torchvision": "0.26.0", "triton": "3.6.0", "numpy": "2.1.3"},
        },
    ),
)

BESIDE = (Constraints("constraints-gpu.txt", ("gpu", "hybrid"), EVERY),)
"""Extras that have no pins of their own, and have to resolve beside those of a file."""


def environment(python: str, extra: str = "") -> dict[str, str]:
    """What a marker asks of Linux on x86-64."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "extra": extra,
    }


def project() -> dict[str, object]:
    """The [project] table of pyproject.toml."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """What the project asks for, with some extras."""
    table = project()
    optional = table["optional-dependencies"]
    assert isinstance(optional, dict) and isinstance(table["dependencies"], list)
    return [
        Requirement(text) for group in (table["dependencies"], *(optional[name] for name in extras)) for text in group
    ]
