"""SteeringPlayground: its typed results headless, its behaviour in a real browser."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
from browsing import THEMES

import steerwidgets as sw
from steerwidgets.study.degeneration import repeated
from steerwidgets.study.results import COLUMNS, SweepResult
from steerwidgets.widgets import playground_state as state
from steerwidgets.widgets.state import unpacked

PROMPT = "one two three"
HOOK = "blocks.2.hook_resid_post"
EVIL = "<img src=x onerror=alert(1)>"


def vector(seed: int, name: str, features: bool = True) -> sw.SteeringVector:
    random = torch.Generator().manual_seed(seed)
    coefficients = torch.randn(40, generator=random) * (torch.rand(40, generator=random) < 0.2)
    return sw.SteeringVector(torch.randn(24, generator=random), HOOK, name, coefficients if features else None)


@pytest.fixture
def make(llama):
    """A playground with two vectors on the tiny model."""
    made = []

    def playground(vectors=None, **options):
        vectors = {"a": vector(0, "a"), "b": vector(1, "b")} if vectors is None else vectors
        given = {"prompt": PROMPT, "max_new_tokens": 6, "positions": "all", "off_target": ["The cat", "xyz"]}
        made.append(sw.SteeringPlayground(llama.model, vectors, **(given | options)))
        return made[-1]

    yield playground
    for widget in made:
        widget.close()
        widget.wait(10)


def suite() -> sw.TaskSuite:
    return sw.TaskSuite([sw.Task("echo", [PROMPT, "four five"], [" x", " y"], [" p", " q"])])


# Typed results, without a browser.


def test_the_table_of_the_page_is_what_the_model_says(llama, make):
    widget = make(doses={"a": 2.0, "b": -0.5}, track=65)
    widget.run()
    table = widget._table
    logprobs = unpacked(table["logprobs"])
    for stop in (0, 17, 40):
        steered = [sw.Add(widget.vectors["a"], table["stops"][stop], "all"), sw.Add(widget.vectors["b"], -0.5, "all")]
        expected = llama.model.logits(PROMPT, steered)[0].log_softmax(-1)[table["ids"]]
        assert torch.allclose(torch.tensor(logprobs[stop]), expected, atol=1e-4)
        assert widget.dose.tokens[stop][0] == llama.model.next_tokens(PROMPT, steered, k=1).token[0]
    without = llama.model.logits(PROMPT, sw.Add(widget.vectors["b"], -0.5, "all"))[0].log_softmax(-1)
    assert torch.allclose(torch.tensor(unpacked(table["without"])), without[table["ids"]], atol=1e-4)
    assert 65 in table["ids"]
    assert unpacked(widget._null["logprobs"]).shape == (20, 9, len(table["ids"]))
    assert widget._off_target["prompts"] == ["The cat", "xyz"]


def test_interventions_as_they_stand(make):
    widget = make(doses={"a": 2.0, "b": -0.5}, space="sae", error_term="drop", clamp=False, positions=[1, -1])
    first, second = widget.interventions
    assert first == sw.Add(widget.vectors["a"], 2.0, [1, -1], "sae", "drop", False)
    assert second.multiplier == -0.5
    widget.off = ["a"]
    assert [add.multiplier for add in widget.interventions] == [-0.5]


def test_generation_is_what_the_model_generates(llama, make):
    widget = make(doses={"a": 4.0})
    pair = widget.generation
    assert pair.baseline.ids == llama.model.generate(PROMPT, max_new_tokens=6).ids
    assert pair.steered.text == llama.model.generate(PROMPT, widget.interventions, max_new_tokens=6).text
    assert widget.generation is pair
    [run] = widget.runs
    assert run["vectors"] == {"a": 4.0, "b": 1.0} and run["steered"] == pair.steered.text
    assert run["finish"] == "length limit of 6 tokens" and run["positions"] == "all"
    assert json.loads(json.dumps(widget.runs)) == widget.runs
    [entry] = widget._texts["entries"]
    assert entry["repeated"] == repeated(pair.steered.ids)
    assert len(entry["plain"]) == len(entry["instead"]) == len(entry["tokens"])


def test_texts_along_the_slider(llama, make):
    widget = make({"a": vector(0, "a")})
    cost = widget.recording_cost((-2.0, 0.0, 3.0))
    assert (cost["texts"], cost["tokens"]) == (4, 24)
    found = widget.record((-2.0, 0.0, 3.0))
    for multiplier, generation in found.items():
        alone = llama.model.generate(PROMPT, sw.Add(widget.vectors["a"], multiplier, "all"), max_new_tokens=6)
        assert generation.text == alone.text
    assert [entry["multiplier"] for entry in widget._texts["entries"]] == [-2.0, 0.0, 3.0]
    assert len(json.dumps(widget._texts)) < 3 * cost["bytes"]
    with pytest.raises(ValueError, match=r"4 texts of up to 6 tokens are 24 tokens .* budget of 20"):
        widget.record((-2.0, 0.0, 3.0), budget=20)


def test_the_code_does_the_same(llama, make, monkeypatch, tmp_path: Path):
    made = sw.contrast(llama.model, ["one", "two"], ["six", "ten"], space="sae", read="last")
    bare = vector(1, "Bare one", features=False)
    for options in ({"space": "sae", "clamp": False, "off": ["bare"]}, {"doses": {"made": 3.0, "bare": -2.0}}):
        widget = make({"made": made, "bare": bare}, **options)
        monkeypatch.chdir(tmp_path)
        bare.save("bare-one.safetensors")
        names: dict[str, object] = {"model": llama.model}
        exec(widget.code.replace(f"model = {llama.model.origin}\n", ""), names)
        pair = widget.generate()
        assert (names["baseline"].ids, names["steered"].ids) == (pair.baseline.ids, pair.steered.ids)
        assert names["interventions"][0].space == widget.space


def test_the_code_samples_as_the_widget_does(llama, make):
    made = sw.feature_vector(llama.model, 7, 30.0)
    widget = make({"made": made}, temperature=1.5, seed=7, max_new_tokens=12)
    names: dict[str, object] = {"model": llama.model}
    exec(widget.code.replace(f"model = {llama.model.origin}\n", ""), names)
    pair = widget.generate()
    assert (names["baseline"].ids, names["steered"].ids) == (pair.baseline.ids, pair.steered.ids)
    greedy = llama.model.generate(PROMPT, max_new_tokens=12)
    assert pair.baseline.ids != greedy.ids
    widget.temperature = 0.0
    assert "seed" not in widget.code


def test_two_vectors_of_one_name_have_a_file_each(llama, make, monkeypatch, tmp_path: Path):
    one, other = vector(0, "same"), vector(1, "same")
    widget = make({"a": one, "b": other, "c": one})
    saving = [line.removeprefix("# Written by ") for line in widget.code.splitlines() if "# Written by" in line]
    assert len(saving) == 3
    monkeypatch.chdir(tmp_path)
    for line in saving:
        exec(line, {"interventions": widget.interventions})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["same-2.safetensors", "same.safetensors"]
    names: dict[str, object] = {"model": llama.model}
    exec(widget.code.replace(f"model = {llama.model.origin}\n", ""), names)
    for add, own in zip(names["interventions"], (one, other, one), strict=True):
        assert torch.equal(add.vector.direction, own.direction)


def test_the_sweep_of_the_active_vector(llama, make):
    widget = make(suite=suite(), active="b", multipliers=(-1.0, 0.0, 1.0))
    assert widget.prompt == PROMPT
    result = widget.sweep
    plain = sw.sweep(llama.model, suite(), {"b": widget.vectors["b"]}, positions="all")
    assert result.accuracy().equals(plain.accuracy())
    scores = widget._scores
    cells = plain.cells[(plain.cells.control == "none") & (plain.cells.task == "echo")]
    assert scores["tasks"] == ["mean of all tasks", "echo"]
    assert scores["accuracy"][1] == cells.groupby("multiplier").correct.mean().tolist()
    assert scores["held_out"][0] == pytest.approx(float(plain.accuracy()["mean"].iloc[0]))
    with pytest.raises(ValueError, match="there is no suite"):
        _ = make().sweep


def test_the_sweep_is_of_the_settings_in_force(make):
    widget = make(suite=suite(), multipliers=(-1.0, 0.0, 1.0))
    first = widget.sweep
    widget.prompt, widget.doses = "four five", {"a": 2.0, "b": 3.0}
    assert widget.sweep is first
    for name, value in {
        "active": "b",
        "positions": "last",
        "space": "sae",
        "error_term": "drop",
        "clamp": False,
    }.items():
        before = widget.sweep
        setattr(widget, name, value)
        assert widget.sweep is not before, name
    assert set(widget.sweep.cells[widget.sweep.cells.control == "none"].vector) == {"b"}
    assert widget.sweep.about["positions"] == "last"


def test_the_random_band_of_all_tasks_is_that_of_the_best_draw_over_all_tasks():
    """Two tasks and two draws, each right where the other is wrong: no draw does better than half over both."""
    cells = [
        (task, f"{task} {i}", "x", "v", control, draw, 1.0, "last", "x", right, 0.5, 0.0, 0.0)
        for i in range(2)
        for task, rights in {"one": (True, False), "two": (False, True)}.items()
        for control, draw, right in [("none", 0, True), ("unsteered", 0, False)]
        + [("random", draw, right) for draw, right in enumerate(rights)]
    ]
    scores = state.packed_scores(SweepResult(pd.DataFrame(cells, columns=COLUMNS), {"finished": True}), "v")
    assert scores["tasks"] == ["mean of all tasks", "one", "two"]
    assert scores["random_high"] == [0.5, 1.0, 1.0] and scores["random"] == [0.5, 0.5, 0.5]


def test_the_suite_says_which_token_to_follow(llama, make):
    table = (widget := make(suite=suite())).run() and widget._table
    assert llama.tokenizer.decode([table["automatic"]]).strip() or table["foil"] == -1
    assert table["automatic"] in table["ids"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vectors": []}, "several by name"),
        ({"vectors": {}}, "give at least one"),
        ({"multipliers": [1]}, "two or more"),
        ({"positions": slice(1, 3)}, "a name, an int or a list"),
        ({"active": "c"}, "there are a, b"),
        ({"doses": {"a": float("nan")}}, "not a finite number"),
        ({"doses": {"c": 1.0}}, "there are a, b"),
        ({"strength": 3}, "no option 'strength'"),
        ({"space": "features"}, "residual"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(make, options, words):
    with pytest.raises(Exception, match=words):
        make(**options)


def test_a_vector_that_another_widget_makes_is_followed(llama, make):
    maker = make({"x": vector(3, "x")})
    maker.add_traits(vector=__import__("traitlets").Any())
    maker._make("vector", vector(5, "made"))
    widget = make({"made": maker.vector, "b": vector(1, "b")}, doses={"made": 2.0})
    before = widget.dose
    maker._make("vector", vector(6, "made"))
    assert widget.vectors["made"] is maker.vector and widget.doses["made"] == 2.0
    assert not torch.allclose(widget.dose.probs, before.probs)


def test_two_makers_at_once_lose_nothing(make, monkeypatch):
    """The second maker comes between the first one's reading of the vectors and its writing."""
    widget = make()
    first, second = vector(7, "first"), vector(8, "second")
    other = threading.Thread(target=widget._successor, args=("b", second))
    check = state.named_vectors

    def slow(vectors: object) -> object:
        if not other.ident:
            other.start()
            other.join(0.3)
        return check(vectors)

    monkeypatch.setattr(state, "named_vectors", slow)
    widget._successor("a", first)
    other.join(10)
    assert widget.vectors == {"a": first, "b": second}


