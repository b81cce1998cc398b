"""Downloads against a server on this machine that is as bad as servers are."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from recon.datasets import fetching
from recon.datasets.cards import Card, RemoteFile
from recon.datasets.fetching import fetch, unpack
from recon.errors import ReconError, UsageError
from tests.support.servers import Server

BODY = bytes(range(256)) * 40
SUM = hashlib.sha256(BODY).hexdigest()


def card(*files: RemoteFile, **more: object) -> Card:
    values: dict[str, object] = {
        "name": "toy", "origin": "here", "licence": "CC0", "citation": "nobody", "path": "toys/toy",
        "ground_truth": "none", "convention": "", "layout": {}, "files": files,
    }  # fmt: skip
    return Card(**(values | more))  # type: ignore[arg-type]


def test_a_file_arrives_and_is_kept(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    seen: list[tuple[str, int, int | None]] = []
    toy = card(RemoteFile(f"{server.url}/a.bin", "deep/a.bin", len(BODY), SUM))
    assert not toy.is_here(tmp_path)
    done = fetch(toy, tmp_path, progress=lambda *now: seen.append(now))
    assert (done.downloaded, done.kept, done.unverified) == (("a.bin",), (), ())
    assert (tmp_path / "datasets/toys/toy/deep/a.bin").read_bytes() == BODY
    assert seen[-1] == ("a.bin", len(BODY), len(BODY))
    assert toy.is_here(tmp_path)
    again = fetch(toy, tmp_path)
    assert (again.downloaded, again.kept) == ((), ("a.bin",))
    assert len(server.asked) == 1
    # A file that was damaged since is fetched anew.
    (tmp_path / "datasets/toys/toy/deep/a.bin").write_bytes(BODY[:-1] + b"x")
    assert fetch(toy, tmp_path).downloaded == ("a.bin",)
    assert sorted(path.name for path in (tmp_path / "datasets/toys/toy").rglob("*") if path.is_file()) == [
        ".fetched.json",
        "a.bin",
    ]


def test_a_cut_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    server.cut = [3000, 4000]
    fetch(card(RemoteFile(f"{server.url}/a.bin", "a.bin", None, SUM)), tmp_path, pause=0.01)
    assert [asked for _, asked in server.asked] == ["", "bytes=3000-", "bytes=7000-"]
    assert (tmp_path / "datasets/toys/toy/a.bin").read_bytes() == BODY


def test_the_next_command_goes_on(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    server.cut = [1000] + [0] * 4
    toy = card(RemoteFile(f"{server.url}/a.bin", "a.bin", None, SUM))
    with pytest.raises(ReconError, match="the same command again"):
        fetch(toy, tmp_path, pause=0.001)
    assert not (tmp_path / "datasets/toys/toy/a.bin").exists()
    assert not toy.is_here(tmp_path)
    server.asked.clear()
    fetch(toy, tmp_path)
    assert server.asked == [("/a.bin", "bytes=1000-")]
    assert (tmp_path / "datasets/toys/toy/a.bin").read_bytes() == BODY


@pytest.mark.parametrize("change", ["no ranges", "other version", "no tag"])
def test_pieces_of_different_files_are_never_joined(server: Server, tmp_path: Path, change: str) -> None:
    server.files["/a.bin"] = b"old" * 3000
    server.tag = "" if change == "no tag" else server.tag
    server.cut = [1000] + [0] * 4
    toy = card(RemoteFile(f"{server.url}/a.bin", "a.bin"))
    with pytest.raises(ReconError):
        fetch(toy, tmp_path, pause=0.001)
    server.cut = []
    server.files["/a.bin"] = BODY
    server.ranges = change != "no ranges"
    server.tag = {"other version": '"v2"', "no tag": ""}.get(change, server.tag)
    done = fetch(toy, tmp_path)
    assert (tmp_path / "datasets/toys/toy/a.bin").read_bytes() == BODY
    assert done.unverified == ("a.bin",)


def test_a_whole_part_needs_nothing_more(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    folder = tmp_path / "datasets/toys/toy"
    folder.mkdir(parents=True)
    (folder / "a.bin.part").write_bytes(BODY)
    (folder / "a.bin.part.tag").write_text(server.tag)
    fetch(card(RemoteFile(f"{server.url}/a.bin", "a.bin", None, SUM)), tmp_path)
    assert (folder / "a.bin").read_bytes() == BODY
    # One that is longer than the file is no beginning of it.
    (folder / "a.bin").unlink()
    (folder / "a.bin.part").write_bytes(BODY + b"more")
    (folder / "a.bin.part.tag").write_text(server.tag)
    fetch(card(RemoteFile(f"{server.url}/a.bin", "a.bin", None, SUM)), tmp_path, pause=0.001)
    assert (folder / "a.bin").read_bytes() == BODY


def test_wrong_checksum_and_size(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    for bad, message in (
        (RemoteFile(f"{server.url}/a.bin", "a.bin", None, "0" * 64), f"(?s)wrong checksum.*{SUM}"),
        (RemoteFile(f"{server.url}/a.bin", "a.bin", 7, None), f"{len(BODY)} bytes came where 7"),
    ):
        with pytest.raises(ReconError, match=message):
            fetch(card(bad), tmp_path)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_server_in_trouble_and_a_server_that_says_no(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    server.status = [503, 429]
    fetch(card(RemoteFile(f"{server.url}/a.bin", "a.bin", None, SUM)), tmp_path, pause=0.001)
    assert len(server.asked) == 3
    server.asked.clear()
    with pytest.raises(ReconError, match=r"(?s)(404|Not Found).*without a network"):
        fetch(card(RemoteFile(f"{server.url}/none.bin", "none.bin")), tmp_path, pause=0.001)
    assert len(server.asked) == 1


def test_without_a_network(tmp_path: Path) -> None:
    """Nobody listens: the message says what to put where."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = [RemoteFile(f"http://127.0.0.1:{port}/f/{i}.jpg", f"images/{i}.jpg") for i in range(3)]
    archive = RemoteFile(f"http://127.0.0.1:{port}/all.zip", "", unpack="zip", strip=1)
    with pytest.raises(ReconError) as caught:
        fetch(card(*files, archive), tmp_path, pause=0.001)
    text = str(caught.value)
    folder = tmp_path / "datasets" / "toys" / "toy"
    assert f"put it into {folder}" in text
    assert f"0.jpg … 2.jpg (3 files)  into  {folder / 'images'}" in text
    assert f"all.zip  unpacked without the first 1 folder into  {folder}" in text
    assert "origin: here" in text


