"""Where an update's time goes: kernels by name and by what they do, and the time in which the card had nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gauges import kernel_kind, sum_kernels
from bench.report import kernel_lines
from tests.bench.planted import plant, run
from toolkit.bench_results import IDLE, Kernel, Results

FLASH4 = "kernel_cutlass_kernel_flash_attncuteflash_bwd_sm90FlashAttentionBackwardSm90_object_at__tensor000o11"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_sm90_qqtst_128x128_128x6_2x1_v_bz_ovscale_TNT", "matrix products in float8"),
        ("nvjet_sm90_tst_192x128_64x5_1x2_h_bz_coopB_NNT", "matrix products"),
        ("nvjet_sm90_tst_128x224_64x4_2x1_v_bz_coopA_splitK_NNT", "matrix products"),
        ("nvjet_sm90_tst_32x192_64x7_1x4_h_bz_NNN", "thin matrix products"),
        ("nvjet_sm90_tst_192x32_64x7_2x1_v_bz_splitK_NTT", "thin matrix products"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>", "thin matrix products"),
        (FLASH4, "attention"),
        ("fmha_cutlassF_f16_aligned_64x128_rf_sm75", "attention"),
        ("round_rows", "rows to float8"),
        ("cross_entropy", "loss of the head"),
        ("triton_red_fused__to_copy_add_mul_0", "elementwise and reductions, compiled"),
        ("void kDequantizeBlockwise<__half, 512, 64, 8, 1>", "NF4 to 16 bits"),
        ("Memcpy HtoD (Pinned -> Device)", "copies and fills"),
        ("void at::native::elementwise_kernel<128, 4, at::native::bfloat16_copy_kernel_cuda>", "copies and fills"),
        ("void at::native::multi_tensor_apply_kernel<at::native::FusedOptimizerTensorListMetadata<4>>", "optimizer"),
        ("void at::native::reduce_kernel<512, 1>", "others"),
    ],
)
def test_a_name_says_what_a_kernel_does(name: str, kind: str) -> None:
    assert kernel_kind(name) == kind


def test_kernels_are_summed_and_idle_is_what_none_covers() -> None:
    events = [("a", 0.0, 1.0), ("b", 0.5, 3.0), ("a", 4.0, 6.0), ("c", 4.5, 5.0), ("b", 7.0, 7.5)]
    rows = {row["name"]: (row["calls"], row["seconds"]) for row in sum_kernels(events, 2)}
    assert rows == {"a": (1.0, 1.5), "b": (1.0, 1.5), "c": (0.5, 0.25), IDLE: (0.0, 1.0)}
    assert sum_kernels([], 1)[-1]["seconds"] == 0


def test_results_keep_kernels_and_the_page_shows_them(tmp_path: Path) -> None:
    results = run()
    plant(results, "peft")
    assert kernel_lines(results) == []
    results.kernels = [
        Kernel("peft", "round_rows", "rows to float8", 3.0, 0.004),
        Kernel("peft", "nvjet_sm90_tst_192x128_64x5_NNT", "matrix products", 7.0, 0.012),
        Kernel("peft", IDLE, IDLE, 0.0, 0.002),
    ]
    results.save(tmp_path / "results.jsonl")
    again = Results.load(tmp_path)
    assert again.kernels == results.kernels
    assert list(again.by_kind()) == ["matrix products", "rows to float8", IDLE]
    lines = kernel_lines(again)
    assert "| matrix products | 12.00 |" in lines
    assert "| all kernels | 16.00 |" in lines, "idle is none"
    assert "| `nvjet_sm90_tst_192x128_64x5_NNT` | 7 | 12.00 |" in lines
