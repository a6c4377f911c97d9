"""What every sandbox promises, asked of containers and of local processes."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.engine import Engine
from sandboxes.errors import EngineError, ImageError, SandboxError, SandboxGone
from sandboxes.images import BuildBox
from sandboxes.local import LocalSandbox
from sandboxes.owners import OWNER_LABEL, is_dead, owner_of, this_owner
from sandboxes.protocol import Limits, Sandbox, Session

OUTPUT_BYTES = 4096
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    limits = Limits(output_bytes=OUTPUT_BYTES)
    if request.param == "local":
        if not shutil.which("perl"):
            pytest.skip("perl is not installed")
        with LocalSandbox(limits=limits) as local:
            yield local
        return
    engine, base = request.getfixturevalue("engine"), request.getfixturevalue("base")
    with engine.open(base, limits=limits, run="tests") as box:
        yield box


@pytest.fixture
def folder(sandbox: Sandbox) -> str:
    """A folder that the sandbox's user may write to."""
    return "made" if isinstance(sandbox, LocalSandbox) else "/tmp/made"


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[Session]:
    found = sandbox.session(workdir="/tmp")
    yield found
    found.close()


def test_a_session_keeps_directory_variables_and_functions(session: Session) -> None:
    session.run("mkdir -p /tmp/kept && cd /tmp/kept; export COLOUR=red; shade=dark; name() { echo $1-$COLOUR-$shade; }")
    assert session.run("pwd; name very").text == "/tmp/kept\nvery-red-dark\n"


def test_the_status_is_that_of_the_last_command(session: Session) -> None:
    assert session.run("true; false").status == 1
    assert session.run("echo $?").text == "1\n"
    assert session.run("(exit 42)").status == 42
    assert session.run("sh -c 'kill -9 $$'").status == 137


def test_output_and_errors_come_in_order(session: Session) -> None:
    assert session.run("echo a; echo b >&2; echo c").text == "a\nb\nc\n"


def test_an_unknown_command_is_reported_by_the_shell(session: Session) -> None:
    done = session.run("echo x\nno-such-command")
    assert (done.status, done.text) == (127, "x\nbash: line 2: no-such-command: command not found\n")


@pytest.mark.parametrize("command", ["if", "echo 'open", "echo )", "cat <<END\nx"])
def test_a_command_that_does_not_parse_is_a_result(session: Session, command: str) -> None:
    session.run(command)
    assert session.run("echo still here").text == "still here\n"


def test_several_lines_and_heredocs_run_as_written(session: Session) -> None:
    done = session.run("for i in 1 2; do\n  cat <<END\n$i 'quoted' \\$x\nEND\ndone\n# a comment")
    assert done.text == "1 'quoted' $x\n2 'quoted' $x\n"


def test_a_long_command_arrives_whole(session: Session) -> None:
    text = "é" * 100_000
    assert session.run(f"x='{text}'; echo ${{#x}}").text.strip() in ("100000", "200000")


def test_bytes_that_are_not_text_come_back(session: Session) -> None:
    assert session.run(r"printf '\0\377\n'").output == b"\0\xff\n"


def test_standard_input_is_empty(session: Session) -> None:
    assert session.run("cat; read x; echo [$x]", timeout=5).text == "[]\n"


def test_what_looks_like_the_protocol_is_only_output(session: Session) -> None:
    done = session.run("echo 'D 0 x'; echo '0 0 0 0.1 - 5'; printf 'P 1 -\\n'; exit 5")
    assert done.status == 5
    assert done.text == "D 0 x\n0 0 0 0.1 - 5\nP 1 -\n"


def test_the_descriptors_of_the_protocol_are_closed_to_commands(session: Session) -> None:
    assert "Bad file descriptor" in session.run("echo forged >&9").text
    assert session.run("ls /proc/self/fd | sort -n | tr '\\n' ' '").text.startswith("0 1 2 3 ")


