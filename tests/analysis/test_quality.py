"""Quality of images against closed forms and sums written out."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from vae_cli.analysis import quality
from vae_cli.analysis.quality import covered, frechet_distance, kernel_distance, psnr, ssim
from vae_cli.analysis.trained import load_run
from vae_cli.console import UserError

SOURCE = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=SOURCE, dtype=torch.float64)


def with_moments(count: int, mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Draw points [count, D] whose mean and covariance are exactly these."""
    x = normal(count, len(mean))
    x -= x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return mean + white @ torch.linalg.cholesky(covariance).T


def test_the_signal_to_noise_ratio_of_a_known_error():
    x = torch.rand(3, 1, 5, 5, generator=SOURCE)
    assert psnr(x, x + 0.1).tolist() == pytest.approx([20] * 3, abs=1e-4)
    assert psnr(x, x + 0.001)[0] == pytest.approx(60, abs=0.01)


def test_structural_similarity_of_one_window_is_that_of_the_paper():
    x, y = torch.rand(2, 4, 3, 11, 11, generator=SOURCE, dtype=torch.float64)
    distance = (np.arange(11)[:, None] - 5) ** 2 + (np.arange(11) - 5) ** 2
    weight = np.exp(-distance / (2 * 1.5**2))
    weight /= weight.sum()
    expected = np.zeros((4, 3))
    for i in np.ndindex(4, 3):
        a, b = x[i].numpy(), y[i].numpy()
        ma, mb = (weight * a).sum(), (weight * b).sum()
        va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
        cov, c1, c2 = (weight * (a - ma) * (b - mb)).sum(), 0.01**2, 0.03**2
        above = (2 * ma * mb + c1) * (2 * cov + c2)
        expected[i] = above / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    assert ssim(x, y).numpy() == pytest.approx(expected.mean(1), rel=1e-9)


