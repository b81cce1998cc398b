"""The doctor: what it finds and the remedy that it names."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from recon import doctor
from recon.doctor import Check


def test_a_library_that_is_there_and_one_that_is_not() -> None:
    here = doctor.check_library("pytest", "pytest")
    assert (here.state, here.what) == ("ok", f"pytest {pytest.__version__}")
    absent = doctor.check_library("no_such_module_xyz", "no-such-package")
    assert absent.state == "missing"
    assert "no_such_module_xyz" in absent.what
    assert "pip install" in absent.remedy


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("ImportError: libGL.so.1: cannot open shared object file: No such file", "apt-get install libgl1"),
        ("OSError: libusb-1.0.so.0: cannot open shared object file", "apt-get install libusb-1.0-0"),
        ("ImportError: libX11.so.6: cannot open", "apt-get install libx11-6"),
        ("ImportError: libidn2.so.0: cannot open", "apt-get install libidn2-0"),
        ("ImportError: libunheard.so.7: cannot open", "apt-file search libunheard.so.7"),
        ("ModuleNotFoundError: No module named 'open3d'", "pip install --force-reinstall open3d"),
    ],
)
def test_a_missing_system_library_is_named_by_its_package(message: str, remedy: str) -> None:
    check = doctor.check_library("open3d", "open3d", run=lambda _: (False, message))
    assert check.state == "missing"
    assert remedy in check.remedy


def test_a_crash_at_import_does_no_harm_here() -> None:
    works, text = doctor.run_python("import os; os.abort()")
    assert not works
    assert "signal 6" in text


def test_python_versions() -> None:
    assert doctor.check_python((3, 10)).state == doctor.check_python((3, 12)).state == "ok"
    for version in ((3, 9), (3, 13)):
        check = doctor.check_python(version)
        assert check.state == "missing"
        assert "3.10 to 3.12" in check.what


@pytest.mark.parametrize(("required", "state"), [(True, "missing"), (False, "note")])
def test_system_libraries(monkeypatch: pytest.MonkeyPatch, required: bool, state: str) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    libraries = (("libc.so.6", "libc6"), ("libnot-there.so.1", "libnot1"), ("libneither.so.2", "libneither2"))
    (check,) = doctor.check_system_libraries(required, libraries)
    assert check.state == state
    assert check.remedy == "sudo apt-get install libnot1 libneither2"
    assert doctor.check_system_libraries(required, libraries[:1])[0].state == "ok"


def test_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_memory(16.0).state == "ok"
    assert "--quality preview" in doctor.check_memory(1.0).remedy
    assert doctor.check_disk(tmp_path, 100.0).state == "ok"
    assert doctor.check_disk(tmp_path, 1.0).state == "note"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=39.8 * 2**30))
    assert doctor.check_disk(tmp_path).what == f"39.8 GB free on the disk of {tmp_path}"
    assert doctor.check_memory().state in {"ok", "note"}
    assert doctor.check_cores().state == "ok"


def test_cuda() -> None:
    assert "everything runs on the processor" in doctor.check_cuda(lambda _: (True, "")).what
    assert "everything runs on the processor" in doctor.check_cuda(lambda _: (False, "no torch")).what
    assert "Card X" in doctor.check_cuda(lambda _: (True, "Card X")).what


def test_numba_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_numba_cache([tmp_path / "new"]).state == "ok"
    (tmp_path / "file").touch()
    check = doctor.check_numba_cache([tmp_path / "file"])
    assert check.state == "note"
    assert "NUMBA_CACHE_DIR" in check.remedy
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    assert str(tmp_path / "named") in doctor.check_numba_cache().what


def test_report_is_healthy_unless_something_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checks = [Check("ok", "one"), Check("note", "two", "mend two")]
    monkeypatch.setattr(doctor, "run_checks", lambda _: checks)
    text, healthy = doctor.report(tmp_path)
    assert healthy
    assert "-> mend two" in text
    checks.append(Check("missing", "three", "mend three"))
    text, healthy = doctor.report(tmp_path)
    assert not healthy
    assert "-> mend three" in text


def test_every_library_that_the_code_imports_is_looked_at() -> None:
    root = Path(doctor.__file__).parent
    imported = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    known = {module for module, _ in doctor.LIBRARIES} | {module for module, _, _ in doctor.EXTRAS}
    comes_with_others = {"tomli", "tomllib", "typing_extensions", "markupsafe", "contourpy"}
    assert imported - known - comes_with_others - set(sys.stdlib_module_names) == {"recon"}


def test_every_package_that_an_installation_asks_for_is_looked_at() -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    root = Path(doctor.__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=!;\s]", requirement)[0] for requirement in requirements}

    assert names(project["dependencies"]) - {"tomli"} == {package for _, package in doctor.LIBRARIES}
    extras = [
        one for name, group in project["optional-dependencies"].items() if name != "test" for one in group
    ]
    assert names(extras) == {package for _, package, _ in doctor.EXTRAS}


def test_another_recon_in_the_way_is_named(tmp_path: Path) -> None:
    here = str(Path(doctor.__file__).parent / "__init__.py")
    command = str(Path(sys.executable).with_name("recon"))
    fine = doctor.check_own_name(lambda _: (True, here), command, "Photos in, mesh out: ...")
    assert fine.state == "ok"
    assert str(Path(here).parent) in fine.what
    biology = doctor.check_own_name(lambda _: (True, here), command, "Connectivity of single cells")
    assert biology.state == "note"
    assert "Connectivity of single cells" in biology.what
    assert "pip uninstall recon" in biology.remedy
    folder = doctor.check_own_name(
        lambda _: (True, "/elsewhere/recon/__init__.py"), command, "Photos in, mesh out"
    )
    assert "/elsewhere/recon/__init__.py" in folder.what
    other = doctor.check_own_name(lambda _: (True, here), str(tmp_path / "recon"), "Photos in, mesh out")
    assert str(tmp_path / "recon") in other.what
    assert doctor.DISTRIBUTION in other.remedy


def test_a_folder_called_recon_shadows_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recon").mkdir()
    (tmp_path / "recon" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    check = doctor.check_own_name(
        command=str(Path(sys.executable).with_name("recon")), stranger="Photos in, mesh out"
    )
    assert check.state == "note"
    assert str(tmp_path / "recon" / "__init__.py") in check.what