def test_a_fill_that_was_stopped_leaves_no_numbers_of_another_prompt(llama, make):
    widget = make()
    before = widget.dose
    widget._do_ready()
    widget.wait(60)
    done, going = threading.Event(), threading.Event()

    def wait(job: object) -> None:
        going.set()
        done.wait(10)

    # What is asked waits behind other work, and is stopped there.
    widget._start("other", wait)
    assert going.wait(10)
    widget.prompt = "four five"
    widget._worker.stop()
    done.set()
    after = widget.dose
    assert (before.prompt, after.prompt) == (PROMPT, "four five")
    assert after.tokens[20][0] == llama.model.next_tokens("four five", widget._adds(0.0), k=1).token[0]


def test_a_change_while_a_table_is_filled_is_not_taken_for_computed(make, monkeypatch):
    widget = make()
    publish = widget._publish

    def change(**results: object) -> None:
        publish(**results)
        if results.get("_table") and widget.prompt == PROMPT:
            widget.prompt = "four five"
            widget._worker.stop()

    monkeypatch.setattr(widget, "_publish", change)
    widget._do_ready()
    widget.wait(60)
    assert widget._ready_result().prompt == widget.dose.prompt == "four five"


def test_the_active_slider_computes_nothing_but_the_others_do(make):
    widget = make()
    widget.run()
    widget._do_ready()
    n = widget._table["n"]
    widget.doses = {"a": 3.0, "b": 1.0}
    widget.off = ["a"]
    widget.seed = 4
    assert not widget._worker.busy and widget._table["n"] == n
    widget.doses = {"a": 3.0, "b": 2.0}
    assert widget.wait(60) and widget._table["n"] > n
    assert widget._table["settings"]["beside"] == [["b", 2.0]]


