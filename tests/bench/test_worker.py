"""The worker over the tiny model, in this process: healthy variants agree, planted faults are caught by the gates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.channel import Finished
from bench.gates import judge
from bench.measure import absorb, new_arm
from bench.profiles import parse_shape
from bench.settings import Settings, prepare
from bench.variants import find
from bench.worker import Worker
from tests.bench.planted import run
from toolkit.bench_results import Results

Fault = Callable[[pytest.MonkeyPatch], None]


class Script:
    """The parent's side of the channel: some turns, then quit."""

    def __init__(self, turns: int = 1) -> None:
        self.sent: list[dict[str, Any]] = []
        self.orders: Iterator[dict[str, Any]] = iter(
            [{"warm": True}, *({"turn": n, "settle": 0, "updates": 2} for n in range(1, turns + 1)), {"quit": True}]
        )

    def send(self, event: str, **values: Any) -> None:
        self.sent.append({"event": event, **values})

    def receive(self) -> dict[str, Any]:
        return next(self.orders)


SENT: dict[tuple[str, str], list[dict[str, Any]]] = {}
"""What healthy workers sent, by shape and variant: the same to each test that asks for them."""


@pytest.fixture
def measured(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Results]:
    def measure(
        shape: str = "real", *, names: tuple[str, ...], faults: dict[str, Fault] | None = None, anew: bool = False
    ) -> Results:
        """`faults` are planted in the variants named; `anew`: measure even what another test has measured."""
        settings = Settings(
            recipe, tuple(find(name) for name in names), parse_shape(shape), gpu=False, warmup=2, threads=1
        )
        bench = prepare(settings, tmp_path)
        results = run(shape, hardware={"gpu": None, "cpu": "here", "cores": 1, "memory": 1})

        def measured_by(name: str) -> list[dict[str, Any]]:
            script = Script()
            with pytest.raises(Finished):
                Worker(bench.jobs[name], script).run()  # type: ignore[arg-type]
            return script.sent

        for name in names:
            results.arms[name] = new_arm(bench, name)
            if faults and name in faults:
                with monkeypatch.context() as patch:
                    faults[name](patch)
                    messages = measured_by(name)
            elif anew:
                messages = measured_by(name)
            else:
                messages = (
                    SENT[shape, name] if (shape, name) in SENT else SENT.setdefault((shape, name), measured_by(name))
                )
            for message in copy.deepcopy(messages[1:]):
                absorb(results, name, message)
        results.gates = judge(results)
        return results

    return measure


def failed(results: Results, name: str) -> set[str]:
    return {gate.name for gate in results.failed_gates(name)}


@pytest.mark.slow
def test_variants_agree_on_real_lengths(measured: Callable[..., Results]) -> None:
    names = ("full-fp32", "peft-logits", "peft", "peft-nockpt", "peft-nodrop", "peft-1x")
    results = measured(names=names)
    assert results.failed_gates() == []
    first = {name: results.early(name)[0].loss for name in names}
    assert first == pytest.approx(dict.fromkeys(names, first["peft"]), rel=1e-4)
    tokens = {sum(update.real_tokens for update in results.early(name)) for name in names}
    assert len(tokens) == 1  # the same chats, however they are cut and padded
    one, four = results.arms["peft-1x"], results.arms["peft"]
    assert (one.batch, one.accumulation, four.batch, four.accumulation) == (4, 1, 2, 2)
    padded = [results.timed(name)[0].padded_tokens for name in ("peft-1x", "peft")]
    assert padded[0] >= padded[1]
    states = results.arms["full-fp32"].parts
    assert states["optimizer states"] == pytest.approx(2 * states["trained weights"], rel=0.01)


@pytest.mark.slow
def test_all_weights_train_where_nothing_is_autocast(measured: Callable[..., Results]) -> None:
    arm = measured(names=("full",)).arms["full"]
    assert (arm.status, arm.message) == ("measured", "")


