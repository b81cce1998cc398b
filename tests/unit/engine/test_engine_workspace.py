"""The workspace: lock, manifest, atomic files, full and read-only disks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recon.engine.stage import StageContext
from recon.engine.workspace import Workspace, writing_failed
from recon.errors import ReconError
from recon.io.files import check_growth
from recon.io.manifest import Manifest, StageRecord, read_manifest
from tests.support import fake_stages
from tests.support.fake_stages import results, run


def test_second_run_on_one_workspace_is_refused_and_names_the_process(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "out"):
        root = Path(__file__).resolve().parents[3]
        code = (
            "import sys; from pathlib import Path; from recon.engine.workspace import Workspace\n"
            "with Workspace.open(Path(sys.argv[1])): pass"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "out")],
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert f"process {os.getpid()} on " in done.stderr
        assert "ReconError" in done.stderr
        assert str(tmp_path / "out") in done.stderr
    with Workspace.open(tmp_path / "out"):  # free again
        pass


def test_lock_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    code = (
        "import os, signal, sys; from pathlib import Path; from recon.engine.workspace import Workspace\n"
        "with Workspace.open(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / ".lock").exists()
    with Workspace.open(tmp_path / "out"):
        pass


def test_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "precious.jpg").write_bytes(b"x")
    with (
        pytest.raises(ReconError, match=r"not empty and is not a workspace.*photos.*--out"),
        Workspace.open(tmp_path),
    ):
        pass
    assert (photos / "precious.jpg").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]


def test_folder_with_only_a_log_or_hidden_files_may_become_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "nohup.log").write_text("")
    (tmp_path / ".keep").write_text("")
    with Workspace.open(tmp_path):
        pass


@pytest.mark.parametrize(
    "text", ["{", '{"format": 1}', "[]", '{"format": 1, "source": "", "stages": {"a": {"x": 1}}}']
)
def test_damaged_manifest_names_the_file_and_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ReconError, match=r"manifest\.json.*delete this file.*--out"):
        read_manifest(tmp_path)


def test_manifest_of_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 99, "source": "", "stages": {}}')
    with pytest.raises(ReconError, match="another version"):
        read_manifest(tmp_path)


def test_manifest_survives_a_round_trip(tmp_path: Path) -> None:
    record = StageRecord(
        "f", "done", ["a"], 1.5, 2.0, 3.0, {"n": 1, "s": "ü"}, ["w"], ["x/y"], {"numpy": "2"}
    )
    with Workspace.open(tmp_path) as workspace:
        workspace.manifest = Manifest("/photos", "hash", {"b": record}, {"seed": 3})
        workspace.save()
    assert read_manifest(tmp_path) == Manifest("/photos", "hash", {"b": record}, {"seed": 3})


def test_invalidation_reaches_readers_of_readers_and_nobody_else() -> None:
    def record(*reads: str) -> StageRecord:
        return StageRecord("f", "done", list(reads))

    manifest = Manifest(
        stages={"d": record("c"), "c": record("b"), "b": record("a"), "a": record(), "e": record("a")}
    )
    assert set(manifest.invalidate_readers(["b"])) == {"c", "d"}
    assert {name: one.state for name, one in manifest.stages.items()} == {
        "a": "done",
        "b": "done",
        "c": "stale",
        "d": "stale",
        "e": "done",
    }


def test_workspace_below_a_file_cannot_be_created(folder: Path) -> None:
    with pytest.raises(ReconError, match=r"cannot create the workspace folder.*numbers\.txt.*--out"):
        run(folder, out="numbers.txt/out")


@pytest.mark.skipif(sys.platform != "linux", reason="takes root's rights away as Linux does it")
def test_read_only_folder(folder: Path) -> None:
    run(folder)
    before = results(folder / "out")
    (folder / "out").chmod(0o555)
    # Root passes over permission bits by its capabilities: without them it obeys like everyone.
    code = (
        "import ctypes, os, sys\n"
        "import fake_stages\nfrom pathlib import Path\n"
        "header = (ctypes.c_uint32 * 2)(0x20080522, 0)\n"
        "if os.getuid() == 0: assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0\n"
        "fake_stages.run(Path(sys.argv[1]), ['sum.offset=1.0'])\n"
    )
    path = f"{Path(__file__).resolve().parents[3]}{os.pathsep}{Path(fake_stages.__file__).parent}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, "PYTHONPATH": path, "HOME": "/"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        (folder / "out").chmod(0o755)
    assert "ReconError" in done.stderr, done.stderr
    assert str(folder / "out") in done.stderr
    assert "--out" in done.stderr.splitlines()[-1]
    assert results(folder / "out") == before


QUIET_WRITER = (
    "def quiet(path):\n"  # as C++ streams do whose state nobody asks
    "    handle = os.open(path, os.O_WRONLY | os.O_CREAT)\n"
    "    for _ in range(40):\n"
    "        with contextlib.suppress(OSError): os.write(handle, bytes(1000))\n"
    "    os.close(handle)\n"
)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes")
@pytest.mark.parametrize(
    "writing",
    [
        "    work.write_bytes('big.bin', bytes(1 << 20))\n",
        "    with work.writing('big.bin') as path: quiet(path)\n",
        "    with work.fresh_directory('big.bin') as path: quiet(path / 'x')\n",
        "    raise RuntimeError('SQLite error: disk I/O error')\n",
    ],
)
def test_full_disk_keeps_what_is_finished(folder: Path, writing: str) -> None:
    """A limit on the size of files stands for a full disk: the system call fails in the same place. Whether the
    writer says so, keeps silent, or says something else."""
    code = (
        "import contextlib, os, resource, sys\nfrom pathlib import Path\nimport fake_stages\n"
        f"{QUIET_WRITER}"
        "def run(self, settings, work):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
        f"{writing}"
        "    return {}\n"
        "fake_stages.SumStage.run = run\n"
        "fake_stages.run(Path(sys.argv[1]))\n"
    )
    path = f"{Path(__file__).resolve().parents[3]}{os.pathsep}{Path(fake_stages.__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("recon.errors.ReconError: no room to write")
    assert str(folder / "out") in last
    assert "free some space" in last
    assert not (folder / "out" / "big.bin").exists()
    assert [outcome.skipped for outcome in run(folder).stages] == [True, True, False]


def test_which_errors_of_the_system_are_about_the_workspace(tmp_path: Path) -> None:
    inside = str(tmp_path / "sparse" / "x")
    assert "no room" in str(
        writing_failed(tmp_path, OSError(errno.ENOSPC, "No space left on device", inside))
    )
    assert "no room" in str(writing_failed(tmp_path, OSError(errno.ENOSPC, "No space left on device")))
    assert inside in str(writing_failed(tmp_path, PermissionError(errno.EACCES, "Permission denied", inside)))
    assert (
        writing_failed(tmp_path, PermissionError(errno.EACCES, "Permission denied", "/elsewhere/photo"))
        is None
    )
    assert writing_failed(tmp_path, FileNotFoundError(errno.ENOENT, "No such file", inside)) is None


def test_files_appear_complete_or_not_at_all(tmp_path: Path) -> None:
    work = StageContext(tmp_path)
    work.write_text("a/b.txt", "first")

    def fail_in_the_middle() -> None:
        with work.writing("a/b.txt") as path:
            path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert (tmp_path / "a" / "b.txt").read_text() == "first"
    assert list((tmp_path / ".incomplete").iterdir()) == []
    assert work.written == ["a/b.txt"]


def test_temporary_path_keeps_the_suffix(tmp_path: Path) -> None:
    with StageContext(tmp_path).writing("mesh", "mesh.ply") as path:
        assert path.suffix == ".ply"
        path.write_bytes(b"")


def test_journal_that_a_killed_process_left_is_not_laid_over_a_new_database(tmp_path: Path) -> None:
    """SQLite replays any sound journal that it finds beside a database, even one of the database before."""

    def rows(path: Path) -> list[int]:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return [row[0] for row in database.execute("SELECT n FROM numbers ORDER BY n")]

    killed = (
        "import os, signal, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1])\n"
        "database.execute('PRAGMA journal_mode=WAL')\n"
        "database.execute('CREATE TABLE numbers (n INTEGER)')\n"
        "database.execute('INSERT INTO numbers VALUES (1), (2), (3)')\n"
        "database.commit()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    old = tmp_path / "database.db"
    subprocess.run([sys.executable, "-c", killed, str(old)], check=False)
    assert (tmp_path / "database.db-wal").stat().st_size > 0
    work = StageContext(tmp_path)
    with work.writing("database.db") as path, contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE numbers (n INTEGER)")
        database.execute("INSERT INTO numbers VALUES (40), (50)")
        database.commit()
    assert rows(old) == [40, 50]


def test_leftovers_of_a_killed_run_go_but_for_folders_of_finished_parts(tmp_path: Path) -> None:
    work = StageContext(tmp_path)
    (tmp_path / ".incomplete" / "flows.match.12.partial").mkdir(parents=True)
    (tmp_path / ".incomplete" / "sparse.new").mkdir()
    (tmp_path / ".incomplete" / ".writing-1-2-database.db.partial").touch()
    (tmp_path / ".lock").touch()
    with Workspace.open(work.root):
        left = sorted(path.name for path in (tmp_path / ".incomplete").iterdir())
    assert left == ["flows.match.12.partial"]


def test_growing_to_see_whether_there_is_room_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for content in (b"", b"abc", bytes(range(256)) * 1000):
        path.write_bytes(content)
        check_growth(path)
        assert path.read_bytes() == content


def test_arrays_and_json_come_back(tmp_path: Path) -> None:
    work = StageContext(tmp_path)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for compressed in (True, False):
        work.write_npz("x.npz", compressed=compressed, array=array, name=np.array("ü"))
        with np.load(tmp_path / "x.npz") as data:
            np.testing.assert_array_equal(data["array"], array)
            assert str(data["name"]) == "ü"
    work.write_json("y.json", {"ü": [1, 2]})
    assert json.loads((tmp_path / "y.json").read_text(encoding="utf-8")) == {"ü": [1, 2]}
    with pytest.raises(ValueError, match="nan"):
        work.write_json("y.json", {"x": float("nan")})


def test_fresh_directory_replaces_all_of_the_old_one_or_nothing(tmp_path: Path) -> None:
    work = StageContext(tmp_path)
    with work.fresh_directory("dense/depth") as folder:
        (folder / "old").write_text("old")

    def fail_in_the_middle() -> None:
        with work.fresh_directory("dense/depth") as folder:
            (folder / "new").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert [p.name for p in (tmp_path / "dense" / "depth").iterdir()] == ["old"]
    with work.fresh_directory("dense/depth") as folder:
        (folder / "new").write_text("new")
    assert [p.name for p in (tmp_path / "dense" / "depth").iterdir()] == ["new"]
    assert list((tmp_path / ".incomplete").iterdir()) == []


def test_resumable_directory_keeps_what_is_complete(tmp_path: Path) -> None:
    work = StageContext(tmp_path, stage="match", fingerprint="abc")

    def fail_in_the_middle() -> None:
        with work.resumable_directory("flows") as folder:
            with work.write_into(folder, "1") as path:
                path.write_text("one")
            (folder / ".writing-left-over").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert not (tmp_path / "flows").exists()
    with work.resumable_directory("flows") as folder:
        assert (folder / "1").read_text() == "one"
        with work.write_into(folder, "2") as path:
            path.write_text("two")
    assert sorted(p.name for p in (tmp_path / "flows").iterdir()) == ["1", "2"]


def test_remove(tmp_path: Path) -> None:
    work = StageContext(tmp_path)
    work.write_text("a/b", "x")
    work.remove("a")
    work.remove("a")
    assert not (tmp_path / "a").exists()
