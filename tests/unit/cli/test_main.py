"""The command line: help, exit codes, what is passed on, what is printed."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import recon
from recon import __version__
from recon.cli import app, main
from recon.errors import ReconError, UsageError
from recon.io.manifest import Manifest, StageRecord

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def fake_api(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for recon.api: records the calls, returns or raises what the test wants."""
    state = SimpleNamespace(calls=[], result=SimpleNamespace(seconds=3.0, stages=()), error=None, trust=None)

    def call(*args: Any, **kwargs: Any) -> Any:
        state.calls.append((args, kwargs))
        if state.error is not None:
            raise state.error
        return state.result

    module = ModuleType("recon.api")
    module.reconstruct = module.match_files = call  # type: ignore[attr-defined]
    module.trust = lambda _: state.trust  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "recon.api", module)
    monkeypatch.setattr(recon, "api", module, raising=False)
    return state


def test_help_names_the_commands_and_version_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("reconstruct", "match", "doctor", "evaluate"))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"recon {__version__}"


def test_help_imports_nothing_heavy() -> None:
    """Seconds of start-up come from these libraries; none of them is needed to print a help text."""
    code = (
        "import sys\nfrom recon.cli import main\nmain(['reconstruct', '--help'])\n"
        "heavy = 'numpy cv2 torch open3d pycolmap numba scipy zarr matplotlib networkx PIL'.split()\n"
        "sys.exit(' '.join(sorted(set(heavy) & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--restart-from" in done.stdout


def test_blas_works_in_one_thread_unless_told_otherwise() -> None:
    """Threads of BLAS beside those of the run wait for one another; the setting has to be there before NumPy."""
    code = (
        "import os, sys, recon.cli; assert 'numpy' not in sys.modules; "
        "print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    plain = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    for given, expected in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")):
        said = subprocess.check_output([sys.executable, "-c", code], env={**plain, **given}, text=True)
        assert said.strip() == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["reconstruct"],
        ["reconstruct", "photos"],
        ["reconstruct", "photos", "--out", "o", "--threads", "0"],
        ["reconstruct", "photos", "--out", "o", "--seed", "x"],
        ["recontruct"],
        ["match", "a.jpg", "--out", "o"],
    ],
)
def test_wrong_calls_end_with_2(arguments: list[str], fake_api: SimpleNamespace) -> None:
    assert main(arguments) == 2
    assert fake_api.calls == []


def test_reconstruct_alone_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct"]) == 2
    printed = capsys.readouterr()
    assert "recon reconstruct photos/ --out result/" in printed.err
    assert printed.out == ""


def test_help_of_reconstruct_is_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", "--help"]) == 0
    text = capsys.readouterr().out
    groups = {
        "Input": ("PHOTOS",),
        "Common options": (
            "--out", "--quality", "--recipe", "--masks", "--frames", "--intrinsics", "--stop-after", "--plan",
            "--threads", "--memory",
        ),
        "Quality": ("--set", "--strict"),
        "Cameras": ("--camera-sharing", "--camera-model"),
        "Output": ("--no-resume", "--restart-from"),
        "Machine": ("--workers", "--cluster", "--seed"),
    }  # fmt: skip
    titles = [re.search(rf"─ {name} ─", text) for name in groups]
    assert all(titles)
    assert [title.start() for title in titles if title] == sorted(title.start() for title in titles if title)
    for title, options in zip(titles, groups.values(), strict=True):
        assert title is not None
        box = text[title.end() : text.index("╰", title.end())]
        assert all(option in box for option in options)


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    for words, position, expected in (
        ("recon reco", 1, "reconstruct"),
        ("recon export --geo", 2, "--georeferenced"),
    ):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_RECON_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(position),
        }
        code = "from recon.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in done.stdout.split(), done.stderr


def test_files_of_an_earlier_state_are_not_named_as_results(
    fake_api: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "report.html").touch()
    stages = {"map": StageRecord("f", "stale"), "report": StageRecord("f", "done")}
    (tmp_path / "manifest.json").write_text(Manifest(stages=stages).to_json())
    assert main(["reconstruct", "photos", "--out", str(tmp_path), "--stop-after", "features"]) == 0
    assert len(fake_api.calls) == 1
    listed = capsys.readouterr().out
    assert str(tmp_path / "report.html") in listed
    assert str(tmp_path / "sparse") not in listed


