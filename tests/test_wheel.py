"""The wheel, built and unpacked elsewhere, finds its configuration from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], cwd=folder, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_package_and_configs_and_nothing_else(installed):
    assert {path.name.partition("-")[0] for path in installed.iterdir()} == {"vae_cli"}
    assert (installed / "vae_cli" / "configs" / "model" / "conv_vae.yaml").is_file()
    assert (installed / "vae_cli" / "sweeps" / "report.html.j2").is_file()
    assert (installed / "vae_cli" / "py.typed").is_file()  # its types count for who imports it
    entries = next(installed.glob("*.dist-info")) / "entry_points.txt"
    for name in ("vae-train = vae_cli.cli:main", "cli:eval_main", "cli:report_main"):
        assert name in entries.read_text()


def test_the_installed_command_trains_from_another_folder(installed, tmp_path):
    code = (
        "import vae_cli.cli; from pathlib import Path;"
        f"assert Path(vae_cli.cli.__file__).is_relative_to({str(installed)!r}), vae_cli.__file__;"
        "vae_cli.cli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = sorted(installed.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", code, "dataset=digits", "epochs=1", "figures=none"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "test elbo" in done.stdout
    assert sorted(installed.rglob("*")) == before  # so it may be installed where nobody may write
