"""task=fit on a real run."""

import numpy as np
import pytest
import torch

from vae_cli import load_run
from vae_cli.data import beta_pdf


def test_a_beta_density_is_fitted_at_least_as_well_as_by_nelder_mead(evaluate, curves):
    done = evaluate(curves, "task=fit", "alpha=1.7887", "beta=4.1733", "num_starts=8")
    assert done.code == 0, done.err
    assert done.files == {"fit.json", "fit.npz", "fit.png"}
    found, arrays = done.json("fit.json"), done.npz("fit.npz")
    best = found["gradient"]["residual_norm"]
    assert best <= found["nelder_mead"]["residual_norm"] * (1 + 1e-9)
    assert found["residual_norm"] == best
    # in the data's own units, which here are logarithms of the density
    run = load_run(curves)
    grid = torch.from_numpy(arrays["grid"])
    target = torch.distributions.Beta(1.7887, 4.1733).log_prob(grid)
    assert np.allclose(arrays["target"], target, atol=1e-4)
    decoded = run.decode([found["code"]])[0]
    assert best == pytest.approx(float((target - decoded).norm()), rel=1e-3)
    assert f"{best:.6g}" in done.out
    # nearer than the encoder's own code, which is where one of the searches starts
    encoded = run.reconstruct(target[None])[0]
    assert best < float((target - encoded).norm())


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_a_target_from_a_file(evaluate, curves, tmp_path, suffix):
    curve = load_run(curves).data().test.x[5].numpy()
    path = tmp_path / f"a, curve.{suffix}"
    np.save(path, curve) if suffix == "npy" else np.savetxt(path, curve, delimiter=",")
    done = evaluate(curves, "task=fit", f"target={path}", "num_starts=4")
    assert done.code == 0, done.err
    assert np.allclose(done.npz("fit.npz")["target"], curve)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("no.npy", None, "cannot be read"),
        ("bad.npy", b"hello", "cannot be read"),
        ("short.csv", b"1\n2\n3\n", "must hold 100"),
        ("nan.csv", b"nan\n" * 100, "NaN or infinite"),
        ("words.csv", b"a\nb\n", "cannot be read"),
        ("curve.txt", b"1\n", "must be a .npy or .csv file"),
    ],
)
def test_targets_that_are_no_curve(evaluate, curves, tmp_path, name, content, expected):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    done = evaluate(curves, "task=fit", f"target={path}")
    assert done.code == 2
    assert f"target={path}" in done.err
    assert expected in done.err
    assert done.err.count("vae-eval:") == 1
    assert not done.folder.exists()


def test_fitting_in_python(curves):
    run = load_run(curves)
    target = beta_pdf.curves(
        torch.tensor([2.0]), torch.tensor([3.0]), run.data().curves.grid,
        run.config.dataset.quantity,
    )[0]  # fmt: skip
    found = run.fit(target, num_starts=4, seed=0)
    assert found.best.code.shape == (2,)
    assert found.best.decoded.shape == (100,)
    with pytest.raises(ValueError, match="NaN"):
        run.fit(target * float("nan"), num_starts=4)
