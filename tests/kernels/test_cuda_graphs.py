"""Recorded micro-batches train as those that are run, whatever their lengths and however an update is cut.

There is no CUDA here: what would be recorded is run again at each replay, with the same tensors read and written, so
that all but the recording itself is as on a card (tests/gpu has that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export.shapes import base_model
from tests.kernels.test_head_loss import adapted
from tests.tiny import make_model
from tests.training.test_compiled import checkpoint_some
from tests.training.test_compiled import micro_batches as cut
from toolkit.engines.compiled_layers import CompiledLayers
from toolkit.kernels.cuda_graphs import CudaCapture, NotCompiled, Recorder
from toolkit.kernels.head_loss import summed_loss
from toolkit.kernels.packed_attention import packed

Gradients = dict[str, torch.Tensor]
UPDATES = ([40, 9, 57], [100, 30, 90], [41, 10, 50], [300, 60])  # rows' lengths; the third is filled up to the first's


def again(work: Callable[[], None]) -> Callable[[], None]:
    def replay() -> None:
        with torch.enable_grad():  # which a replay within a function of its own has not, and a recording had
            work()

    return replay


def micro_batches(lengths: list[int], budget: int = 4096) -> list[dict[str, Any]]:
    """As compiled layers take them: no number in them that changes."""
    given = {"longest": 512, "kernel": "rows"}
    return [{name: one[name] for name in one if name != "sizes"} | given for one in cut(lengths, budget)]


@contextmanager
def recorded(model: Any, recorder: Recorder) -> Iterator[None]:
    decoder = model.get_base_model().model
    decoder.forward = recorder.forward
    try:
        yield
    finally:
        del decoder.forward


def trained(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def one_update(model: Any, recorder: Recorder | None, batches: list[dict[str, Any]]) -> tuple[float, Gradients]:
    """(summed loss, gradients) of some micro-batches."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        with packed(model):
            with recorded(model, recorder) if recorder else nullcontext():
                loss, _ = summed_loss(model, batch)
            loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def updates(model: Any, recorder: Recorder | None, budget: int) -> list[tuple[float, Gradients]]:
    """(summed loss, gradients) of each update, cut into micro-batches of at most `budget` tokens."""
    found = []
    for lengths in UPDATES:
        found.append(one_update(model, recorder, micro_batches(lengths, budget)))
        with torch.no_grad():  # as an optimizer's step: a recording reads parameters where they are
            for parameter in trained(model):
                assert parameter.grad is not None
                parameter.sub_(1e-3 * parameter.grad)
    return found


def both(folder: Path, budget: int, **how: Any) -> tuple[list[Any], list[Any], Recorder]:
    folder = make_model(folder / "model", family="qwen3")
    expected = updates(adapted(folder), None, budget)
    model = adapted(folder)
    recorder = Recorder(model.get_base_model().model, trained(model), again, **how)
    return expected, updates(model, recorder, budget), recorder


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("budget", [4096, 100])
def test_recorded_equals_run(tmp_path: Path, budget: int, each: bool) -> None:
    expected, found, recorder = both(tmp_path, budget, each=each)
    assert recorder.problem == ""
    assert recorder.records, "something was recorded"
    for (loss, gradients), (mine, own) in zip(expected, found, strict=True):
        assert mine == pytest.approx(loss, rel=1e-5)
        assert own.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-5)


def test_each_length_is_recorded_once(tmp_path: Path) -> None:
    _, _, recorder = both(tmp_path, 4096)
    assert sorted(tokens for tokens, _ in recorder.records) == [128, 256, 384], "the first micro-batch was run"


def test_a_length_is_run_before_it_is_recorded(tmp_path: Path) -> None:
    """Where each has code of its own, which a recording must find compiled."""
    _, _, recorder = both(tmp_path, 4096, each=True)
    assert [tokens for tokens, _ in recorder.records] == [128], "which came twice"


def test_buffers_grow_with_the_lengths(tmp_path: Path) -> None:
    _, _, recorder = both(tmp_path, 4096)
    places = [record.hidden.data_ptr() for record in recorder.records.values()]
    assert len(set(places)) == 2, "256 and 128 tokens share one, 384 are too many for it"
    assert all(record.hidden.shape[1] == key[0] for key, record in recorder.records.items())


def test_nothing_is_recorded_where_it_is_not_allowed(tmp_path: Path) -> None:
    expected, found, recorder = both(tmp_path, 100, allowed=lambda: False)
    assert not recorder.records
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected])


def test_what_is_forgotten_is_recorded_again(tmp_path: Path) -> None:
    """As where an evaluation between two updates needs the memory."""
    folder = make_model(tmp_path / "model", family="qwen3")
    model = adapted(folder)
    recorder = Recorder(model.get_base_model().model, trained(model), again)
    expected = updates(adapted(folder), None, 4096)
    real = recorder.take_gradients
    forgotten = 0

    def take() -> None:
        nonlocal forgotten
        real()
        if len(recorder.records) > 1:
            recorder.forget()
            forgotten += 1

    recorder.take_gradients = take  # type: ignore[method-assign]
    found = updates(model, recorder, 4096)
    assert forgotten == 1 and len(recorder.records) == 1
    for (loss, gradients), (mine, own) in zip(expected, found, strict=True):
        assert mine == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-5)