def test_space_sae_without_coefficients_is_an_error_in_the_widget(make):
    widget = make({"bare": vector(0, "bare", features=False)})
    widget._do_ready()
    widget.space = "sae"
    widget.wait(60)
    assert "no SAE coefficients" in widget._status["error"]


# In a browser.


def percents(b, side: int) -> list[str]:
    """The numbers of the bars, 0 the baseline."""
    return b.page.eval_on_selector_all(
        ".sw-bars-row", f"rows => rows.map(r => r.querySelectorAll('.sw-bars-number')[{side}].textContent)"
    )


def slide(b, name: str, at: int) -> None:
    """Set a slider, as a pointer would."""
    b.page.get_by_label(f"Multiplier of {name}").evaluate(
        "(input, at) => { input.value = at; input.dispatchEvent(new Event('input', { bubbles: true })); }", at
    )


def test_the_bars_follow_the_slider_without_the_kernel(llama, bridge, make):
    b = bridge(make({"a": vector(0, "a")}))
    b.settle()
    before = percents(b, 1)
    slide(b, "a", 37)
    # Nothing was carried to Python and back.
    b.painted()
    after = percents(b, 1)
    assert after != before
    labels = b.page.eval_on_selector_all(".sw-bars-label", "all => all.map(e => e.textContent)")
    probs = llama.model.logits(PROMPT, sw.Add(b.widget.vectors["a"], b.widget.multipliers[37], "all"))[0].softmax(-1)
    ids = b.page.eval_on_selector_all(".sw-bars-row", "all => all.map(e => Number(e.title.slice(6)))")
    for shown, i in zip(after, ids, strict=True):
        expected = f"{100 * float(probs[i]):.1f}%"
        assert shown == expected or (shown == "<0.1%" and probs[i] < 0.0006), (shown, expected)
    b.settle()
    assert b.widget.doses == {"a": b.widget.multipliers[37]} and b.widget._table["n"] == 1
    assert b.page.eval_on_selector_all(".sw-bars-label", "all => all.map(e => e.textContent)") == labels
    assert b.page.locator(".sw-next-at").text_content() == "a ×3.4"


