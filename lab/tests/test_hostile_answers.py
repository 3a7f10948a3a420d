"""Whatever a machine answers: every parser of it returns a value or raises ValueError, no more."""

import io
import json
import tarfile
from contextlib import suppress

import pytest
from any_text import outside, quickly, spoil_each
from hypothesis import example, given
from hypothesis import strategies as st

from lab.browser import notebook
from lab.cli import environment
from lab.datasets import manifest
from lab.doctor import checks
from lab.doctor.facts import parse_facts
from lab.ground import files
from lab.ground.errors import LabError
from lab.jobs import choice, control
from lab.ssh import answers, framing, ssh_errors
from lab.ssh.machines import Machine
from lab.transfer import clean, datasets, fetch_plan, models, staging, tar_copy
from lab.workcopy import wheels, workspace

ID = "20261122-101530-k7xq2a"
HASH = "ab" * 32
JOBS = (
    "1000\n"
    + "\t".join([ID, "0", "1", "2", "", "", "0,1", "phase", "3", '{"command": ["a"]}'])
    + "\n"
    + "\t".join([ID, "", "1", "", "yes", "", "", "queued for GPU 1", "", '{"name": "x"}'])
    + "\n"
    + "\t".join([ID, "", "1", "", "slurm:failed 3", "", "", "running 1", "", "{}"])
    + "\n"
)
LISTING = (
    "/x/runs\0/x/data\0rsync  version 3.2.7  protocol\0runs f 3 5.25 ./a/b\0runs d 0 0.0 ./shut\0"
    "data f 4 5.1234567891 ./d/models/r/x\0"
)
DATASET = (
    "/x/data/digits\0/x/data/.digits\0rsync  version 3.2.7  protocol\0"
    f'{{"files": {{"train/a/b.png": "{HASH}"}}}}\0present 1 2.5 train/a/b.png\0staged 1 2 a\0'
)
SERVER = json.dumps({"token": "ab" * 24, "started": True, "socket": "/x/y", "pid": 1})
ON_PORT = json.dumps({"token": "ab" * 24, "started": True, "port": 8888})
KERNELS = json.dumps([dict.fromkeys(("name", "title", "python", "folder", "state"), "x")])
FACTS = """clock:
 1700000000.5
host:
 worker
system:
 Linux 6.1
folder:
 /home/a/x
git:
 git version 2.39.5
uv:
 uv 0.9.1
python3:
 Python 3.11.2
tmux:
 tmux 3.3a
torch:
 __version__ = '2.9.0+cu128'
 cuda: Optional[str] = '12.8'
gpus:
 ok
 gpu 0|ada|100|81559|NVIDIA H100
 gpu 1||0|81559|NVIDIA H100
 cuda 12.8
disk:
 1000000 500000
 1000 500
 writable
quota:
 /dev/sda 100* 50 60
 code 0
logout:
 kills b true
 lingers Linger=no
terminal:
 yes
dataset:
 abcdefabcdef
 1797 500000
"""
CLUSTER = f"""{FACTS}slurm:
 slurm 23.11.4
partitions:
 gpu 12 3 96 5 2-00:00:00
 cpu 40 0 0 0 infinite
limits:
 account=a qos=normal MaxJobs=4
programs:
 yes
cache:
 /x other
 other
needed:
 5000000
index:
 no https://index.example.org
data_disk:
 1000000 500000
 1000 500
"""
WHEELS = "machine x86_64\nglibc 36\nstage /x/y\nrsync rsync  version 3.2.7\nhave ab a.whl\n"
EDITS = "state saved\nedits 20260101-000000-abcdef0\nnested a b\n\nPACK"


@quickly
@given(outside(JOBS))
def test_of_jobs(text):
    with suppress(ValueError):
        for job in control.parse(text):
            assert all(isinstance(cell, str) for cell in job.row().values())
            assert job.id.isprintable() and "/" not in job.id


