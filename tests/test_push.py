"""`--push-to` against the tests' own Hub: one commit or nothing, and one line for each mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from hub.fixtures import make_certificate, use_here
from hub.repositories import Account
from hub.server import EXPIRED, READER, WRITER, Hub

from kdsweep.errors import KdsweepError
from kdsweep.export.push import Pushed, PushTo, check_target, push
from kdsweep.sweep.observer import Observer

UPLOAD = "PUT /_lfs"
COMMIT = "POST /api/models/tester/mine/commit"


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# a card\n")
    (folder / "model.safetensors").write_bytes(os.urandom(100_000))
    (folder / ".DS_Store").touch()
    return folder


@pytest.fixture
def writer(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    use_here(hub, tmp_path / "huggingface", monkeypatch, WRITER)
    return hub


def pushed(folder: Path, name: str, **how: bool) -> Pushed:
    target = check_target(PushTo(name, **how), folder)
    return push(folder, target, "add it", Observer(), "run it again")


def refused(folder: Path, name: str, **how: bool) -> str:
    """The line of a push that fails: without a token, a URL's details and a class's name."""
    with pytest.raises(KdsweepError) as error:
        pushed(folder, name, **how)
    line = str(error.value)
    assert "\n" not in line
    assert not re.search("hf_token|Error|Request ID|/api/", line), line
    return line


# --- what is there afterwards ---


def test_a_push_is_private_and_one_commit(writer: Hub, student: Path) -> None:
    done = pushed(student, "mine")
    assert done == Pushed("tester/mine", f"{writer.url}/tester/mine", done.commit, False)
    repository = writer.repository("tester/mine")
    assert repository.is_private
    assert list(repository.commits.values())[1:] == [done.commit]
    files = writer.files("tester/mine")
    assert files.pop(".gitattributes")
    assert files == {
        name: (student / name).read_bytes() for name in ("README.md", "model.safetensors")
    }


def test_public_is_asked_for_and_an_organization_is_possible(writer: Hub, student: Path) -> None:
    assert pushed(student, "team/mine", is_public=True).is_public
    assert not writer.repository("team/mine").is_private


class Told(Observer):
    """What is said, and how many bytes of each transfer are done."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def say(self, line: str) -> None:
        self.told.append((line,))

    def transfer(self, what: str, done: int, size: int) -> None:
        self.told.append((what, done, size))

    def over(self, name: str) -> None:
        self.told.append((name, "over"))


