"""Similarity measures against plain definitions and other libraries, known answers, and what they refuse."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy import linalg, spatial, stats

import steerwidgets.study.similarity as similarity
from steerwidgets.study.similarity import SimilarityWarning, cka, jaccard, procrustes, procrustes_fit, rsa, svcca

MEASURES = {"svcca": svcca, "rsa": rsa, "procrustes": procrustes, "cka": cka, "jaccard": jaccard}


def pair(seed: int = 0, n: int = 120, d_x: int = 18, d_y: int = 25, shared: int = 6):
    """Two matrices with some directions in common, columns of very different sizes."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(n, shared))
    x = common @ random.normal(size=(shared, d_x)) + random.normal(size=(n, d_x))
    y = common @ random.normal(size=(shared, d_y)) + random.normal(size=(n, d_y))
    return x * np.geomspace(0.1, 10, d_x) + 3, y * np.geomspace(10, 0.1, d_y)


def plain_svcca(x, y, threshold):
    parts = []
    for m in (x, y):
        m = m - m.mean(0)
        u, s, _ = np.linalg.svd(m, full_matrices=False)
        k = int(np.argmax(np.cumsum(s**2) / (s**2).sum() >= threshold)) + 1
        parts.append(u[:, :k] * s[:k])
    a, b = (np.linalg.qr(p)[0] for p in parts)
    return np.linalg.svd(a.T @ b, compute_uv=False).mean()


