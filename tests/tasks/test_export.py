"""task=export: the files compute what the original computes, at any batch size."""

import importlib.util

import numpy as np
import pytest
import torch

from vae_cli import load_run
from vae_cli.tasks import export

NEEDS_ONNX = pytest.mark.skipif(
    importlib.util.find_spec("onnxscript") is None, reason="the extra `export` is not installed"
)


@pytest.mark.parametrize(
    "format", ["torchscript", "torch_export", pytest.param("onnx", marks=NEEDS_ONNX)]
)
@pytest.mark.parametrize("model", ["mlp_vae", "conv_vae"])
def test_exports_equal_the_original(evaluate, train, model, format):
    small = ("model.channels=[4,8]",) if model == "conv_vae" else ()
    folder = train("dataset=digits", f"model={model}", "epochs=1", *small)
    done = evaluate(folder, "task=export", f"format={format}")
    assert done.code == 0, done.err
    assert "largest difference from the original" in done.out
    suffix = export.SUFFIX[export.Format(format)]
    assert done.files == {f"encoder{suffix}", f"decoder{suffix}"}
    read = export.READERS[export.Format(format)]
    with export._quiet(), torch.no_grad():
        encode, decode = (read(done.folder / f"{n}{suffix}") for n in ("encoder", "decoder"))
        run = load_run(folder)
        x = run.data().test.x[:7]  # a batch size that nothing was made or checked with
        mean, log_var = encode(x)
        posterior = run.encode(x)
        np.testing.assert_allclose(mean, posterior.mean, atol=1e-5)
        np.testing.assert_allclose(log_var, posterior.log_var, atol=1e-5)
        np.testing.assert_allclose(decode(mean)[0], run.decode(mean), atol=1e-5)


def test_an_autoencoders_encoder_gives_its_code(evaluate, autoencoder):
    done = evaluate(autoencoder, "task=export", "format=torchscript")
    assert "x [B, 1, 8, 8] -> code" in done.out
    with export._quiet():
        encoder = torch.jit.load(done.folder / "encoder.torchscript.pt")
    assert len(encoder(torch.rand(2, 1, 8, 8))) == 1


def test_without_onnx_the_extra_is_named(evaluate, images, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    done = evaluate(images, "task=export", "format=onnx")
    assert done.code == 2
    assert "format=onnx needs onnx and onnxscript" in done.err
    assert "pip install 'vae-cli[export]'" in done.err
    assert not done.folder.exists()


def test_a_file_that_computes_something_else_is_not_passed_over():
    one = (torch.zeros(3),)
    assert export._difference(one, (torch.full((3,), 1e-6),), "encoder") == pytest.approx(1e-6)
    for wrong in (torch.ones(3), torch.full((3,), torch.nan)):
        with pytest.raises(export.RunFailed, match="the exported encoder differs"):
            export._difference((wrong,), one, "encoder")
