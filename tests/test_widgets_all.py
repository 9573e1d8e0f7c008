"""What every widget must stand: many openings and closings, forced colours, and labels that are not to be trusted."""

from __future__ import annotations

import pytest

import steerwidgets as sw
from steerwidgets.core.labels import FeatureLabel, Labels

HOSTILE = "<img src=x onerror='document.title=1'>"
A, B = ["abcd", "bcde", "cdef"], ["wxyz", "vwxy", "uvwx"]
CYCLES = 100


@pytest.fixture(scope="module")
def model(llama):
    """The tiny model with a hostile label on every feature."""
    made = llama.model.with_sae(llama.model.sae, check=False)
    made.labels = Labels([FeatureLabel(i, f"{HOSTILE} {i}", tokens=[(HOSTILE, 1.0)]) for i in range(made.sae.d_sae)])
    return made


def comparator(model):
    return sw.FeatureComparator(model, a=A, b=B)


def builder(model):
    return sw.VectorBuilder(model, positive=A, negative=B, construction="SAE mean")


def picker(model):
    vector = sw.contrast(model, A, B, space="sae")
    return sw.AblationPicker(model, vector=vector, prompts=A)


def playground(model):
    vector = sw.contrast(model, A, B, name=HOSTILE)
    return sw.SteeringPlayground(model, vector, prompt="abcd", off_target=())


WIDGETS = [comparator, builder, picker, playground]


@pytest.mark.parametrize("make", WIDGETS, ids=lambda make: make.__name__)
def test_opened_and_closed_many_times(make, model, bridge):
    """Neither listeners nor elements nor memory are left behind; labels stay text throughout."""
    shown = bridge(make(model))
    shown.settle()
    page = shown.page
    assert page.locator("img").count() == 0 and page.title() == "widget"
    page.evaluate("window.unmount()")
    assert page.evaluate("window.listeners()") == 0
    debugger = page.context.new_cdp_session(page)

    def held() -> float:
        """Bytes that scripts hold, and every element with them."""
        debugger.send("HeapProfiler.collectGarbage")
        return debugger.send("Runtime.getHeapUsage")["usedSize"]

    page.evaluate("for (let i = 0; i < 10; i += 1) { window.mount(); window.unmount(); }")
    before = held()
    left = page.evaluate(
        f"""() => {{
          const elements = () => document.querySelectorAll("*").length;
          const before = elements();
          for (let i = 0; i < {CYCLES}; i += 1) {{ window.mount(); window.unmount(); }}
          return [window.listeners(), elements() - before];
        }}"""
    )
    assert left == [0, 0]
    # One view that stayed would be hundreds of kB.
    grown = (held() - before) / CYCLES
    assert grown < 5_000, f"{grown:.0f} bytes a cycle"
    page.evaluate("window.mount()")
    shown.settle()
    assert page.locator(".sw-widget").count() == 1


@pytest.mark.parametrize("make", WIDGETS, ids=lambda make: make.__name__)
def test_forced_colours(make, model, bridge):
    shown = bridge(make(model), forced_colors="active")
    shown.settle()
    assert shown.axe() == []
