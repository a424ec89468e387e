"""Only one driver runs a sweep."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kdsweep.errors import SweepLocked
from kdsweep.sweep.folders import Home

HOLDER = """
import sys, time
from kdsweep.sweep.folders import Home

with Home(sys.argv[1]).sweep("tiny").locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_living_driver_keeps_others_out_and_a_killed_one_does_not(
    tmp_path: Path,
) -> None:
    folder = Home(tmp_path).sweep("tiny")
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with (
            pytest.raises(SweepLocked, match=f"process {process.pid} on {socket.gethostname()}"),
            folder.locked(),
        ):
            pass
        process.kill()
    assert str(process.pid) in folder.lock_file.read_text()
    with folder.locked():
        assert json.loads(folder.lock_file.read_text())["pid"] == os.getpid()