def test_another_slider_becomes_the_active_one_and_its_stops_are_filled(bridge, make):
    b = bridge(make())
    b.settle()
    slide(b, "b", 10)
    b.painted()
    assert "settings of before" in b.page.locator(".sw-next-at").text_content()
    b.settle()
    assert b.widget.active == "b" and b.widget._table["settings"]["active"] == "b"
    assert b.page.locator(".sw-next-at").text_content() == "b ×−2"
    assert b.page.locator(".stale").count() == 0


def test_a_vector_that_is_off_leaves_the_others(bridge, make):
    b = bridge(make({"a": vector(0, "a")}))
    b.settle()
    assert percents(b, 0) != percents(b, 1)
    b.page.get_by_label("a is added").uncheck()
    b.painted()
    assert percents(b, 0) == percents(b, 1)
    b.settle()
    assert b.widget.off == ["a"] and b.widget._table["n"] == 1


def test_tokens_are_picked_on_the_ruler(bridge, make):
    b = bridge(make({"a": vector(0, "a")}, positions="last"))
    b.settle()
    pressed = "all => all.map((e, i) => e.getAttribute('aria-pressed') === 'true' ? i : -1).filter(i => i >= 0)"
    assert b.page.eval_on_selector_all("button.sw-ruler-token", pressed) == [12]
    b.page.locator("button.sw-ruler-token").nth(4).click()
    assert b.page.eval_on_selector_all("button.sw-ruler-token", pressed) == [4, 12]
    b.settle()
    assert b.widget.positions == [4, 12] and b.widget._table["settings"]["positions"] == [4, 12]
    assert "picked tokens are no tokens of theirs" in b.page.locator(".sw-play-meters").text_content()
    assert "attention sink" in b.page.locator("button.sw-ruler-token").first.get_attribute("title")
    b.page.get_by_label("Steered positions").select_option("generated")
    b.settle()
    assert b.page.eval_on_selector_all("button.sw-ruler-token", pressed) == []
    assert b.page.locator(".sw-ruler-token.after.on").count() == 1
    assert "does not change" in b.page.locator(".sw-ruler-legend").text_content()
    assert percents(b, 0) == percents(b, 1)


