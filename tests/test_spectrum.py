"""The spectrum against numpy.linalg.svd in float64, in both Gram forms."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ckptsel.results.scores import count_main
from ckptsel.scores.spectrum import compute_spectrum


def make_features(n: int, d: int, kind: str) -> np.ndarray:
    random = np.random.default_rng(n + d)
    features = np.maximum(random.standard_normal((n, d)) + 0.5, 0)
    if kind == "rank-deficient":
        features = features[:, : d // 4] @ random.standard_normal((d // 4, d))
    if kind == "badly scaled":
        features = features * np.logspace(0, -9, d)
    return features


@pytest.mark.parametrize("kind", ["plain", "rank-deficient", "badly scaled"])
@pytest.mark.parametrize(("n", "d"), [(80, 24), (24, 80), (40, 40)])
def test_spectrum_equals_svd(n: int, d: int, kind: str) -> None:
    features = make_features(n, d, kind)
    spectrum = compute_spectrum(torch.from_numpy(features))
    values = spectrum.singular_values.numpy()
    expected = np.linalg.svd(features, compute_uv=False)
    assert_allclose(values, expected[: len(values)], rtol=1e-9, atol=1e-13 * expected[0])
    assert expected[len(values) :].max(initial=0) < 1e-12 * expected[0]
    if kind == "rank-deficient":
        assert len(values) == min(d // 4, n)


@pytest.mark.parametrize("kind", ["plain", "rank-deficient", "badly scaled"])
@pytest.mark.parametrize(("n", "d"), [(80, 24), (24, 80)])
def test_right_vectors_are_orthonormal_and_rebuild_the_features(n: int, d: int, kind: str) -> None:
    features = torch.from_numpy(make_features(n, d, kind))
    spectrum = compute_spectrum(features)
    basis = spectrum.right_vectors
    assert_allclose((basis.T @ basis).numpy(), np.eye(basis.shape[1]), atol=1e-9)
    rebuilt = spectrum.project(features) @ basis.T
    assert_allclose(rebuilt.numpy(), features.numpy(), atol=1e-11)


@pytest.mark.parametrize(("n", "d"), [(80, 24), (24, 80)])
def test_main_and_residual_add_up_and_equal_the_truncated_svd(n: int, d: int) -> None:
    features = make_features(n, d, "plain")
    spectrum = compute_spectrum(torch.from_numpy(features))
    main = spectrum.component(torch.from_numpy(features), "main").numpy()
    residual = spectrum.component(torch.from_numpy(features), "residual").numpy()
    assert_allclose(main + residual, features, atol=1e-12)
    u, s, vh = np.linalg.svd(features, full_matrices=False)
    k = spectrum.n_main
    assert s[:k].sum() / s.sum() >= 0.8 > s[: k - 1].sum() / s.sum()
    assert_allclose(main, (u[:, :k] * s[:k]) @ vh[:k], atol=1e-11)


def test_count_main_takes_the_least_number_that_reaches_the_energy() -> None:
    values = np.array([4.0, 4.0, 1.0, 1.0])
    assert count_main(values, 0.8) == 2
    assert count_main(values, 0.81) == 3
    assert count_main(values, 1.0) == 4


def test_float32_features_keep_their_small_singular_values() -> None:
    features = make_features(200, 16, "plain") * np.logspace(0, -6, 16)
    spectrum = compute_spectrum(torch.from_numpy(features.astype(np.float32)))
    expected = np.linalg.svd(features.astype(np.float32).astype(np.float64), compute_uv=False)
    assert_allclose(spectrum.singular_values.numpy(), expected, rtol=1e-8)