def test_what_cannot_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(ReconError, match=r"(?s)put it into .*Ask for it.*licence: CC0"):
        fetch(card(obtain="Ask for it"), tmp_path)
    one = RemoteFile("ftp://x/a.bin", "a.bin")
    with pytest.raises(UsageError, match="http"):
        fetch(card(one), tmp_path)
    with pytest.raises(UsageError, match="no part depth; there are: scans"):
        fetch(card(RemoteFile("http://x/a", "a", part="scans")), tmp_path, ["depth"])
    with pytest.raises(UsageError, match="toy/one"):
        fetch(card(one, scenes=("one", "two")), tmp_path)
    with pytest.raises(ReconError, match="leads out of"):
        fetch(card(RemoteFile("http://x/a", "../a")), tmp_path)


def make_zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def make_tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_archives_and_parts(server: Server, tmp_path: Path) -> None:
    members = {"top/images/a.jpg": b"a", "top/cams/b.txt": b"b", "readme": b"r"}
    server.files = {"/set.zip": make_zip(members), "/scan.tgz": make_tar({"x/scan.ply": b"p"})}
    toy = card(
        RemoteFile(f"{server.url}/set.zip", "", unpack="zip", strip=1),
        RemoteFile(f"{server.url}/scan.tgz", "scans", unpack="tar", part="scans"),
    )
    folder = tmp_path / "datasets/toys/toy"

    def names() -> list[str]:
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    fetch(toy, tmp_path)
    assert names() == [".fetched.json", "cams/b.txt", "images/a.jpg"]
    done = fetch(toy, tmp_path, ["scans"])
    assert (done.downloaded, done.kept) == (("scan.tgz",), ("set.zip",))
    assert names() == [".fetched.json", "cams/b.txt", "images/a.jpg", "scans/x/scan.ply"]
    assert (folder / "scans/x/scan.ply").read_bytes() == b"p"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_do_not_leave_their_folder(tmp_path: Path, kind: str) -> None:
    make = make_zip if kind == "zip" else make_tar
    archive = tmp_path / "a"
    for name in ("../out", "/out", "x/../../out", "C:/out"):
        archive.write_bytes(make({name: b"!"}))
        with pytest.raises(ReconError, match="leads out"):
            unpack(archive, kind, tmp_path / "into")
    archive.write_bytes(make({"a": b"1" * 5000})[:-400])
    with pytest.raises(ReconError, match="damaged"):
        unpack(archive, kind, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a", "w") as made:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(info)
    with pytest.raises(ReconError, match="neither file nor folder"):
        unpack(tmp_path / "a", "tar", tmp_path / "into")


def test_7z_needs_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.7z").write_bytes(b"7z")
    monkeypatch.setattr(fetching.shutil, "which", lambda _: None)
    with pytest.raises(ReconError, match="p7zip"):
        unpack(tmp_path / "a.7z", "7z", tmp_path / "into")
    # A stand-in for the program: it is called with the archive and the folder, and what it makes is taken.
    script = tmp_path / "7z"
    script.write_text('#!/bin/sh\nd=${3#-o}; mkdir -p "$d/top"; cp "$4" "$d/top/copy"\n')
    script.chmod(0o755)
    monkeypatch.setattr(fetching.shutil, "which", lambda name: str(script) if name == "7z" else None)
    unpack(tmp_path / "a.7z", "7z", tmp_path / "into", 1)
    assert (tmp_path / "into" / "copy").read_bytes() == b"7z"
    script.write_text("#!/bin/sh\necho broken >&2; exit 2\n")
    with pytest.raises(ReconError, match="broken"):
        unpack(tmp_path / "a.7z", "7z", tmp_path / "into")


def test_a_real_7z_program(tmp_path: Path) -> None:
    program = next((p for p in ("7z", "7zz", "7za", "7zr") if shutil.which(p)), None)
    if program is None:
        pytest.skip("no 7-Zip is installed")
    import subprocess

    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "a.txt").write_text("hello")
    subprocess.run([program, "a", "x.7z", "top"], cwd=tmp_path, check=True, capture_output=True)
    unpack(tmp_path / "x.7z", "7z", tmp_path / "into", 1)
    assert (tmp_path / "into" / "a.txt").read_text() == "hello"
