"""The rule that chooses kernels: from processor and model alone."""

import sys

import pytest

from pipelines.system import arithmetic, kernels
from pipelines.usage import UsageError


@pytest.fixture
def processor(monkeypatch):
    """Pretends to run on a processor with these instructions, before TensorFlow is imported."""

    def pretend(*flags):
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
        monkeypatch.setenv(kernels.ONEDNN, "")  # So that it is put back as it was.
        monkeypatch.delenv(kernels.ONEDNN)
        monkeypatch.setattr(arithmetic, "processor", lambda: {"instructions": flags})

    return pretend


AVX2 = ("sse4_1", "avx", "avx2", "fma")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        (AVX2, "1"),
        (AVX512, "1"),
        ((*AVX512, "avx512_vnni"), None),  # TensorFlow turns it on itself.
        ((*AVX2, "avx_vnni"), None),
        (("sse4_1",), None),
        ((), None),  # Not an x86 processor, or one that does not tell.
    ],
)
def test_onednn_is_turned_on_where_tensorflow_would_leave_it_off(processor, flags, chosen):
    processor(*flags)
    kernels.prefer_onednn()
    assert kernels.os.environ.get(kernels.ONEDNN) == chosen


def test_what_the_user_has_set_stands(processor, monkeypatch):
    processor(*AVX2)
    monkeypatch.setenv(kernels.ONEDNN, "0")
    kernels.prefer_onednn()
    assert kernels.onednn_in_words() == "off"


def test_nothing_is_set_once_tensorflow_has_read_it(processor, monkeypatch):
    processor(*AVX2)
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    kernels.prefer_onednn()
    assert kernels.ONEDNN not in kernels.os.environ


@pytest.mark.parametrize(
    ("cores", "input_size", "threads"),
    [
        (2, (32, 32, 3), 1),
        (2, [64, 64, 3], 1),
        (2, (128, 128, 3), 2),
        (16, (32, 32, 3), 8),
        (1, (32, 32, 3), 1),
        (1, (640, 640, 3), 1),
        (4, (8, 64, 64, 3), 2),  # a video: frames, height, width, channels
        (4, (), 4),
        (4, [None, None, 3], 4),
    ],
)
def test_an_operation_on_small_pictures_gets_half_the_cores(cores, input_size, threads):
    assert kernels.intra_op(cores, input_size) == threads


@pytest.mark.parametrize(
    ("chosen", "variable", "value", "capped"),
    [
        (None, "ONEDNN_MAX_CPU_ISA", "", None),
        ("avx2", "ONEDNN_MAX_CPU_ISA", "", "AVX2"),
        ("AVX2", "ONEDNN_MAX_CPU_ISA", "SSE41", "SSE41"),
        ("AVX2", "DNNL_MAX_CPU_ISA", "SSE41", None),
    ],
)
def test_an_instruction_set_is_capped_unless_the_user_has_done_so(
    monkeypatch, chosen, variable, value, capped
):
    monkeypatch.setattr(kernels.os, "environ", {variable: value} if value else {})
    kernels.cap(chosen)
    assert kernels.os.environ.get("ONEDNN_MAX_CPU_ISA") == capped


def test_an_instruction_set_that_does_not_exist_is_refused():
    with pytest.raises(
        UsageError, match="cpu_isa: there is no AVX3; did you mean AVX.*; all: SSE41"
    ):
        kernels.cap("AVX3")