def plain_debiased_hsic(k, m):
    """Song et al. 2012, theorem 2, word for word."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    third = 2 * (one @ k @ m @ one) / (n - 2)
    return (np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - third) / (n * (n - 3))


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99, 1.0])
def test_svcca_is_its_definition(threshold):
    x, y = pair()
    assert svcca(x, y, threshold) == pytest.approx(plain_svcca(x, y, threshold), abs=1e-6)


def test_svcca_agrees_with_scikit_learns_cca():
    from sklearn.cross_decomposition import CCA

    x, y = pair()
    k = 5
    parts = [np.linalg.svd(m - m.mean(0), full_matrices=False)[0][:, :k] for m in (x, y)]
    variates = CCA(n_components=k, scale=False, max_iter=20_000, tol=1e-14).fit(*parts).transform(*parts)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(variates[0].T, variates[1].T, strict=True)]
    assert svcca(x, y, components=k) == pytest.approx(np.mean(correlations), abs=1e-6)


def test_published_svcca_keeps_one_component_where_the_definition_keeps_many():
    x, y = pair()
    first = [np.linalg.svd(m - m.mean(0), full_matrices=False)[0][:, 0] for m in (x, y)]
    assert svcca(x, y, as_published=True) == pytest.approx(abs(first[0] @ first[1]), abs=1e-6)
    assert svcca(x, y, as_published=True) == pytest.approx(svcca(x, y, components=1), abs=1e-9)
    # Ten shared directions behind a larger one of each space's own: the published score sees only the latter.
    random = np.random.default_rng(0)
    shared, own = random.normal(size=(500, 10)), 5 * random.normal(size=(2, 500, 1))
    both = [np.concatenate([part, shared], axis=1) for part in own]
    assert svcca(*both) > 0.9 and svcca(*both, as_published=True) < 0.2
    # With a total variance below its threshold the published rule keeps more than one.
    x, y = x / np.linalg.norm(x - x.mean(0)), y / np.linalg.norm(y - y.mean(0))
    assert svcca(x, y, 0.9, as_published=True) == pytest.approx(svcca(x, y, 0.9), abs=1e-9)


@pytest.mark.parametrize("distance", ["correlation", "cosine", "euclidean", "sqeuclidean"])
@pytest.mark.parametrize("correlation", ["spearman", "pearson", "kendall"])
def test_rsa_is_scipys_pdist_and_correlation(distance, correlation):
    x, y = pair(n=60)
    of = {"spearman": stats.spearmanr, "pearson": stats.pearsonr, "kendall": stats.kendalltau}[correlation]
    wanted = of(spatial.distance.pdist(x, distance), spatial.distance.pdist(y, distance)).statistic
    assert rsa(x, y, distance, correlation) == pytest.approx(wanted, abs=1e-6)


def test_rsa_counts_equal_distances_as_ties():
    random = np.random.default_rng(3)
    x, y = np.eye(30)[random.integers(0, 12, 80)], random.normal(size=(80, 5))
    exact = spatial.distance.pdist(x, "sqeuclidean").round()
    wanted = stats.spearmanr(exact, spatial.distance.pdist(y, "euclidean")).statistic
    assert rsa(x, y, "euclidean") == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("distance", "theirs"), [("correlation", "correlation"), ("sqeuclidean", "euclidean")])
@pytest.mark.parametrize(("correlation", "name"), [("spearman", "spearman"), ("pearson", "corr"), ("kendall", "tau-b")])
def test_rsa_agrees_with_rsatoolbox(distance, theirs, correlation, name):
    toolbox = pytest.importorskip("rsatoolbox")
    x, y = pair(n=50)
    both = [toolbox.rdm.calc_rdm(toolbox.data.Dataset(m), method=theirs) for m in (x, y)]
    wanted = toolbox.rdm.compare(*both, method=name)[0, 0]
    assert rsa(x, y, distance, correlation) == pytest.approx(wanted, abs=1e-6)


def test_cka_agrees_with_rsatoolbox():
    toolbox = pytest.importorskip("rsatoolbox")
    x, y = pair(n=50)
    both = [toolbox.rdm.calc_rdm(toolbox.data.Dataset(m), method="euclidean") for m in (x, y)]
    # The whitened cosine of squared Euclidean distances is linear CKA (Diedrichsen et al. 2021, arXiv 2007.02789).
    assert cka(x, y) == pytest.approx(toolbox.rdm.compare(*both, method="cosine_cov")[0, 0], abs=1e-6)


@pytest.mark.parametrize("shape", [(120, 18, 25), (40, 90, 70)])
def test_cka_is_its_definition(shape):
    n, d_x, d_y = shape
    x, y = pair(n=n, d_x=d_x, d_y=d_y)
    a, b = x - x.mean(0), y - y.mean(0)
    wanted = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    with pytest.warns(SimilarityWarning) if n < d_x else nullcontext():
        assert cka(x, y) == pytest.approx(wanted, abs=1e-6)
    k, m = x @ x.T, y @ y.T
    cross, own = plain_debiased_hsic(k, m), plain_debiased_hsic(k, k) * plain_debiased_hsic(m, m)
    assert cka(x, y, debiased=True) == pytest.approx(cross / own**0.5, abs=1e-6)


def test_procrustes_agrees_with_scipy():
    x, y = pair()
    padded = np.pad(x, ((0, 0), (0, y.shape[1] - x.shape[1])))
    disparity = spatial.procrustes(y, padded)[2]
    assert 1 - procrustes(x, y) ** 2 == pytest.approx(disparity, abs=1e-6)
    fit = procrustes_fit(x, y)
    assert fit.disparity == pytest.approx(disparity, abs=1e-6)
    assert fit.residual == pytest.approx(np.linalg.norm(y - fit.map(x)), abs=1e-6)
    assert fit.rmse == pytest.approx(np.sqrt(np.mean((y - fit.map(x)) ** 2)), abs=1e-6)
    x, y = x[:, :5], y[:, :5]
    wanted, values = linalg.orthogonal_procrustes(x - x.mean(0), y - y.mean(0))
    fit = procrustes_fit(x, y, scaling=False)
    np.testing.assert_allclose(fit.rotation, wanted, atol=1e-6)
    assert procrustes(x, y) == pytest.approx(
        values / np.linalg.norm(x - x.mean(0)) / np.linalg.norm(y - y.mean(0)), abs=1e-6
    )


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_jaccard_is_its_definition(distance):
    x, y = pair()
    near = []
    for m in (x, y):
        far = spatial.distance.squareform(spatial.distance.pdist(m, distance))
        np.fill_diagonal(far, np.inf)
        near.append([set(row) for row in far.argsort(1, kind="stable")[:, :7].tolist()])
    wanted = np.mean([len(a & b) / len(a | b) for a, b in zip(*near, strict=True)])
    assert jaccard(x, y, k=7, distance=distance) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_a_rotation_scaling_and_shift_leave_everything_alike(name):
    x, _ = pair()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(18, 18)))[0]
    options = {"distance": "euclidean"} if name in ("rsa", "jaccard") else {}
    assert MEASURES[name](x, 3 * x @ rotation + 5, **options) == pytest.approx(1, abs=1e-6)


def test_only_svcca_sees_through_a_linear_map_that_stretches():
    x, _ = pair()
    stretched = x @ np.diag(np.geomspace(1000, 1, 18))
    assert svcca(x, stretched, threshold=1.0) == pytest.approx(1, abs=1e-6)
    assert max(procrustes(x, stretched), cka(x, stretched)) < 0.9


@pytest.mark.parametrize("name", MEASURES)
def test_permuting_the_columns_or_both_rows_changes_nothing(name):
    x, y = pair()
    random = np.random.default_rng(2)
    rows, columns = random.permutation(len(x)), random.permutation(18)
    measure = MEASURES[name]
    assert measure(x[rows][:, columns], y[rows]) == pytest.approx(measure(x, y), abs=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_noise_lowers_every_measure_and_tensors_do_as_well_as_arrays(name):
    x, _ = pair(n=200)
    noise = np.random.default_rng(4).normal(size=x.shape) * x.std(0)
    scores = [MEASURES[name](x, x + strength * noise) for strength in (0, 0.3, 1, 3)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.999 > scores[1]
    tensors = torch.tensor(x, requires_grad=True), torch.tensor(x + noise).float()
    assert MEASURES[name](*tensors) == pytest.approx(scores[2], abs=1e-4)
    assert isinstance(MEASURES[name](*tensors), float)


def test_unrelated_data_score_what_they_should():
    random = np.random.default_rng(5)
    x, y = random.normal(size=(40, 200)), random.normal(size=(40, 200))
    with pytest.warns(SimilarityWarning, match="debiased=True"):
        assert cka(x, y) > 0.7
    assert abs(cka(x, y, debiased=True)) < 0.15
    assert abs(rsa(x, y)) < 0.15


def test_rank_deficient_matrices_are_cut_to_their_rank():
    x, y = pair()
    flat = np.concatenate([x[:, :4], x[:, :4] @ np.ones((4, 3)), np.ones((120, 1))], axis=1)
    assert svcca(flat, y, threshold=1.0) == pytest.approx(svcca(x[:, :4], y, threshold=1.0), abs=1e-6)
    with pytest.raises(ValueError, match="only 4 independent directions"):
        svcca(flat, y, components=5)
    assert procrustes(flat, flat) == pytest.approx(1)


@pytest.mark.parametrize("name", MEASURES)
def test_what_cannot_be_compared_is_refused_in_words(name):
    x, y = pair()
    measure = MEASURES[name]
    with pytest.raises(ValueError, match="120 rows and y 119"):
        measure(x, y[:-1])
    with pytest.raises(ValueError, match="NaN or infinity, first in row 7"):
        measure(np.where(np.arange(120)[:, None] == 7, np.nan, x), y)
    with pytest.raises(ValueError, match=r"shape \(120,\)"):
        measure(x[:, 0], y)
    with pytest.raises(ValueError, match="2 paired rows"):
        measure(x[:2], y[:2])
    with pytest.raises(ValueError, match=r"same|equal|constant|zero"):
        measure(np.zeros((120, 3)), y)


def test_too_few_rows_are_refused_or_warned_about():
    random = np.random.default_rng(6)
    x, y = random.normal(size=(20, 30)), random.normal(size=(20, 30))
    with pytest.raises(ValueError, match="every canonical correlation is 1"):
        svcca(x, y, threshold=1.0)
    with pytest.warns(SimilarityWarning, match="5 of 12 canonical correlations"):
        svcca(x, y, components=12)
    with pytest.raises(ValueError, match="everyone's neighbour"):
        jaccard(x, y, k=19)
    with pytest.warns(SimilarityWarning, match="chance alone"):
        jaccard(x, y, k=10)


def test_rows_without_a_direction_are_refused_where_the_distance_needs_one():
    x, y = pair()
    x = x.copy()
    x[11] = 2.5
    with pytest.raises(ValueError, match=r"row 11 of x is constant.*euclidean"):
        rsa(x, y)
    assert rsa(x, y, "euclidean") > 0
    x[11] = 0
    with pytest.raises(ValueError, match="row 11 of x is zero"):
        jaccard(x, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: svcca(x, y, threshold=1.5), "threshold=1.5"),
        (lambda x, y: svcca(x, y, components=0), "components=0"),
        (lambda x, y: rsa(x, y, distance="manhattan"), '"correlation", "cosine"'),
        (lambda x, y: rsa(x, y, correlation="tau"), '"spearman", "pearson"'),
        (lambda x, y: jaccard(x, y, k=0), "k=0"),
    ],
)
def test_unknown_options_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(*pair())


def test_everything_public_is_there():
    assert all(hasattr(similarity, name) for name in similarity.__all__)