def test_a_changed_prompt_is_filled_in_the_background(bridge, make):
    b = bridge(make())
    b.settle()
    b.page.get_by_label("Prompt", exact=True).fill("four five")
    b.until(lambda: b.widget.prompt == "four five")
    b.settle()
    assert b.widget._table["settings"]["prompt"] == "four five"
    assert b.page.locator("button.sw-ruler-token").count() == len("four five")
    # A prompt without tokens is refused, in words; what is there stays.
    b.widget.prompt = ""
    b.settle()
    assert "at least one token" in b.page.locator("[role=alert]:visible").text_content()
    assert b.page.locator(".sw-bars-row").count() > 3


def test_an_empty_prompt_is_asked_for_and_nothing_is_sent(bridge, make):
    b = bridge(make())
    b.settle()
    field = b.page.get_by_label("Prompt", exact=True)
    field.fill("")
    assert b.page.locator(".sw-ruler-legend").text_content() == "Type a prompt."
    assert b.page.locator(".sw-play-next.stale").count() == 1
    assert b.page.get_by_role("button", name="Generate").is_disabled()
    field.press("Tab")
    b.settle()
    assert b.widget.prompt == PROMPT and b.page.locator("[role=alert]:visible").count() == 0
    field.fill(PROMPT)
    assert b.page.locator(".stale").count() == 0 and b.page.get_by_role("button", name="Generate").is_enabled()


