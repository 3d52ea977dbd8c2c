"""Names are shown, never obeyed: one table of hostile names, through every outlet and command."""

import csv
import dataclasses
import io
import json
import os
import re
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from ckptsel.checkpoints.scan import Checkpoint
from ckptsel.common.outlets import (
    MAX_CELL,
    csv_cell,
    exact,
    harmless,
    json_text,
    markdown,
    shown,
)
from ckptsel.common.progress import Progress
from ckptsel.confirmation.board import Board
from ckptsel.errors import InputError, OutputError, listed_below
from ckptsel.gating.gate import hold_against
from ckptsel.gating.github import annotations, step_outputs, step_summary
from ckptsel.gating.junit import junit_text
from ckptsel.gating.tables import format_verdict
from ckptsel.report.explanation import explanation_text
from ckptsel.report.inspection import checkpoints_text
from ckptsel.report.page import page
from ckptsel.report.tables import format_ranking
from ckptsel.results.confirmation import Standing
from ckptsel.results.files import write_ranking
from ckptsel.results.ranking import Ranking
from ckptsel.settings.policy import Policy

CONFIRMED = Path(__file__).parents[1] / "reference_runs/cifar10-mnist-small/seed0/mnist-1000"

HOSTILE = {
    "line break": "a\n::error::pwned",
    "carriage return": "a\r::error::pwned",
    "line separator": "a\u2028::error::pwned",
    "paragraph separator": "a\u2029::error::pwned",
    "next line": "a\x85::error::pwned",
    "command": "::error::pwned",
    "command after blanks": " \u00a0::add-mask::pwned",
    "older command": "a ##[error]pwned",
    "command of Azure": "##vso[task.setvariable variable=x]y",
    "command of TeamCity": "##teamcity[buildStatus text='x']",
    "escape": "a\x1b]0;title\x07\x1b[2Jb",
    "one byte escape": "a\x9b31mb",
    "NUL": "a\0b",
    "backspace": "abc\b\b\bx",
    "tab": "\t=1",
    "rich markup": "model[ema]",
    "rich end": "x[/]y",
    "rich style": "[red]x[/red]",
    "rich emoji": ":bomb:",
    "HTML": "<img src=x onerror=alert(1)>",
    "HTML block": "<details><summary>x",
    "script": "</script><script>alert(1)</script>",
    "CDATA": "]]><x/>&y;",
    "entity": "&lt;b&gt;",
    "template": "{{ 7 * 7 }}{% x %}",
    "image": "![x](http://evil.example/x.png)",
    "link": "[x](http://evil.example)",
    "reference": "[x]: http://evil.example",
    "address": "http://evil.example",
    "bare address": "www.evil.example",
    "heading": "# big",
    "list": "- [ ] x",
    "numbered": "1. x",
    "quotation": "> x",
    "rule": "---",
    "underline": "===",
    "emphasis": "**x** _y_ ~~z~~ *w*",
    "block": "    x",
    "code": "```x``` `y`",
    "mathematics": "$x$",
    "cell": "a|b|c",
    "escaped cell": "a\\|b",
    "formula": '=HYPERLINK("http://evil.example")',
    "plus": "+1+1",
    "minus": "-1+1",
    "at": "@SUM(A1)",
    "wide formula": "＝1+1",  # noqa: RUF001
    "percent": "100%0A::error::x",
    "quotes": "\"a','b`",
    "direction": "a\u202etp.exe",
    "isolate": "\u2066a\u2069\u200f",
    "zero width": "a\u200b\u200db",
    "byte order mark": "\ufeffa",
    "tag": "a\U000e0041",
    "soft hyphen": "a\u00adb",
    "not UTF-8": "a\udcffb",
    "half a pair": "a\ud800",
    "no character": "a\ufffe\uffffb",
    "long": "x" * 50_000 + "y",
}
"""What a stranger may call a checkpoint, a class or a tensor, by what it tries."""

