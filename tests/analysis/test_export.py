"""task=export: the files compute what the original computes, at any batch size."""

import numpy as np
import pytest
import torch

from vae_cli.analysis import export
from vae_cli.analysis.trained import load_run
from vae_cli.console import UserError

# of the exporters' own internals
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("format", ["torch_export", "onnx"])
@pytest.mark.parametrize("model", [(), ("model=conv_vae", "model.channels=[4,8]")])
def test_exports_equal_the_original(evaluate, trained, model, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    folder = trained("dataset=digits", "epochs=1", *model)
    done = evaluate(folder, "task=export", f"format={format}")
    suffix = ".onnx" if format == "onnx" else ".pt2"
    assert done.files == {f"encoder{suffix}", f"decoder{suffix}"}
    assert done.rows["encoder"].startswith("x [B, 1, 8, 8] -> mean, log_var; largest difference")
    if format == "onnx":
        return  # the task itself has compared what the files compute
    encode, decode = (
        torch.export.load(done.folder / f"{name}.pt2").module() for name in ("encoder", "decoder")
    )
    run = load_run(folder)
    x = run.data().test.x[:7]  # a batch size that nothing was made or checked with
    posterior = run.encode(x)
    with torch.no_grad():
        mean, log_var = encode(x)
        (decoded,) = decode(posterior.mean)
    np.testing.assert_allclose(mean, posterior.mean, atol=1e-5)
    np.testing.assert_allclose(log_var, 2 * posterior.stddev.log(), atol=1e-5)
    np.testing.assert_allclose(decoded, run.decode(posterior.mean), atol=1e-5)


def test_an_autoencoders_encoder_gives_its_code(evaluate, trained):
    folder = trained("dataset=digits", "epochs=1", "model=ae")
    done = evaluate(folder, "task=export", "format=torch_export")
    assert "-> code" in done.rows["encoder"]


@pytest.mark.parametrize("format", ["torch_export", "onnx"])
def test_a_conditional_model_takes_labels_beside_its_input(evaluate, trained, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    folder = trained("dataset=digits", "model.condition_on_labels=true", "epochs=1")
    done = evaluate(folder, "task=export", f"format={format}")
    assert done.rows["decoder"].startswith("z [B, 8], labels [B] int64 -> x_mean; largest diff")
    if format == "onnx":
        import onnxruntime

        decoder = onnxruntime.InferenceSession(done.folder / "decoder.onnx")
        decode = lambda z, y: decoder.run(None, {"z": z.numpy(), "labels": y.numpy()})  # noqa: E731
    else:
        decode = torch.export.load(done.folder / "decoder.pt2").module()
    run, z, labels = load_run(folder), torch.randn(7, 8), torch.arange(7)
    (x,) = decode(z, labels)
    np.testing.assert_allclose(x, run.given(labels).decode(z), atol=1e-5)
    assert abs(np.asarray(x) - run.given(0).decode(z).numpy()).max() > 0.001


CONV = ("model=conv_vae", "model.channels=[4,8]", "model.spatial=true")


@pytest.mark.parametrize(
    ("overrides", "result"),
    [
        (("posterior=full_covariance",), "mean"),
        (("posterior=iaf",), "mean"),
        (("posterior=ladder",), "mean"),
        (("posterior=categorical",), "mean"),
        (("posterior=vq", *CONV), "code"),
    ],
)
def test_an_encoder_gives_what_describes_its_posterior(evaluate, trained, overrides, result):
    folder = trained("dataset=digits", "epochs=1", *overrides)
    done, run = evaluate(folder, "task=export", "format=torch_export"), load_run(folder)
    assert f"-> {result}; largest" in done.rows["encoder"]
    x, parts = run.data().test.x[:7], [done.folder / f"{p}.pt2" for p in ("encoder", "decoder")]
    encode, decode = (torch.export.load(part).module() for part in parts)
    with torch.no_grad():
        (code,) = encode(x)
        np.testing.assert_allclose(code, run.encode(x).mean, atol=1e-5)
        np.testing.assert_allclose(decode(code)[0], run.reconstruct(x), atol=1e-5)


def test_without_onnx_the_extra_is_named(evaluate, images, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"vae-cli\[export\]"):
        evaluate(images, "task=export", "format=onnx")
