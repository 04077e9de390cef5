from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.forked import Forks

# One thread: on a busy machine two threads that spin at barriers are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# How long an example takes says how busy the machine is. Examples are the same each time, so that what passes passes
# again; TOOLKIT_FUZZ draws others, and as many.
settings.register_profile(
    "untimed",
    deadline=None,
    max_examples=int(os.environ.get("TOOLKIT_FUZZ", "50")),
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="TOOLKIT_FUZZ" not in os.environ,
)
settings.load_profile("untimed")

LONG = (
    "training",
    "endurance",
    "families",
    "export",
    "serve",
    "verify",
    "bench",
    "evaluation",
)  # folders, longest first
TOGETHER = (
    "tests/endurance/",
    "tests/export/test_qwen3.py",
    "tests/models/test_folders.py",
    "tests/training/test_ranks.py",
)  # of the longer tests, those that share what takes long to make


def together(nodeid: str) -> str:
    """The place in `TOGETHER` that a test is of; empty for one that shares nothing."""
    return next((place for place in TOGETHER if nodeid.startswith(place)), "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker gets all tests of a place in `TOGETHER`; of others a file's, with `--dist loadfile`, or with `--dist
    loadscope` (`make test-more`) a single one."""
    if config.option.dist not in ("loadfile", "loadscope"):
        return None
    from xdist.scheduler import LoadScopeScheduling

    whole_files = config.option.dist == "loadfile"

    class Places(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid) or (nodeid.partition("::")[0] if whole_files else nodeid)

    return Places(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What trains and exports comes first, so that at the end the workers share many short tests.

    The slow tier (`make test-slow`) runs only where it is asked for by its name.
    """
    items.sort(key=lambda item: LONG.index(part) if (part := item.path.parent.name) in LONG else len(LONG))
    if config.option.markexpr == "slow":
        items.sort(key=lambda item: not together(item.nodeid))
    if "endurance" in (config.option.markexpr or ""):
        return
    slow = [item for item in items if item.get_closest_marker("endurance")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


_imported = 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing looks for garbage while modules are imported, which leaves next to none, nor later in what they made."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """What was imported is put where no collection looks: each run of a model collects twice, through all of torch."""
    global _imported
    if len(sys.modules) > _imported + 20:
        gc.collect()
        gc.freeze()
        _imported = len(sys.modules)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs `toolkit` in processes of its own, which need not import torch anew."""
    from tests.forked import Forks

    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama with a tokenizer whose template knows no tools."""
    from tests.tiny import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def qwen3_tokenizer() -> Path:
    """The folder of Qwen3's real tokenizer and chat template; skips where this machine has none."""
    from tests.real import QWEN3, need_tokenizer

    return need_tokenizer(*QWEN3)


@pytest.fixture(scope="session")
def tiny_qwen3(qwen3_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Qwen3 under its real tokenizer."""
    from tests.real import make_qwen3

    return make_qwen3(tmp_path_factory.mktemp("models") / "tiny-qwen3", qwen3_tokenizer)


@pytest.fixture(scope="session")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Token tables and models go to a folder of this test session."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(cache_root))
    return cache_root


@pytest.fixture(scope="session")
def qwen3_run(tiny_qwen3: Path, cache_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny Qwen3 on short chats with calls in its own format. To be read, not written to."""
    from tests.tiny import write_recipe
    from toolkit.recipe import load
    from toolkit.training.run import run

    place = tmp_path_factory.mktemp("qwen3")
    recipe = write_recipe(
        place,
        tiny_qwen3,
        24,
        data={"call_format": "native"},
        train={"max_steps": 6, "gradient_checkpointing": False},
        eval={"early_stopping_patience": 0},
        export={"gguf": ["q8_0"], "chats": 2},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(cache_root))
        return run(load(recipe), place / "qwen3-run", export=False).path