def test_strict_fails_where_the_cameras_are_not_sound(
    fake_api: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconstruct", "photos", "--out", str(tmp_path)]
    reason = {"what": "all photos look the same way", "advice": "walk round"}
    fake_api.trust = {"verdict": "doubtful", "reasons": [reason], "figures": {}}
    assert main(command) == 0
    assert main([*command, "--strict"]) == 1
    assert "all photos look the same way" in capsys.readouterr().err
    fake_api.trust = {"verdict": "sound", "reasons": [], "figures": {}}
    assert main([*command, "--strict"]) == 0


def test_reconstruct_passes_everything_on(fake_api: SimpleNamespace, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    (out / "mesh").mkdir(parents=True)
    (out / "mesh" / "mesh.ply").touch()
    arguments = (
        "--recipe sift --quality high --set match.window=5 --set mesh.depth=9 --intrinsics 1,2,3,4 --masks m"
    )
    more = "--stop-after map --restart-from pairs --threads 3 --seed 7 --no-resume --camera-sharing single"
    more += " --workers 2 --memory 8G --camera-model OPENCV"
    places = ["photos", "film.mp4", "--frames", "40"]
    assert main(["reconstruct", *places, "--out", str(out), *arguments.split(), *more.split()]) == 0
    assert fake_api.calls == [
        (
            ([Path("photos"), Path("film.mp4")], out),
            {
                "recipe": "sift",
                "quality": "high",
                "overrides": ("match.window=5", "mesh.depth=9"),
                "intrinsics": "1,2,3,4",
                "masks": Path("m"),
                "stop_after": "map",
                "restart_from": "pairs",
                "threads": 3,
                "workers": 2,
                "cluster": None,
                "memory": "8G",
                "seed": 7,
                "resume": False,
                "camera_sharing": "single",
                "camera_model": "OPENCV",
                "frames": 40,
            },
        )
    ]
    printed = capsys.readouterr().out
    assert str(out / "mesh" / "mesh.ply") in printed
    assert "sparse" not in printed  # only what is there


def test_defaults(fake_api: SimpleNamespace, tmp_path: Path) -> None:
    assert main(["reconstruct", "photos", "--out", str(tmp_path)]) == 0
    options = fake_api.calls[0][1]
    assert (options["recipe"], options["quality"], options["resume"], options["seed"]) == (
        "siftflow",
        "normal",
        True,
        0,
    )
    assert options["overrides"] == ()
    assert (
        options["intrinsics"] is options["masks"] is options["threads"] is options["camera_sharing"] is None
    )


def test_match(fake_api: SimpleNamespace, tmp_path: Path, capsys: Any) -> None:
    fake_api.result = SimpleNamespace(
        folder=tmp_path, files=("flow.npy",), in_words=lambda: "consistent both ways: 50% of A"
    )
    assert (
        main(["match", "a.jpg", "b.jpg", "--out", str(tmp_path), "--max-size", "320", "--set", "window=5"])
        == 0
    )
    args, options = fake_api.calls[0]
    assert args == (Path("a.jpg"), Path("b.jpg"), tmp_path)
    assert options == {"matcher": "siftflow", "max_size": 320, "overrides": ("window=5",)}
    printed = capsys.readouterr().out
    assert "50%" in printed
    assert str(tmp_path / "flow.npy") in printed
    command = ["match", "a.jpg", "b.jpg", "--out", str(tmp_path), "--matcher", "xfeat"]
    assert main([*command, "--weights", "my weights"]) == 0
    assert fake_api.calls[1][1]["overrides"] == ('weights="my weights"',)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("no such key"), 2, "error: no such key"),
        (ReconError("too few photos"), 1, "error: too few photos"),
        (KeyboardInterrupt(), 1, "error: stopped"),
        (ImportError("libGL.so.1: cannot open"), 1, "recon doctor"),
        (MemoryError(), 1, "--quality preview"),
        (OSError(errno.ENOSPC, "No space left", "/a/b"), 1, "/a/b: No space left; free some space"),
    ],
)
def test_exit_codes_without_traceback(
    fake_api: SimpleNamespace, tmp_path: Path, capsys: Any, error: BaseException, code: int, text: str
) -> None:
    fake_api.error = error
    assert main(["reconstruct", "photos", "--out", str(tmp_path)]) == code
    printed = capsys.readouterr().err
    assert text in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.EBADF, "Bad file descriptor")])
def test_a_defect_of_ours_keeps_its_traceback(
    fake_api: SimpleNamespace, tmp_path: Path, error: Exception
) -> None:
    fake_api.error = error
    with pytest.raises(type(error)):
        main(["reconstruct", "photos", "--out", str(tmp_path)])


def test_a_failure_ends_at_once_while_workers_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(app.os, "_exit", codes.append)
    release = threading.Event()
    worker = threading.Thread(target=release.wait, args=(60,), name=f"{app.WORKER}_0", daemon=True)
    app.fail("x", 1)
    assert codes == []
    worker.start()
    app.fail("x", 1)
    release.set()
    assert codes == [1]


def test_worker_name_is_the_engines() -> None:
    from recon.core import parallel

    assert app.WORKER == parallel.WORKER


def test_run_pipeline_works_from_a_checkout_in_any_folder(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--restart-from" in done.stdout


def test_run_pipeline_without_the_libraries_says_what_to_do(tmp_path: Path) -> None:
    """-S hides the installed packages, as on a fresh machine."""
    command = [sys.executable, "-S", "-E", str(ROOT / "run_pipeline.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not installed" in done.stderr
    assert "make setup" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM that could be caught")
def test_being_asked_to_end_works_like_ctrl_c(tmp_path: Path) -> None:
    """pycolmap's logging library would take SIGTERM for a crash and abort."""
    code = (
        "import os, signal, sys, time, types\n"
        "import recon\nfrom recon.cli import main\n"
        "def reconstruct(*_, **__):\n"
        "    import pycolmap\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(20)\n"
        "sys.modules['recon.api'] = recon.api = types.SimpleNamespace(reconstruct=reconstruct)\n"
        "sys.exit(main(['reconstruct', 'photos', '--out', 'out']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr.strip()) == (1, "error: stopped")