@pytest.mark.parametrize("command", ["exec >&-", "exec 2>&-", "exec </dev/null >/dev/null 2>&1", "exec 9>&- 8>&- 7<&-"])
def test_closing_streams_ends_with_the_command(session: Session, command: str) -> None:
    session.run(command)
    assert session.run("echo heard").text == "heard\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 3", 3), ("set -e; false; echo no", 1), ("exec sh -c 'exit 9'", 9), ("kill -9 $BASHPID", 137)],
)
def test_a_command_that_ends_the_shell_leaves_it_as_it_was_before(session: Session, command: str, status: int) -> None:
    session.run("cd /usr; kept=yes; f() { echo f; }")
    assert session.run(f"kept=no; {command}").status == status
    done = session.run("pwd; echo $kept; f")
    assert done.text == "/usr\nyes\nf\n"


def test_after_set_e_a_failure_is_a_result_each_time(session: Session) -> None:
    session.run("set -e")
    assert [session.run("false").status for _ in range(3)] == [1, 1, 1]
    assert session.run("echo $-").text.startswith("e")


def test_a_shell_that_runs_nothing_any_more_comes_back(session: Session) -> None:
    assert session.run("set -n", timeout=1).timed_out
    assert session.run("echo back").text == "back\n"


@pytest.mark.parametrize(
    "command",
    [
        "sleep 60; echo after",
        "while :; do :; done",
        "trap '' INT TERM HUP; sleep 60 & wait",
        "setsid sleep 60 & sleep 60",
        "nohup setsid sh -c 'sleep 60 & sleep 60' >/dev/null 2>&1 & wait",
        "read x < <(sleep 60)",
        "kill -STOP $BASHPID",
    ],
)
def test_after_a_timeout_its_processes_are_gone_and_the_shell_lives(
    sandbox: Sandbox, session: Session, command: str
) -> None:
    session.run("kept=1")
    began = time.monotonic()
    done = session.run(f"echo begun; {command.replace('sleep 60', 'sleep 61.5')}", timeout=0.7)
    assert (done.status, done.timed_out, done.text) == (124, True, "begun\n")
    assert time.monotonic() - began < 5
    assert session.run("echo $kept").text == "1\n"
    assert sandbox.run("pgrep -f '[s]leep 61.5'").text == ""


def test_a_timeout_spares_what_earlier_commands_left_running(session: Session) -> None:
    session.run("sleep 30 & server=$!")
    time.sleep(0.1)
    session.run("sleep 60", timeout=0.3)
    assert session.run("kill -0 $server && kill $server").status == 0


def test_jobs_of_earlier_commands_can_be_waited_for(session: Session) -> None:
    session.run("(sleep 0.2; exit 6) & job=$!")
    assert session.run("wait $job").status == 6


def test_background_output_does_not_hold_a_command_up(session: Session) -> None:
    began = time.monotonic()
    assert session.run("(sleep 0.5; echo late) & echo now").text == "now\n"
    assert time.monotonic() - began < 0.4
    time.sleep(0.8)
    assert session.run("echo next").text == "late\nnext\n"


def test_long_output_keeps_head_and_tail_and_marks_the_cut(session: Session) -> None:
    done = session.run("seq 1 100000")
    assert done.text.startswith("1\n2\n")
    assert done.text.endswith("99999\n100000\n")
    assert f"[... {done.cut_bytes} bytes of output were cut here ...]" in done.text
    assert done.cut_bytes == sum(len(str(i)) + 1 for i in range(1, 100_001)) - OUTPUT_BYTES


def test_a_closed_session_says_so(sandbox: Sandbox) -> None:
    session = sandbox.session()
    session.close()
    with pytest.raises(SandboxError, match="open another one"):
        session.run("true")


def test_closing_a_session_ends_what_it_started(sandbox: Sandbox) -> None:
    session = sandbox.session()
    session.run("setsid sleep 62.5 & sleep 62.5 &")
    session.close()
    time.sleep(0.5)
    assert sandbox.run("pgrep -f '[s]leep 62.5'").text == ""


def test_sessions_are_independent(sandbox: Sandbox) -> None:
    one, two = sandbox.session(), sandbox.session()
    one.run("x=1")
    assert two.run("echo [$x]").text == "[]\n"
    one.close()
    two.close()


def test_run_starts_a_fresh_shell_each_time(sandbox: Sandbox) -> None:
    assert sandbox.run("cd /usr; export X=1; exit 4").status == 4
    assert sandbox.run("echo [$X]; pwd", workdir="/tmp").text == "[]\n/tmp\n"