def test_structural_similarity_of_equal_and_of_constant_images():
    x = torch.rand(2, 1, 16, 20, generator=SOURCE, dtype=torch.float64)
    assert ssim(x, x).tolist() == pytest.approx([1, 1])
    a, b = torch.full_like(x, 0.2), torch.full_like(x, 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(a, b).tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_the_frechet_distance_is_that_of_gaussians():
    roots = normal(2, 4, 4)
    s, t = (root @ root.T + 0.1 * torch.eye(4) for root in roots)
    m, n = normal(2, 4)
    shared = sqrtm((s @ t).numpy()).real.trace()
    expected = float((m - n).square().sum() + s.trace() + t.trace()) - 2 * shared
    a, b = with_moments(50, m, s), with_moments(70, n, t)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    flat = torch.cat([a, a[:, :1] * 2, torch.zeros(50, 60)], 1)  # a singular covariance
    assert frechet_distance(flat, flat + 1) == pytest.approx(65, rel=1e-9)


def test_the_kernel_distance_is_a_sum_over_pairs_without_bias(monkeypatch):
    a, b = normal(5, 3), normal(5, 3) + 1

    def kernel(x, y) -> float:
        return (float(x @ y) / 3 + 1) ** 3

    apart = [(i, j) for i in range(5) for j in range(5) if i != j]
    within = sum(kernel(a[i], a[j]) + kernel(b[i], b[j]) for i, j in apart) / 20
    between = sum(kernel(x, y) for x in a for y in b) / 25
    assert kernel_distance(a, b) == pytest.approx(within - 2 * between, rel=1e-12)
    draws = torch.tensor([kernel_distance(normal(20, 3), normal(20, 3)) for _ in range(400)])
    assert abs(float(draws.mean())) < 3 * float(draws.std()) / math.sqrt(400)
    whole = torch.stack([normal(20, 3), normal(20, 3)])
    monkeypatch.setattr(quality, "BLOCK", 10)  # blocks of 10 are as good without bias
    halves = [kernel_distance(*whole[:, part]) for part in (slice(10), slice(10, 20))]
    assert kernel_distance(*whole) == pytest.approx(sum(halves) / 2)


def test_precision_and_recall(monkeypatch):
    real = normal(40, 3)
    assert covered(real, real) == 1
    assert covered(real + 100, real) == covered(real, real + 100) == 0
    both, one = torch.cat([real, real + 100]), real[:30]  # samples of one of two modes
    assert covered(one, both) == 1
    assert covered(both, real) == 0.5
    # on a line: the third neighbour of 0 and of 3 is at 3, of 1 and of 2 at 2; of 20 at 19
    line = torch.tensor([[0.0], [1], [2], [3], [20]]).double()
    points = torch.tensor([[-3.0], [-3.1], [6], [37.9], [38.1], [39.5]]).double()
    assert covered(points, line) == 4 / 6
    monkeypatch.setattr(quality, "BLOCK", 2)
    assert covered(points, line) == 4 / 6


SIZE = ("dataset=digits", "dataset.size=12", "epochs=2")


def test_samples_are_compared_in_a_classifier_that_is_kept(evaluate, trained, capsys):
    run, task = trained(*SIZE), ("task=quality", "classifier_steps=150", "num_samples=250")
    done = evaluate(run, *task)
    found, images = done.json("quality.json"), load_run(run).data().test.x
    assert "training a classifier" in capsys.readouterr().err
    assert found["classifier_test_accuracy"] > 0.8
    assert found["fid_classifier"] > 0
    assert 0 <= found["precision_classifier"] <= 1
    assert found["samples"] == 250
    mean = load_run(run).reconstruct(images).clamp(0, 1)
    assert found["psnr"] == pytest.approx(float(psnr(images, mean).mean()), rel=1e-5)
    assert found["ssim"] == pytest.approx(float(ssim(images, mean).mean()), rel=1e-5)
    again = evaluate(run, *task)
    assert "training a classifier" not in capsys.readouterr().err
    assert again.json("quality.json") == pytest.approx(found)
    file = done.folder / "classifier.pt2"
    own = evaluate(run, *task, f"features={file}").json("quality.json")
    assert own["fid_classifier"] == pytest.approx(found["fid_classifier"])
    assert own["classifier_test_accuracy"] is None
    evaluate(run, *task, "classifier_steps=5")  # is another
    assert "training a classifier for 5 steps" in capsys.readouterr().err


def test_samples_of_an_autoencoder_come_from_a_density_that_is_fitted(evaluate, trained):
    run, task = trained(*SIZE, "model=ae"), ("task=quality", "classifier_steps=150")
    done = evaluate(run, *task)
    assert done.json("quality.json")["sampler"] is None
    assert any("give sampler=gmm, flow or two_stage" in note for note in done.notes)
    far = {}
    for components in (1, 10):
        words = ("sampler=gmm", f"components={components}", "num_samples=250")
        found = evaluate(run, *task, *words).json("quality.json")
        assert found["sampler"] == "gmm"
        far[components] = found["fid_classifier"]
    assert 0 < far[10] < far[1]


def save(network: torch.nn.Module, path) -> str:
    with warnings.catch_warnings(action="ignore"):
        batch = ({0: torch.export.Dim("n", min=1)},)
        program = torch.export.export(network, (torch.rand(3, 1, 12, 12),), dynamic_shapes=batch)
        torch.export.save(program, path)
        torch.jit.trace(network, torch.rand(3, 1, 12, 12)).save(path.with_suffix(".pt"))
    return str(path)


def test_features_of_your_own(evaluate, trained, tmp_path):
    pixels = torch.nn.Flatten()
    files = [save(pixels, tmp_path / "pixels.pt2"), str(tmp_path / "pixels.pt")]
    run = trained(*SIZE)
    found = [evaluate(run, "task=quality", f"features={f}").json("quality.json") for f in files]
    trained_run = load_run(run)
    real, samples = trained_run.data().test.x, trained_run.sample(297, seed=0).clamp(0, 1)
    expected = frechet_distance(*(x.flatten(1).double() for x in (real, samples)))
    for each in found:  # the order of the test images does not matter to their moments
        assert each["fid_pixels"] == pytest.approx(expected, rel=1e-5)
    bad = save(torch.nn.Identity(), tmp_path / "images.pt2")
    for name, words in ((bad, r"gives \[2, 1, 12, 12\]"), ("no.pt2", "no.pt2: must be a network")):
        with pytest.raises(UserError, match=words):
            evaluate(run, "task=quality", f"features={name}")


def test_what_cannot_be_measured_is_said(evaluate, trained, images, curves, tmp_path):
    done = evaluate(trained("dataset=digits", "epochs=1", "model=ae"), "task=quality")
    assert done.json("quality.json")["ssim"] is None
    assert any("11 x 11 pixels do not fit" in note for note in done.notes)
    assert any("no comparison of samples: a deterministic" in note for note in done.notes)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((60, 12, 12), np.float32) / 2)
    arrays = ("dataset=arrays", f"dataset.train={tmp_path}/x.npy", "batch_size=20", "epochs=1")
    (note,) = evaluate(trained(*arrays), "task=quality").notes[1:]
    assert "no labels" in note
    with pytest.raises(UserError, match="dataset=beta_pdf holds curves"):
        evaluate(curves, "task=quality")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 12, 12)))
    with pytest.raises(UserError, match="with values from -"):
        evaluate(trained(*arrays, "seed=1"), "task=quality")


def test_dynamic_binarisation_compares_samples_with_grey_images(evaluate, trained, tmp_path):
    features = f"features={save(torch.nn.Flatten(), tmp_path / 'pixels.pt2')}"
    run = trained(*SIZE, "dataset.binarize=dynamic")
    found = evaluate(run, "task=quality", features).json("quality.json")
    loaded = load_run(run)
    samples, grey = loaded.sample(297, seed=0).clamp(0, 1), loaded.data().test.x
    expected = frechet_distance(*(x.flatten(1).double() for x in (grey, samples)))
    assert found["fid_pixels"] == pytest.approx(expected, rel=1e-5)
    drawn = loaded.data().fixed(loaded.data().test, 0).x / 255
    mean = loaded.reconstruct(drawn).clamp(0, 1)
    assert found["psnr"] == pytest.approx(float(psnr(drawn, mean).mean()), rel=1e-5)