def test_the_observer_is_told_how_much_is_uploaded_and_nothing_else_is_printed(
    writer: Hub, student: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    writer.fail(UPLOAD, 503, times=1)
    observer = Told()
    push(student, check_target(PushTo("mine"), None), "add it", observer, "again")
    what, card, weights = "uploading to tester/mine", 30, 100_000
    first, *parts, last = observer.told
    assert first == ("uploading 2 files, 0.1 MB, to tester/mine (private)",)
    # 64 kB at once; what was refused is sent again.
    halves = [(what, done, weights + card) for done in (65_536, weights, weights)]
    assert parts == [*halves, *halves]
    assert last == (what, "over")
    assert capfd.readouterr() == ("", "")


def test_nothing_but_the_push_is_sent(writer: Hub, student: Path) -> None:
    pushed(student, "mine")
    asked = {re.sub(r"\?.*|/_lfs/.*", "", one) for one in writer.requests}
    # huggingface_hub asks for it once in each process.
    assert asked - {"GET /api/agent-harnesses"} == {
        "GET /api/whoami-v2",
        "GET /api/models/tester/mine",
        "POST /api/repos/create",
        "POST /api/validate-yaml",
        "POST /api/models/tester/mine/preupload/main",
        "POST /tester/mine.git/info/lfs/objects/batch",
        "PUT ",
        "POST /api/models/tester/mine/commit/main",
    }


# --- names that exist ---


def test_a_name_that_is_taken_is_left_alone_unless_asked(writer: Hub, student: Path) -> None:
    writer.add_model("tester/mine", {"old.bin": "old", "README.md": "old"}, private=True)
    line = refused(student, "Tester/mine")
    assert "tester/mine: it already exists on the Hub and has files" in line
    assert "--overwrite" in line
    assert list(writer.files("tester/mine")) == ["old.bin", "README.md"]
    done = pushed(student, "mine", overwrite=True)
    assert sorted(writer.files("tester/mine")) == ["README.md", "model.safetensors"]
    assert writer.repository("tester/mine").refs["refs/heads/main"] == done.commit


def test_a_push_changes_nobody_s_view(writer: Hub, student: Path) -> None:
    writer.add_model("tester/public", {})
    writer.add_model("tester/private", {}, private=True)
    assert "is public on the Hub; add --public" in refused(student, "public", overwrite=True)
    line = refused(student, "private", is_public=True, overwrite=True)
    assert "is private on the Hub, and a push doesn't change that" in line
    assert len(writer.repository("tester/public").versions) == 1


def test_a_name_of_somebody_else_is_named_so(writer: Hub, student: Path) -> None:
    writer.add_model("someone/theirs", {"a.txt": "a"})
    line = refused(student, "someone/theirs")
    assert "it exists and belongs to someone, not to you (tester)" in line
    assert line.endswith("choose a name of your own: tester/theirs, team/theirs")
    writer.content.accounts[WRITER] = Account("tester", organizations=("team",), reads=("club",))
    assert "you (tester) may only read in club" in refused(student, "club/mine")
    assert "would belong to nobody" in refused(student, "nobody/new")
    assert not writer.asked("POST")


@pytest.mark.parametrize("name", ["a b", "a/b/c", "-a", "a--b", "a..b", "a.git", "", "x" * 97])
def test_a_name_that_can_not_be_is_told_without_a_request(
    writer: Hub, student: Path, name: str
) -> None:
    assert f"--push-to {name!r} is no name of a model on the Hub" in refused(student, name)
    assert not writer.requests


# --- who may ---


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "you aren't logged in to the Hub; log in with `hf auth login`, or set HF_TOKEN"),
        (READER, "the token of tester may only read"),
        (EXPIRED, "the token in HF_TOKEN has expired; log in with"),
        ("hf_tokenThatNobodyKnows", "the token in HF_TOKEN is refused by the Hub; log in with"),
        ("hf_token with blanks", "the token isn't one; log in with"),
        ("hf_tokenÄ", "the token isn't one; log in with"),
    ],
)
def test_without_a_good_token_nothing_is_exported(
    hub: Hub,
    student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    words: str,
) -> None:
    use_here(hub, tmp_path / "huggingface", monkeypatch, token)
    assert words in refused(student, "mine")
    assert not hub.asked("POST")


def test_a_missing_permission_is_named(writer: Hub, student: Path) -> None:
    # A fine-grained token tells nothing of where it may write.
    writer.content.accounts[WRITER] = Account("tester", role="fineGrained")
    line = refused(student, "mine")
    assert "this token may not write to tester/mine" in line
    assert line.endswith("; run it again")
    assert ("models", "tester/mine") not in writer.content.repositories


# --- what breaks ---


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda hub: hub.fail(COMMIT, 503, times=1), "doesn't answer properly now (status 503)"),
        (lambda hub: hub.hang_up(COMMIT, times=1), "can't be reached, or the connection broke"),
        (lambda hub: hub.fail(UPLOAD, 400, times=1), "the Hub refused it (status 400)"),
        (lambda hub: hub.fail("preupload", 429, times=6), "properly now (status 429)"),
        (lambda hub: hub.fail(COMMIT, 200, body="<html>", times=1), "doesn't answer as the Hub"),
        (lambda hub: hub.fail(COMMIT, 200, body="{}", times=1), "doesn't answer as the Hub"),
        (lambda hub: hub.fail("create", 404, body="<html>", times=1), "isn't the Hub (status 404)"),
    ],
    ids=[
        "commit 503",
        "commit dropped",
        "large file",
        "busy",
        "login page",
        "other fields",
        "gateway",
    ],
)
def test_a_broken_upload_publishes_nothing_and_the_same_again_succeeds(
    writer: Hub,
    student: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[Hub], None],
    words: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    break_it(writer)
    line = refused(student, "mine")
    assert words in line
    assert line.endswith("; run it again")
    if ("models", "tester/mine") in writer.content.repositories:
        assert list(writer.files("tester/mine")) == [".gitattributes"]
    assert pushed(student, "mine").name == "tester/mine"
    assert "model.safetensors" in writer.files("tester/mine")
    assert len(writer.repository("tester/mine").versions) == 2


