"""A self-contained HTML page of results: it opens from disk, without a network or a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steerwidgets.study.figures import accuracy_bars, comparison_map, off_target_curves

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from steerwidgets.study.compare import FeatureComparison
    from steerwidgets.study.results import SweepResult

STYLE = """
:root { color-scheme: light dark; --ground: #fdfdfc; --ink: #1d1d1f; --soft: #5f6368; --line: #e2e2de; --right: #0a7d55; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #17181a; --ink: #ececea; --soft: #a6a9ad; --line: #35373b; --right: #4cc38a; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; margin: 0 auto;
  max-width: 1080px; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.75rem; } h3 { font-size: 1.02rem; }
p, .note { max-width: 46rem; } .note, caption { color: var(--soft); } caption { text-align: left; padding: 0 0 .4rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .28rem .7rem .28rem 0; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; } td.right { color: var(--right); font-weight: 600; }
summary { cursor: pointer; margin: .5rem 0; } code { font-size: .92em; white-space: pre-wrap; }
"""
# Figures are drawn with grey text; where the page is dark or light for certain, they take its ink.
SCRIPT = """
const ink = () => getComputedStyle(document.body).color;
const paint = () => document.querySelectorAll(".plotly-graph-div").forEach(f => Plotly.relayout(f, {"font.color": ink()}));
paint();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
"""


class Page:
    """Collects sections; every piece of data is escaped on the way in."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str, level: int = 2) -> None:
        self.parts.append(f"<h{level}>{escape(text)}</h{level}>")

    def text(self, text: str, note: bool = False) -> None:
        self.parts.append(f"<p{' class=note' if note else ''}>{escape(text)}</p>")

    def figure(self, figure: Figure, name: str) -> None:
        """A figure; `name` is read out where it cannot be seen."""
        drawn = figure.to_html(
            full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
        )
        self.parts.append(f'<div role="img" aria-label="{escape(name, quote=True)}">{drawn}</div>')

    def table(self, table: pd.DataFrame, caption: str = "", digits: int = 2, fold: str | None = None) -> None:
        """A table; `fold` hides it behind that line."""
        html = _table(table, caption, digits)
        if fold is not None:
            html = f"<details><summary>{escape(fold)}</summary>{html}</details>"
        self.parts.append(html)

    def write(self, path: str | Path) -> Path:
        from plotly.offline import get_plotlyjs

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing is fetched: the page asks for that to be enforced.
        policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
        path.write_text(
            f'<!doctype html><html lang="en"><head>{head}'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head>"
            f"<body><main>{''.join(self.parts)}</main><script>{SCRIPT}</script></body></html>",
            encoding="utf-8",
        )
        return path


def add_sweep(page: Page, name: str, result: SweepResult) -> None:
    """A sweep: bars, table with controls, off-target, and every answer of the best vector."""
    page.heading(name)
    if not result.about.get("finished", True):
        page.text("This sweep was stopped before its end; what follows rests on the cells that were finished.")
    page.figure(accuracy_bars(result), f"{name}: held-out accuracy of each vector, by task, with null bands")
    page.table(
        accuracy_table(result),
        "Held-out accuracy (and the 95 % band of random directions of the same norm). Each item is scored at the "
        "multiplier that does best on the other items of its task, with vectors built without it.",
    )
    columns = [
        "task",
        "vector",
        "n",
        "accuracy",
        "low",
        "high",
        "multiplier",
        "p_answer",
        "logit_diff",
        "unsteered",
        "reconstruction",
        "random",
        "shuffled pairs",
        "random features",
        "p",
    ]
    page.table(result.summary()[columns], fold="Every control, task by task")
    if not result.off_target().empty:
        page.heading("Off-target prompts", 3)
        page.text(
            "Unrelated prompts under the same vectors. A vector that acts on its task leaves them alone; captured is "
            "the share whose next token became an answer of the suite.", note=True,
        )  # fmt: skip
        page.figure(off_target_curves(result), f"{name}: divergence on unrelated prompts by multiplier")
        page.table(result.off_target(), fold="The same in numbers")
    page.heading("Answers", 3)
    for row in result.best().itertuples():
        answers = result.answers(str(row.task), str(row.vector))
        title = f"{row.task}: {int(answers['correct'].sum())} of {len(answers)} right with {row.vector}"
        page.table(answers, fold=title, digits=3)


def add_comparison(page: Page, name: str, comparison: FeatureComparison, rows: int = 20) -> None:
    """A comparison: counts, map with its separation test, strongest features."""
    page.heading(name)
    page.table(comparison.overlap(), "Features by group, at the top k of each set and among all active ones", 0)
    if len(comparison.only_a) and len(comparison.only_b):
        page.figure(comparison_map(comparison), f"{name}: map of decoder rows by group")
        test = comparison.separation()
        page.text(
            f"Do the decoder rows of A-only and B-only features lie apart? In the full space (PERMANOVA on cosine "
            f"distances, {len(test.null):,} permutations): pseudo-F {test.score:.2f}, p = {test.p_value:.2g}. The map "
            "itself is no evidence.", note=True,
        )  # fmt: skip
    columns = ["feature", "label", "group", "mean_a", "mean_b", "freq_a", "freq_b", "effect", "p", "q"]
    page.table(comparison.table[columns].head(rows), f"The {rows} features that differ most", 3)


def accuracy_table(result: SweepResult) -> pd.DataFrame:
    """Vectors x tasks as text: accuracy, and the null band in brackets."""
    summary = result.summary()
    summary["cell"] = [
        f"{a:.2f}" if np.isnan(low) else f"{a:.2f} ({low:.2f}–{high:.2f})"
        for a, low, high in zip(summary["accuracy"], summary["random low"], summary["random high"], strict=True)
    ]
    wide = summary.pivot(index="vector", columns="task", values="cell")
    wide = wide.loc[list(summary["vector"].unique()), list(summary["task"].unique())]
    means = summary.groupby("vector")["accuracy"].mean()
    wide.insert(0, "mean", [f"{means[v]:.2f}" for v in wide.index])
    return wide.rename_axis(columns=None).reset_index()


def write_report(path: str | Path, title: str, sweeps: Sequence[tuple[str, SweepResult]]) -> Path:
    """A page of sweeps."""
    page = Page(title)
    for name, result in sweeps:
        add_sweep(page, name, result)
    return page.write(path)


def _table(table: pd.DataFrame, caption: str, digits: int) -> str:
    numeric = [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in table.dtypes]
    head = "".join(
        f'<th scope="col"{" class=number" if n else ""}>{escape(str(c))}</th>'
        for c, n in zip(table.columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell(v, n, digits) for v, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in table.itertuples(index=False, name=None)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll" tabindex="0"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any, numeric: bool, digits: int) -> str:
    if isinstance(value, bool | np.bool_):
        return '<td class="right">right</td>' if value else "<td>no</td>"
    if numeric:
        return f'<td class="number">{_number(value, digits)}</td>'
    return f"<td>{escape(str(value))}</td>"


def _number(value: Any, digits: int) -> str:
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return "–"
    # A small p-value must not read as zero.
    return f"{value:.1g}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:.{digits}f}"
