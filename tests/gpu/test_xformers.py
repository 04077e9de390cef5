"""xformers' block-diagonal mask on the card: the numbers of PyTorch's kernels that the toolkit calls itself.

python -m pytest tests/gpu/test_xformers.py
"""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
library = pytest.importorskip("xformers._cpp_lib")._cpp_library_load_exception
pytestmark = [
    pytest.mark.skipif(library is not None, reason=f"xformers' library does not load: {library}"),
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
SIZES = [300, 1, 77, 1300, 64, 0, 31]  # some that end within a tile of the kernels, at its edge, and an empty one


def made(dtype: Any, size: int) -> tuple[Any, ...]:
    torch.manual_seed(0)
    edges = torch.tensor([0, *torch.tensor(SIZES).cumsum(0).tolist()], dtype=torch.int32, device="cuda")
    heads = (8, 4, 4)
    parts = [torch.randn(sum(SIZES), count, size, device="cuda").to(dtype).requires_grad_() for count in heads]
    return (*parts, edges, 2048, size**-0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [64, 128])
def test_it_is_the_same_attention(dtype: Any, size: int) -> None:
    from toolkit.kernels.row_attention import attend_rows, kernel_agrees
    from toolkit.kernels.xformers_rows import why_not, xformers_rows

    device = torch.device("cuda", torch.cuda.current_device())
    assert why_not(device, dtype, size) == "" and kernel_agrees(device, dtype, size)
    q, k, v, *rest = made(dtype, size)
    (mine, my_logs), (theirs, their_logs) = (attend(q, k, v, *rest) for attend in (xformers_rows, attend_rows))
    assert torch.equal(mine, theirs), "it runs the very kernel"
    assert my_logs.shape == their_logs.shape
    gradient = torch.randn_like(mine)
    for one, other in zip(*(torch.autograd.grad(out, (q, k, v), gradient) for out in (mine, theirs)), strict=True):
        # parts of a sum meet in no order
        assert float((one.float() - other.float()).norm() / other.float().norm()) < 1e-3


def test_it_is_compiled_and_recorded_as_one_operator() -> None:
    from toolkit.kernels.xformers_rows import why_not, xformers_rows

    assert why_not(torch.device("cuda", torch.cuda.current_device()), torch.float16, 64) == ""
    q, k, v, *rest = made(torch.float16, 64)
    expected = torch.autograd.grad(xformers_rows(q, k, v, *rest)[0].square().sum(), (q, k, v))
    run = torch.compile(lambda *qkv: xformers_rows(*qkv, *rest)[0].square().sum(), fullgraph=True)
    found = torch.autograd.grad(run(q, k, v), (q, k, v))
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        torch.autograd.grad(run(q, k, v), (q, k, v))  # what is made at the first call is not to be recorded
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        recorded = torch.autograd.grad(run(q, k, v), (q, k, v))
    graph.replay()
    for one, other, again in zip(expected, found, recorded, strict=True):
        torch.testing.assert_close(other, one, rtol=0.02, atol=0.02)
        torch.testing.assert_close(again, one, rtol=0.02, atol=0.02)