def test_evaluation_is_run(tiny_model: Path) -> None:
    model = adapted(tiny_model)
    recorder = Recorder(model.get_base_model().model, trained(model), again)
    with torch.no_grad(), packed(model), recorded(model, recorder):
        for _ in range(3):
            summed_loss(model, micro_batches([40, 9])[0])
    assert not recorder.records


def failing(error: Callable[[], Exception], when: Callable[[int], bool]) -> Callable[..., Any]:
    """A capture that raises `error` at the recordings, counted from 1, for which `when` holds."""
    made = 0

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        nonlocal made
        made += 1
        if when(made):
            raise error()
        return again(work)

    return capture


def with_capture(folder: Path, budget: int, capture: Callable[..., Any]) -> tuple[Recorder, bool]:
    """(recorder, losses and gradients are those without it) of all updates."""
    folder = make_model(folder / "model", family="qwen3")
    expected = updates(adapted(folder), None, budget)
    model = adapted(folder)
    recorder = Recorder(model.get_base_model().model, trained(model), capture)
    found = updates(model, recorder, budget)
    same = all(
        mine == pytest.approx(loss, rel=1e-5)
        and all(torch.allclose(own[name], gradient, rtol=1e-4, atol=1e-5) for name, gradient in gradients.items())
        for (loss, gradients), (mine, own) in zip(expected, found, strict=True)
    )
    return recorder, same


def test_where_every_recording_fails_it_is_given_up_and_training_goes_on(tmp_path: Path) -> None:
    refused = failing(
        lambda: RuntimeError("operation not permitted when stream is capturing\nand more"), lambda made: True
    )
    recorder, same = with_capture(tmp_path, 100, refused)
    assert recorder.problem == "operation not permitted when stream is capturing"
    assert same and not recorder.records and recorder.replayed == 0
    assert recorder.told.endswith("given up: operation not permitted when stream is capturing")


def test_a_length_that_can_t_be_recorded_leaves_the_others(tmp_path: Path) -> None:
    """The second length fails in its backward: it is run from then on, and the others are recorded again."""
    once = failing(
        lambda: RuntimeError("operation failed due to a previous error during capture"), lambda made: made == 4
    )
    recorder, same = with_capture(tmp_path, 100, once)
    assert same and recorder.problem == ""
    (refused,) = recorder.tries
    assert recorder.records and refused not in recorder.records and recorder.replayed > len(recorder.records)


def test_a_length_that_is_too_long_for_the_memory_is_run_and_shorter_ones_are_recorded(tmp_path: Path) -> None:
    """The longest needs what the shorter ones hold while it runs; they are recorded again after it."""
    full = failing(
        lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), lambda made: made == 5
    )
    recorder, same = with_capture(tmp_path, 4096, full)
    assert same and recorder.problem == ""
    assert recorder.longest == 383 and not recorder.records, "384 tokens, the last of all, were too many"
    model = adapted(tmp_path / "model")
    recorder = Recorder(model.get_base_model().model, trained(model), again)
    recorder.longest = 255
    updates(model, recorder, 4096)
    assert [tokens for tokens, _ in recorder.records] == [128]


def test_what_is_not_compiled_yet_is_run_and_recorded_when_it_comes_again(tmp_path: Path) -> None:
    recorder, same = with_capture(tmp_path, 100, failing(lambda: NotCompiled("first"), lambda made: made == 3))
    assert same and recorder.problem == "" and recorder.failures == 0
    (late,) = recorder.tries
    assert len(recorder.records) > 1, "what was recorded before stays"
    assert late in recorder.records or recorder.tries[late] == 1


def test_where_a_break_spoils_what_was_recorded_it_is_recorded_again(tmp_path: Path) -> None:
    spoilt = failing(lambda: NotCompiled("first", lost=True), lambda made: made == 5)
    recorder, same = with_capture(tmp_path, 100, spoilt)
    assert same and recorder.problem == "" and recorder.failures == 0
    assert recorder.replayed > len(recorder.records) > 0, "some twice: before and after"