def test_picked_tokens_end_with_their_prompt(bridge, make):
    b = bridge(make({"a": vector(0, "a")}, positions="all_but_first"))
    b.settle()
    b.page.locator("button.sw-ruler-token").nth(4).click()
    b.settle()
    assert 4 not in b.widget.positions and 5 in b.widget.positions
    b.page.get_by_label("Prompt", exact=True).fill("o")
    b.until(lambda: b.widget.prompt == "o")
    b.settle()
    assert b.widget.positions == "all_but_first" and not b.widget._status["error"]
    assert b.widget._table["settings"]["prompt"] == "o"
    assert b.page.locator(".sw-ruler-legend").text_content() == "No token of this prompt is steered."
    b.widget.positions = [1]
    b.settle()
    assert "a prompt of 1 token;" in b.widget._status["error"]


def test_generate_streams_both_texts_and_the_history_returns_to_them(bridge, make):
    b = bridge(make({"a": vector(0, "a")}, doses={"a": 4.0}))
    b.settle()
    seen = []
    b.widget.observe(lambda change: seen.append(change.new), "_texts")
    b.page.get_by_role("button", name="Generate").click()
    b.until(lambda: b.widget._runs)
    b.settle()
    assert seen[0]["writing"] and seen[0]["baseline"]["tokens"] == [] and not seen[-1]["writing"]
    prose = b.page.locator(".sw-prose")
    pair = b.widget.generation
    assert prose.nth(0).text_content() == "".join(pair.baseline.tokens)
    assert prose.nth(1).text_content() == "".join(pair.steered.tokens)
    other = [t for t, i in zip(pair.steered.tokens, b.widget._texts["entries"][0]["instead"], strict=True) if t != i]
    assert b.page.locator(".sw-prose .other").all_text_contents() == other
    assert "length limit of 6 tokens" in b.page.locator(".sw-sheet-foot").nth(1).text_content()

    slide(b, "a", 20)
    b.page.get_by_label("Steered positions").select_option("last")
    b.settle()
    assert b.page.locator(".sw-sheet.stale").count() == 2
    b.page.get_by_role("button", name="Generate").click()
    b.until(lambda: len(b.widget._runs) == 2)
    b.settle()
    assert prose.nth(1).text_content() == prose.nth(0).text_content()
    b.page.locator("summary", has_text="History").click()
    b.page.get_by_role("option").filter(has_text="a ×4").click()
    b.settle()
    assert (b.widget.positions, b.widget.doses) == ("all", {"a": 4.0})
    assert prose.nth(1).text_content() == "".join(pair.steered.tokens)
    assert b.page.locator(".stale").count() == 0


def test_stop_ends_a_text_after_the_token_at_hand(bridge, make, monkeypatch):
    widget = make({"a": vector(0, "a")}, max_new_tokens=200, prompt="o", off_target=[])
    # The tiny model reads 64 tokens; it must not run out before it is stopped.
    monkeypatch.setattr(type(widget.model), "_limit", lambda self: None)
    b = bridge(widget)
    b.settle()
    b.page.get_by_role("button", name="Generate").click()
    b.until(lambda: len(widget._texts.get("entries", [{"tokens": []}])[0]["tokens"]) >= 2)
    b.until(lambda: b.page.locator(".sw-play-texts button", has_text="Stop").count())
    b.page.locator(".sw-play-texts button", has_text="Stop").click()
    b.until(lambda: widget._runs)
    b.settle()
    assert widget._status["phase"] == "cancelled"
    [entry] = widget._texts["entries"]
    assert entry["finish"] == "stopped" and 0 < len(entry["tokens"]) < 200
    assert "stopped" in b.page.locator(".sw-sheet-foot").nth(1).text_content()


