"""What a machine says of its arithmetic: on x86, on ARM, and where it says nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.system import arithmetic

INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) CPU @ 2.00GHz
stepping\t: 7
flags\t\t: fpu sse sse2 smep smap ssse3 fma sse4_1 sse4_2 avx f16c avx2 avx512f avx512dq avx512bw avx512vl avx512_vnni

processor\t: 1
vendor_id\t: Another
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes asimdhp cpuid asimddp sve bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd40
"""


def described(tmp_path: Path, text: str | None) -> dict:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    return arithmetic.processor(file, tmp_path / "cache")


@pytest.fixture(autouse=True)
def uncapped(monkeypatch):
    for name in arithmetic.CAPS:
        monkeypatch.delenv(name, raising=False)


def test_an_intel_processor_is_known_by_its_first_core(tmp_path):
    found = described(tmp_path, INTEL)
    assert (found["vendor"], found["family"], found["model"]) == ("GenuineIntel", "6", "85")
    assert found["instruction_set"] == "AVX512_CORE_VNNI"
    assert "avx512_vnni" in found["instructions"] and not {"smep", "fpu"} & set(
        found["instructions"]
    )
    assert arithmetic.model_name(tmp_path / "cpuinfo") == "Intel(R) Xeon(R) CPU @ 2.00GHz"


def test_an_arm_processor_is_known_by_its_part(tmp_path):
    found = described(tmp_path, ARM)
    assert (found["vendor"], found["family"], found["model"]) == ("0x41", "8", "0xd40")
    assert found["instructions"] == ["asimd", "asimddp", "asimdhp", "bf16", "sve"]
    assert found["instruction_set"] is None


@pytest.mark.parametrize("text", [None, "", "nothing of use\n"])
def test_what_a_system_hides_is_null(tmp_path, text):
    found = described(tmp_path, text)
    assert {name for name, value in found.items() if value is None} >= {
        "vendor",
        "family",
        "model",
        "instruction_set",
        "instructions",
    }
    assert found["caches"] == {"L1d": None, "L2": None, "L3": None}
    assert arithmetic.model_name(tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    ("variables", "in_force"),
    [
        ({}, "AVX512_CORE_VNNI"),
        ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, "SSE41"),
        ({"DNNL_MAX_CPU_ISA": "avx2"}, "AVX2"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "SSE41"}, "AVX2"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"}, "AVX2"),  # as far as this processor has it
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, "AVX512_CORE_VNNI"),
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, "AVX512_CORE_VNNI"),
    ],
)
def test_a_cap_lowers_the_instruction_set_in_force(tmp_path, variables, in_force):
    assert (
        arithmetic.instruction_set(described(tmp_path, INTEL)["instructions"], variables)
        == in_force
    )


def test_caches_are_what_the_system_reports(tmp_path):
    listed = [
        ("1", "Data", "48K", "0"),
        ("1", "Instruction", "32K", "0"),
        ("2", "Unified", "2048K", "0-1"),
        ("3", "Unified", "32M", "0-3,8-11"),
    ]
    for number, facts in enumerate(listed):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), facts, strict=True):
            (folder / name).write_text(f"{value}\n")
    assert arithmetic.cache_sizes(tmp_path) == {
        "L1d": {"bytes": 48 << 10, "shared_by": 1},
        "L2": {"bytes": 2 << 20, "shared_by": 2},
        "L3": {"bytes": 32 << 20, "shared_by": 8},
    }


def test_variables_that_change_arithmetic_are_told_and_no_password_is(monkeypatch):
    set_here = {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "AVX2",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "NVIDIA_TF32_OVERRIDE": "0",
        "NCCL_ALGO": "Ring",
        "XLA_FLAGS": "--dump_to=http://me:hush-1@host/",
        "TF_SERVICE_TOKEN": "hush-2",
        "TF_VAR_database": "hush-3",
        "TF_TOKEN_app_example_org": "hush-4",
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "CUDA_VISIBLE_DEVICES": "1",
        "SOME_PASSWORD": "hush-5",
    }
    for name, value in set_here.items():
        monkeypatch.setenv(name, value)
    found = arithmetic.variables()
    assert {name: found[name] for name in list(set_here)[:6]} == dict(list(set_here.items())[:6])
    assert not {
        "TF_CPP_MIN_LOG_LEVEL",
        "CUDA_VISIBLE_DEVICES",
        "TF_VAR_database",
        "SOME_PASSWORD",
    } & set(found)
    assert "hush" not in json.dumps(found)


def test_the_machine_is_described_without_a_framework():
    code = "import sys; from pipelines.system import arithmetic; arithmetic.describe(); print(sorted({'tensorflow', 'numpy'} & set(sys.modules)))"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    assert printed.strip() == "[]"


def test_a_distribution_is_named_by_its_compiled_libraries():
    named = arithmetic.binaries("numpy")
    assert named and named != arithmetic.binaries("tensorflow")
    assert arithmetic.binaries("hydra-core") is None  # It has none.
    assert arithmetic.binaries("not-installed") is None