def test_a_passing_503_of_a_large_file_is_tried_again(
    writer: Hub, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    writer.fail(UPLOAD, 503, times=2)
    assert pushed(student, "mine")


def test_no_storage_but_the_hub_s_own_is_needed(
    hub: Hub, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing answers there.
    hub.content.xet = "http://127.0.0.1:9"
    use_here(hub, tmp_path / "huggingface", monkeypatch, WRITER)
    assert pushed(student, "mine")
    assert not hub.asked("xet-write-token")
    assert not huggingface_hub.constants.HF_HUB_DISABLE_XET


def test_an_answer_that_is_lost_after_the_commit_is_no_error(writer: Hub, student: Path) -> None:
    writer.drop_after(COMMIT, 5, times=1)
    done = pushed(student, "mine")
    assert done.commit == writer.repository("tester/mine").refs["refs/heads/main"]
    # The same again changes nothing.
    assert pushed(student, "mine").commit == done.commit


def test_a_repository_that_changes_meanwhile_is_left_alone(writer: Hub, student: Path) -> None:
    writer.add_model("tester/mine", {"a": "1"}, private=True)
    target = check_target(PushTo("mine", overwrite=True), None)
    writer.add_model("tester/mine", {"a": "2"}, commit="second", private=True)
    writer.move_main("tester/mine", "second")
    with pytest.raises(KdsweepError, match="was changed by somebody meanwhile; again"):
        push(student, target, "add it", Observer(), "again")
    assert writer.files("tester/mine") == {"a": b"2"}
    new = check_target(PushTo("new"), None)
    huggingface_hub.create_repo("new", token=WRITER)
    with pytest.raises(KdsweepError, match="tester/new was created by somebody meanwhile"):
        push(student, new, "add it", Observer(), "again")


def test_an_empty_repository_of_a_creation_that_came_late_is_used(
    writer: Hub, student: Path
) -> None:
    target = check_target(PushTo("new"), None)
    huggingface_hub.create_repo("new", token=WRITER, private=True)
    push(student, target, "add it", Observer(), "again")
    assert set(writer.files("tester/new")) - {".gitattributes"} == {
        "README.md",
        "model.safetensors",
    }


def test_a_hub_that_is_away_or_silent_or_not_trusted_is_told_before_anything_is_exported(
    writer: Hub, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = "nothing was exported"
    monkeypatch.setattr("kdsweep.export.push.CHECK_SECONDS", 0.2)
    for asked in ("whoami", "GET /api/models"):
        writer.delay(asked, 0.6)
        assert re.search(
            f"can't be reached, or the connection broke.*; {end}", refused(student, "m")
        )
        writer.heal()
    writer.stop()
    assert re.search(f"can't be reached, or the connection broke.*; {end}", refused(student, "m"))
    writer.start()
    secure = Hub(make_certificate(tmp_path))
    use_here(secure, tmp_path / "huggingface", monkeypatch, WRITER)
    assert f"of {secure.url} isn't trusted here; set SSL_CERT_FILE" in refused(student, "m")
    secure.stop()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert f"HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it; {end}" in refused(
        student, "m"
    )


# Every request of a push, by its place in the order.
REQUESTS = ("whoami", "GET /api/models/", "create", "yaml", "preupload", "batch", UPLOAD, COMMIT)
FAULTS = {
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
    "gateway": {"status": 404, "body": "<html>"},
    "login page": {"status": 200, "body": "<html>"},
    "foreign": {"status": 200, "body": "[]"},
    "refused": {"status": 403, "body": "no"},
    "nothing": {"status": None, "hang_up": True},
    "cut": {"status": None, "drop_after": 3},
    "damaged": {"status": None, "flip": True},
    "silent": {"status": None, "delay": 0.4},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("request_of_it", REQUESTS)
def test_every_fault_at_every_request_is_one_line_and_never_half_a_model(
    writer: Hub, student: Path, monkeypatch: pytest.MonkeyPatch, request_of_it: str, fault: str
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    writer.fail(request_of_it, **FAULTS[fault])
    try:
        with monkeypatch.context() as impatient:
            if fault == "silent":
                # On a busy machine this gives up earlier, which must end as well.
                impatient.setattr("kdsweep.export.push.CHECK_SECONDS", 0.2)
                impatient.setattr("kdsweep.export.push.UPLOAD_SECONDS", 0.2)
            pushed(student, "mine")
    except KdsweepError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        assert not re.search("hf_token|Error|Request ID|/api/", str(error)), str(error)
    names = {"README.md", "model.safetensors"}
    if ("models", "tester/mine") in writer.content.repositories:
        assert set(writer.files("tester/mine")) - {".gitattributes"} in (set(), names)
    writer.heal()
    writer.settle()
    pushed(student, "mine")
    assert set(writer.files("tester/mine")) - {".gitattributes"} == names
    assert len(writer.repository("tester/mine").versions) == 2