@quickly
@given(outside(LISTING))
def test_of_files(text):
    with suppress(ValueError):
        listing = fetch_plan.parse_listing(text)
        for names in listing.files.values():
            assert not any(part.startswith(".") for name in names for part in name.split("/"))


@quickly
@given(outside(f"{HASH}  ./a/b\0{HASH}  ./c\0"))
def test_of_hashes(text):
    with suppress(ValueError):
        assert all(len(one) == 64 for one in fetch_plan.parse_hashes(text).values())


@quickly
@given(outside(DATASET))
def test_of_a_dataset_and_its_manifest(text):
    with suppress(ValueError):
        described = datasets.parse_dataset(text)
        with suppress(manifest.DatasetError):
            for name in manifest.parse_manifest(described.manifest, "x").files:
                assert files.is_plain_path(name) and staging.encode(name)


@quickly
@given(outside("/d/.x.incoming-0-1\0rsync  version 3.2.7\0present 1 1.5 a\0staged 2 2.5 b/c\0"))
def test_of_the_model_of_a_run(text):
    with suppress(ValueError):
        stage = models.parse_model(text).stage
        assert stage == "" or stage[0] == "/"


@quickly
@given(outside(SERVER, ON_PORT))
def test_of_a_notebook_server(text):
    with suppress(ValueError):
        server = notebook.parse_server(text)
        assert server.token.isalnum() and ":" not in server.socket


@quickly
@given(outside(KERNELS))
def test_of_kernels(text):
    with suppress(ValueError):
        assert all(
            isinstance(cell, str)
            for row in environment.parse_kernels(text)
            for cell in row.values()
        )


@quickly
@given(outside(FACTS))
@example(" ")
def test_of_facts(text):
    facts = parse_facts(text)  # the doctor says what it can of a damaged machine
    local = {
        "environment": ["3.11-abc"],
        "torch wanted": ["yes"],
        "term": ["xterm"],
        "lab": ["lab"],
    }
    for check in checks.judge(local, facts):
        assert isinstance(check.advice, str)


def judge_facts(text: str) -> None:
    facts = parse_facts(text)
    names = {"environment": "3.11-abc", "torch wanted": "yes", "term": "xterm", "lab": "lab"}
    local = {name: [value] for name, value in names.items()}
    local |= {"torch": ["__version__ = '2.9.0'"], "dataset": ["abcdefabcdef", "1797 500000"]}
    for check in checks.judge(local, facts):
        assert len(check.advice) < 5000


@pytest.mark.slow
@pytest.mark.parametrize("facts", [FACTS, CLUSTER], ids=["machine", "cluster"])
def test_the_doctor_judges_any_value_of_any_fact(facts):
    for text in spoil_each(facts):
        judge_facts(text)


PARSERS = {
    control.parse: JOBS,
    fetch_plan.parse_listing: LISTING,
    fetch_plan.parse_hashes: f"{HASH}  ./a/b\0",
    datasets.parse_dataset: DATASET,
    models.parse_model: "/d/x\0rsync  version 3.2.7\0present 1 1.5 a\0staged 2 2.5 b/c\0",
    notebook.parse_server: ON_PORT,
    environment.parse_kernels: KERNELS,
    clean.parse_items: f"record 5 1 r {HASH} 2\0checkout 3 1 x y\0repository -5 -1 repo.git\0",
    choice.parse: "busy GPU 0 by ada\n",
    wheels.parse_answer: WHEELS,
}


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__module__)
def test_any_word_in_an_answer_is_read_or_refused(parse, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)  # no rsync is asked its version
    answer = PARSERS[parse]
    parse(answer)
    for text in spoil_each(answer):
        with suppress(ValueError):
            parse(text)


@quickly
@given(outside("busy GPU 0 by ada\n"))
def test_of_free_gpus(text):
    with suppress(ValueError):
        state, why = choice.parse(text)
        assert state in choice.STATES and why.isprintable()


