"""The report: what it says, its figures, and the page itself in a real browser without a network."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ckptsel.report.charts import draw
from ckptsel.report.command import rank_command
from ckptsel.report.page import PAGE_NAME, write_page
from ckptsel.report.series import (
    agreement_records,
    choose_axis,
    landmark_records,
    spectrum_records,
    tie_records,
    trajectory_records,
)
from ckptsel.results.ranking import Ranking

CONFIRMED = Path(__file__).parents[1] / "reference_runs/cifar10-mnist-small/seed0/mnist-1000"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def confirmed() -> Ranking:
    """A ranking of 14 real checkpoints, all of them confirmed for both goals."""
    return Ranking.from_dict(json.loads((CONFIRMED / "ranking.json").read_text()))


def spectra(ranking: Ranking, n: int = 128) -> dict[str, np.ndarray]:
    """Singular values that fall by a tenth each."""
    values = 0.9 ** np.arange(n, dtype=np.float32)
    return {f"{row.name}/main_component/singular_values": values for row in ranking}


def test_every_score_is_a_series_with_the_numbers_of_the_ranking(confirmed: Ranking) -> None:
    axis = choose_axis(confirmed)
    records = trajectory_records(confirmed, axis)
    by_key = {(r["series"], r["checkpoint"]): r for r in records}
    row = confirmed["checkpoint-005"]
    probe, trained = by_key["linear_probe", row.name], by_key["confirmed_ft", row.name]
    assert (axis.name, axis.is_log, probe["x"]) == ("epoch", True, 5)
    assert probe["low"] == pytest.approx(100 * row.scores["linear_probe"].low)
    assert trained["value"] == pytest.approx(100 * row.confirmed["ft"].accuracy.value, abs=1e-3)
    assert by_key["logme", row.name]["low"] is None
    assert len(records) == 14 * (len(row.scores) + 2 + 1)


def test_a_race_that_ended_early_is_drawn_at_its_last_step(confirmed: Ranking) -> None:
    """Of those that left before, nothing is drawn beside it: their accuracy is that of fewer steps."""
    rows = list(confirmed)
    steps = [333, 333, *[111] * (len(rows) - 2)]
    for i, (row, step) in enumerate(zip(rows, steps, strict=True)):
        standing = dataclasses.replace(row.confirmed["fe"], step=step)
        rows[i] = dataclasses.replace(row, confirmed={"fe": standing})
    early = dataclasses.replace(confirmed, checkpoints=tuple(rows))
    drawn = [
        record["checkpoint"]
        for record in trajectory_records(early, choose_axis(early))
        if record["series"] == "confirmed_fe"
    ]
    assert sorted(drawn) == sorted(row.name for row in rows[:2])


def test_charts_are_what_vega_lite_takes(confirmed: Ranking) -> None:
    """Checked here, since a page is drawn without: that takes as long as the drawing."""
    for drawing in draw(confirmed, spectra(confirmed)):
        drawing.chart.to_dict()


def test_landmarks_and_ties(confirmed: Ranking) -> None:
    axis = choose_axis(confirmed)
    landmarks = {r["label"]: r["x"] for r in landmark_records(confirmed, axis)}
    assert landmarks == {"best": 5, "best source": 60, "last": 120}
    assert sorted(r["x"] for r in tie_records(confirmed, axis)) == [2, 3, 5, 7]


def test_agreement_is_kendalls_tau_of_the_confirmed_run(confirmed: Ranking) -> None:
    taus = {(r["a"], r["b"]): r["tau"] for r in agreement_records(confirmed)}
    measured = confirmation_tau(confirmed, "fe", "linear_probe")
    assert taus["linear_probe", "confirmed_fe"] == pytest.approx(measured)
    assert taus["confirmed_fe", "linear_probe"] == taus["linear_probe", "confirmed_fe"]
    assert taus["epoch", "epoch"] == 1


def confirmation_tau(ranking: Ranking, goal: str, score: str) -> float:
    return ranking.confirmation[goal].agreement[score].kendall_tau.value


def test_the_cut_of_the_spectrum_is_where_the_main_component_ends(confirmed: Ranking) -> None:
    records = spectrum_records(confirmed, spectra(confirmed, 300))
    of_one = [r for r in records if r["checkpoint"] == "checkpoint-005"]
    # 1 - 0.9^k >= 0.8 from k = 16 on.
    assert [r["index"] for r in of_one if r["is_cut"]] == [16]
    assert len(of_one) <= 201
    assert of_one[-1]["cumulative"] == pytest.approx(100, abs=1e-3)


def test_a_real_ranking_carries_its_spectra(run, trajectory: Path, images: Path, tmp_path: Path):
    code, _, _ = run("rank", trajectory, "--data", images, "--out", tmp_path / "out", "-q")
    assert code == 0
    ranking = Ranking.from_dict(json.loads((tmp_path / "out/ranking.json").read_text()))
    arrays = load_file(tmp_path / "out/predictions.safetensors")
    cuts = {r["checkpoint"]: r["index"] for r in spectrum_records(ranking, arrays) if r["is_cut"]}
    for name, index in cuts.items():
        assert ranking[name].scores["main_component"].details["n_features"] == index
    assert "Use checkpoint-" in (tmp_path / "out" / PAGE_NAME).read_text()


def test_the_command_makes_the_ranking_again(confirmed: Ranking) -> None:
    command = rank_command(confirmed)
    assert command.startswith(f"ckptsel rank {confirmed.settings['checkpoints']} --data ")
    assert command.endswith("--model cifar_resnet18_w16_s2 --duplicates keep")


def test_the_command_names_what_is_not_at_its_default(run, trajectory, images, tmp_path) -> None:
    options = ["--goal", "ft", "--scores", "logme,linear_probe", "--strict", "--energy", "0.7"]
    run("rank", trajectory, "-d", images, "-o", tmp_path / "out", "-q", *options)
    ranking = Ranking.from_dict(json.loads((tmp_path / "out/ranking.json").read_text()))
    _, *words = rank_command(ranking).split()
    code, out, _ = run(*words, "--format", "json", "-q")
    again = json.loads(out)
    assert code == 0
    assert again["settings"] == json.loads(json.dumps(ranking.settings))
    assert "--scores logme,linear_probe --energy 0.7 --strict" in " ".join(words)


@pytest.mark.parametrize(
    ("form", "magic"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_figures(run, trajectory, images, tmp_path: Path, form: str, magic: bytes) -> None:
    run("rank", trajectory, "-d", images, "-o", tmp_path / "out", "-q", "--scores", "linear_probe")
    code, out, err = run("report", tmp_path / "out", "--figures", form)
    assert (code, err) == (0, "")
    written = [Path(line) for line in out.splitlines()]
    assert written[0] == tmp_path / "out" / PAGE_NAME
    assert f"trajectory-linear_probe.{form}" in [path.name for path in written]
    assert all(path.read_bytes().startswith(magic) for path in written[1:])


def test_wrong_ways_to_ask_for_a_report(run, tmp_path: Path) -> None:
    code, out, err = run("report", tmp_path, "--figures", "pgn")
    assert (code, out) == (2, "")
    assert "must be one of svg, png, pdf. Did you mean png?" in err
    code, out, err = run("report", tmp_path)
    assert (code, out) == (3, "")
    assert f"{tmp_path / 'ranking.json'} does not exist" in err
    (tmp_path / "ranking.json").write_text("{}")
    code, out, err = run("report", tmp_path)
    assert (code, out) == (3, "")
    assert "no ranking that this version reads" in err


def test_names_are_shown_and_not_run(confirmed: Ranking, tmp_path: Path) -> None:
    """A checkpoint may be called anything."""
    evil = "</script><script>alert(1)</script>"
    plain = json.dumps(confirmed.to_dict()).replace("checkpoint-005", evil)
    page = write_page(tmp_path, Ranking.from_dict(json.loads(plain)), {}).read_text()
    assert evil not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page


def test_a_notebook_shows_a_table(confirmed: Ranking) -> None:
    shown = confirmed._repr_html_()
    assert shown.count("<tr>") == 15
    assert (
        "<p>confirmed for fe: checkpoint-005 is recommended, 88.7 % [87.0, 90.4] expected on new "
        "images; the last is 6.8 points behind the best [" in shown
    )


def test_a_long_trajectory_of_wide_features_stays_small(confirmed: Ranking, tmp_path: Path) -> None:
    plain = confirmed.to_dict()
    rows = [
        {**plain["checkpoints"][i % 14], "name": f"{i:03d}-{plain['checkpoints'][i % 14]['name']}"}
        for i in range(14, 200)
    ]
    plain["checkpoints"] = [
        {**row, "epoch": order, "order": order}
        for order, row in enumerate([*plain["checkpoints"], *rows])
    ]
    ranking = Ranking.from_dict(plain)
    path = write_page(tmp_path, ranking, spectra(ranking, 2048))
    assert path.stat().st_size < 2e6


# ---- in a browser --------------------------------------------------------------------------------

POINTS = "svg .role-mark.mark-symbol path"

browser_only = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no chromium is installed"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory, confirmed: Ranking) -> Path:
    return write_page(tmp_path_factory.mktemp("report"), confirmed, spectra(confirmed))


@pytest.fixture
def page(chromium, page_file: Path) -> Iterator[object]:
    """The page, drawn."""
    with opened(chromium, page_file) as page:
        yield page


@contextlib.contextmanager
def opened(chromium, page_file: Path) -> Iterator[object]:
    """A page in the browser; in the end nothing may have been fetched or said on the console."""
    context = chromium.new_context(offline=True, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_selector("body[data-drawn=yes]", timeout=60_000)
    yield page
    fetched = [url for url in requests if not url.startswith(("data:", "blob:"))]
    context.close()
    assert set(fetched) == {page_file.as_uri()}
    assert complaints == []


@browser_only
def test_every_chart_has_marks(page, confirmed: Ranking) -> None:
    charts = page.locator(".chart")
    assert charts.count() == len(draw(confirmed, spectra(confirmed)))
    for i in range(charts.count()):
        marks = charts.nth(i).locator("svg .mark-symbol path, svg .mark-rect path")
        assert marks.count() >= 4, charts.nth(i).text_content()
    frozen = charts.nth(0)
    assert frozen.locator(POINTS).count() == 3 * 14
    label = frozen.locator("[role=graphics-document]").get_attribute("aria-label")
    assert label.startswith("frozen features: accuracy, %. Against the pre-training epoch.")
    texts = frozen.locator("svg text").all_text_contents()
    assert {"best", "last", "best source"} <= set(texts)


@browser_only
def test_a_series_is_switched_off_and_on(page) -> None:
    frozen = page.locator(".chart").nth(0)
    n_points = f"document.querySelectorAll('.chart')[0].querySelectorAll('{POINTS}').length"
    box = frozen.get_by_role("checkbox", name="main_component")
    box.uncheck()
    page.wait_for_function(f"{n_points} == 28")
    box.focus()
    page.keyboard.press("Space")
    page.wait_for_function(f"{n_points} == 42")


@browser_only
def test_pointing_at_a_mark_shows_its_values(page) -> None:
    point = page.locator(".chart").nth(0).locator(POINTS).last  # no other lies on it
    point.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert re.search(r"checkpoint-\d+.*95 % from", page.text_content("#vg-tooltip-element"))


def column(page, i: int) -> list[str]:
    return page.locator(f"tbody tr > :nth-child({i})").all_text_contents()


@browser_only
def test_the_table_sorts_by_mouse_and_by_key(page) -> None:
    assert column(page, 1)[:2] == ["*1", "2="]
    page.get_by_role("button", name="epoch", exact=True).click()
    assert column(page, 4)[:4] == ["1", "2", "3", "5"]
    assert page.get_attribute("thead th:nth-child(4)", "aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert column(page, 4)[:4] == ["120", "100", "80", "60"]
    page.get_by_role("button", name="confirmed_ft").click()
    first = [float(cell.split()[0]) for cell in column(page, 7)]
    assert first == sorted(first)


@browser_only
def test_the_path_is_copied(page) -> None:
    page.get_by_role("button", name="Copy path").click()
    page.wait_for_function("document.querySelector('.copied').textContent != ''")
    assert page.text_content("#path").endswith("seed0/checkpoints/checkpoint-005.safetensors")


@browser_only
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_light_and_in_dark(page, scheme: str) -> None:
    """By axe-core's rules, which measure the contrast of texts among others."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.emulate_media(color_scheme=scheme)
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    ink = page.evaluate("getComputedStyle(document.querySelector('.chart svg text')).fill")
    assert (ink == "rgb(27, 31, 36)") is (scheme == "light")


