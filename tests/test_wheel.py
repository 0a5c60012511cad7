"""The built wheel, installed alone into an empty environment, finds its configuration from anywhere."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from amtml_pl.config.paths import config_directory
from study import write_study

ROOT = Path(__file__).parents[1]

COMPOSE = """
import sys
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
import amtml_pl
from amtml_pl.config.checks import check
from amtml_pl.config.paths import config_directory
assert sys.prefix in amtml_pl.__file__, amtml_pl.__file__
with initialize_config_dir(str(config_directory()), version_base="1.3"):
    names = sorted(file.stem for file in (config_directory() / "experiment").glob("*.yaml"))
    for name in names:
        check(compose("train", overrides=[f"experiment={name}"]))
plugins = Plugins.instance().class_name_to_class
assert "hydra_plugins.amtml_pl_optuna.OptunaSweeper" in plugins
assert "hydra_plugins.amtml_pl_ray.RayLauncher" in plugins
print(*names)
"""


@pytest.mark.slow
def test_the_wheel_ships_its_configuration_and_composes_every_experiment_elsewhere(tmp_path):
    def call(*words, cwd=tmp_path):
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"), cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet", str(wheel))
    # The dependencies are those of this environment, without what is installed there in editable form.
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    composed = call(str(python), "-c", COMPOSE).split()
    assert composed == sorted(file.stem for file in (config_directory() / "experiment").glob("*.yaml"))
    scripts = tmp_path / "env" / "bin"
    write_study(tmp_path / "runs")
    call(str(scripts / "amtml-report"), f"runs={tmp_path}/runs")  # its page has templates
    assert "9 runs" in (tmp_path / "runs" / "report" / "report.html").read_text()
    assert "Compare all completed runs below a folder" in call(str(scripts / "amtml"))
    assert "handwritten digits" in call(str(scripts / "amtml-info"), "datasets").lower()
    script = str(scripts / "amtml-train")
    assert "teacher_recipe: digits_teacher" in call(script, "--cfg", "job", "experiment=digits_amtml")
