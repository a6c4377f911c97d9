"""One test for each thing that an untrusted command may try."""

import time
from collections.abc import Iterator

import pytest

from sandboxes.docker import DockerSandbox
from sandboxes.engine import Engine
from sandboxes.errors import SandboxGone
from sandboxes.protocol import Limits

pytestmark = pytest.mark.docker
LIMITS = Limits(memory_bytes=256 << 20, processes=128, cpus=1, disk_bytes=64 << 20, output_bytes=64 << 10)


@pytest.fixture
def box(engine: Engine, base: str) -> Iterator[DockerSandbox]:
    with engine.open(base, limits=LIMITS, run="attacks") as sandbox:
        yield sandbox


def test_fork_bomb(box: DockerSandbox) -> None:
    session = box.session()
    session.run("kept=1")
    session.run(":(){ :|:& };:", timeout=3)
    done = session.run("ls / >/dev/null && echo $kept", timeout=30)
    if done.status:
        done = session.run("ls / >/dev/null && echo $kept", timeout=30)
    # The bomb may still complain in between.
    assert "1" in done.text.splitlines()


def test_fork_bomb_in_a_fresh_shell(box: DockerSandbox) -> None:
    assert box.run("f() { f | f; }; f", timeout=2).status != 0
    assert box.run("ls / >/dev/null && echo alive", timeout=30).text == "alive\n"


def test_memory_bomb(box: DockerSandbox) -> None:
    session = box.session()
    session.run("kept=1")
    assert session.run("python3 -c 'x = bytearray(1 << 30)'", timeout=60).status == 137
    assert session.run("echo $kept").text == "1\n"


def test_memory_bomb_of_the_shell_itself(box: DockerSandbox) -> None:
    session = box.session()
    session.run("kept=1")
    assert session.run("x=x; while :; do x=$x$x; done", timeout=60).status != 0
    assert session.run("echo $kept").text == "1\n"


def test_one_file_that_is_too_large(box: DockerSandbox) -> None:
    done = box.run("dd if=/dev/zero of=/tmp/large bs=1M count=200 2>&1; stat -c %s /tmp/large")
    assert done.text.endswith(f"{LIMITS.disk_bytes}\n")


def test_disk_fill_with_many_files(box: DockerSandbox) -> None:
    session = box.session()
    with pytest.raises(SandboxGone, match=r"wrote 0\.\d GB to its disk, more than its limit of 0\.1 GB"):
        session.run("for i in $(seq 100); do head -c 10M /dev/zero >/tmp/$i; sleep 0.1; done; sleep 60")
    deadline = time.monotonic() + 10
    while box.engine.running(box.id) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not box.engine.running(box.id)


def test_shared_memory_fill(box: DockerSandbox) -> None:
    assert "No space left" in box.run("cd /dev/shm; for i in 1 2; do head -c 40M /dev/zero >$i; done").text


def test_output_flood(box: DockerSandbox) -> None:
    session = box.session()
    done = session.run("yes", timeout=1)
    assert done.timed_out
    assert len(done.output) < LIMITS.output_bytes + 100
    assert done.cut_bytes > 1 << 20
    assert session.run("echo next").text.endswith("next\n")


def test_output_flood_from_the_background(box: DockerSandbox) -> None:
    session = box.session()
    session.run("yes flood & flood=$!")
    time.sleep(0.5)
    done = session.run("echo heard; kill $flood")
    assert b"heard\n" in done.output or done.cut_bytes
    assert len(done.output) < LIMITS.output_bytes + 200


def test_background_daemons(box: DockerSandbox) -> None:
    session = box.session()
    began = time.monotonic()
    session.run("for i in 1 2 3; do setsid nohup sh -c 'while :; do sleep 64.5; done' & done")
    assert time.monotonic() - began < 3
    session.close()
    time.sleep(0.5)
    assert box.run("pgrep -f '[s]leep 64.5'").text == ""


def test_sleeping_past_the_limit(box: DockerSandbox) -> None:
    began = time.monotonic()
    assert box.session().run("trap '' TERM INT HUP; (setsid sleep 65.5 &); sleep 65.5", timeout=0.5).timed_out
    assert box.run("trap '' TERM INT HUP; (setsid sleep 65.5 &); sleep 65.5", timeout=0.5).timed_out
    assert time.monotonic() - began < 10
    assert box.run("pgrep -f '[s]leep 65.5'").text == ""


@pytest.mark.parametrize("attack", ["kill -9 $$", "kill -9 $PPID", "kill -9 -1", "kill -TERM -1", "kill -STOP -1"])
def test_killing_the_shell_and_all_there_is(box: DockerSandbox, attack: str) -> None:
    session = box.session()
    session.run(attack, timeout=1)
    assert session.run("echo back").text.endswith("back\n")
    assert box.run("echo fresh").text == "fresh\n"


def test_tracing_or_writing_to_the_supervisor(box: DockerSandbox) -> None:
    done = box.session().run("echo forged >/proc/$PPID/fd/1; cat /proc/$PPID/mem; ls /proc/$PPID/fd")
    assert done.text.count("Permission denied") == 3


def test_links_out_of_the_tree(box: DockerSandbox) -> None:
    box.run("ln -s /etc/shadow /tmp/shadow; ln -s /proc/1/root /tmp/root; ln -s /etc /tmp/folder")
    for path in ("/tmp/shadow", "/tmp/root/etc/shadow"):
        with pytest.raises(PermissionError):
            box.read(path)
    with pytest.raises(PermissionError):
        box.write("/tmp/folder/mine", b"x")


def test_reaching_the_network(box: DockerSandbox) -> None:
    code = "import socket; socket.create_connection(('{}', 80), 2)"
    for host in ("1.1.1.1", "example.org"):
        assert box.run(f'python3 -c "{code.format(host)}"', timeout=20).status == 1
    assert box.run("cat /proc/net/dev | grep -c :").text == "1\n"


def test_reaching_the_host(box: DockerSandbox) -> None:
    gateway = "import socket; socket.create_connection(('172.17.0.1', 22), 2)"
    assert box.run(f'python3 -c "{gateway}"', timeout=20).status == 1
    done = box.run("grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status; id -u")
    assert set(done.text.split()[1::2][:4]) == {"0000000000000000"}
    assert "NoNewPrivs:\t1" in done.text
    assert box.run("mount -t tmpfs none /mnt").status != 0
    assert box.run("mknod /tmp/disk b 254 0").status != 0
    assert box.run("echo 1 >/proc/sys/kernel/sysrq").status != 0
    assert box.run("unshare -r true").status != 0
    assert box.run("su -c true || sudo true || false").status != 0


def test_root_in_the_container_has_no_capabilities_either(box: DockerSandbox) -> None:
    assert box.run("chown 1000 /etc/passwd", user="0:0").status != 0
    assert box.run("mount -t tmpfs none /mnt", user="0:0").status != 0


def test_reaching_the_engines_socket(box: DockerSandbox) -> None:
    assert (
        box.run(
            "ls /var/run/docker.sock /run/docker.sock /run/containerd; find / -name '*.sock' 2>/dev/null"
        ).text.count("No such file")
        == 3
    )


def test_settings_of_the_host_are_not_in_the_sandbox(box: DockerSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "proxy" not in box.run("env").text.lower()
    assert "build-access" not in box.run("env; ls /dev").text