class Card:
    """What torch.cuda does on a card whose recordings CUDA breaks off, as torch 2.11 does it; none is here."""

    def __init__(self, *, stuck: bool) -> None:
        self.stuck, self.stream, self.recording = stuck, "usual", False
        self.offset, self.cloned = 8, 0
        self.pools: list[Any] = []

    def patch(self, patching: pytest.MonkeyPatch) -> None:
        cuda, inner = torch.cuda, torch._C
        for name, value in {
            "graph": self.graph,
            "CUDAGraph": object,
            "graph_pool_handle": lambda: (0, 1),
            "current_device": lambda: 0,
            "current_stream": lambda: self.stream,
            "set_stream": lambda stream: setattr(self, "stream", stream),
            "default_generators": [self],
        }.items():
            patching.setattr(cuda, name, value)
        patching.setattr(inner, "_cuda_endAllocateToPool", self.end, raising=False)
        patching.setattr(inner, "_cuda_releasePool", lambda device, pool: None, raising=False)
        patching.setattr(torch, "rand", self.rand)

    @contextmanager
    def graph(self, graph: Any, pool: Any, capture_error_mode: str) -> Iterator[None]:
        self.pools.append(pool)
        self.recording, self.stream = True, "recording"
        try:
            yield
        finally:
            if self.stuck:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            self.pools.pop()
            self.recording, self.stream = False, "usual"

    def end(self, device: int, pool: Any) -> None:
        if not self.pools:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.pools.pop()

    def rand(self, *sizes: int, device: Any) -> None:
        if self.recording:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        self.offset += 4

    def get_offset(self) -> int:
        return self.offset

    def set_offset(self, offset: int) -> None:
        self.offset = offset

    def clone_state(self) -> str:
        return "new"

    def graphsafe_set_state(self, state: str) -> None:
        self.recording, self.cloned = False, self.cloned + (state == "new")


@pytest.mark.parametrize("stuck", [False, True])
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Detected recompile when torch.compile stance is 'fail_on_recompile'", NotCompiled),
        ("operation not permitted when stream is capturing", RuntimeError),
    ],
)
def test_what_torch_leaves_undone_of_a_broken_recording_is_done(
    monkeypatch: pytest.MonkeyPatch, stuck: bool, said: str, kind: type[RuntimeError]
) -> None:
    """Or random numbers, drawn to go on without it, are refused."""
    card = Card(stuck=stuck)
    card.patch(monkeypatch)

    def work() -> None:
        raise RuntimeError(said)

    with pytest.raises(RuntimeError) as raised:
        CudaCapture()(work)
    assert type(raised.value) is kind
    assert card.stream == "usual" and not card.pools and not card.recording
    assert card.offset == 8, "the numbers that follow are those that would have"
    assert card.cloned == stuck
    if isinstance(raised.value, NotCompiled):
        assert raised.value.lost == stuck


def test_another_number_of_row_edges_is_run_before_it_is_recorded(tmp_path: Path) -> None:
    """One code serves all lengths, but not all numbers of edges: a recording must find it compiled."""
    model = adapted(make_model(tmp_path / "model", family="qwen3"))
    recorder = Recorder(model.get_base_model().model, trained(model), again)
    few = micro_batches([40, 9, 57])[0]
    edges = few["cu_seq_lens"]
    many = few | {"cu_seq_lens": torch.cat([edges, edges[-1:].expand(8)])}
    recorded_after = []
    for batch in (many, many, few, few, many):
        one_update(model, recorder, [batch])
        recorded_after.append(sorted(edges for _, edges in recorder.records))
    most, least = len(many["cu_seq_lens"]), len(few["cu_seq_lens"])
    assert most != least
    assert recorded_after == [[], [most], [most], [least, most], [least, most]]


def test_a_micro_batch_that_was_run_counts_beside_recorded_ones(tmp_path: Path) -> None:
    """An update whose first piece has a length that is not recorded: its gradients are taken over."""
    folder = make_model(tmp_path / "model", family="qwen3")
    pieces = [*micro_batches([40, 9, 57]), *micro_batches([100, 30, 90])]

    model = adapted(folder)
    recorder = Recorder(model.get_base_model().model, trained(model), again)
    _, mine = one_update(model, recorder, pieces)  # the first piece is run, the second recorded
    assert [tokens for tokens, _ in recorder.records] == [256]
    for name, gradient in one_update(adapted(folder), None, pieces)[1].items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_layers_are_recorded_where_none_recomputes(tmp_path: Path, recomputed: bool) -> None:
    model = adapted(make_model(tmp_path / "model", family="qwen3"))
    layers = CompiledLayers(model, longest=512, backend="eager", fuse=torch.float32, dynamic=True, graphs=True)
    recorder = layers.recorder
    assert recorder is not None
    recorder.capture = again
    checkpoint_some(model, int(recomputed))
    usual = model.get_base_model().model.forward
    for lengths in UPDATES:
        for batch in cut(lengths):
            with layers.training(model):
                loss, _ = summed_loss(model, layers.packed_inputs(batch))
                loss.backward()
    assert bool(recorder.records) != recomputed
    assert model.get_base_model().model.forward == usual, "as it was outside of training"


def test_layers_of_several_kinds_have_one_code_for_all_lengths(tmp_path: Path) -> None:
    """Gemma 3's layers with and without a window are handed other angles of rotation: a second length finds both
    compiled, or it could not be recorded."""
    model = adapted(base_model(tmp_path / "model", "gemma3_text"))
    assert len(set(model.config.layer_types)) == 2
    compiled = 0

    def backend(module: Any, inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return module

    torch._dynamo.reset()
    layers = CompiledLayers(model, longest=512, backend=backend, dynamic=True)
    found = []
    for lengths in UPDATES:
        for batch in cut(lengths):
            with layers.training(model):
                summed_loss(model, layers.packed_inputs(batch))[0].backward()
        found.append(compiled)
    torch._dynamo.reset()
    assert found == [2] * len(UPDATES), "one for each kind of layers"