@pytest.mark.slow
def test_fixed_shapes_have_no_padding_and_repeat(measured: Callable[..., Results]) -> None:
    results = measured("2x64", names=("peft",))
    assert {(u.real_tokens, u.padded_tokens) for u in results.updates} == {(256, 256)}
    assert [u.loss for u in results.updates] == [u.loss for u in measured("2x64", names=("peft",), anew=True).updates]


@pytest.mark.slow
def test_packed_variants_agree_with_padded_ones(measured: Callable[..., Results]) -> None:
    names = ("peft", "peft-packed", "peft-packed-nockpt", "peft-packed-autockpt")
    results = measured(names=names)
    assert results.failed_gates() == []
    first = {name: results.early(name)[0].loss for name in names}
    assert first == pytest.approx(dict.fromkeys(names, first["peft"]), rel=1e-4)
    for name in names[1:]:
        arm = results.arms[name]
        assert [u.padded_tokens for u in results.timed(name)] == [u.real_tokens for u in results.timed(name)]
        assert arm.token_budget is not None and arm.widest[0] == 1 and arm.widest[1] <= arm.token_budget
        assert (arm.batch, arm.accumulation) == (4, 1)
    assert [results.arms[name].checkpointed > 0 for name in names] == [True, True, False, False]
    assert results.arms["peft-packed-autockpt"].checkpointed_wanted == 0