hostile = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())


def ranking_of(name: str) -> Ranking:
    """A real ranking, confirmed, in which the best, its path, a class, a reason, a note, a doubt and the
    data have this name."""
    plain = json.loads((CONFIRMED / "ranking.json").read_text())
    text = json.dumps(plain).replace("checkpoint-005", json.dumps(name)[1:-1])
    ranking = Ranking.from_dict(json.loads(text))
    last = ranking.checkpoints[-1]
    failed = dataclasses.replace(
        last, status="failed", reason=f"{name} is odd: {name}", rank=None, scores={}, confirmed=None
    )
    return dataclasses.replace(
        ranking,
        checkpoints=(*ranking.checkpoints[:-1], failed),
        notes=(name, f"a note on {name}"),
        target={
            **ranking.target,
            "data": name,
            "largest_class": {"name": name, "share": 0.5},
        },
        no_winner=None,
    )


def verdict_of(ranking: Ranking):
    current = ranking.checkpoints[1].name
    return hold_against(ranking, Policy(current=current, min_accuracy=0.5, strict=True))


def check_log(text: str) -> None:
    """Nothing that a terminal or a runner would obey."""
    text.encode("utf-8")
    for line in text.split("\n"):
        assert not line.lstrip().startswith("::"), line
        assert not re.search(r"##[\w.-]*\[", line), line
        hidden = {c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
        assert not hidden, (hidden, line)


def visible(name: str) -> str:
    """How a line has the name that does not begin with it."""
    return harmless("x" + shown(name, MAX_CELL))[1:]


# ---- the functions -------------------------------------------------------------------------------


def test_what_is_seen_stays_and_what_is_not_is_written() -> None:
    plain = "checkpoint-005 größer 模型 é 🙂 c:\\x 10 % [3.9, 8.7]"
    assert shown(plain) == plain
    assert shown("a\nb\r\t\x1b\x9b\u202e\udcff\0") == r"a\nb\r\t\x1b\x9b\u202e\udcff\x00"


def test_a_long_line_loses_its_middle() -> None:
    assert shown("a" * 50 + "b" * 50, 25) == "a" * 10 + " ... " + "b" * 10
    assert shown("a" * 50, None) == "a" * 50


def test_a_formula_is_a_text_and_a_number_a_number() -> None:
    assert csv_cell("=1") == "'=1" and csv_cell(" -1") == "' -1" and csv_cell("a-1") == "a-1"
    assert csv_cell(-1.5) == -1.5 and csv_cell(None) is None and csv_cell(True) is True


def test_what_markdown_would_not_change_stays() -> None:
    plain = "linear_probe of checkpoint-005 is 89.6 % [87.6, 90.9] (a/b.pt), -0.31: no #1"
    assert markdown(plain) == plain


def test_json_reads_back_the_same() -> None:
    text = json_text(HOSTILE)
    assert json.loads(text) == HOSTILE
    check_log(text)


@hostile
def test_exact_is_exact_or_refused(name: str) -> None:
    try:
        assert exact(name, "it", "Do this.") == name
    except OutputError as error:
        assert "it is refused" in str(error) and str(error).endswith("Do this.")
        check_log(harmless(str(error)[-3000:]))
    else:
        check_log(name)
        assert "\n" not in name


# ---- what is printed of a ranking ----------------------------------------------------------------


@hostile
@pytest.mark.parametrize("width", [None, 120, 20])
def test_table(name: str, width: int | None) -> None:
    ranking = ranking_of(name)
    text = harmless(format_ranking(ranking, "table", width) + explanation_text(ranking))
    check_log(text)
    assert visible(name) in text
    check_log(harmless(format_verdict(verdict_of(ranking), "table")))


@hostile
def test_markdown(name: str) -> None:
    ranking, plain = ranking_of(name), ranking_of("plain")
    for text, same in (
        (format_ranking(ranking, "md"), format_ranking(plain, "md")),
        (explanation_text(ranking, "md"), explanation_text(plain, "md")),
        (format_verdict(verdict_of(ranking), "md"), format_verdict(verdict_of(plain), "md")),
        (step_summary(ranking, verdict_of(ranking)), step_summary(plain, verdict_of(plain))),
    ):
        check_log(harmless(text))
        assert tags(text) == tags(same)
        assert not re.search(r"(?<!\\)://|www(?<!\\)\.", text)
        assert "$" not in text.replace("\\$", "")
    summary = step_summary(ranking, verdict_of(ranking))
    assert f"ckptsel: {shown(name).lstrip()}" in read(summary) or len(name) > MAX_CELL


@hostile
def test_a_paragraph_of_markdown(name: str) -> None:
    assert tags(markdown(name)) == tags("plain")
    assert read(markdown(name)).strip() == shown(name).lstrip()


def tags(text: str) -> Counter:
    """What a reader of Markdown makes of a text, but for its words."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inner = [child for token in tokens for child in token.children or ()]
    kinds = Counter(token.type for token in (*tokens, *inner))
    assert not {"html_block", "html_inline", "image", "link_open", "fence"} & set(kinds)
    del kinds["text"], kinds["text_special"]
    return kinds


def read(text: str) -> str:
    """The words of a Markdown text."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return "\n".join("".join(c.content for c in token.children or ()) for token in tokens)


@hostile
def test_csv(name: str) -> None:
    ranking = ranking_of(name)
    text = format_ranking(ranking, "csv")
    check_log(harmless(text))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(ranking) and rows[0]["name"] == csv_cell(name)
    numbers = re.compile(r"-?[\d.e+-]+")
    for cell in (cell for row in rows for cell in row.values()):
        assert numbers.fullmatch(cell) or not re.match(r"\s*[=+\-@＝]", cell), cell  # noqa: RUF001
    assert len(list(csv.DictReader(io.StringIO(format_verdict(verdict_of(ranking), "csv"))))) == 3


def test_negative_numbers_stay_numbers() -> None:
    ranking = ranking_of("plain")
    worse = dataclasses.replace(
        ranking.checkpoints[0].scores["linear_probe"], value=-0.5, low=-1.0, high=-0.25
    )
    row = dataclasses.replace(ranking.checkpoints[0], scores={"linear_probe": worse})
    text = format_ranking(dataclasses.replace(ranking, checkpoints=(row,)), "csv")
    assert next(csv.DictReader(io.StringIO(text)))["linear_probe"] == "-0.5"


@hostile
def test_json(name: str) -> None:
    text = format_ranking(ranking_of(name), "json")
    check_log(text)
    assert json.loads(text)["best"] == name
    assert harmless(text) == text


@hostile
def test_junit(name: str) -> None:
    text = junit_text(verdict_of(ranking_of(name)))
    root = ElementTree.fromstring(text.encode())
    said = [e.get("message") or e.text or "" for e in root.iter() if e.tag != "testcase"]
    assert [e.tag for e in root.iter("testcase")] == 3 * ["testcase"]
    assert any(shown(name, None) in one for one in said)


@hostile
def test_annotations(name: str) -> None:
    lines = annotations(ranking_of(name), verdict_of(ranking_of(name)))
    starts = [re.match(r"::(error|warning|notice) title=[^:,]*::", line) for line in lines]
    assert len(lines) == 4 and all(starts)
    for line, start in zip(lines, starts, strict=True):
        check_log(line[start.end() :].replace("::", ""))
        assert not re.search(r"%(?!25)", line[start.end() :])


def test_outputs_are_exact_or_refused() -> None:
    plain = step_outputs(ranking_of("a b"), None, None)
    assert plain.startswith("best-path=") and "a b" in plain.split("\n")[0]
    with pytest.raises(OutputError, match="best-path is refused") as refused:
        step_outputs(ranking_of("a\ndecision=pass"), None, None)
    assert refused.value.exit_code == 3


@hostile
def test_inspect(name: str) -> None:
    found = [
        Checkpoint(name, Path(f"/x/{name}"), weights_key=name, problem=f"{name} is odd", epoch=1.0),
        Checkpoint("b", Path("/x/b"), copy_of=name),
    ]
    for form, width in (("table", None), ("table", 80), ("table", 20), ("md", None)):
        check_log(harmless(checkpoints_text(found, form, width)))
    assert visible(name) in harmless(checkpoints_text(found, "table"))
    text = checkpoints_text(found, "csv")
    check_log(harmless(text))
    assert next(csv.DictReader(io.StringIO(text)))["name"] == csv_cell(name)
    assert json.loads(checkpoints_text(found, "json"))[0]["name"] == name


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter = Counter()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags[tag] += 1
        self.tags.update(f"{tag} {name}" for name, _ in attributes)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def elements(name: str) -> _Elements:
    found = _Elements()
    text = page(ranking_of(name), [])
    text.encode()
    text = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    found.feed(text)
    return found


@hostile
def test_page(name: str) -> None:
    here = elements(name)
    assert here.tags == elements("plain").tags
    words = "".join(here.words)
    check_log(re.sub(r"(?m)^\s*::|##(?=[\w.-]*\[)", "", words))  # a page is no log
    assert shown(name, None) in words


@hostile
def test_notebook(name: str) -> None:
    found = _Elements()
    found.feed(ranking_of(name)._repr_html_())
    assert set(found.tags) == {"p", "table", "thead", "tr", "th", "tbody", "td"}
    check_log(re.sub(r"(?m)^\s*::|##(?=[\w.-]*\[)", "", "".join(found.words)))


def test_charts_show_names(tmp_path: Path) -> None:
    """Names that are not Unicode would stop the library that draws."""
    from ckptsel.report.charts import draw
    from ckptsel.report.page import write_figures

    drawings = draw(ranking_of("a\udcff\u202e<b>"), {})
    (first, *_) = write_figures(tmp_path, drawings[:1], "svg")
    assert "\\u202e" in first.read_text() or "\\udcff" in first.read_text()


# ---- what is said on stderr ----------------------------------------------------------------------


@hostile
@pytest.mark.parametrize("terminal", [False, True], ids=["log", "terminal"])
def test_progress(name: str, terminal: bool, capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "1000")
    with Progress(name, 2) as progress:
        progress.advance(name)
        progress.advance(name)
    standing = Standing(name)
    with Board("fe", [name], 1, [10]) as board:
        board.note(name)
        board.standing(standing)
    text = capsys.readouterr().err
    if terminal:
        text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", text)  # rich's own
    else:
        assert text.count("\n") == 4
    check_log(text if not terminal else re.sub(r"(?m)^\s*::|##(?=[\w.-]*\[)", "", text))
    assert visible(name) in text or shown(name, MAX_CELL) in text or len(name) > MAX_CELL


@hostile
def test_errors(name: str, run, monkeypatch) -> None:
    from ckptsel.cli import inspect

    def raising(options: object) -> None:
        raise InputError(f"{name} is odd:", *listed_below([name, name]), "Rename it.")

    monkeypatch.setattr(inspect, "_run", raising)
    code, out, err = run("inspect", "x")
    check_log(err)
    lines = err.split("\n")
    assert (code, out, len(lines)) == (3, "", 5)
    assert lines[0].startswith("error: ") and lines[3] == "Rename it."


def test_a_crash_is_shown_too(run, monkeypatch) -> None:
    from ckptsel.cli import inspect

    def raising(options: object) -> None:
        raise RuntimeError("a\n::error::\x1b[2J##[error]")

    monkeypatch.setattr(inspect, "_run", raising)
    code, out, err = run("inspect", "x")
    assert (code, out) == (1, "") and err.startswith("Traceback")
    check_log(err)


def test_what_was_typed(run) -> None:
    code, out, err = run("inspect", "a", "b\n::error::x", "c\x1b[2J")
    assert (code, out) == (2, "")
    check_log(err)
    assert err.startswith("Usage: ")


# ---- commands, whole -----------------------------------------------------------------------------


def named_files(folder: Path) -> list[str]:
    """A file, which is no checkpoint, for every name that a file can have."""
    folder.mkdir()
    made = []
    for name in HOSTILE.values():
        file = os.fsdecode(name.encode("utf-8", "surrogatepass"))
        if 0 < len(os.fsencode(file)) < 200 and not {"/", "\0"} & set(file):
            (folder / f"{file}.pt").write_bytes(b"")
            made.append(file)
    return made


def test_inspect_of_a_folder(run, tmp_path: Path) -> None:
    names = named_files(tmp_path / "ckpts")
    assert len(names) > 40
    for form in ("table", "md", "csv", "json"):
        code, out, err = run("inspect", tmp_path / "ckpts", "-f", form)
        assert code == 0
        check_log(out)
        check_log(err)
    paths = {row["path"] for row in json.loads(out)}
    assert paths == {str(tmp_path / "ckpts" / f"{name}.pt") for name in names}
    code, out, err = run("rank", tmp_path / "ckpts", "-d", "x", "--model", "resnet18")
    assert (code, out) == (3, "")
    check_log(err)


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_rank_gate_report_of_hostile_files(
    run, trajectory: Path, images: Path, tmp_path: Path, monkeypatch
) -> None:
    evil = ("a\udcffb-1", "\n::error::-5", "[b]<b>\x1b[2J-10")
    for path, name in zip(sorted(trajectory.iterdir()), evil, strict=True):
        path.rename(path.with_name(f"{name}.safetensors"))
    for variable in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (images / "train" / "class0").rename(images / "train" / "=\n::error::")
    (images / "val" / "class0").rename(images / "val" / "=\n::error::")
    out = tmp_path / "run"
    scores = ("--scores", "linear_probe")
    code, _, err = run("rank", trajectory, "-d", images, "-o", out, *scores)
    check_log(err)
    assert code == 3 and "best-path is refused" in err  # all else was written
    rows = json.loads((out / "ranking.json").read_text())["checkpoints"]
    assert "a\\udcffb-1" in {row["name"] for row in rows}  # names are Unicode, paths are not
    assert (out / "report.html").is_file() and not (tmp_path / "GITHUB_OUTPUT").exists()
    assert "recommended" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    monkeypatch.delenv("GITHUB_OUTPUT")
    for command in (
        ("rank", trajectory, "-d", images, *scores),
        ("rank", trajectory, "-d", images, *scores, "-q", "-f", "md", "--explain"),
        ("gate", out, "--min-accuracy", "0", "--junit", tmp_path / "junit.xml"),
        ("report", out),
        ("pick", out, "--format", "json"),
        ("pick", out, "--checkpoint", "nope"),
    ):
        code, text, err = run(*command)
        assert code == (2 if "nope" in command else 0), err
        check_log(text)
        check_log(err)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a\udcff", "::error::x", "a\u202eb"])
def test_pick_refuses_what_it_cannot_give(run, tmp_path: Path, monkeypatch, name: str) -> None:
    ranking = ranking_of(name)
    best = dataclasses.replace(ranking[ranking.best], path=name)
    rest = (row for row in ranking.checkpoints if row.name != ranking.best)
    write_ranking(tmp_path, dataclasses.replace(ranking, checkpoints=(best, *rest)), {})
    code, out, err = run("pick", tmp_path)
    assert (code, out) == (3, "") and "the path is refused" in err
    code, out, _ = run("pick", tmp_path, "--format", "json")
    assert code == 0 and json.loads(out)["path"] == name
