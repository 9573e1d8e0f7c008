"""Pairing features: the same pairs as plain loops over the whole matrix, whatever fits in memory."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from steerwidgets.study.similarity import concept_features, features_by_label, pair_features, pairing
from steerwidgets.study.similarity import correlations as correlated


def activations(seed: int = 0, tokens: int = 300, d_a: int = 37, d_b: int = 29, sparse_by: float = 1.0):
    """Non-negative activations of two spaces that share what they respond to; feature 3 of a is dead."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(tokens, 6))
    a = np.maximum(hidden @ random.normal(size=(6, d_a)) + random.normal(size=(tokens, d_a)) / 3 - sparse_by, 0)
    b = np.maximum(hidden @ random.normal(size=(6, d_b)) - sparse_by, 0)
    a[:, 3] = 0
    return a.astype(np.float32), b.astype(np.float32)


def correlations(a, b):
    a, b = (m.astype(np.float64) - m.mean(0, dtype=np.float64) for m in (a, b))
    norms = np.linalg.norm(a, axis=0)[:, None] * np.linalg.norm(b, axis=0)
    return np.divide(a.T @ b, norms, out=np.full(norms.shape, -2.0), where=norms > 0)


def plain_greedy(matrix, least=0.0):
    matrix, pairs = matrix.copy(), []
    while (value := matrix.max()) > least:
        i, j = np.unravel_index(matrix.argmax(), matrix.shape)
        pairs.append((i, j, value))
        matrix[i], matrix[:, j] = -2, -2
    return pairs


def check(found, wanted):
    assert list(zip(found.a, found.b, strict=True)) == [(i, j) for i, j, _ in wanted]
    np.testing.assert_allclose(found.correlation, [v for *_, v in wanted], atol=1e-6)


@pytest.mark.parametrize("memory", [1 << 30, 6_000])
@pytest.mark.parametrize("kind", ["numpy", "torch", "sparse", "few active"])
@pytest.mark.parametrize("candidates", [1, 16])
def test_greedy_pairs_are_those_of_the_whole_matrix(monkeypatch, memory, kind, candidates):
    monkeypatch.setattr(pairing, "CANDIDATES", candidates)
    for seed in range(4):
        a, b = activations(seed, sparse_by=5 if kind == "few active" else 1)
        given = {"torch": torch.from_numpy, "sparse": sparse.csr_matrix}.get(kind, np.asarray)
        check(pair_features(given(a), given(b), memory=memory), plain_greedy(correlations(a, b)))


def test_many_to_one_gives_each_feature_of_a_its_best():
    a, b = activations()
    matrix = correlations(a, b)
    found = pair_features(a, b, one_to_one=False, memory=6_000)
    assert set(found.a) == set(range(37)) - {3} and len(set(found.b)) < len(found)
    for i, j, value in zip(found.a, found.b, found.correlation, strict=True):
        assert value == pytest.approx(matrix[i].max(), abs=1e-6) and j == matrix[i].argmax()


def test_hungarian_has_the_largest_sum_and_says_when_memory_is_short():
    a, b = activations()
    matrix = correlations(a, b)
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    found = pair_features(a, b, method="hungarian", min_correlation=-1)
    assert set(zip(found.a, found.b, strict=True)) == set(zip(rows, columns, strict=True))
    assert found.correlation.sum() >= pair_features(a, b).correlation.sum()
    with pytest.raises(ValueError, match='method="greedy"'):
        pair_features(a, b, method="hungarian", memory=1000)


def test_correlations_hold_for_large_means_and_low_precision():
    a, b = activations()
    check(pair_features(a + 1000, b + 50), plain_greedy(correlations(a + np.float32(1000), b + np.float32(50))))
    half = torch.from_numpy(a).bfloat16(), torch.from_numpy(b).bfloat16()
    check(pair_features(*half), plain_greedy(correlations(*(m.float().numpy() for m in half))))


