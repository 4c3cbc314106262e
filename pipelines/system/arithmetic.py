"""What of a machine the bits of a result depend on: its processor, its C library, the variables that choose kernels.

Everything here is found without importing TensorFlow or NumPy. Where a system does not tell a fact, the fact is None.
"""

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.outside import HIDDEN, redacted

CPUINFO, CACHES = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu/cpu0/cache")
# Variables that choose kernels, their instructions, how sums are split, or the precision.
CHOOSING = (
    "TF_", "TF2_", "XLA_", "ONEDNN_", "DNNL_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NPY_", "JSIMD_", "OPENCV_",
    "CUDA_", "CUBLAS_", "CUBLASLT_", "CUDNN_", "NVIDIA_TF32", "NCCL_", "GLIBC_TUNABLES",
)  # fmt: skip
# Of these, the ones that say what is printed, which of equal devices is meant, or at which address the others are.
PASSIVE = (
    "TF_CPP_", "TF_CONFIG", "TF_USE_LEGACY_KERAS", "ONEDNN_VERBOSE", "DNNL_VERBOSE", "MKL_VERBOSE", "KMP_SETTINGS",
    "OMP_DISPLAY_", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_CACHE_", "NCCL_DEBUG",
    "NCCL_SOCKET_", "NCCL_COMM_ID", "OPENCV_LOG_",
)  # fmt: skip
# Terraform's variables begin with TF_ too, and hold passwords.
FOREIGN = (
    "TF_VAR_", "TF_TOKEN_", "TF_CLI_", "TF_LOG", "TF_WORKSPACE", "TF_DATA_DIR", "TF_INPUT", "TF_REGISTRY_",
    "TF_IN_AUTOMATION", "TF_PLUGIN_CACHE_", "TF_CLOUD_", "TF_REATTACH_", "TF_STATE_",
)  # fmt: skip
SECRET_WORDS = {
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASS",
    "PWD",
    "SECRET",
    "KEY",
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTH",
}
CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # The first that is set counts.
# The instruction sets by which oneDNN chooses kernels, lowest first: the one that each extends, the flags that it adds.
INSTRUCTION_SETS: dict[str, tuple[str | None, set[str]]] = {
    "SSE41": (None, {"sse4_1"}),
    "AVX": ("SSE41", {"avx"}),
    "AVX2": ("AVX", {"avx2", "fma"}),
    "AVX2_VNNI": ("AVX2", {"avx_vnni"}),
    "AVX2_VNNI_2": ("AVX2_VNNI", {"avx_vnni_int8", "avx_ne_convert"}),
    "AVX512_CORE": ("AVX2", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    "AVX512_CORE_VNNI": ("AVX512_CORE", {"avx512_vnni"}),
    "AVX512_CORE_BF16": ("AVX512_CORE_VNNI", {"avx512_bf16"}),
    "AVX512_CORE_FP16": ("AVX512_CORE_BF16", {"avx512_fp16"}),
    "AVX512_CORE_AMX": ("AVX512_CORE_FP16", {"amx_tile", "amx_int8", "amx_bf16"}),
    "AVX512_CORE_AMX_FP16": ("AVX512_CORE_AMX", {"amx_fp16"}),
}
ALIASES = {
    "AVX10_1_512": "AVX512_CORE_FP16",
    "AVX10_1_512_AMX": "AVX512_CORE_AMX",
    "AVX10_1_512_AMX_FP16": "AVX512_CORE_AMX_FP16",
}
# How the names of instructions that compute begin, by the word with which a system's description lists them: x86, ARM.
_COMPUTING = {
    "flags": ("ssse3", "sse4", "avx", "fma", "f16c", "amx"),
    "Features": ("asimd", "sve", "sme", "bf16", "i8mm", "fphp"),
}
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def describe() -> dict[str, Any]:
    """Returns the machine's part of the determinism class."""
    return {
        "processor": processor(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "variables": variables(),
    }


def processor(cpuinfo: Path = CPUINFO, caches: Path = CACHES) -> dict[str, Any]:
    """Vendor, family, model, caches, instructions; `instruction_set` is in force for matrix products and convolutions."""
    facts = _first_processor(cpuinfo)
    flags = _computing(facts)
    return {
        "architecture": platform.machine() or None,
        "vendor": facts.get("vendor_id") or facts.get("CPU implementer"),
        "family": facts.get("cpu family") or facts.get("CPU architecture"),
        "model": facts.get("model") or facts.get("CPU part"),
        "caches": cache_sizes(caches),
        "instruction_set": instruction_set(flags, os.environ),
        "instructions": flags or None,
    }


def binaries(distribution: str) -> str | None:
    """Names a distribution's compiled libraries by their digests, as its installer recorded them; None where it did not."""
    try:
        record = metadata.distribution(distribution).read_text("RECORD") or ""
    except metadata.PackageNotFoundError:
        return None
    compiled = [line for line in record.splitlines() if ".so" in line.partition(",")[0]]
    if not compiled:
        return None
    text = "\n".join(sorted(compiled))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def model_name(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, as precisely as the system tells."""
    return _first_processor(cpuinfo).get("model name") or platform.processor() or platform.machine()


def instruction_set(flags: Iterable[str], environment: Mapping[str, str]) -> str | None:
    """The highest instruction set, by oneDNN's name, that the flags hold and `CAPS` in the environment allow."""
    present = set(flags)
    cap = next((environment[name] for name in CAPS if environment.get(name)), "").upper()
    cap = ALIASES.get(cap, cap)
    allowed = _with_lower(cap) if cap in INSTRUCTION_SETS else set(INSTRUCTION_SETS)
    usable = [
        name for name in INSTRUCTION_SETS if name in allowed and _flags_needed(name) <= present
    ]
    return usable[-1] if usable else None


def cache_sizes(folder: Path = CACHES) -> dict[str, dict[str, int] | None]:
    """Bytes of the first core's data caches, and how many processors share each: block sizes follow from both."""
    sizes: dict[str, dict[str, int] | None] = dict.fromkeys(("L1d", "L2", "L3"))
    for index in folder.glob("index*"):
        facts = {name: _text(index / name) for name in ("level", "type", "size", "shared_cpu_list")}
        name = {"1": "L1d", "2": "L2", "3": "L3"}.get(facts["level"])
        if name and facts["type"] in ("Data", "Unified") and facts["size"]:
            sizes[name] = {
                "bytes": _bytes(facts["size"]),
                "shared_by": _count(facts["shared_cpu_list"]),
            }
    return sizes


def variables() -> dict[str, str]:
    """The variables of the environment that change arithmetic, without passwords."""
    return {
        name: value
        for name, value in recorded_variables(CHOOSING).items()
        if not name.startswith(PASSIVE)
    }


def recorded_variables(prefixes: tuple[str, ...]) -> dict[str, str]:
    """The variables whose names begin with one of `prefixes`, sorted; what looks like a password or token is hidden."""
    chosen = sorted(
        name for name in os.environ if name.startswith(prefixes) and not name.startswith(FOREIGN)
    )
    return {name: _shown(name, os.environ[name]) for name in chosen}


def _shown(name: str, value: str) -> str:
    return HIDDEN if SECRET_WORDS & set(name.upper().split("_")) else redacted(value)


def _computing(facts: Mapping[str, str]) -> list[str]:
    for listed, beginnings in _COMPUTING.items():
        if listed in facts:
            return sorted(word for word in facts[listed].split() if word.startswith(beginnings))
    return []


def _first_processor(cpuinfo: Path) -> dict[str, str]:
    """The first block of the system's description; empty where there is none or it may not be read."""
    block = _text(cpuinfo).partition("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _with_lower(name: str | None) -> set[str]:
    return {name, *_with_lower(INSTRUCTION_SETS[name][0])} if name else set()


def _flags_needed(name: str) -> set[str]:
    return set().union(*(INSTRUCTION_SETS[lower][1] for lower in _with_lower(name)))


def _bytes(size: str) -> int:
    unit = _UNITS.get(size[-1].upper())
    return int(size[:-1]) * unit if unit else int(size)


def _count(processors: str) -> int:
    """How many processors a list such as `0-3,8` names."""
    ranges = [part.partition("-") for part in processors.split(",") if part]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)