def test_texts_recorded_along_the_slider_follow_it(bridge, make):
    b = bridge(make({"a": vector(0, "a")}))
    b.settle()
    b.page.get_by_role("button", name="Record along the slider").click()
    b.until(lambda: b.widget._runs)
    b.settle()
    steered = b.page.locator(".sw-sheet").nth(1)
    for at, recorded in ((0, -4.0), (40, 4.0), (36, 3.0)):
        slide(b, "a", at)
        b.painted()
        entry = next(e for e in b.widget._texts["entries"] if e["multiplier"] == recorded)
        assert steered.locator(".sw-prose").text_content() == "".join(entry["tokens"])
    assert "the nearest recorded" in steered.text_content()
    # Dearer than the budget: the button says so instead.
    b.page.get_by_label("Tokens", exact=True).fill("900")
    b.page.get_by_label("Tokens", exact=True).press("Tab")
    assert b.page.get_by_role("button", name="Record along the slider").is_disabled()
    assert "9000 tokens, more than 2000" in b.page.locator(".sw-text-tools").text_content()


def test_the_chart_follows_tokens_and_reads_the_null_band(bridge, make):
    b = bridge(make({"a": vector(0, "a")}))
    b.settle()
    read = b.page.locator(".sw-chart-read")
    assert "random directions" in read.text_content()
    before = b.page.locator(".sw-chart-line").nth(1).get_attribute("d")
    b.page.locator(".sw-bars-row").nth(3).click()
    b.settle()
    assert b.page.locator(".sw-chart-line").nth(1).get_attribute("d") != before
    assert b.widget.track == int(b.page.locator(".sw-bars-row").nth(3).get_attribute("title")[6:])
    # A token that is in no table yet.
    b.page.get_by_label("Token to follow").fill("~")
    b.page.get_by_label("Token to follow").press("Enter")
    b.until(lambda: b.widget.model.tokenizer.decode([b.widget.track]) == "~")
    b.settle()
    column = b.widget._table["ids"].index(b.widget.track)
    stop = b.widget._table["stops"].index(1.0)
    low, high = (
        100 * float(f(unpacked(b.widget._null["logprobs"])[:, b.widget._null["stops"].index(1.0), column]))
        for f in (lambda x: torch.tensor(x).exp().min(), lambda x: torch.tensor(x).exp().max())
    )
    value = 100 * float(torch.tensor(unpacked(b.widget._table["logprobs"])[stop, column]).exp())
    said = read.text_content()
    assert f"a ×1: {value:.1f}%" in said and f"{low:.1f}% to {high:.1f}%" in said
    assert ("outside their range" in said) == (not low <= value <= high)
    b.page.get_by_label("Measure").select_option("kl")
    assert f"{float(unpacked(b.widget._table['kl'])[stop]):.2f}" in read.text_content()


def test_the_code_follows_the_slider_while_it_is_open(bridge, make):
    b = bridge(make({"a": vector(0, "a")}))
    b.settle()
    b.page.locator("summary", has_text="The same as code").click()
    slide(b, "a", 35)
    b.until(lambda: "multiplier=3.0," in b.page.get_by_label("Code").input_value())


def test_scoring_on_a_suite(bridge, make):
    b = bridge(make({"a": vector(0, "a")}, suite=suite()))
    b.settle()
    b.page.get_by_label("Measure").select_option("accuracy")
    b.page.get_by_role("button", name="Score 2 prompts × 5 multipliers").click()
    b.until(lambda: b.widget._scores)
    b.settle()
    held = b.widget.sweep.accuracy()["mean"].iloc[0]
    assert f"Held-out accuracy {100 * held:.1f}% of 2 items" in b.page.locator(".sw-play-dose").text_content()
    assert b.page.locator(".sw-chart-dot").count() == 6


