"""The process that connects to Ray for a sweep: its Ray driver, in Ray's words.

Ray ends the process that is connected to it when one of its parts dies, or lets it wait for ever in
a call. Here that ends this process, and the sweep's driver starts another one (`ray_engine`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from kdsweep.config.sweep import RayEngine
from kdsweep.core.standing import keep_standing
from kdsweep.errors import FolderGone, KdsweepError
from kdsweep.sweep.engines.perform import Train
from kdsweep.sweep.engines.ray_cluster import ClusterHead
from kdsweep.sweep.engines.ray_local import LocalRay
from kdsweep.sweep.engines.ray_messages import (
    Alive,
    Begin,
    Close,
    Command,
    Failed,
    Gone,
    News,
    Opened,
    RequestSlots,
    Start,
    State,
    Stop,
)
from kdsweep.sweep.engines.ray_runtime import one_line
from kdsweep.sweep.engines.ray_session import RaySession
from kdsweep.sweep.engines.ray_slots import RaySlots
from kdsweep.sweep.folders import SweepFolder

# Events arrive at once. This is how often it looks whether more machines are there.
LONGEST_WAIT_SECONDS = 0.5
SECONDS_BETWEEN_QUESTIONS = 1.0
# Ray is given up after so many questions in a row without an answer.
MOST_UNANSWERED = 2


def open_session(folder: SweepFolder, config: RayEngine, session: Path | None) -> RaySession:
    """The session for `engine.address`: local, head, or a cluster that exists."""
    if session is None:
        return RaySession(folder, config)
    started = LocalRay if config.address == "local" else ClusterHead
    return started(folder, config, session)


class RayProcess:
    """Does what the driver says, and tells it what happens."""

    def __init__(self, connection: Connection, begin: Begin) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._session = open_session(begin.folder, begin.config, begin.session)
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._done = 0
        self._news: list[News] = []
        self._state: State | None = None
        self._slots = RaySlots(
            begin.config, self._session, self._news.append, begin.check, _train(begin)
        )

    def run(self) -> None:
        """Until the driver says that it's over, or Ray is gone."""
        try:
            self._session.open()
        except KdsweepError as error:
            self._send([Failed(error, starting=True)])
            return
        try:
            self._send([Opened(self._slots.open())])
        except KdsweepError as error:
            self._send([Failed(error)])
            return
        for work in (self._receive, self._watch):
            threading.Thread(target=work, daemon=True).start()
        try:
            while self._do_commands():
                try:
                    self._slots.wait(LONGEST_WAIT_SECONDS)
                except KdsweepError as error:
                    self._news.append(Failed(error))
        # Ray raises whatever its parts raise, and no part of it is to be trusted then.
        except Exception as error:
            self._send([*self._news, Gone(one_line(error).rstrip("."))])
            return
        self._slots.close()
        self._session.close()

    def _do_commands(self) -> bool:
        """Do what the driver has asked for, and tell it all news. False: nothing more to do."""
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._commands.get_nowait()
                self._done += 1
                if isinstance(command, Close):
                    return False
                self._do(command)
        self._slots.grow()
        self._send_news()
        return True

    def _do(self, command: Command) -> None:
        match command:
            case Start():
                self._slots.start(command.job, command.place)
            case Stop():
                self._slots.stop(command.name, save=command.save)
            case RequestSlots():
                self._slots.request(command.count)

    def _send_news(self) -> None:
        slots = self._slots
        state = State(self._done, slots.count, slots.free_places, slots.a_process_died)
        if state != self._state:
            self._state = state
            self._news.append(state)
        if self._news:
            self._send(self._news)
            self._news.clear()

    def _send(self, news: list[News]) -> None:
        with self._sending:
            self._connection.send(news)

    # --- threads ---------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            while True:
                self._commands.put(self._connection.recv())
                self._slots.wake()
        except (EOFError, OSError):
            # The driver is gone.
            os._exit(1)

    def _watch(self) -> None:
        """Ask Ray, which may never come back in the other thread, and say that we live."""
        unanswered = 0
        while True:
            trouble = self._session.trouble()
            unanswered = 0 if trouble is None else unanswered + 1
            news = Alive()
            with contextlib.suppress(OSError):
                if unanswered >= MOST_UNANSWERED:
                    self._send([Gone(str(trouble))])
                    return
                self._send([news])
            time.sleep(SECONDS_BETWEEN_QUESTIONS)


def _train(begin: Begin) -> Train | None:
    if begin.train is None:
        return None
    import ray.cloudpickle

    train: Train = ray.cloudpickle.loads(begin.train)
    return train


def main(connection: Connection) -> None:
    """Called by `ray_engine`, once this process finds the same modules as the driver."""
    os.set_inheritable(connection.fileno(), False)
    begin: Begin = connection.recv()
    with contextlib.suppress(FolderGone, OSError):
        # Home, and the sweep's folder in it.
        root = begin.folder.root
        keep_standing(root.parents[1], root)
        RayProcess(connection, begin).run()
