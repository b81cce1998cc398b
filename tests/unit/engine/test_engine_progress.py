"""Progress bars: drawn on a terminal with a time to go, absent elsewhere."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import pytest

from recon.engine.stage import StageContext


class Terminal(io.StringIO):
    """A standard error that claims to be a terminal, of unknown width."""

    def isatty(self) -> bool:
        return True


def test_bar_with_time_to_go_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    work = StageContext(tmp_path, threads=2)
    assert work.map(lambda x: time.sleep(0.06) or x, range(8), "matching") == list(range(8))
    assert work.map(lambda x: time.sleep(0.06) or x, range(4), "fusing") == list(range(4))
    text = screen.getvalue()
    drawn = re.findall(r"matching: +(\d+)%\|.*?\| (\d)/8 \[\d\d:\d\d, (\S+) to go\]", text)
    assert len(drawn) >= 2
    assert all(
        int(percent) == int(done) * 100 // 8 or abs(int(percent) - int(done) * 12.5) <= 1
        for percent, done, _ in drawn
    )
    assert any(re.fullmatch(r"\d\d:\d\d", left) for _, _, left in drawn)
    assert "fusing" in text
    assert text.endswith("\r")  # taken off the screen in the end


def test_nothing_is_drawn_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = StageContext(tmp_path, threads=2)
    work.map(lambda x: x, range(8), "matching")
    with work.progress(None, "mapping") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_bar_is_taken_away_when_the_work_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with pytest.raises(ZeroDivisionError):
        StageContext(tmp_path, threads=2).map(lambda x: 1 // x, [0], "dividing")
    assert screen.getvalue().endswith("\r")