@browser_only
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_shadow_where_the_table_goes_on_is_seen_through_its_rows(page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    for place in ("tr.best", "tr.tied", "thead th"):
        colour = page.locator(place).first.evaluate("e => getComputedStyle(e).backgroundColor")
        alpha = re.search(r"[,/] ?(0\.\d+)\)$", colour)
        assert alpha and float(alpha[1]) <= 0.2, (place, colour)


@browser_only
def test_it_fits_a_phone(page) -> None:
    page.set_viewport_size({"width": 375, "height": 800})
    page.reload()
    page.wait_for_selector("body[data-drawn=yes]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    widths = page.locator(".chart svg").evaluate_all("all => all.map(e => e.clientWidth)")
    assert max(widths) <= 375


@browser_only
@pytest.mark.parametrize("options", [("--goal", "ft"), ("--scores", "logme,linear_probe")])
def test_rankings_that_lack_much(
    run, chromium, trajectory: Path, images: Path, tmp_path: Path, options: tuple[str, str]
) -> None:
    """No tie set, no spectrum, one checkpoint that failed, one that is a copy: no complaint."""
    (trajectory / "checkpoint-020.pt").write_bytes(b"nothing")
    shutil.copy(trajectory / "checkpoint-010.safetensors", trajectory / "last.safetensors")
    assert run("rank", trajectory, "-d", images, "-o", tmp_path / "out", "-q", *options)[0] == 0
    with opened(chromium, tmp_path / "out" / PAGE_NAME) as page:
        assert page.locator(".failed").count() == 1
        assert page.locator("tbody tr").count() == 5


@browser_only
def test_a_single_checkpoint(run, chromium, trajectory: Path, images, tmp_path: Path) -> None:
    only = trajectory / "checkpoint-005.safetensors"
    assert (
        run("rank", only, "-d", images, "-o", tmp_path / "out", "-q", "--scores", "logme")[0] == 0
    )
    with opened(chromium, tmp_path / "out" / PAGE_NAME) as page:
        assert page.text_content("h1") == "Use checkpoint-005"
        # Nothing is noted of any row: no wide column of nothing, to scroll by.
        inside, place = page.locator(".scroll").first.evaluate(
            "e => [e.scrollWidth, e.clientWidth]"
        )
        assert inside == place
