"""A configuration is saved and shown with its run, so it cannot contain passwords and keys."""

from pathlib import Path

import pytest

from launch.sweep.points import plan_sweep
from pipeline.config.load import ConfigError, dump, load, load_saved
from tests.support.recipes import GOOD

PASSWORD = "s3cr3t@/pw"
SECRETS = {
    "tracking.uri": f"http://me:{PASSWORD}@host:5000",
    "env.WANDB_API_KEY": PASSWORD,
    "env.http_proxy": f"http://me:{PASSWORD}@proxy",
    "slurm.setup": f"[module load gcc, export HF_TOKEN={PASSWORD}]",
    "slurm.sbatch.export": f"ALL,MY_PASSWORD={PASSWORD}",
    "slurm.container": f"{{image: docker://me:{PASSWORD}@registry/image}}",
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert "s3cr3t" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(recipe: Path, key: str) -> None:
    said = refusal(recipe, f"{key}={SECRETS[key]}")
    assert said.startswith(f"command line: {key}=")
    assert "has a password or key" in said


def test_a_secret_in_the_file_is_refused_at_its_place(recipe: Path) -> None:
    text = f"tracking:\n  uri: postgresql://h/db?password={PASSWORD}\nenv:\n  A_TOKEN: {PASSWORD}\n"
    recipe.write_text(GOOD + text)
    lines = GOOD.count("\n")
    uri, token = refusal(recipe).splitlines()
    assert uri.startswith(f"{recipe}:{lines + 2}:8: tracking.uri: has a password or key")
    assert "MLFLOW_TRACKING_PASSWORD" in uri
    assert token.startswith(f"{recipe}:{lines + 4}:12: env.A_TOKEN: has a password or key")
    assert "export the variable" in token


def test_another_mistake_does_not_repeat_a_secret(recipe: Path) -> None:
    long = "x" * 200
    for argument in (
        f"tracking.url=http://me:{PASSWORD}@host",
        f"tracking.url=http://me:{PASSWORD}{long}@host",
        f"data.dali=http://me:{PASSWORD}{long}@host",
        f"optim.lr=http://me:{PASSWORD}@host",
        f"tracking=http://me:{PASSWORD}@host",
        f"env=[WANDB_API_KEY={PASSWORD}]",
    ):
        refusal(recipe, argument)


def test_the_points_of_a_sweep_do_not_repeat_a_secret(recipe: Path) -> None:
    for sweep in (f"tracking.uri=http://me:{PASSWORD}@a,http://b", f"env.A_KEY={PASSWORD},other"):
        with pytest.raises(ValueError, match="has a password or key") as caught:
            plan_sweep(recipe, [], [sweep])
        assert "s3cr3t" not in str(caught.value)


def test_variables_that_only_look_like_secrets_are_allowed(recipe: Path) -> None:
    settings = ["env.TOKENIZERS_PARALLELISM='false'", "env.AWS_WEB_IDENTITY_TOKEN_FILE=/var/token"]
    assert load(recipe, settings).env.keys() == {
        "TOKENIZERS_PARALLELISM",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    }


def test_a_saved_configuration_with_a_secret_can_still_be_read(recipe: Path) -> None:
    """An earlier version saved it; the network does not depend on it."""
    recipe.write_text(GOOD + f"tracking: {{uri: 'http://me:{PASSWORD}@host', experiment: x}}\n")
    saved = load_saved(recipe)
    assert saved.model.name == "resnet50"
    assert saved.tracking.uri is None
    assert "s3cr3t" not in dump(saved)
    assert load(recipe, ["tracking.uri=http://host"]).tracking.experiment == "x"


def test_a_saved_configuration_must_be_valid_otherwise(recipe: Path) -> None:
    recipe.write_text(GOOD + "seed: x\n")
    with pytest.raises(ConfigError, match="seed"):
        load_saved(recipe)
