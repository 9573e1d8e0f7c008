"""What a cell of a sweep is scored on: the answer's tokens, teacher-forced after the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from steerwidgets.engine.batches import Batch
from steerwidgets.engine.model import SteeredModel
from steerwidgets.study.tasks import Task

Tokens = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One prompt of one task in tokens: its accepted answers, its foil, and the rows that score them."""

    task: str
    prompt: str
    answer: str
    tokens: Tokens
    answers: tuple[Tokens, ...]
    foil: Tokens | None
    off_target: bool = False

    @property
    def forced(self) -> list[Tokens]:
        """The answer prefixes that must follow the prompt in a row of their own; longer ones cover shorter."""
        targets = [*self.answers, *([self.foil] if self.foil else [])] if not self.off_target else [()]
        prefixes = sorted({target[:-1] for target in targets}, key=len, reverse=True)
        return [p for i, p in enumerate(prefixes) if not any(q[: len(p)] == p for q in prefixes[:i])]


@dataclass(frozen=True)
class Score:
    """One cell: the greedy answer and how likely the right one is.

    `p_answer` sums over the accepted answers; `logit_diff` is log p(answer) - log p(foil), the difference of
    their logits when both are one token; nan without a foil.
    """

    top_token: str
    correct: bool
    p_answer: float
    logit_diff: float
    kl: float


@dataclass(frozen=True, eq=False)
class Rows:
    """Every row that the items of a suite need, as one batch; row r belongs to item `owner[r]`."""

    items: tuple[Item, ...]
    batch: Batch
    owner: tuple[int, ...]
    forced: tuple[Tokens, ...]

    @classmethod
    def of(cls, model: SteeredModel, items: Sequence[Item]) -> Rows:
        rows = [(n, forced) for n, item in enumerate(items) for forced in item.forced]
        sequences = [(*items[n].tokens, *forced) for n, forced in rows]
        batch = model.pad(sequences, [len(items[n].tokens) for n, _ in rows])
        return cls(tuple(items), batch, tuple(n for n, _ in rows), tuple(forced for _, forced in rows))


def task_items(model: SteeredModel, task: Task) -> list[Item]:
    """The items of a task."""
    assert task.foils is not None
    items = []
    for prompt, answers, foil in zip(task.prompts, task.answers, task.foils, strict=True):
        tokens = model.token_ids(prompt)
        accepted = tuple(_continuation(model, prompt, tokens, task.join + answer) for answer in answers)
        foiled = None if foil is None else _continuation(model, prompt, tokens, task.join + foil)
        # To say an answer is to say every accepted answer that begins it: counted twice, p_answer could pass 1.
        accepted = tuple(a for a in accepted if not any(b != a and a[: len(b)] == b for b in accepted))
        items.append(Item(task.name, prompt, "/".join(answers), tokens, accepted, foiled))
    return items


def off_target_items(model: SteeredModel, prompts: Sequence[str], scored: Sequence[Item]) -> list[Item]:
    """Unrelated prompts; their "answers" are the first tokens of all scored answers, which would be a capture.

    A first token that is blank, such as the space before a digit, says nothing and is left out.
    """
    first = dict.fromkeys(answer[:1] for item in scored for answer in item.answers)
    capture = tuple(token for token in first if model.tokenizer.decode(list(token)).strip()) or tuple(first)
    return [Item("off-target", p, "", model.token_ids(p), capture, None, off_target=True) for p in prompts]


def score_item(model: SteeredModel, item: Item, logprobs: Sequence[Tensor], baseline: Tensor | None) -> Score:
    """Score one cell.

    Args:
        item: the item.
        logprobs: for each of `item.forced`, log-probabilities at the prompt's end and at each forced token,
            [1 + len(forced), vocab].
        baseline: unsteered log-probabilities at the prompt's end [vocab], or None for no KL divergence.
    """
    greedy = {forced: table.argmax(-1).tolist() for forced, table in zip(item.forced, logprobs, strict=True)}

    def logprob(target: Tokens) -> float:
        table = _row_for(item.forced, logprobs, target)
        return float(table[torch.arange(len(target)), torch.tensor(target)].sum())

    def is_greedy(target: Tokens) -> bool:
        best = _row_for(item.forced, [greedy[f] for f in item.forced], target)
        return tuple(best[: len(target)]) == target

    likely = torch.tensor([logprob(answer) for answer in item.answers])
    first = logprobs[0][0]
    kl = float("nan") if baseline is None else float((first.exp() * (first - baseline)).sum())
    return Score(
        top_token=model.tokenizer.decode(_greedy_answer(greedy)),
        correct=any(is_greedy(answer) for answer in item.answers),
        p_answer=float(likely.exp().sum()),
        logit_diff=float("nan") if item.foil is None else float(likely.max()) - logprob(item.foil),
        kl=max(kl, 0.0),
    )


def _row_for(forced: Sequence[Tokens], values: Sequence[T], target: Tokens) -> T:
    return next(v for f, v in zip(forced, values, strict=True) if f[: len(target) - 1] == target[:-1])


def _greedy_answer(greedy: dict[Tokens, list[int]]) -> list[int]:
    """The greedy continuation, as far as the forced rows follow it."""
    answer: list[int] = []
    while True:
        path = next((f for f in greedy if f[: len(answer)] == tuple(answer) and len(f) >= len(answer)), None)
        if path is None:
            return answer
        answer.append(greedy[path][len(answer)])


def _continuation(model: SteeredModel, prompt: str, tokens: Tokens, text: str) -> Tokens:
    """Tokens of `text` after the prompt, as the tokenizer splits them there."""
    whole = model.token_ids(prompt + text)
    if whole[: len(tokens)] == tokens and len(whole) > len(tokens):
        return whole[len(tokens) :]
    # The tokenizer merges across the seam; what the model would have to say is then the text by itself.
    return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
