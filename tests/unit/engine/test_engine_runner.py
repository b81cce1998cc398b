"""The runner: what is skipped, what runs again, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from recon.core.memory import peak_memory
from recon.engine.recipe import load_recipe
from recon.engine.runner import InterruptedRunError, RunOptions, _measured, run_stages
from recon.errors import ReconError, UsageError
from recon.io.manifest import StageRecord, counts_in_words
from tests.support import fake_stages
from tests.support.fake_stages import STAGES, results, run


def manifest(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "out" / "manifest.json").read_text())
    return data


def skipped(summary: Any) -> list[bool]:
    return [outcome.skipped for outcome in summary.stages]


def test_result_counts_and_manifest(folder: Path) -> None:
    summary = run(folder)
    assert json.loads((folder / "out" / "sum.json").read_text())["sum"] == sum(
        n * n for n in (3, 1, 4, 15, 9, 2)
    )
    assert [outcome.name for outcome in summary.stages] == ["numbers", "squares", "sum"]
    assert summary.counts("squares") == {"squares": 6, "made": 6}
    stages = manifest(folder)["stages"]
    assert {record["state"] for record in stages.values()} == {"done"}
    assert all(record["peak_memory_mb"] > 5 and record["seconds"] >= 0 for record in stages.values())
    assert stages["sum"]["versions"]["python"].startswith(
        f"{sys.version_info.major}.{sys.version_info.minor}"
    )
    assert (folder / "out" / "recipe.toml").is_file()
    assert "squares" in (folder / "out" / "run.log").read_text()


def test_second_run_skips_everything_and_touches_no_result(folder: Path) -> None:
    run(folder)
    dates = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*.json") if p.name != "manifest.json"}
    again = run(folder)
    assert skipped(again) == [True, True, True]
    assert again.counts("sum") == {"sum": 336.0}
    assert {p: p.stat().st_mtime_ns for p in dates} == dates


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["numbers.count=5"], [False, False, False]),
        (["squares.power=3"], [True, False, False]),
        (["sum.offset=1.0"], [True, True, False]),
    ],
)
def test_a_changed_setting_redoes_its_stage_and_its_readers(
    folder: Path, change: list[str], expected: list[bool]
) -> None:
    run(folder)
    assert skipped(run(folder, change)) == expected
    fresh = folder / "fresh"
    run(folder, change, out="fresh")
    assert results(folder / "out") == results(fresh)


def test_a_result_made_from_replaced_input_is_not_trusted_when_the_settings_return(folder: Path) -> None:
    """Settings A, then B for the first stage only, then A: the old sum still fits A by its fingerprint.

    But what it was made from was replaced in between.
    """
    run(folder)
    run(folder, ["numbers.count=5"], stop_after="numbers")
    assert skipped(run(folder)) == [False, False, False]


def test_changed_input_content_is_noticed(folder: Path) -> None:
    run(folder)
    (folder / "numbers.txt").write_text("1 2 3\n")
    summary = run(folder)
    assert skipped(summary) == [False, False, False]
    assert summary.counts("sum") == {"sum": 14.0}


def test_seed_and_version_are_part_of_the_fingerprint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder)
    assert skipped(run(folder, seed=1)) == [False, False, False]
    monkeypatch.setattr(fake_stages.SquaresStage, "version", 2)
    assert skipped(run(folder, seed=1)) == [True, False, False]


def test_number_of_threads_is_not_part_of_the_fingerprint(folder: Path) -> None:
    run(folder)
    recipe = fake_stages.recipe(folder)
    numbers = str(folder / "numbers.txt")
    options = RunOptions(inputs={"numbers": numbers}, source=numbers, threads=1)
    assert skipped(run_stages(STAGES, recipe, folder / "out", options)) == [True, True, True]


def test_stop_after_and_restart_from(folder: Path) -> None:
    assert [o.name for o in run(folder, stop_after="squares").stages] == ["numbers", "squares"]
    assert not (folder / "out" / "sum.json").exists()
    assert skipped(run(folder)) == [True, True, False]
    assert skipped(run(folder, restart_from="squares")) == [True, False, False]
    assert skipped(run(folder, resume=False)) == [False, False, False]


def test_restart_then_stop_does_not_leave_later_stages_done(folder: Path) -> None:
    run(folder)
    run(folder, restart_from="squares", stop_after="squares")
    assert manifest(folder)["stages"]["sum"]["state"] == "stale"
    assert skipped(run(folder)) == [True, True, False]


@pytest.mark.parametrize("option", ["stop_after", "restart_from"])
def test_unknown_stage_is_a_usage_error_with_a_hint(folder: Path, option: str) -> None:
    with pytest.raises(UsageError, match=r"sqares.*did you mean 'squares'.*numbers, squares, sum"):
        run(folder, **{option: "sqares"})


def test_a_result_that_was_deleted_is_made_again(folder: Path) -> None:
    run(folder)
    (folder / "out" / "sum.json").unlink()
    assert skipped(run(folder)) == [True, True, False]
    assert (folder / "out" / "sum.json").exists()


def test_a_result_that_its_stage_did_not_write_is_made_again(folder: Path) -> None:
    run(folder)
    place = folder / "out" / "numbers.json"
    good = place.read_bytes()
    place.write_bytes(good.replace(b"3", b"7", 1))
    assert skipped(run(folder)) == [False, False, False]
    assert place.read_bytes() == good


def test_workspace_of_another_source_is_refused_and_kept(folder: Path) -> None:
    run(folder)
    before = results(folder / "out")
    other = folder / "other.txt"
    other.write_text("7 8\n")
    with pytest.raises(ReconError) as caught:
        run(folder, numbers=other)
    for part in ("numbers.txt", "other.txt", "--restart-from numbers", "--out"):
        assert part in str(caught.value)
    assert results(folder / "out") == before
    assert skipped(run(folder)) == [True, True, True]
    assert run(folder, numbers=other, restart_from="numbers").counts("sum") == {"sum": 113.0}


def test_the_same_content_from_another_place_is_the_same_source(folder: Path) -> None:
    run(folder)
    (folder / "moved.txt").write_bytes((folder / "numbers.txt").read_bytes())
    assert skipped(run(folder, numbers=folder / "moved.txt")) == [True, True, True]


def test_failed_stage_is_recorded_and_runs_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Any, _settings: Any, work: Any) -> dict[str, Any]:
        work.write_text("half.txt", "half")
        raise ReconError("the numbers do not add up")

    with monkeypatch.context() as patch:
        patch.setattr(fake_stages.SumStage, "run", fail)
        with pytest.raises(ReconError, match="do not add up"):
            run(folder)
    assert manifest(folder)["stages"]["sum"]["state"] == "failed"
    assert "do not add up" in (folder / "out" / "run.log").read_text()
    assert skipped(run(folder)) == [True, True, False]


def test_ctrl_c_leaves_a_workspace_that_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fake_stages.SumStage, "run", stop)
        with pytest.raises(InterruptedRunError, match=r"same command.*resume"):
            run(folder)
    assert manifest(folder)["stages"]["sum"]["state"] == "interrupted"
    assert skipped(run(folder)) == [True, True, False]


def test_ctrl_c_does_not_wait_for_what_the_workers_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(_self: Any, _settings: Any, work: Any) -> dict[str, Any]:
        def item(index: int) -> None:
            if index == 0:
                os.kill(os.getpid(), signal.SIGINT)
            release.wait(60)

        work.map(item, range(8), "waiting", threads=2)
        return {}

    monkeypatch.setattr(fake_stages.SumStage, "run", slow)
    # A test run that was started in the background inherits SIGINT as ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(InterruptedRunError):
            run(folder)
        assert not release.is_set()
        assert any(thread.name.startswith("recon-worker") for thread in threading.enumerate())
    finally:
        release.set()
        signal.signal(signal.SIGINT, before)


def test_warnings_are_kept_in_manifest_and_summary_of_a_skipped_stage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(_self: Any, _settings: Any, work: Any) -> dict[str, Any]:
        work.warn("odd numbers")
        work.warn("odd numbers")
        return {}

    monkeypatch.setattr(fake_stages.SumStage, "run", warn)
    assert run(folder).warnings == ("odd numbers",)
    assert "warning: odd numbers" in capsys.readouterr().err
    assert run(folder).warnings == ("odd numbers",)


def test_one_line_per_stage_off_a_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["[1/3] numbers", "[2/3] squares", "[3/3] sum"]
    run(folder)
    assert all("done before" in line for line in capsys.readouterr().err.splitlines())


def test_counts_read_like_a_phrase() -> None:
    counts = {
        "cameras": 1,
        "photos_left_out": 2,
        "points_per_photo": 4101.3,
        "share": 0.12345,
        "ok": True,
        "all": [1],
    }
    assert (
        counts_in_words(counts, first="") == "1 camera, 2 photos left out, 4101 points per photo, 0.123 share"
    )


def test_stages_out_of_order_are_a_programming_error(folder: Path) -> None:
    recipe = load_recipe(folder_recipe(folder), STAGES)
    with pytest.raises(ValueError, match="squares"):
        run_stages((STAGES[1], STAGES[0], STAGES[2]), recipe, folder / "out")


def folder_recipe(folder: Path) -> Path:
    path = folder / "r.toml"
    path.write_text("")
    return path


POINTS = [
    "numbers-begin",
    "numbers-half-written",
    "numbers-written",
    "squares-half-15",
    "squares-after-15",
    "squares-all",
    "squares-swapped",
    "sum-begin",
    "sum-written",
]


def run_in_process(folder: Path, kill_at: str = "", overrides: tuple[str, ...] = ()) -> int:
    """A fake run in a process of its own; its exit status."""
    environment = {**os.environ, fake_stages.KILL_AT: kill_at}
    root = Path(__file__).resolve().parents[3]
    environment["PYTHONPATH"] = f"{root}{os.pathsep}{Path(fake_stages.__file__).parent}"
    command = [sys.executable, str(fake_stages.__file__), str(folder), *overrides]
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill -9")
@pytest.mark.parametrize("place", POINTS)
def test_killed_run_resumes_to_the_result_of_an_undisturbed_one(folder: Path, place: str) -> None:
    run(folder, out="undisturbed")
    assert run_in_process(folder, place) == -signal.SIGKILL
    before = results(folder / "out")
    assert not any(text in {"half", "[3,"} for name, text in before.items() if not name.startswith("."))
    assert results(run(folder).root) == results(folder / "undisturbed")
    assert not list((folder / "out" / ".incomplete").iterdir())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill -9")
def test_killed_while_redoing_with_other_settings(folder: Path) -> None:
    """The old results are there when the run with new settings is killed: none may survive as done."""
    run(folder)
    assert run_in_process(folder, "squares-after-15", ("squares.power=3",)) == -signal.SIGKILL
    assert run(folder, ["squares.power=3"]).counts("sum") == {
        "sum": float(sum(n**3 for n in (3, 1, 4, 15, 9, 2)))
    }


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill -9")
def test_resumable_directory_keeps_finished_items_of_the_same_settings_only(folder: Path) -> None:
    assert run_in_process(folder, "squares-after-15") == -signal.SIGKILL
    assert run(folder).counts("squares") == {"squares": 6, "made": 2}  # 3, 1, 4, 15 were there
    assert run_in_process(folder, "squares-after-15", ("squares.power=3",)) == -signal.SIGKILL
    assert run(folder, ["squares.power=4"]).counts("squares") == {"squares": 6, "made": 6}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill -9")
def test_items_made_from_a_result_that_was_computed_again_are_not_kept(folder: Path) -> None:
    """Not every stage gives the same bits twice: old and new ones must not be mixed."""
    assert run_in_process(folder, "squares-after-15") == -signal.SIGKILL
    (folder / "out" / "numbers.json").unlink()
    assert run(folder).counts("squares") == {"squares": 6, "made": 6}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no kill -9")
def test_kill_at_random_instants(folder: Path) -> None:
    """Killed from outside at times spread over the run, again and again in one workspace, then left alone."""
    run(folder, out="undisturbed")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    for wait in (0.25, 0.3, 0.35, 0.4):
        process = subprocess.Popen(
            [sys.executable, str(fake_stages.__file__), str(folder)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(wait)
        process.kill()
        process.wait()
    assert results(run(folder).root) == results(folder / "undisturbed")


def test_results_of_an_earlier_state_are_not_left_where_current_ones_are_expected(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input changes and a stage fails: what it and its readers made before is set aside or gone."""

    def fail(_self: Any, _settings: Any, _work: Any) -> dict[str, Any]:
        raise ReconError("no luck")

    old = run(folder)
    out = folder / "out"
    before = (out / "sum.json").read_bytes()
    assert not (out / "previous").exists()
    (folder / "numbers.txt").write_text("1 2 3\n")
    monkeypatch.setattr(fake_stages.SquaresStage, "run", fail)
    options = {"results": ("sum.json", "report"), "derived": {"sum": ("report/exported.txt",)}}
    (out / "report").mkdir()
    (out / "report" / "exported.txt").write_text("made of the sum")
    with pytest.raises(ReconError, match="no luck"):
        run(folder, **options)
    assert old.counts("sum") == {"sum": 336.0}
    assert not (out / "sum.json").exists()
    assert (out / "previous" / "sum.json").read_bytes() == before
    assert (out / "previous" / "report" / "exported.txt").read_text() == "made of the sum"
    assert (out / "squares").exists()  # nobody looks at it: it stays until there is a new one
    monkeypatch.undo()
    assert run(folder, **options).counts("sum") == {"sum": 14.0}
    assert (out / "previous" / "sum.json").read_bytes() == before
    run(folder, ["sum.offset=1.0"], **options)
    assert json.loads((out / "previous" / "sum.json").read_text())["sum"] == 14.0
    assert json.loads((out / "sum.json").read_text())["sum"] == 15.0


