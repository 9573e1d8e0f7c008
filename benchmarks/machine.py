"""One core, one thread, and what that core can do."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "transformers", "nnsight", "transformer-lens", "steering-vectors", "repeng")
SECONDS = 0.4


def pin() -> int:
    """Keep this process on one core and one thread; call before torch is imported. Returns the core."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The last core allowed: the first one serves most interrupts.
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    import torch

    torch.set_num_threads(1)
    return core


@dataclass(frozen=True)
class Rates:
    """Measured rates of this core in GFLOP/s: torch's own linear at the shapes of the workload, and the best."""

    block: float
    unembed: float
    best: float

    def floor(self, gflop_blocks: float, gflop_unembed: float) -> float:
        """Seconds that the arithmetic takes at the rates of torch's own linear."""
        return gflop_blocks / self.block + gflop_unembed / self.unembed


def rates(d_model: int, d_mlp: int, d_vocab: int, rows: int = 264) -> Rates:
    """Measure float32 matrix products, best of several repetitions.

    `best` also tries oneDNN, which is in the same wheel and on some CPUs twice as fast as MKL, which torch uses.
    """
    import torch
    from torch.nn.functional import linear

    def mkl(m: int, k: int, n: int) -> float:
        x, w = torch.randn(m, k), torch.randn(n, k)
        return _rate(lambda: linear(x, w), 2e-9 * m * k * n)

    def onednn(m: int, k: int, n: int) -> float:
        x, w = torch.randn(m, k), torch.randn(n, k).to_mkldnn()
        product = torch.ops.mkldnn._linear_pointwise
        return _rate(lambda: product(x, w, None, "none", [], ""), 2e-9 * m * k * n)

    block, unembed = mkl(rows, d_model, d_mlp), mkl(rows, d_model, d_vocab)
    best = max(block, unembed, mkl(1024, 1024, 1024))
    if torch.backends.mkldnn.is_available():
        best = max(best, onednn(1024, 1024, 1024))
    return Rates(block, unembed, best)


def _rate(call: Callable[[], object], gflop: float) -> float:
    call()
    spent: list[float] = []
    while sum(spent) < SECONDS or len(spent) < 3:
        start = time.process_time()
        call()
        # Sums of many calls: one call may be shorter than the clock's tick.
        spent.append(max(time.process_time() - start, 1e-6))
    return gflop / min(spent)


def status(name: str) -> int:
    """A line of this process's status, such as `VmHWM`, in KiB."""
    return next(int(line.split()[1]) for line in _lines("/proc/self/status") if line.startswith(f"{name}:"))


def describe() -> str:
    """The machine and the versions, in one line."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "")
    vectors = next((name for name in ("avx512f", "avx2") if name in flags), platform.machine())
    packages = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    load = os.getloadavg()[0]
    return (
        f"{cpu or platform.processor()} ({vectors}), one core of {os.cpu_count()}, one thread, float32; "
        f"Python {platform.python_version()}, {packages}; load average {load:.1f}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return ""
