"""The folder of a session of Ray on this machine: only its user can look into it.

Ray opens the folder that it is given to everybody (0777). So it is given one inside of another,
which stays 0700 and holds what says how the session goes on. Everybody may make folders in /tmp,
and the session's name is known, so one that isn't ours is left alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path

from kdsweep.core.files import fingerprint
from kdsweep.core.standing import check_standing
from kdsweep.errors import FolderGone
from kdsweep.sweep.engines.process_reaper import session_processes
from kdsweep.sweep.folders import SweepFolder


def session_folder(folder: SweepFolder, role: str) -> Path:
    """Where the session is for this user, sweep and role, unless somebody else took that name.

    Its path is short, since the path of a socket has at most 107 bytes.
    """
    key = fingerprint(str(folder.root.resolve()), role)[:10]
    return Path("/tmp") / f"kdsweep-{os.getuid()}-{key}"


def make_session(folder: Path) -> Path:
    """Make the session's folder; returns it.

    What a session that was killed left there is ended first. Where somebody else took the name, the
    folder has another one, which nobody can guess.
    """
    for left in [folder, *folder.parent.glob(f"{folder.name}-*")]:
        if _is_own(left):
            remove_session(left)
    try:
        folder.mkdir(mode=0o700)
        return folder
    except FileExistsError:
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))


def ray_folder(session: Path) -> Path:
    """The part of the session that Ray uses."""
    return session / "r"


def keep_logs(session: Path, folder: SweepFolder) -> None:
    """Copy Ray's logs to the sweep's folder."""
    logs = ray_folder(session) / "session_latest" / "logs"
    if logs.exists():
        with contextlib.suppress(OSError, FolderGone):
            check_standing(folder.root)
            shutil.copytree(logs, folder.root / "ray", dirs_exist_ok=True)


def remove_session(folder: Path) -> None:
    """Kill the processes of a session whose owner was killed, and remove its folder."""
    for process in session_processes(str(folder)):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, not a link to one, that belongs to this user."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