def test_what_a_library_prints_goes_to_the_log(folder: Path) -> None:
    """A library in C++ writes to the file descriptor; progress and our own lines still reach the terminal."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.support import fake_stages\n"
        "real = fake_stages.SquaresStage.run\n"
        "def run(self, settings, work):\n"
        "    os.write(2, b'W1128 library.cc:7] Discarding\\n')\n"
        "    print('from Python', file=sys.stderr)\n"
        "    work.warn('a warning of ours')\n"
        "    return real(self, settings, work)\n"
        "fake_stages.SquaresStage.run = run\n"
        f"fake_stages.run(Path({str(folder)!r}))\n"
        "os.write(2, b'after the run\\n')\n"
        "print('Python after it', file=sys.stderr)\n"
    )
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Discarding" not in done.stderr
    for line in ("from Python", "warning: a warning of ours", "after the run", "Python after it"):
        assert line in done.stderr
    log = (folder / "out" / "run.log").read_text()
    assert "W1128 library.cc:7] Discarding" in log
    assert "after the run" not in log


def test_an_error_that_no_stage_foresaw_is_told_in_words_and_its_place_is_in_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Any, _settings: Any, _work: Any) -> dict[str, Any]:
        raise IndexError("row 7")

    monkeypatch.setattr(fake_stages.SumStage, "run", fail)
    with pytest.raises(
        ReconError, match=r"stage 'sum' cannot go on .*IndexError: row 7.*--restart-from squares"
    ):
        run(folder)
    log = (folder / "out" / "run.log").read_text()
    assert "Traceback" in log
    assert 'raise IndexError("row 7")' in log
    monkeypatch.undo()
    assert skipped(run(folder)) == [True, True, False]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the system for its peak")
def test_a_short_peak_is_recorded_although_the_interpreter_is_held() -> None:
    record = StageRecord("", "running")
    before, more = peak_memory(), 64 << 20
    with _measured(record):
        # One call, during which no other thread of Python's runs.
        block = b"x" * (before - psutil.Process().memory_info().rss + more)
        del block
    assert record.peak_memory_mb * 2**20 > before + more // 2