def test_given_pairs_keep_their_correlations_and_may_repeat_a_feature():
    a, b = activations()
    matrix = correlations(a, b)
    found = pair_features(a, b, pairs=[(1, 2), (1, 5), (8, 5)])
    assert sorted(zip(found.a, found.b, strict=True)) == [(1, 2), (1, 5), (8, 5)]
    np.testing.assert_allclose(found.correlation, matrix[found.a, found.b], atol=1e-6)
    with pytest.raises(ValueError, match="feature 3 of a never varies"):
        pair_features(a, b, pairs=[(3, 1)])
    with pytest.raises(ValueError, match="feature 99 is out of range"):
        pair_features(a, b, pairs=[(99, 1)])


def test_filters_and_subsets():
    a, b = activations()
    matrix = correlations(a, b)
    assert pair_features(a, b, min_correlation=0.8).correlation.min() > 0.8
    frequency = (a > 0).mean(0)
    found = pair_features(a, b, min_frequency=0.1, max_frequency=0.4)
    assert ((frequency[found.a] >= 0.1) & (frequency[found.a] <= 0.4)).all()
    np.testing.assert_allclose(found.frequency_a, frequency[found.a])
    chosen = pair_features(a, b, features_a=[1, 5, 8], features_b=[2, 4])
    check(chosen, [(i, j, v) for i, j, v in plain_greedy(_only(matrix, [1, 5, 8], [2, 4]))])
    every = pair_features(a, b)
    assert set(every.among(features_a=[1, 5]).a) <= {1, 5}
    assert len(every.above(0.5)) == (every.correlation > 0.5).sum()
    x, y = torch.randn(37, 4), np.random.default_rng(0).normal(size=(29, 6))
    rows = every.rows(x, y)
    assert torch.equal(rows[0], x[every.a]) and (rows[1] == y[every.b]).all()
    assert list(every.table) == ["a", "b", "correlation", "frequency_a", "frequency_b"]
    assert len(pair_features(a, b, features_a=[3])) == 0


def _only(matrix, rows, columns):
    out = np.full_like(matrix, -2)
    out[np.ix_(rows, columns)] = matrix[np.ix_(rows, columns)]
    return out


def test_what_cannot_be_paired_is_refused_in_words():
    a, b = activations()
    with pytest.raises(ValueError, match="300 tokens and acts_b 299"):
        pair_features(a, b[:-1])
    with pytest.raises(ValueError, match=r"acts_a has shape \(300,\)"):
        pair_features(a[:, 0], b)
    with pytest.raises(ValueError, match='"greedy" or "hungarian"'):
        pair_features(a, b, method="best")
    with pytest.raises(ValueError, match="NaN"):
        pair_features(np.where(a > 0, np.nan, a), b)


def test_features_by_label_match_whole_words():
    labels = {1: "names of months", 2: "monthly sums", 3: "May and other months", 4: "the end of text", 5: "maybe"}
    assert features_by_label(labels, "months").ids == (1, 3)
    assert features_by_label(labels, ["month*"], exclude="May").ids == (1, 2)
    assert features_by_label({7: [" May", " June"], 8: [" maybe"]}, "may").ids == (7,)
    with pytest.raises(ValueError, match="keywords is empty"):
        features_by_label(labels, [])


def test_non_concept_features_are_left_out():
    labels = {1: "months", 2: "commas after names", 3: "«,»", 4: "<|endoftext|>", 5: "newlines", 6: "spaces of time"}
    assert concept_features(labels).ids == (1,)
    tokens = {1: [" May", " June", ","], 2: [",", ".", " and"], 3: ["<bos>", "\n"], 4: []}
    assert concept_features(tokens).ids == (1,)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_blocks_of_correlations_keep_to_the_memory_budget(kind):
    a, b = (correlated.Columns(kind(m)) for m in activations(sparse_by=5))
    ids_a, ids_b = (np.nonzero(c.norm)[0] for c in (a, b))
    for memory in (1, 3_000, 1 << 20):
        parts = list(correlated.blocks(a, b, ids_a, ids_b, memory))
        assert max(part.numel() for _, part in parts) * 16 <= max(memory, 16 * len(ids_a))
        whole = np.concatenate([part.numpy() for _, part in parts])
        matrix = correlations(*activations(sparse_by=5))[np.ix_(ids_a, ids_b)]
        np.testing.assert_allclose(whole, matrix.T, atol=3e-6)
