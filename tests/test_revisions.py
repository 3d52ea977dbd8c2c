"""Revisions of a model of the Hub as a run, from a server here that speaks as the Hub does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import ckptsel
from ckptsel.checkpoints.walk import NOT_NEEDED
from ckptsel.common import places, remote
from ckptsel.common.remote import kept_path, local_path
from ckptsel.common.revisions import revisions_in
from ckptsel.errors import InputError, UsageError
from tests.conftest import TINY_MODEL

REPO = "lab/run"
ADDRESS = f"hf://{REPO}@{{step*}}"


class Hub(ThreadingHTTPServer):
    """One repository. files: contents by name, by revision. broken: downloads that end in the middle,
    so many of them."""

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files, self.broken = files, 0
        self.downloads: list[str] = []


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:4] == ["api", "models", "lab", "run"]:
            return self._about(*parts[4:])
        if parts[:3] == ["lab", "run", "resolve"]:
            return self._content(parts[3], "/".join(parts[4:]))
        self._answer({"error": "Repository not found"}, 404, "RepoNotFound")

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        revision = unquote(urlsplit(self.path).path.rpartition("/")[2])
        self._answer([each for each in self._entries(revision) if each["path"] in unquote(asked)])

    def _about(self, what: str = "", revision: str = "", *_: str) -> None:
        if what == "refs":
            refs = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": "0" * 40}
                for name in self.server.files
            ]
            self._answer({"branches": refs[:1], "tags": refs[1:], "converts": []})
        elif revision and revision not in self.server.files:
            self._answer({"error": "Revision not found"}, 404, "RevisionNotFound")
        elif what == "tree":
            self._answer(self._entries(revision))
        else:
            self._answer({"id": REPO, "sha": "0" * 40, "siblings": [], "private": False})

    def _entries(self, revision: str) -> list[dict]:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.server.files[revision].items()
        ]

    def _content(self, revision: str, name: str) -> None:
        data = self.server.files[revision][name]
        self.server.downloads.append(f"{revision}/{name}")
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.end_headers()
        if self.server.broken:
            self.server.broken -= 1
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
            return
        self.wfile.write(part)

    def _answer(self, value: object, code: int = 200, error: str = "") -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(trajectory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    pytest.importorskip("fsspec")
    steps = {
        f"step{path.stem.rpartition('-')[2]}": {
            "model.safetensors": path.read_bytes(),
            "optimizer.pt": b"not needed",
        }
        for path in sorted(trajectory.iterdir())
    }
    server = Hub({"main": {"README.md": b"# a run"}, **steps})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, place)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(remote, "PAUSES_S", (0.0,) * 4)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's own pauses
    monkeypatch.setattr(places, "mirrors", set())
    monkeypatch.setattr(remote, "mirrors", places.mirrors)
    yield server
    server.shutdown()
    server.server_close()


def test_revisions_are_ranked_as_a_run(
    hub: Hub, run, trajectory: Path, images: Path, tmp_path: Path
) -> None:
    here = ckptsel.rank(trajectory, images, scores=["linear_probe"])
    code, out, err = run(
        *("rank", ADDRESS, "-d", images, "--scores", "linear_probe", "-f", "json"),
        *("--model", TINY_MODEL, "-o", tmp_path / "out"),
    )
    assert code == 0, err
    there = json.loads(out)
    assert there["settings"]["checkpoints"] == ADDRESS
    names = [row["name"] for row in sorted(there["checkpoints"], key=lambda row: row["order"])]
    assert names == ["step001", "step005", "step010"]
    values = {row.digest: row.scores["linear_probe"].value for row in here}
    assert values == {
        row["digest"]: row["scores"]["linear_probe"]["value"] for row in there["checkpoints"]
    }
    best = there["checkpoints"][0]
    assert best["path"] == f"{ADDRESS}/{best['name']}"
    fetched = kept_path(best["path"]) / "model.safetensors"
    assert fetched.read_bytes() == hub.files[best["name"]]["model.safetensors"]
    assert not any("optimizer" in name for name in hub.downloads)


def test_only_what_is_new_is_fetched(hub: Hub) -> None:
    root = local_path(ADDRESS, skip=NOT_NEEDED)
    assert sorted(hub.downloads) == [f"step{n}/model.safetensors" for n in ("001", "005", "010")]
    hub.downloads.clear()
    hub.files["step020"] = dict(hub.files["step010"])
    del hub.files["step001"]
    assert local_path(ADDRESS, skip=NOT_NEEDED) == root
    assert hub.downloads == ["step020/model.safetensors"]
    assert sorted(path.name for path in root.iterdir()) == ["step005", "step010", "step020"]


def test_a_line_that_breaks_is_tried_again(hub: Hub) -> None:
    hub.broken = 3
    path = local_path(f"hf://{REPO}@{{step001,step005}}") / "step001" / "model.safetensors"
    assert path.read_bytes() == hub.files["step001"]["model.safetensors"]
    hub.broken = 1000
    with pytest.raises(InputError, match=r"step010/\S+ cannot be read: .*\(5 tries\)"):
        local_path(f"hf://{REPO}@{{step010}}")
    hub.broken = 0
    local_path(f"hf://{REPO}@{{step010}}")


def test_what_is_not_there_is_said(hub: Hub) -> None:
    with pytest.raises(InputError, match=r"no revision of hf://lab/run fits epoch\*: its branches"):
        local_path(f"hf://{REPO}@{{epoch*}}")
    with pytest.raises(InputError, match=r"hf://lab/run@step7 cannot be read: no such file"):
        local_path(f"hf://{REPO}@{{step001,step7}}")
    with pytest.raises(InputError, match=r"revisions of hf://lab/other cannot be read: no such"):
        local_path("hf://lab/other@{step*}")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://lab/run@{a,b", "must end with a list"),
        ("hf://lab/run@{}", "must end with a list"),
        ("hf://lab/run@{a,,b}", "must end with a list"),
        ("hf://lab/run@{a}/folder", "must end with a list"),
        ("hf://lab/run@{refs/pr/1}", "none with a /"),
        ("hf://lab/run@{..}", "none with a /"),
        ("hf://lab/run@{" + "step*," * 50 + "x}", "at most 150 characters"),
    ],
)
def test_a_list_that_is_none(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        revisions_in(address)


def test_other_addresses_have_no_list() -> None:
    for address in (
        "hf://lab/run",
        "hf://lab/run@main",
        "s3://lab/run@{a,b}",
        "hf://lab/run@main/{a}",
    ):
        assert revisions_in(address) is None
    found = revisions_in("hf://lab/run@{b, s?, s*}")
    assert found is not None
    assert found.among(["main", "s1", "s10", "b"]) == ["b", "s1", "s10"]
