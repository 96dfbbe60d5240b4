"""Recipes: defaults, what is refused and in which words, and what a run may change on its way."""

from dataclasses import replace
from pathlib import Path

import pytest

from detectors.training import recipe as recipes
from detectors.training.recipe import Recipe, TrainingPlan
from detectors.training.schedule import average_decay, is_calm, learning_rate, sizes_of
from schemas.errors import ConfigurationError

SHIPPED = Path(recipes.__file__).parent / "recipes"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_what_is_left_out_has_its_default_and_folders_start_at_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, '[training]\nsteps = 10\nlearning_rate = 1\n[data]\ntrain = "a/b"')
    read = Recipe.read(path, {"training.image_sizes": [64, 96], "data.val": "/elsewhere"})
    assert (read.training.steps, read.training.batch_size, read.training.image_sizes) == (10, 16, (64, 96))
    assert isinstance(read.training.learning_rate, float)
    assert (read.data.train, read.data.val) == (str(tmp_path / "a/b"), "/elsewhere")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_in_order(path: Path) -> None:
    assert Recipe.read(path).training.steps > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "training is missing: a table"),
        ("[training]", "training.steps is missing: a whole number"),
        ("training = 3", "training must be a table"),
        ("[training]\nsteps = 5\nstepz = 3", "there is no 'training.stepz'; did you mean 'training.steps'?"),
        ("[training]\nsteps = 'x'", "training.steps must be a whole number, not 'x'"),
        ("[training]\nsteps = true", "training.steps must be a whole number, not True"),
        ("[training]\nsteps = 0", "training.steps must be positive, not 0"),
        ("[training]\nsteps = 5\nworkers = 1.5", "training.workers must be a whole number, not 1.5"),
        ("[training]\nsteps = 5\nimage_sizes = [100]", "training.image_sizes must be multiples of 32"),
        ("[training]\nsteps = 5\nlearning_rate = nan", "training.learning_rate must be positive, not nan"),
        ("[training]\nsteps = 5\nlearning_rate = inf", "training.learning_rate must be positive, not inf"),
        ("[training]\nsteps = 5\nprecision = 'f8'", "training.precision must be one of 'auto', 'f32', 'bf16', 'f16', not 'f8'"),
        ("[training]\nsteps = 5\n[augmentation]\nscale = [1]", "augmentation.scale must be a list of 2, each a number, not [1]"),
        ("[training]\nsteps = 5\n[network]\nwidths = [1]", "network.widths and network.depths need five numbers each"),
        ("steps =", "is not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        Recipe.read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the recipe nowhere\.toml"):
        Recipe.read(Path("nowhere.toml"))


def test_differences_are_those_that_change_what_comes_out(tmp_path: Path) -> None:
    kept = Recipe.read(write(tmp_path, "[training]\nsteps = 5"))
    moved = replace(kept, training=replace(kept.training, workers=3, device="cpu"), data=replace(kept.data, train="x"))
    assert moved.differences(kept.as_tables()) == []
    longer = replace(kept, training=replace(kept.training, steps=6), network=replace(kept.network, channels=8))
    assert longer.differences(kept.as_tables()) == [
        "network.channels is 8, was 64",
        "training.steps is 6, was 5",
    ]


def test_the_learning_rate_rises_then_falls_to_its_final_share() -> None:
    plan = recipes.TrainingPlan(steps=100, warmup_steps=10, learning_rate=1.0, final_share=0.1)
    rates = [learning_rate(step, plan) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(0.1, abs=1e-3)


def test_small_inputs_come_first_where_they_grow() -> None:
    plan = TrainingPlan(steps=100, image_sizes=(96, 32, 64, 128), grow_first=0.4)
    assert [sizes_of(step, plan) for step in (0, 9, 10, 30, 99)] == [
        (32,),
        (32,),
        (32, 64),
        (64, 96, 128),
        (64, 96, 128),
    ]
    assert sizes_of(0, replace(plan, grow_first=0.0)) == (32, 64, 96, 128)


def test_the_average_forgets_the_start_and_the_end_is_calm() -> None:
    plan = recipes.TrainingPlan(steps=1000, ema_decay=0.99, calm_last=0.2)
    assert average_decay(0, plan) == pytest.approx(0.1)
    assert average_decay(999, plan) == 0.99
    assert [is_calm(step, plan) for step in (0, 799, 800, 999)] == [False, False, True, True]