@pytest.mark.slow
def test_logs_made_late_are_of_the_same_updates(
    measured: Callable[..., Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed updates on a GPU run ahead of their logs, but not beyond a turn."""
    from toolkit.training import trainer

    at_once = measured(names=("peft-packed",))
    real = trainer.Trainer

    def build(*args: Any, **kwargs: Any) -> Any:
        made = real(*args, **kwargs)
        made.ahead = True
        return made

    monkeypatch.setattr(trainer, "Trainer", build)
    late = measured(names=("peft-packed",), anew=True)
    assert late.failed_gates() == []
    found = [
        [(u.turn, u.number, u.loss, u.grad_norm, u.real_tokens, u.padded_tokens) for u in results.updates]
        for results in (at_once, late)
    ]
    assert found[0] == found[1] and len(found[0]) == 4
    assert all(update.seconds > 0 for update in late.updates)


@pytest.mark.slow
def test_compiled_layers_agree_with_plain_ones(
    measured: Callable[..., Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths that occur are compiled before the first update. Without Inductor, which takes a minute on a CPU."""
    from toolkit.engines import compiled_layers as engine

    monkeypatch.setattr(engine, "BACKEND", "aot_eager")
    results = measured(names=("peft", "compiled-nockpt"))  # nothing else measures the latter, so it is not known yet
    assert results.failed_gates() == []
    plain, compiled = (results.early(name)[0].loss for name in ("peft", "compiled-nockpt"))
    assert compiled == pytest.approx(plain, rel=1e-4)
    arm = results.arms["compiled-nockpt"]
    assert arm.shapes > 0 and arm.compile_seconds > max(u.seconds for u in results.early("compiled-nockpt"))
    assert all(u.padded_tokens % 64 == 0 for u in results.timed("compiled-nockpt"))


@pytest.mark.endurance
def test_lengths_that_are_warmed_are_those_that_come(
    measured: Callable[..., Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import gauges
    from toolkit.engines import compiled_layers as engine

    monkeypatch.setattr(engine, "BACKEND", "eager")
    warmed: list[list[int]] = []
    monkeypatch.setattr(gauges, "warm_shapes", lambda trainer, sizes, longest: warmed.append(sizes))
    name = "compiled-nockpt+train.pad_to_multiple_of=8"
    results = measured(names=(name,))
    met = {update.padded_tokens for update in results.early(name)}  # one micro-batch an update
    assert len(met) > 1
    assert [min(warmed[0]), max(warmed[0])] == warmed[0] and len(warmed) == 1, (
        "one code for all lengths, nothing recorded"
    )
    assert min(warmed[0]) <= min(met) and max(met) <= max(warmed[0])
    static = "compiled-nockpt+train.pad_to_multiple_of=8+train.compile=static"
    measured(names=(static,))
    assert met <= set(warmed[1])


@pytest.mark.slow
def test_packed_rows_that_see_each_other_are_caught(measured: Callable[..., Results]) -> None:
    from toolkit.kernels import packed_attention as attention

    attend = attention.attend

    def open_edges(patch: pytest.MonkeyPatch) -> None:
        def one_row(*args: Any, sizes: Any = None, **kwargs: Any) -> Any:
            return attend(*args, sizes=[sum(sizes)], **kwargs)

        patch.setattr(attention, "attend", one_row)

    results = measured(names=("peft", "peft-packed"), faults={"peft-packed": open_edges})
    assert failed(results, "peft-packed") == {"single tokens' losses"}


def frozen(patch: pytest.MonkeyPatch) -> None:
    _after_loading(patch, lambda model: [p.requires_grad_(False) for n, p in model.named_parameters() if "lora_A" in n])


def layer_skipped(patch: pytest.MonkeyPatch) -> None:
    def skip(model: Any) -> None:
        layers = model.get_base_model().model.layers
        layers[-1].forward = lambda hidden_states, *args, **kwargs: hidden_states

    _after_loading(patch, skip)


def diverging(patch: pytest.MonkeyPatch) -> None:
    """As an optimizer with a wrong rate: the adapter is torn away after the first update."""
    import torch

    step = torch.optim.AdamW.step

    def wild(self: Any, *args: Any, **kwargs: Any) -> Any:
        for group in self.param_groups:
            group["lr"] = 3.0
        return step(self, *args, **kwargs)

    patch.setattr(torch.optim.AdamW, "step", wild)


def wrong_mask(patch: pytest.MonkeyPatch) -> None:
    from toolkit.training import dataset

    collate = dataset.Collator.__call__

    def all_trained(self: Any, chats: Any) -> Any:
        batch = collate(self, chats)
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return batch

    patch.setattr(dataset.Collator, "__call__", all_trained)


def _after_loading(patch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    from toolkit import engines

    load = engines.load

    def changed(*args: Any) -> Any:
        loaded = load(*args)
        change(loaded.model)
        loaded.report.trainable = sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
        return loaded

    patch.setattr(engines, "load", changed)


@pytest.mark.parametrize(
    ("fault", "gate"),
    [
        (frozen, "trainable count"),
        pytest.param(layer_skipped, "single tokens' losses", marks=pytest.mark.slow),
        (wrong_mask, "single tokens' losses"),
        pytest.param(diverging, "losses agree", marks=pytest.mark.slow),
    ],
)
def test_faults_in_training_are_caught(measured: Callable[..., Results], fault: Fault, gate: str) -> None:
    results = measured(names=("peft", "peft-nodrop"), faults={"peft-nodrop": fault})
    assert gate in failed(results, "peft-nodrop")
    assert failed(results, "peft") == set()


def test_an_adapter_that_gets_no_gradient_is_caught(measured: Callable[..., Results]) -> None:
    from toolkit.kernels import head_loss as loss

    real = loss.HeadCrossEntropy.backward

    def cut(patch: pytest.MonkeyPatch) -> None:
        def no_gradient(ctx: Any, *outputs: Any) -> Any:
            grad, *rest = real(ctx, *outputs)
            return (grad * 0, *rest)

        patch.setattr(loss.HeadCrossEntropy, "backward", staticmethod(no_gradient))

    results = measured(names=("peft", "peft-nodrop"), faults={"peft-nodrop": cut})
    assert {"gradient norm above zero", "trained weights move"} <= failed(results, "peft-nodrop")


def test_running_out_of_memory_is_told_apart() -> None:
    import torch

    from bench.worker import out_of_memory

    assert out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not out_of_memory(RuntimeError("shapes do not match"))
