"""Kernels in Triton, which only a torch for cards brings: import this where there is one."""

import triton
import triton.language as tl


# Arguments in lower case are pointers and numbers; those in capitals are known when it is compiled.
@triton.jit
def round_rows(  # type: ignore[no-untyped-def]
    a, b, c, out, scales, a_row, b_row, c_row,
    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr,
    WIDE_A: tl.constexpr, WIDE_B: tl.constexpr, WIDE_C: tl.constexpr,
    MOST: tl.constexpr, LEAST: tl.constexpr,
):  # fmt: skip
    """One row of a, b and c, of A, B and C columns, side by side in float8; WIDE_*: powers of two that hold them."""
    row = tl.program_id(0).to(tl.int64)
    at_a, at_b, at_c = tl.arange(0, WIDE_A), tl.arange(0, WIDE_B), tl.arange(0, WIDE_C)
    x = tl.load(a + row * a_row + at_a, mask=at_a < A, other=0.0).to(tl.float32)
    y = tl.load(b + row * b_row + at_b, mask=at_b < B, other=0.0).to(tl.float32)
    z = tl.load(c + row * c_row + at_c, mask=at_c < C, other=0.0).to(tl.float32)
    most = tl.maximum(tl.maximum(tl.max(tl.abs(x)), tl.max(tl.abs(y))), tl.max(tl.abs(z)))
    scale = tl.maximum(most / MOST, LEAST)
    tl.store(scales + row, scale)
    start = out + row * (A + B + C)
    tl.store(start + at_a, (x / scale).to(tl.float8e4nv), mask=at_a < A)  # which ends at the largest number by itself
    tl.store(start + A + at_b, (y / scale).to(tl.float8e4nv), mask=at_b < B)
    tl.store(start + A + B + at_c, (z / scale).to(tl.float8e4nv), mask=at_c < C)


@triton.jit
def cross_entropy(  # type: ignore[no-untyped-def]
    logits, labels, losses, row_stride, COLUMNS: tl.constexpr, GRADIENT: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """losses[row] = -log p(label) of a row of logits, which becomes its gradient, softmax minus one-hot."""
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * row_stride
    label = tl.load(labels + row)
    chosen = tl.load(start + label).to(tl.float32)  # before the row is written to: reductions wait for all threads
    at = tl.arange(0, WIDE)
    most = tl.full((WIDE,), -1e30, tl.float32)  # of what each thread has seen, and the sum of exponentials below it
    total = tl.zeros((WIDE,), tl.float32)
    for first in range(0, COLUMNS, WIDE):
        there = first + at < COLUMNS
        x = tl.load(start + first + at, mask=there, other=-1e30).to(tl.float32)
        larger = tl.maximum(most, x)
        total = total * tl.exp(most - larger) + tl.where(there, tl.exp(x - larger), 0.0)
        most = larger
    top = tl.max(most)
    log_sum = top + tl.log(tl.sum(total * tl.exp(most - top)))
    tl.store(losses + row, log_sum - chosen)
    if GRADIENT:
        for first in range(0, COLUMNS, WIDE):
            there = first + at < COLUMNS
            x = tl.load(start + first + at, mask=there, other=-1e30).to(tl.float32)
            probability = tl.exp(x - log_sum) - tl.where(first + at == label, 1.0, 0.0)
            tl.store(start + first + at, probability.to(logits.dtype.element_ty), mask=there)
