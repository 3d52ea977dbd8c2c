"""What is published: wheel and sdist build, install and run by themselves; one version everywhere."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from ckptsel.cli.commands import ORDER
from tests.conftest import save_checkpoint, save_images
from tools import release

ROOT = Path(__file__).parents[1]

LARGEST_DEMO = 3_000_000
"""Bytes of the data that the demo needs."""


def build(source: Path, out: Path, target: str) -> Path:
    """The wheel or the sdist of a source tree, without a network."""
    pytest.importorskip("hatchling")
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(out), "-t", target]
    subprocess.run(words, cwd=source, check=True, capture_output=True, env=clean())
    (built,) = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def clean() -> dict[str, str]:
    """The environment without what leads to the checkout."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, which so holds all that it takes."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not in old 3.10, 3.11
        archive.extractall(folder)
    (source,) = folder.iterdir()
    return build(source, folder / "wheel", "wheel")


def test_the_wheel_holds_the_package_and_its_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        (metadata,) = [name for name in sizes if name.endswith("METADATA")]
        about = archive.read(metadata).decode()
    packaged = {name for name in sizes if name.startswith("ckptsel/")}
    tracked = subprocess.run(
        ["git", "ls-files", "ckptsel"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert packaged >= set(tracked.stdout.split())
    assert not [name for name in packaged if name.endswith((".pyc", ".orig"))]
    demo = [size for name, size in sizes.items() if name.startswith("ckptsel/demo/")]
    assert 1_000_000 < sum(demo) < LARGEST_DEMO
    assert f"\nVersion: {release.project()[0]}\n" in about
    assert any(name.endswith("licenses/LICENSE") for name in sizes)
    # The index shows the README, where nothing of the repository lies beside it.
    place = f"{release.project()[1]}/blob/v{release.project()[0]}"
    assert f"](https://github.com/{place}/docs/install.md)" in about
    assert re.findall(r"\]\((?!https://|#)[^)]*\)", about) == []
    assert re.findall(r"!\[[^]]*\]\((?!https://raw\.)[^)]*\)", about) == []


@pytest.mark.slow
def test_installed_from_the_wheel_it_runs_outside_of_the_checkout(
    wheel: Path, tmp_path: Path
) -> None:
    """In an environment that has the dependencies, and nothing of the checkout."""
    place = tmp_path / "environment"
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    (packages,) = place.glob("lib/python*/site-packages")
    # Only the .pth files of an environment's own folder count: no editable install comes along.
    others = [p for p in sys.path if p.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n")
    install = [
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
    ]
    subprocess.run([sys.executable, *install, str(wheel)], check=True, env=clean())
    for i, epoch in enumerate((1, 5)):
        save_checkpoint(tmp_path / f"ckpts/checkpoint-{epoch:03d}.safetensors", i, epoch, 0.4)
    save_images(tmp_path / "images/train", 12)
    save_images(tmp_path / "images/val", 10, seed=1)

    def call(*words: str) -> str:
        done = subprocess.run(
            [place / "bin" / "ckptsel", *words],
            cwd=tmp_path,
            env=clean(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [python, "-c", "import ckptsel; print(ckptsel.__file__)"],
        cwd=tmp_path,
        env=clean(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(packages))
    assert call("--version").strip() == release.project()[0]
    rank = (
        "rank",
        "ckpts",
        "--data",
        "images",
        "--scores",
        "linear_probe",
        "--out",
        "ranking",
        "-q",
    )
    assert "*1" in call(*rank)
    assert (tmp_path / "ranking/report.html").stat().st_size > 100_000
    out = call("demo", "-q", "--out", "demo")
    assert re.search(r"^\*1 +checkpoint-005 ", out, re.MULTILINE)
    assert "checkpoint-005 is recommended" in out
    assert "demo/checkpoints" in call("pick", "demo/ranking")


def test_the_demo_leaves_nothing_behind(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run("demo", "-q")
    assert code == 0
    assert "checkpoint-005 is recommended" in out
    assert err == "yours: ckptsel rank CHECKPOINTS --data IMAGES --out ranking/\n"
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_version_and_repository_stand_in_one_place() -> None:
    """All other places follow: python -m tools.release."""
    assert release.outdated() == []
    assert release.newest_change() == release.project()[0]
    version = release.project()[0]
    assert release.current("uses: a/ckptsel@v9.9") == f"uses: {release.project()[1]}@v{version}"
    sources = [*ROOT.glob("ckptsel/**/*.py"), *ROOT.glob(".github/workflows/*")]
    assert [p for p in sources if version in p.read_text(encoding="utf-8")] == []


def test_what_there_is_is_said() -> None:
    """Every command in the changes, every extra that is for users on the page of the installation."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [name for name in ORDER if f"ckptsel {name}" not in changes] == []
    extras = release.read_project()["optional-dependencies"].keys() - {
        "dev",
        "trainers",
        "elsewhere",
    }
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert sorted(name for name in extras if f"`{name}`" not in page) == []


def test_the_owner_is_one_setting(tmp_path: Path, monkeypatch) -> None:
    """Named otherwise in pyproject.toml alone, it is named otherwise everywhere."""
    owner = release.project()[1].partition("/")[0]
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = re.compile(rf"\b{re.escape(owner)}/ckptsel\b")
    holders = [Path(name) for name in listed.stdout.split("\n") if name]
    holders = [name for name in holders if wanted.search(_text(ROOT / name))]
    assert Path("pyproject.toml") in holders
    for name in {*holders, Path("README.md"), Path("action.yml")}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    about = tmp_path / "pyproject.toml"
    about.write_text(about.read_text().replace(f"{owner}/ckptsel", "another/ckptsel"))
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["release"])
    release.main()
    assert [str(name) for name in holders if wanted.search(_text(tmp_path / name))] == []
    assert "uses: another/ckptsel@v" in (tmp_path / "docs/ci.md").read_text()


def _text(path: Path) -> str:
    """Of a file that is a text; a link, and what is none, has none."""
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""


def test_a_release_is_published_without_a_password() -> None:
    """The index trusts the workflow itself; what is published is what was tested."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "build" in jobs["publish"]["needs"]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ckptsel", "ra"), "rank"),
        (("ckptsel", "rank", "--goal", "f"), "fe\nft"),
        (("ckptsel", "rank", "--log-to", "mlflow,te"), "mlflow,tensorboard"),
        (("ckptsel", "gate", "--min"), "--min-accuracy"),
    ],
)
def test_shells_complete(words: tuple[str, ...], offered: str) -> None:
    """As the script asks that `ckptsel --install-completion` puts into a shell."""
    code = "import sys; sys.argv = ['ckptsel']; from ckptsel.cli import main; main()"
    asked = {
        "_CKPTSEL_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == offered + "\n"