def test_run_takes_variables(sandbox: Sandbox) -> None:
    assert sandbox.run('echo "$A|$B"', environment={"A": "x=1\n", "B": "é"}).text == "x=1\n|é\n"
    assert sandbox.run('echo "$A"').text == "\n"


def test_run_in_a_folder_that_is_missing_is_a_result(sandbox: Sandbox) -> None:
    assert sandbox.run("true", workdir="/tmp/no/such").status == 1


def test_run_kills_everything_it_started_when_it_takes_too_long(sandbox: Sandbox) -> None:
    done = sandbox.run("setsid sleep 63.5 & (sleep 63.5 &) ; sleep 63.5", timeout=0.5)
    assert (done.status, done.timed_out) == (124, True)
    assert sandbox.run("pgrep -f '[s]leep 63.5'").text == ""


def test_run_does_not_wait_for_daemons_and_lets_them_print(sandbox: Sandbox) -> None:
    began = time.monotonic()
    sandbox.run("(sleep 0.3; echo x; touch /tmp/printed) & true")
    assert time.monotonic() - began < 0.3
    time.sleep(0.6)
    assert sandbox.run("rm /tmp/printed").status == 0


def test_commands_run_side_by_side(sandbox: Sandbox) -> None:
    began = time.monotonic()
    threads = [threading.Thread(target=sandbox.run, args=("sleep 0.8",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 2.4


@pytest.mark.parametrize("content", [b"", b"text\n", bytes(range(256)) * 5000])
def test_what_is_written_is_read_back(sandbox: Sandbox, folder: str, content: bytes) -> None:
    sandbox.write(f"{folder}/on the way/é.bin", content, mode=0o750)
    assert sandbox.read(f"{folder}/on the way/é.bin") == content
    assert sandbox.run(f"stat -c %a '{folder}/on the way/é.bin'").text == "750\n"


def test_writing_again_leaves_nothing_of_the_former_content(sandbox: Sandbox, folder: str) -> None:
    sandbox.write(f"{folder}/again", b"a long text")
    sandbox.write(f"{folder}/again", b"short")
    assert sandbox.read(f"{folder}/again") == b"short"


def test_what_cannot_be_read_says_why(sandbox: Sandbox, folder: str) -> None:
    sandbox.run(f"mkdir -p {folder}; mkfifo {folder}/pipe")
    with pytest.raises(FileNotFoundError):
        sandbox.read(f"{folder}/no/such/file")
    with pytest.raises(IsADirectoryError):
        sandbox.read(folder)
    with pytest.raises(OSError, match="Invalid"):
        sandbox.read(f"{folder}/pipe")


@pytest.mark.docker
def test_a_read_of_more_than_memory_should_hold_is_refused(engine: Engine, base: str) -> None:
    with engine.open(base) as box:
        box.run("truncate -s 1G /tmp/sparse")
        with pytest.raises(OSError, match="too large"):
            box.read("/tmp/sparse")


@pytest.mark.docker
def test_files_belong_to_the_sandboxs_user_and_root_is_there_for_builds(engine: Engine, base: str) -> None:
    with engine.open(base) as box:
        box.write("/tmp/mine", b"")
        assert box.run("stat -c %u /tmp/mine; id -u").text == "1000\n1000\n"
        assert box.run("id -u", user="0:0").text == "0\n"
        with pytest.raises(PermissionError):
            box.write("/etc/mine", b"")


@pytest.mark.docker
def test_an_image_that_is_missing_is_named(engine: Engine) -> None:
    with pytest.raises(ImageError, match=r"no image agentdata/no-such:1"):
        engine.open("agentdata/no-such:1")


@pytest.mark.docker
def test_a_container_that_dies_is_an_exception_with_the_reason(engine: Engine, base: str) -> None:
    with engine.open(base) as box:
        session = box.session()
        threading.Timer(0.3, engine.api.kill, (box.id,)).start()
        with pytest.raises(SandboxGone, match="killed from outside"):
            session.run("sleep 10")
        with pytest.raises(SandboxGone):
            session.run("true")
        with pytest.raises(SandboxGone):
            box.read("/etc/passwd")


@pytest.mark.docker
def test_leaving_a_sandbox_removes_its_container(engine: Engine, base: str) -> None:
    with engine.open(base, run="leaving") as box:
        container = box.id
        assert container in {found["Id"] for found in engine.containers()}
    assert container not in {found["Id"] for found in engine.containers()}


OPEN_AND_WAIT = """
import os, sys, time
from sandboxes.engine import Engine
box = Engine().open(sys.argv[1])
session = box.session()
print(box.id, flush=True)
if sys.argv[2] == "exit": sys.exit()
session.run("sleep 60")
"""


@pytest.mark.docker
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_process_that_ends_leaves_no_container(engine: Engine, base: str, end: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_WAIT, base, end], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        container = process.stdout.readline().strip()
        if end == "kill":
            process.kill()
    deadline = time.monotonic() + 15
    while container in {found["Id"] for found in engine.containers()} and time.monotonic() < deadline:
        time.sleep(0.1)
    assert container not in {found["Id"] for found in engine.containers()}


@pytest.mark.docker
def test_containers_of_dead_owners_are_reaped_and_others_are_not(engine: Engine, base: str) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    host, boot, space, _, _ = this_owner().split("|")
    dead = "|".join((host, boot, space, str(process.pid), "1"))
    elsewhere = "|".join(("another-host", boot, space, "1", "1"))
    made = {
        owner: engine.api.create_container(base, ["true"], labels={OWNER_LABEL: owner})["Id"]
        for owner in (dead, elsewhere)
    }
    try:
        assert engine.reap() == [made[dead]]
        assert made[elsewhere] in {found["Id"] for found in engine.containers()}
    finally:
        engine.remove(made[elsewhere])


@pytest.mark.docker
def test_containers_that_others_make_of_our_images_have_no_owner(engine: Engine, base: str) -> None:
    name = "agentdata-test/inherited:1"
    with BuildBox(engine, base) as box:
        box.commit(name)
    container = engine.api.create_container(name, ["true"])["Id"]
    try:
        assert engine.api.inspect_container(container)["Config"]["Labels"][OWNER_LABEL] == ""
        assert container not in {found["Id"] for found in engine.containers()}
    finally:
        engine.remove(container)
        engine.api.remove_image(name)


def test_an_owner_is_dead_when_its_number_is_used_again() -> None:
    host, boot, space, pid, _ = this_owner().split("|")
    assert not is_dead(this_owner())
    assert is_dead("|".join((host, boot, space, pid, "12")))
    assert is_dead("|".join((host, "an-earlier-boot", space, pid, "12")))
    assert not is_dead("|".join(("another-host", boot, space, pid, "12")))
    assert not is_dead("nonsense")
    assert owner_of(1) != this_owner()


def test_an_engine_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    pytest.importorskip("docker")
    with pytest.raises(EngineError, match=r"No Docker engine answers at .*: start it"):
        Engine(f"unix://{tmp_path}/none.sock")


def test_local_paths_stay_in_the_directory(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "inside").mkdir()
    with LocalSandbox(tmp_path / "inside") as box:
        box.run("ln -s ../outside link")
        for path in ("link", "../outside", str(tmp_path / "outside")):
            with pytest.raises(PermissionError, match="leads out"):
                box.read(path)
        with pytest.raises(PermissionError, match="leads out"):
            box.write("link", b"x")
    assert (tmp_path / "inside").is_dir()


@pytest.mark.docker
def test_a_command_that_fails_while_the_engines_disk_is_full_is_no_result(
    engine: Engine, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with engine.open(base) as box, monkeypatch.context() as patch:
            patch.setattr(engine, "root", str(tmp_path))
            assert box.run("true").status == 0
            for run in (box.run, box.session().run):
                with pytest.raises(EngineError, match=r"disk of the Docker engine was full: free some"):
                    run("exit 3")
            patch.undo()
            assert box.run("exit 3").status == 3
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.docker
def test_an_engine_that_was_closed_begins_nothing_new(base: str) -> None:
    """Threads may still be at work when a command is stopped."""
    engine = Engine(reap=False)
    engine.close()
    with pytest.raises(EngineError, match="was closed"):
        engine.open(base)
