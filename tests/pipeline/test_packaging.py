"""What ``pip install`` gives: sdist and wheel hold all that recon needs outside its checkout."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

import recon
from recon.datasets.cards import load_cards
from recon.engine.recipe import available_recipes

ROOT = Path(recon.__file__).resolve().parents[1]
SOURCES = ("recon", "pipelines", "datasets", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def build(kind: str, source: Path, target: Path) -> Path:
    """One distribution, by the build backend that pip calls; without a network."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(target)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that is built from the unpacked sdist, so that both are whole."""
    folder = tmp_path_factory.mktemp("packaging")
    (folder / "source").mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            leave = shutil.ignore_patterns("__pycache__", "*.pyc", "*.nbi", "*.nbc")
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=leave)
        else:
            shutil.copyfile(ROOT / name, folder / "source" / name)
    with tarfile.open(build("sdist", folder / "source", folder)) as archive:
        # Older Pythons do not know the filter.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder / "unpacked", **safely)
    return build("wheel", next((folder / "unpacked").iterdir()), folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel; the libraries are lent by the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = next(
        path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists()
    )
    answer = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(answer, capture_output=True, text=True, check=True).stdout.strip())
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
    ]
    subprocess.run([*command, str(wheel)], check=True)
    # A path in a .pth file is searched after the wheel, and its own .pth files (an editable recon) are not read.
    lent = [path for path in (*site.getsitepackages(), site.getusersitepackages()) if Path(path).is_dir()]
    (packages / "lent.pth").write_text("\n".join(lent) + "\n")
    return python.parent


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """The output of the installed ``recon``, started outside the checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "RECON"))}
    command = [str(installed / "recon"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith("recon_photogrammetry-")
    for path in sorted((ROOT / "pipelines").glob("*.toml")):
        assert f"recon/pipelines/{path.name}" in names
    for path in sorted((ROOT / "datasets").glob("*.toml")):
        assert f"recon/cards/{path.name}" in names
    kept = {".css", ".js", ".j2", ".safetensors", ".typed"}
    for path in sorted((ROOT / "recon").rglob("*")):
        if path.suffix in kept:
            assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if ".data/" in name]


def test_the_installed_package_knows_its_recipes_and_cards(installed: Path, tmp_path: Path) -> None:
    code = (
        "import recon; from recon.engine.recipe import available_recipes; from recon.datasets.cards import load_cards; "
        "print(recon.__file__, *available_recipes(), *load_cards(), sep='\\n')"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(installed / "python"), "-c", code]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    place, *names = done.stdout.splitlines()
    assert Path(place).is_relative_to(installed.parent)
    assert names == [*available_recipes(), *load_cards()]


@pytest.mark.timeout(1800)  # its kernels are compiled anew, as for everybody who installs it
def test_the_demo_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    said = run(installed, tmp_path, "demo", "--size", "240x180", "--out", "d")
    assert "8 of 8 placed" in said
    assert (tmp_path / "d" / "run" / "mesh" / "textured.glb").is_file()
    page = (tmp_path / "d" / "run" / "report.html").read_text(encoding="utf-8")
    assert str(ROOT) not in page