def test_everything_by_keyboard(bridge, make):
    b = bridge(make({"a": vector(0, "a")}))
    b.settle()
    page = b.page
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("button.sw-ruler-token").nth(2).get_attribute("aria-pressed") == "false"
    page.get_by_label("Multiplier of a").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    b.settle()
    assert b.widget.doses["a"] == 1.6 and 2 not in b.widget.positions
    page.locator(".sw-bars-row[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator(".sw-bars-row").nth(1).get_attribute("aria-selected") == "true"
    page.get_by_role("slider", name=re.compile("Dose and response")).focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    b.settle()
    assert b.widget.doses["a"] == 4.0
    page.get_by_role("button", name="Generate").focus()
    page.keyboard.press("Enter")
    b.until(lambda: b.widget._runs)
    b.settle()
    page.locator("summary", has_text="History").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_by_role("option", selected=True).filter(has_text="a ×4").count() == 1


def test_labels_stay_text_and_views_leave_nothing_behind(bridge, make):
    b = bridge(make({EVIL: vector(0, EVIL)}, prompt=EVIL))
    b.settle()
    assert b.page.locator("img").count() == 0
    assert EVIL in b.page.locator(".sw-vector-name").text_content()
    b.page.evaluate("window.unmount()")
    listeners = b.page.evaluate("window.listeners()")
    for _ in range(5):
        b.page.evaluate("window.mount()")
        b.settle()
        b.page.evaluate("window.unmount()")
    assert b.page.evaluate("window.listeners()") == listeners == 0


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(bridge, make, theme):
    widget = make(space="sae", off=["b"], suite=suite())
    widget.run()
    widget.record((-2.0, 0.0, 2.0))
    b = bridge(widget, theme=theme, width=400 if theme == "dark" else 900)
    b.settle()
    for summary in b.page.locator("summary:visible").all():
        summary.click()
    slide(b, "a", 3)
    b.settle()
    assert b.axe() == []
    assert b.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_exported_page_shows_the_selected_run(bridge, chromium, make, tmp_path: Path):
    widget = make({"a": vector(0, "a")}, doses={"a": 4.0})
    first = widget.generate()
    widget.doses = {"a": -4.0}
    second = widget.generate()
    assert first.steered.text != second.steered.text
    b = bridge(widget)
    b.settle()
    b.page.locator("summary", has_text="History").click()
    b.page.get_by_role("option").filter(has_text="a ×4").click()
    b.settle()
    page = chromium.new_page()
    for positions, stale in (("all", 0), ("last", 2)):
        widget.positions = positions
        b.settle()
        page.goto(widget.to_html(tmp_path / f"{positions}.html").as_uri())
        page.wait_for_selector("[data-sw-mount=ready]")
        for shown in (b.page, page):
            assert shown.locator(".sw-prose").nth(1).text_content() == "".join(first.steered.tokens)
            assert shown.locator(".sw-sheet.stale").count() == stale
            assert shown.locator(".sw-sheet", has_text="other settings").count() == stale
    page.close()
    widget.generate()
    assert widget.shown == 0


def test_an_exported_page_moves_and_says_what_it_cannot(chromium, make, tmp_path: Path):
    widget = make(doses={"a": 1.0, "b": 0.4})
    widget.record((-2.0, 0.0, 2.0))
    path = widget.to_html(tmp_path / "page.html")
    page = chromium.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("[data-sw-mount=ready]")

    def numbers() -> list[str]:
        return page.locator(".sw-bars-number").all_text_contents()

    before, meter = numbers(), page.locator(".sw-meter-value").first.text_content()
    page.get_by_label("Multiplier of a").focus()
    page.keyboard.press("End")
    page.wait_for_timeout(60)
    assert numbers() != before and page.locator(".sw-meter-value").first.text_content() != meter
    texts = widget._texts["entries"]
    assert page.locator(".sw-prose").nth(1).text_content() == "".join(texts[2]["tokens"])
    assert "the nearest recorded" in page.locator(".sw-sheet").nth(1).text_content()
    assert page.get_by_label("Multiplier of b").is_disabled()
    assert page.get_by_role("button", name="Generate").is_disabled()
    assert "Generating needs the model" in page.locator(".sw-play-texts").text_content()
    page.locator("summary", has_text="History").click()
    page.locator(".sw-run").first.click()
    assert page.locator(".stale").count() == 0
    assert heard == []
    page.close()
