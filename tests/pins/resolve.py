"""Resolve each constraints file for each Python that it is for, from metadata alone, and write docs/versions.md.

    pip install uv; python -m tests.pins.resolve

Needs an index of packages; no wheel of torch is downloaded. Ends with code 1 and uv's own words where one does not
resolve.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.pins.constraints import BESIDE, FILES, ROOT, Constraints

PAGE = ROOT / "docs" / "versions.md"
SHOWN = [
    "torch",
    "triton",
    "torchvision",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "huggingface-hub",
    "unsloth",
    "unsloth-zoo",
    "xformers",
    "bitsandbytes",
    "torchao",
    "flash-attn-4",
    "cut-cross-entropy",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "pydantic",
    "safetensors",
    "gguf",
    "libgguf",
    "xllamacpp",
    "nvidia-cuda-runtime",
    "nvidia-nvjitlink",
]


def resolved(constraints: Constraints, python: str, uv: str) -> dict[str, str]:
    """The version of every package that pip would end with, by canonical name. Raises `CalledProcessError`."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.txt"
        image.write_text("".join(f"{name}=={version}\n" for name, version in constraints.image.get(python, {}).items()))
        words = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
        words += ["--python-platform", "x86_64-unknown-linux-gnu", "-c", constraints.file, "-c", str(image)]
        words += [word for extra in constraints.extras for word in ("--extra", extra)]
        done = subprocess.run(
            [*words, "pyproject.toml"],
            cwd=ROOT,
            env={**os.environ, "UV_NATIVE_TLS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    pairs = (line.split(" ;")[0].split("==") for line in done.stdout.splitlines() if "==" in line)
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def page(found: dict[tuple[str, str], dict[str, str]]) -> str:
    """docs/versions.md."""
    heads = [f"{file.removesuffix('.txt')}, {python}" for file, python in found]
    rows = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in SHOWN:
        versions = [packages.get(name, "") for packages in found.values()]
        rows.append(f"| {name} | {' | '.join(versions)} |")
    rows.append(f"| packages in all | {' | '.join(str(len(packages)) for packages in found.values())} |")
    return (ROOT / "tests" / "pins" / "versions.head.md").read_text(encoding="utf-8") + "\n".join(rows) + "\n"


def main() -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        sys.exit("uv is not here: pip install uv")
    found: dict[tuple[str, str], dict[str, str]] = {}
    failed = False
    for constraints in (*FILES, *BESIDE):
        for python in constraints.pythons:
            packages: dict[str, str] = {}
            try:
                packages = resolved(constraints, python, uv)
            except subprocess.CalledProcessError:
                failed = True
            if constraints in FILES:
                found[constraints.file, python] = packages
            extras = ",".join(constraints.extras)
            print(f"{constraints.file}, [{extras}], Python {python}: {len(packages)} packages")
    if failed:
        sys.exit(1)
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
