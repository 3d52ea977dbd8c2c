"""The model card, and pushing: to a local server that speaks as much of the hub's API as is used."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import timm
import yaml
from safetensors.torch import load, load_file

from ckptsel.export.card import card_text, front_matter
from ckptsel.results.files import read_ranking

FIRST = Path("reference_runs/cifar10-mnist-small/seed0/mnist-1000")


# Of the hub's client about the library that it sends with.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


# ---- the card ------------------------------------------------------------------------------------


def test_results_have_their_intervals() -> None:
    ranking, _ = read_ranking(FIRST)
    row = ranking["checkpoint-005"]
    about = yaml.safe_load(front_matter(ranking, row, "lab/backbone"))
    (index,) = about["model-index"]
    (result,) = index["results"]
    assert index["name"] == "backbone"
    assert result["dataset"]["name"] == "mnist-1000"  # no folder of this machine
    metrics = {metric["name"]: metric for metric in result["metrics"]}
    trained = row.trained("ft")
    tuned = metrics["fine-tuning"]
    assert tuned["value"] == round(trained.value, 4)
    assert (tuned["args"]["low"], tuned["args"]["high"]) == tuple(
        round(x, 4) for x in trained.bounds
    )


def test_the_card_says_what_was_ranked_on_what_and_how_to_load_it() -> None:
    ranking, _ = read_ranking(FIRST)
    text = card_text(ranking, ranking["checkpoint-005"], "picture.png", "lab/backbone")
    assert "1000 images were fitted on and 2000 held out" in text
    assert "It is number 1 of 14." in text
    assert "| 14 | checkpoint-030 |" in text
    assert "![Scores along the run, with 95 % intervals](picture.png)" in text
    assert 'load_file(hf_hub_download("lab/backbone", "model.safetensors"))' in text
    assert 'load_extractor(hf_hub_download("lab/backbone", "model.safetensors"))' in text
    assert "reference_runs" not in text


def test_a_name_cannot_break_out_of_the_yaml() -> None:
    """What a file is called is a text there, whatever it is called."""
    ranking, _ = read_ranking(FIRST)
    name = 'x"\n---\nlicense: mit'
    target = {**ranking.target, "data": name}
    object.__setattr__(ranking, "target", target)
    about = yaml.safe_load(front_matter(ranking, ranking["checkpoint-005"]))
    assert about["model-index"][0]["results"][0]["dataset"]["name"] == name
    assert "license" not in about


def test_the_hubs_own_reader_reads_it() -> None:
    hub = pytest.importorskip("huggingface_hub")
    ranking, _ = read_ranking(FIRST)
    card = hub.ModelCard(card_text(ranking, ranking["checkpoint-005"]))
    assert [one.metric_value for one in card.data.eval_results][-1] == 0.896
    assert card.data.eval_results[0].metric_args["level"] == 0.95


def test_the_card_alone(run, ranked: Path, tmp_path: Path, monkeypatch) -> None:
    """Its snippets load what `--to` wrote beside it."""
    folder = tmp_path / "out"
    words = ("--model-card", folder / "README.md", "--to", folder / "best.safetensors")
    code, out, err = run("pick", ranked, *words)
    assert code == 0 and out.endswith(".safetensors\n") and "card of checkpoint-" in err
    (picture,) = folder.glob("*.png")
    text = (folder / "README.md").read_text()
    assert f"]({picture.name})" in text and picture.read_bytes().startswith(b"\x89PNG")
    assert run("pick", ranked, *words)[0] == 0, "a card is replaced"
    (folder / "other.md").write_text("# My project")
    code, _, err = run("pick", ranked, "--model-card", folder / "other.md")
    assert code == 3 and "other.md is there, and is no model card of ckptsel" in err
    assert (folder / "other.md").read_text() == "# My project"
    monkeypatch.chdir(folder)
    snippet: dict = {}
    for part in text.split("```python\n")[1:]:
        exec(part.split("\n```")[0], snippet)
    weights = load_file(folder / "best.safetensors")
    assert set(snippet["model"].state_dict()) == set(weights)
    assert snippet["extractor"].layer == "last"


# ---- pushing -------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """One repository. refuses: the answer to its making, where that is an error."""

    def __init__(self, refuses: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.refuses, self.asked = refuses, []
        self.made: dict = {}
        self.stored: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None: ...

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, value: object, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.refuses:
            return self._answer({"error": "not found"}, 404)
        self._answer({"id": "lab/backbone", "sha": "0" * 40, "siblings": [], "private": True})

    def do_PUT(self) -> None:
        data = self._body()
        self.server.stored[hashlib.sha256(data).hexdigest()] = data
        self._answer({})

    def do_POST(self) -> None:
        path, hub = urlsplit(self.path).path, self.server
        hub.asked.append(path)
        if path.endswith("/api/repos/create"):
            hub.made = json.loads(self._body())
            if hub.refuses:
                self._answer({"error": "you may not write here"}, hub.refuses)
            else:
                self._answer({"url": f"{hub.address}/lab/backbone"})
        elif path.endswith("/validate-yaml"):
            self._body()
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [f["path"] for f in json.loads(self._body())["files"]]
            modes = {f: "lfs" if f.endswith(("safetensors", "png")) else "regular" for f in files}
            self._answer(
                {
                    "files": [
                        {"path": f, "uploadMode": m, "shouldIgnore": False}
                        for f, m in modes.items()
                    ]
                }
            )
        elif path.endswith("/objects/batch"):
            objects = json.loads(self._body())["objects"]
            self._answer(
                {
                    "transfer": "basic",
                    "objects": [
                        {**o, "actions": {"upload": {"href": f"{hub.address}/put/{o['oid']}"}}}
                        for o in objects
                    ],
                }
            )
        elif "/commit/" in path:
            for line in map(json.loads, self._body().splitlines()):
                about = line["value"]
                if line["key"] == "file":
                    hub.files[about["path"]] = base64.b64decode(about["content"])
                elif line["key"] == "lfsFile":
                    hub.files[about["path"]] = hub.stored[about["oid"]]
            url = f"{hub.address}/lab/backbone/commit/1"
            self._answer({"success": True, "commitUrl": url, "commitOid": "1" * 40})
        else:
            self._answer({"error": f"not spoken here: {path}"}, 404)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    yield server
    server.shutdown()
    server.server_close()


def test_what_is_pushed(run, ranked: Path, hub: Hub) -> None:
    code, out, err = run("pick", ranked, "--push-to-hub", "lab/backbone")
    assert code == 0, err
    assert out.endswith(".safetensors\n")
    assert f"pushed to lab/backbone: {hub.address}/lab/backbone/commit/1" in err
    assert hub.made["name"] == "backbone" and hub.made["organization"] == "lab"
    assert hub.made.get("private", hub.made.get("visibility")) in (True, "private")
    assert set(hub.files) == {"README.md", "model.safetensors", "trajectory-linear_probe.png"}
    model = timm.create_model("cifar_resnet18_w16_s2", num_classes=0)
    assert model.load_state_dict(load(hub.files["model.safetensors"]), strict=True)
    card = hub.files["README.md"].decode()
    assert 'hf_hub_download("lab/backbone", "model.safetensors")' in card
    assert "(trajectory-linear_probe.png)" in card


def test_public_where_asked(run, ranked: Path, hub: Hub) -> None:
    assert run("pick", ranked, "--push-to-hub", "lab/backbone", "--public")[0] == 0
    assert hub.made.get("private", hub.made.get("visibility")) in (False, None, "public")


def test_nothing_is_pushed_unasked(run, ranked: Path, hub: Hub, tmp_path: Path) -> None:
    words = ("--to", tmp_path / "b.safetensors", "--model-card", tmp_path / "card.md")
    assert run("pick", ranked, *words)[0] == 0
    assert hub.asked == [] and hub.files == {}


def test_what_the_hub_refuses(run, ranked: Path, hub: Hub) -> None:
    hub.refuses = 403
    code, out, err = run("pick", ranked, "--push-to-hub", "lab/backbone")
    assert (code, out) == (3, "")
    assert (
        err.startswith("error: the hub did not take lab/backbone: ") and len(err.splitlines()) == 1
    )
    assert "can be reached, and log in (hf auth login, or HF_TOKEN)" in err and hub.files == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--push-to-hub", "backbone"), "it must be ORG/NAME, such as my-lab/my-backbone"),
        (("--push-to-hub", "../x/y"), "it must be ORG/NAME"),
        (("--public",), "--public is for --push-to-hub."),
    ],
)
def test_wrong_options(run, ranked: Path, words, message: str) -> None:
    code, _, err = run("pick", ranked, *words)
    assert code == 2 and message in err