@quickly
@given(outside(WHEELS))
def test_of_wheels(text):
    with suppress(ValueError, LabError):
        facts, _ = wheels.parse_answer(text)
        assert facts["stage"].startswith("/") and wheels.read_platform(facts).glibc >= 0


@quickly
@given(outside(EDITS))
def test_of_a_working_copy(text):
    answer = io.BytesIO(text.encode("utf-8", "surrogatepass"))
    with suppress(ValueError):
        facts = workspace.read_facts(answer)
        assert not any(set(name) - set("0123456789abcdef-") for name in facts["edits"])


@quickly
@given(outside("record 5 1 r 0 2\0checkout 3 1 x y\0repository -5 -1 repo.git\0kept 1 0 z\0"))
def test_of_what_may_be_removed(text):
    with suppress(ValueError):
        for item in clean.parse_items(text):
            assert item.kind in clean.KINDS and item.name.encode("utf-8", "surrogateescape")
            assert item.kind != "record" or int(item.name.split(" ")[2]) >= 0


@quickly
@given(outside("/home/ada/lab\n"))
def test_of_a_path(text):
    with suppress(ValueError):
        assert answers.parse_path(text).isprintable()


@quickly
@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"\0", b"MARK", b" 0", b"MARK\0", b"\0MARK "])
    )
)
def test_of_bytes_between_marks(pieces):
    received: list[bytes] = []
    answer = framing._Answer(b"MARK", received.append)
    with suppress(framing.BadFrame):
        for piece in pieces:
            answer.feed(piece)
            assert len(answer.held) < 100
            if answer.code is not None:
                break


def make_archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("./a/b", "./a/" + "x" * 200, "./a/caf\u00e9"):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 4, {"mtime": "1.5"}
            tar.addfile(member, io.BytesIO(b"text"))
    return packed.getvalue()


ARCHIVE = make_archive()


@quickly
@given(st.lists(st.tuples(st.integers(0, len(ARCHIVE)), st.binary(max_size=12)), max_size=6))
def test_of_a_tar_stream(changes):
    archive = bytearray(ARCHIVE)
    for at, piece in changes:
        archive[at : at + len(piece)] = piece
    with suppress(tarfile.TarError):
        for _, content in tar_copy.read_stream(io.BytesIO(bytes(archive)), 10):
            while content.read(1 << 16):
                pass


KINDS = [b"x", b"g", b"L", b"K", b"S"]


def make_endless(kind: bytes, size: int) -> io.RawIOBase:
    """A tar stream of headers of that type, without an end."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size

    class Stream(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            assert self.given < 50 << 20, "too much is read"
            block = member.tobuf(tarfile.GNU_FORMAT) + b"13 a=aaaaaaa\n".ljust(512, b"\0")
            return (block * (size // len(block) + 1))[:size]

    return Stream()


@pytest.mark.parametrize(
    ("kind", "size"), [(b"0", 512), *((kind, size) for kind in KINDS for size in (512, 1 << 32))]
)
def test_the_headers_of_an_archive_do_not_fill_the_memory(kind, size):
    with pytest.raises(tarfile.TarError):
        list(tar_copy.read_stream(make_endless(kind, size), 1000))


@quickly
@given(
    outside(
        "lab: it failed\nx\n",
        "Host key for worker has changed\n",
        "ssh: Could not resolve hostname x: y",
    )
)
def test_of_stderr(text):
    assert len(framing.find_error(text)) <= framing.MAX_MESSAGE
    machine = Machine("gpu", ssh="worker", folder="x", gateway="gate")
    assert len(str(ssh_errors.explain(text, machine))) < 1500


@pytest.mark.parametrize("host", ['"$(touch x)"', "`id`", "a;b"])
def test_no_command_that_is_advised_has_text_of_the_machine_in_it(host):
    machine = Machine("gpu", ssh="worker", folder="x")
    text = str(ssh_errors.explain(f"Host key for {host} has changed", machine))
    assert "ssh-keygen" not in text
