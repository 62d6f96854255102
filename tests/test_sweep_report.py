"""The report of a sweep, opened in a real browser."""

import itertools
import json
import math
import os
import random
import shlex
import shutil
import statistics
from pathlib import Path

import pytest

from pathlab.sweep.report import write_report

GRID = {
    "model": ["linear", "mlp", "cnn"],
    "learning_rate": [0.003, 0.001, 0.0003],
    "weight_decay": [0, 0.0001],
}
QUALITY = {"linear": 0.4, "mlp": 0.5, "cnn": 0.8}
SIZES = {"linear": 21_177, "mlp": 310_000, "cnn": 287_000}
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"quoted\" 'twice' & $title",
    "<b>b</b> %{x} übung 漢字",
]


def part(name="classification_main", **changes) -> dict:
    return {
        "name": name,
        "script": f"{name}.py",
        "params": GRID,
        "fixed": {"max_steps": 100},
        "metric": "best_val_acc",
        "direction": "maximize",
        "seeds": [0, 1, 2],
    } | changes


def write_sweep(folder: Path, *parts: dict, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sweep = {"parts": list(parts), "search": "grid", "trials": None, "pruner": "none"} | changes
    (folder / "sweep.json").write_text(json.dumps(sweep))
    return folder


def add_trial(folder: Path, part: dict, number: int, seed, params: dict, **changes) -> dict:
    """Write one trial's folder. `epochs` (4) rows in metrics.csv, `results` for results.json."""
    name = changes.pop("name", f"{part['name']}-{number:03d}-{seed}")
    epochs, results = changes.pop("epochs", 4), changes.pop("results", {})
    trial = {"part": part["name"], "number": number, "seed": seed, "params": params}
    trial |= {"state": "complete", "value": 0.5, "seconds": 12.3, "error": None, "folder": name}
    trial |= changes
    place = folder / "trials" / name
    place.mkdir(parents=True)
    (place / "trial.json").write_text(json.dumps(trial))
    column = part["metric"].removeprefix("best_")
    value = trial["value"] or 0.3
    rows = [f"{e},{1 / e},{value * (1 - math.exp(-e))!r}" for e in range(1, epochs + 1)]
    (place / "metrics.csv").write_text("\n".join([f"epoch,train_loss,{column}", *rows, ""]))
    if trial["state"] == "complete":
        (place / "results.json").write_text(json.dumps(results))
    return trial


def fill(folder: Path, part: dict, seed: int, failing: float = 0.1, most: int = 10**6) -> list:
    """Random trials for the whole grid; the model decides nearly everything."""
    rng, trials = random.Random(seed), []
    for number, values in enumerate(itertools.product(*part["params"].values())):
        params = dict(zip(part["params"], values, strict=True))
        for trial_seed in part["seeds"] or [None]:
            if len(trials) == most:
                return trials
            model = params.get("model")
            value = QUALITY.get(model, 0.6) + rng.gauss(0, 0.02)
            state = rng.choice(["failed", "pruned"]) if rng.random() < failing else "complete"
            lost = {"value": None, "state": state, "error": "Traceback\nRuntimeError: <lost>"}
            results = {"task": "classification", "model": model, "test_acc": value - 0.01}
            results |= {"parameters": SIZES.get(model), "train_seconds": rng.uniform(5, 80)}
            kept = {"value": value, "results": results, "seconds": rng.uniform(5, 90)}
            changes = kept if state == "complete" else lost
            trials.append(add_trial(folder, part, number, trial_seed, params, **changes))
    return trials


def grouped(trials: list) -> dict[str, list[float]]:
    """The values of the complete trials of each configuration."""
    groups: dict[str, list[float]] = {}
    for trial in trials:
        if trial["state"] == "complete":
            groups.setdefault(json.dumps(trial["params"]), []).append(trial["value"])
    return groups


def best_of(groups: dict[str, list[float]]) -> str:
    most = max(map(len, groups.values()))
    return max((k for k in groups if len(groups[k]) == most), key=lambda k: sum(groups[k]) / most)


class Opened:
    """A report in the browser, with all that it complained of or asked for."""

    def __init__(self, browser, folder: Path, width: int = 1200, **options):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.problems, self.requests = [], []
        self.page.on("console", lambda m: m.type == "error" and self.problems.append(m.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda d: (self.problems.append(d.message), d.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = write_report(folder).as_uri()
        self.page.goto(self.url)
        self.page.evaluate("window.drawn")

    def assert_quiet(self) -> None:
        assert self.problems == []
        assert self.requests == [self.url]
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"the page is {wide} pixels wider than its window"

    def table(self, title: str, place: int = 0) -> list[dict[str, str]]:
        """The visible rows of the table under a heading; exact numbers, not rounded ones."""
        return self.page.evaluate(
            """([title, place]) => {
                const heading = [...document.querySelectorAll("h2, h3")]
                    .filter(h => h.textContent === title)[place];
                const table = heading.parentElement.querySelector("table");
                const head = [...table.tHead.rows[0].cells].map(c => c.textContent);
                return [...table.tBodies[0].rows].filter(r => !r.hidden).map(r =>
                    Object.fromEntries([...r.cells].map((c, i) =>
                        [head[i], c.dataset.value ?? c.textContent])));
            }""",
            [title, place],
        )

    def section(self, title: str):
        return self.page.locator("section", has=self.page.locator(f"> h3:text-is('{title}')")).last

    def click_head(self, section: str, column: str) -> str:
        head = self.section(section).locator("th", has_text=column).first
        head.locator("button").click()
        return head.get_attribute("aria-sort")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium or google-chrome on this machine")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder with a full grid of one part, and its trials."""
    folder = write_sweep(tmp_path_factory.mktemp("sweep"), part())
    return folder, fill(folder, part(), seed=1)


@pytest.fixture(scope="module")
def opened(browser, sweep):
    return Opened(browser, sweep[0])


def test_the_page_draws_everything_and_asks_for_nothing(opened):
    opened.assert_quiet()
    marks = opened.page.eval_on_selector_all(
        "[data-figure]",
        "all => all.map(f => f.querySelectorAll('svg .point, svg path.js-line').length)",
    )
    assert len(marks) == 7  # architectures, curves, importance, parallel, three slices
    assert min(marks) > 0


def test_pictures_can_be_saved_under_the_content_security_policy(opened):
    for kind in ("png", "svg"):
        command = f"Plotly.toImage(document.querySelector('[data-figure]'), {{format: '{kind}'}})"
        assert opened.page.evaluate(command).startswith(f"data:image/{kind}")
    assert opened.problems == []
    blocked = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')"
    assert opened.page.evaluate(blocked) == "refused"
    assert "Content Security Policy" in " ".join(opened.problems)
    opened.problems.clear()


def test_specs_are_valid_plotly_figures(sweep):
    graph_objects = pytest.importorskip("plotly.graph_objects")
    text = write_report(sweep[0]).read_text(encoding="utf-8")
    specs = json.loads(text.split('id="figures">')[1].split("</script>")[0])
    assert len(specs) == 7
    for spec in specs:
        graph_objects.Figure(spec)  # raises for a property or a value that plotly does not know


def test_configurations_equal_a_computation_by_hand(opened, sweep):
    groups = grouped(sweep[1])
    rows = opened.table("Configurations")
    assert len(rows) == 18
    for row in rows:
        params = {name: row[name] for name in GRID}
        values = next(
            v for k, v in groups.items() if {n: str(x) for n, x in json.loads(k).items()} == params
        )
        assert float(row["mean best_val_acc"]) == pytest.approx(statistics.mean(values), abs=1e-12)
        if len(values) > 1:
            sd = float(row["standard deviation"])
            assert sd == pytest.approx(statistics.stdev(values), abs=1e-12)
        assert (float(row["min"]), float(row["max"])) == (min(values), max(values))
        assert int(row["n"]) == len(values)


def test_trials_are_all_there_and_sort_both_ways(opened, sweep):
    rows = opened.table("Trials")
    assert len(rows) == len(sweep[1]) == 54
    for column, as_key in (("best_val_acc", float), ("model", str), ("learning_rate", float)):
        filled = [as_key(row[column]) for row in rows if row[column] != ""]
        assert opened.click_head("Trials", column) == "ascending"
        up = [row[column] for row in opened.table("Trials")]
        assert [as_key(value) for value in up if value != ""] == sorted(filled)
        assert opened.click_head("Trials", column) == "descending"
        down = [row[column] for row in opened.table("Trials")]
        assert [as_key(value) for value in down if value != ""] == sorted(filled, reverse=True)
        empty = len(rows) - len(filled)
        assert all(value == "" for value in up[54 - empty :] + down[54 - empty :])
    assert opened.section("Trials").locator("[aria-sort=descending]").count() == 1


def test_filters(opened, sweep):
    section = opened.section("Trials")
    section.locator("input").fill("CNN 0.0003")
    wanted = [t for t in sweep[1] if t["params"]["model"] == "cnn"]
    wanted = [t for t in wanted if t["params"]["learning_rate"] == 0.0003]
    assert len(opened.table("Trials")) == len(wanted) == 6
    assert section.locator("output").text_content() == "6 of 54 rows"
    section.locator("input").fill("")
    section.locator("select").select_option("failed")
    assert {row["state"] for row in opened.table("Trials")} == {"failed"}
    failed = sum(t["state"] == "failed" for t in sweep[1])
    assert len(opened.table("Trials")) == failed > 0
    section.locator("select").select_option("")
    assert len(opened.table("Trials")) == 54


def test_best_configuration_and_its_commands(opened, sweep):
    groups = grouped(sweep[1])
    winner = best_of(groups)
    text = opened.section("Best configuration").text_content()
    mean, sd = statistics.mean(groups[winner]), statistics.stdev(groups[winner])
    assert f"best_val_acc {mean:.4f} ± {sd:.4f}" in text
    commands = opened.page.locator("pre.command").text_content().splitlines()
    for seed, command in enumerate(commands):
        words = ["python", "classification_main.py", "--max-steps", "100"]
        for name, value in json.loads(winner).items():
            words += ["--" + name.replace("_", "-"), str(value)]
        assert shlex.split(command) == [*words, "--seed", str(seed)]
    assert len(commands) == 3


def test_ablation_equals_brute_force(opened, sweep):
    groups = grouped(sweep[1])
    winner = best_of(groups)
    wanted = {}
    for other, values in groups.items():
        a, b = json.loads(winner), json.loads(other)
        changed = [name for name in GRID if a[name] != b[name]]
        if len(changed) == 1:
            wanted[changed[0], str(b[changed[0]])] = values
    head, *rows = opened.table("Ablation")
    assert head["parameter"] == "best"
    assert float(head["mean ± sd"]) == pytest.approx(statistics.mean(groups[winner]))
    assert {(row["parameter"], row["changed to"]) for row in rows} == set(wanted)
    for row in rows:
        values = wanted[row["parameter"], row["changed to"]]
        difference = statistics.mean(values) - statistics.mean(groups[winner])
        assert float(row["difference"]) == pytest.approx(difference, abs=1e-12)
        assert int(row["n"]) == len(values)


def test_architectures_equal_a_computation_by_hand(opened, sweep):
    rows = {row["model"]: row for row in opened.table("Architectures")}
    assert set(rows) == set(GRID["model"])
    for model, row in rows.items():
        groups = grouped([t for t in sweep[1] if t["params"]["model"] == model])
        values = groups[best_of(groups)]
        assert float(row["best mean ± sd"]) == pytest.approx(statistics.mean(values))
        assert float(row["test mean ± sd"]) == pytest.approx(statistics.mean(values) - 0.01)
        assert int(row["parameters"]) == SIZES[model]
        assert row["task"] == "classification"


def importance(opened) -> tuple[dict[str, str], str]:
    """The bars' labels, largest first, and the text above them."""
    section = opened.section("Importance of the parameters")
    names = section.locator(".ytick text").all_text_contents()[::-1]  # drawn from below
    shares = section.locator(".bartext").all_text_contents()[::-1]
    return dict(zip(names, shares, strict=True)), section.locator(".quiet").text_content()


def test_the_parameter_that_decides_is_the_important_one(opened):
    shares, text = importance(opened)
    first, *_ = shares
    assert first == "model" and int(shares["model"].rstrip("%")) > 90
    assert "exact on this complete grid of 18 configurations" in text


@pytest.mark.parametrize("complete", [True, False])
def test_interactions_are_no_parameters_importance(browser, tmp_path, complete):
    """0.5 + 0.3 (a xor b) + 0.002 c: by themselves, a and b explain nothing, and c nearly so."""
    xor = part(params={"a": [0, 1], "b": [0, 1], "c": [*range(8)]}, seeds=[])
    folder = write_sweep(tmp_path, xor)
    for number, (a, b, c) in enumerate(itertools.product(*xor["params"].values())):
        if complete or number != 5:
            params = {"a": a, "b": b, "c": c}
            add_trial(folder, xor, number, None, params, value=0.5 + 0.3 * (a ^ b) + 0.002 * c)
    shares, text = importance(Opened(browser, folder))
    numbers = {name: float(share.strip("<% ")) for name, share in shares.items()}
    assert list(shares)[-1] == "interactions, noise" and numbers["interactions, noise"] > 70
    if complete:
        assert [shares[name] for name in "abc"] == ["< 1%"] * 3
    else:
        assert "estimated by fANOVA from 31 configurations" in text


def test_pruned_configurations_are_said_to_be_left_out_of_the_importance(browser, tmp_path):
    some = part(params={"x": [1, 2, 3], "y": [1, 2, 3]}, seeds=[])
    folder = write_sweep(tmp_path, some, pruner="median")
    for number, (x, y) in enumerate(itertools.product([1, 2, 3], repeat=2)):
        state = {"state": "pruned", "value": None} if x == 3 else {"value": x + 0.1 * y}
        add_trial(folder, some, number, None, {"x": x, "y": y}, **state)
    _, text = importance(Opened(browser, folder))
    assert "grid of 6 configurations" in text
    assert "3 configurations that were pruned, failed or still run are left out" in text


def test_dark_pages_are_readable(browser, sweep):
    page = Opened(browser, sweep[0], color_scheme="dark").page
    colours = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    ink, ground = page.locator("body").evaluate(colours)
    assert brightness(ink) - brightness(ground) > 500
    _, figure = page.locator(".figure").first.evaluate(colours)
    assert brightness(figure) == 3 * 255, "figures stay as they are saved"


def brightness(colour: str) -> int:
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(", ")))


def test_a_click_on_a_value_keeps_the_lines_through_it(opened):
    click = """value => {
        const figure = document.querySelector("[aria-label=parallel]");
        for (const [t, trace] of figure.data.entries()) {
            const point = trace.customdata.findIndex(c => c && c[1] === 0 && c[2] === value);
            if (point >= 0) {
                figure.emit("plotly_click", {points: [{customdata: trace.customdata[point]}]});
                break;
            }
        }
        return figure.data.map(t => t.customdata.filter((c, i) => c && c[1] === 0
            && t.y[i] !== null).map(c => c[2])).flat();
    }"""
    assert opened.page.evaluate(click, 2) == [2] * 6  # cnn: 3 learning rates x 2 decays
    assert sorted(opened.page.evaluate(click, 2)) == [0] * 6 + [1] * 6 + [2] * 6


def test_narrow_screens_and_several_parts(browser, tmp_path):
    second = part("segmentation_main", metric="best_val_iou", params={"base_channels": [8, 16]})
    loss = part("toy", metric="loss", direction="minimize", seeds=[])
    folder = write_sweep(tmp_path, part(), second, loss)
    for seed, one in enumerate((part(), second, loss)):
        fill(folder, one, seed)
    opened = Opened(browser, folder, width=420)
    opened.assert_quiet()
    assert opened.page.locator("section.part").count() == 3
    losses = [
        float(r["mean loss"]) for r in opened.table("Configurations", 2) if r["mean loss"] != ""
    ]
    assert losses == sorted(losses)  # lower is better
    assert "Fewer than two parameters vary" in opened.page.content()


def test_hostile_text_is_text_only(browser, tmp_path):
    params = {"model": HOSTILE, "<i>lr</i>": [0.1, 0.2]}
    evil = part("<u>evil</u>", params=params, fixed={"x": HOSTILE[0]}, metric="<s>m</s>", seeds=[0])
    folder = write_sweep(tmp_path / "<img src=y>", evil, search=HOSTILE[0], pruner=HOSTILE[1])
    for number, (model, rate) in enumerate(itertools.product(HOSTILE, [0.1, 0.2])):
        add_trial(
            folder,
            evil,
            number,
            0,
            {"model": model, "<i>lr</i>": rate},
            value=0.1 * number,
            results={"model": model, "task": HOSTILE[1], "parameters": 3},
            name=f"t{number}' onclick='alert(1)",
        )
    for number, text in enumerate([*HOSTILE, "\ud800 alone \x1b[31mred\x1b[0m"], start=20):
        changes = {"state": "failed", "value": None, "error": text, "name": f"f{number}"}
        add_trial(folder, evil, number, 0, {"model": "x", "<i>lr</i>": number}, **changes)
    opened = Opened(browser, folder)
    opened.assert_quiet()
    assert {row["model"] for row in opened.table("Trials")} == {*HOSTILE, "x"}
    opened.page.locator(".failures summary").click()
    errors = opened.page.locator(".failures pre").all_text_contents()
    assert errors == [*HOSTILE, "? alone red"]
    made = "img, u, i, s, main b b, svg a, svg b, [onclick], [onerror], main script"
    assert opened.page.locator(made).count() == 0
    ticks = " ".join(opened.page.locator("svg text").all_text_contents())
    assert "<script>alert(1)" in ticks and "<b>b</b> %{x}" in ticks
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<" not in text.split('id="figures">')[1].split("</script>")[0]
    command = opened.page.locator("pre.command").text_content()
    assert shlex.split(command)[2:4] == ["--x", HOSTILE[0]]
    opened.page.locator(".scatterlayer .point").first.hover(force=True)
    opened.assert_quiet()


def test_damaged_and_missing_files_are_noted(browser, tmp_path):
    folder = write_sweep(tmp_path, part())
    trials = fill(folder, part(), seed=2, failing=0)
    places = sorted((folder / "trials").iterdir())
    (places[0] / "trial.json").write_text('{"part": "classif')
    (places[1] / "trial.json").write_text("[1, 2]")
    (places[2] / "trial.json").write_text('{"part": 3, "params": [], "state": []}')
    (places[3] / "trial.json").unlink()
    (places[4] / "metrics.csv").write_bytes(b"\xff\xfe\x00broken")
    (places[5] / "metrics.csv").write_text("epoch,val_acc\n1,abc\n2\nnan,0.5\n3,inf\n4,0.5\n")
    (places[6] / "metrics.csv").unlink()
    (places[7] / "results.json").write_text("[" * 100_000)
    (places[8] / "results.json").unlink()
    strange = json.loads((places[9] / "trial.json").read_text()) | {"value": math.nan}
    (places[9] / "trial.json").write_text(json.dumps(strange))
    strange |= {"value": 10**400, "number": "nine", "seed": {"a": 1}, "seconds": "x", "error": 3}
    (places[9] / "trial.json").write_text(json.dumps(strange))
    unknown = {"part": "other", "params": {"p": [1]}, "state": "complete", "value": True}
    (places[10] / "trial.json").write_text(json.dumps(unknown))
    (folder / "trials" / "a file").write_text("")
    opened = Opened(browser, folder)
    opened.assert_quiet()
    notes = opened.page.locator(".notes").text_content()
    for word in ("000-0/trial.json", "000-1/trial.json", "000-2/trial.json", "finite", "other"):
        assert word in notes
    assert "1 running or interrupted" in opened.page.locator(".counts").text_content()
    assert len(opened.table("Trials")) == len(trials) - 5
    (folder / "sweep.json").write_text("{")
    Opened(browser, folder).assert_quiet()
    (folder / "sweep.json").write_text('{"parts": [{"name": 1, "params": 2, "seeds": 3}, 4]}')
    Opened(browser, folder).assert_quiet()


@pytest.mark.parametrize(
    "case", ["nothing", "no trial", "failed only", "one", "equal", "two in one parameter", "ranges"]
)
def test_small_sweeps(browser, tmp_path, case):
    some = part(params={"model": ["mlp", "cnn"], "lr": {"low": 1e-5, "high": 0.1, "log": True}})
    folder = write_sweep(tmp_path / "sweep", some, search="random", trials=30)
    rng = random.Random(3)
    shutil.rmtree(folder) if case == "nothing" else None
    folder.mkdir(exist_ok=True)
    count = {"failed only": 3, "one": 1, "equal": 8, "two in one parameter": 2, "ranges": 30}
    for number in range(count.get(case, 0)):
        model = rng.choice(["mlp", "cnn"]) if case == "ranges" else "mlp"
        params = {"model": model, "lr": 10 ** rng.uniform(-5, -1)}
        value = 0.5 if case == "equal" else rng.random()
        state = "failed" if case == "failed only" else "complete"
        changes = {"value": None if state == "failed" else value, "state": state, "epochs": 1}
        add_trial(folder, some, number, None, params, **changes)
    opened = Opened(browser, folder)
    opened.assert_quiet()
    figures = opened.page.locator("[data-figure]").count()
    assert (figures > 0) == (case not in ("nothing", "no trial"))
    if case == "ranges":
        assert opened.page.locator(".xtitle:text('log scale')").count() == 1
    if case == "no trial":
        assert "No trial is complete yet" in opened.page.content()


def test_a_thousand_trials(browser, tmp_path):
    params = {"model": ["linear", "mlp", "cnn"], "learning_rate": [10**-k for k in range(1, 8)]}
    large = part(params=params | {"width": list(range(8, 88, 5))})
    folder = write_sweep(tmp_path, large)
    fill(folder, large, seed=5, most=1000)
    opened = Opened(browser, folder)
    opened.assert_quiet()
    assert len(opened.table("Trials")) == 1000
    assert opened.page.locator("[aria-label=curves] .js-line").count() < 1000


def test_a_repeated_run_and_a_lucky_seed_count_for_little(tmp_path):
    some = part(params={"model": ["a", "b"]}, seeds=[0, 1])
    folder = write_sweep(tmp_path, some)
    for seed, value in ((0, 0.5), (1, 0.7)):
        add_trial(folder, some, 0, seed, {"model": "a"}, value=value)
    add_trial(folder, some, 5, 1, {"model": "a"}, value=0.7)  # the same run once more
    add_trial(folder, some, 1, 0, {"model": "b"}, value=0.9)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "0.6000 ± 0.1414" in text and "n = 2" in text
    assert "Configuration #1 has a better mean, from fewer seeds" in text


def test_a_full_disk_leaves_the_old_report(tmp_path, monkeypatch):
    from pathlab.errors import UserError

    folder = write_sweep(tmp_path, part())
    before = write_report(folder).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "sweep.json"]
