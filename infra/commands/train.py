"""`sightstream train`: a detector of one's own, from a recipe and a data set."""

import signal
import sys
import tomllib
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import click

from infra.settings import Settings
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.training.run import Outcome
    from detectors.training.validation import Scores

_ENDED = {
    "finished": "finished",
    "no_gain": "stopped early, as the score no longer rises",
    "stopped": "stopped as asked; the same command goes on from here",
}
_STOPPED_EXIT = 130


@click.command("train")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run. Default: STATE_DIR/runs/NAME."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with train/ and val/, over the recipe's data.",
)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="A value over the recipe's. Repeatable.")
@click.option("--fresh", is_flag=True, help="Remove the run that is in the folder, and start anew.")
@click.pass_context
def command(
    context: click.Context, /, config: Path, out: Path | None, data: Path | None, changes: tuple[str, ...], fresh: bool
) -> None:
    """Train a detector by the recipe CONFIG (TOML), or go on with the run in the folder.

    A run that was killed, at whatever moment, goes on from its last checkpoint and ends with the same weights. Ctrl-C writes a
    checkpoint first.
    """
    settings = context.ensure_object(Settings)
    from detectors.torch_environment import calm_threads

    calm_threads()
    try:
        from detectors.training.recipe import Recipe
        from detectors.training.run import train
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"training needs {error.name}, which is not installed: pip install 'sightstream[training]'"
        ) from error
    recipe = Recipe.read(config, _changes(changes, data))
    folder = out or settings.state_dir / "runs" / config.stem
    with _Bar(recipe.training.steps) as bar:
        outcome = train(recipe, config.read_text(encoding="utf-8"), folder, bar, fresh=fresh)
    click.echo(_summary(outcome, folder))
    if outcome.ended == "stopped":
        context.exit(_STOPPED_EXIT)


class _Bar:
    """Progress on stderr: a bar on a terminal, a line for each evaluation elsewhere. Interrupts are requests to stop while it is shown."""

    def __init__(self, steps: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=steps, unit="step", file=sys.stderr, disable=None, dynamic_ncols=True, smoothing=0.05)
        self._figures: dict[str, str] = {}
        self._loss: float | None = None
        self._stop = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._bar.close()

    def start(self, step: int, facts: dict[str, Any]) -> None:
        """Say what runs where, and start from so many steps."""
        self._bar.initial = self._bar.n = self._bar.last_print_n = step
        self._say(
            f"{facts['pictures']} pictures, {len(facts['names'])} classes; {facts['precision']} on {facts['device']}, "
            f"{facts['threads']} threads" + (f"; going on after step {step}" if step else "")
        )

    def step(self, step: int, figures: dict[str, float]) -> None:
        """Move the bar; the loss is smoothed over about 50 steps."""
        loss = figures["loss"]
        self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
        self._figures["loss"] = f"{self._loss:.3f}"
        self._bar.set_postfix(self._figures, refresh=False)
        self._bar.update(step - self._bar.n)

    def evaluated(self, step: int, scores: "Scores", *, best: bool) -> None:
        """A line that stays."""
        self._figures["mAP50"] = f"{scores.map50:.3f}"
        mark = ", the best so far" if best else ""
        loss = "" if self._loss is None else f", loss {self._loss:.3f}"
        self._say(f"step {step}: mAP50 {scores.map50:.4f}, mAP50-95 {scores.map50_95:.4f}{mark}{loss}")

    def warn(self, message: str) -> None:
        """A line that stays."""
        self._say(f"warning: {message}")

    def asks_to_stop(self) -> bool:
        """Whether an interrupt came."""
        return self._stop

    def _say(self, line: str) -> None:
        self._bar.write(line, file=sys.stderr)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True


def _changes(given: tuple[str, ...], data: Path | None) -> dict[str, Any]:
    """Values by dotted name. `--set` takes TOML, and what is no TOML as text."""
    changes: dict[str, Any] = {}
    if data is not None:
        changes |= {f"data.{name}": str(data.absolute() / name) for name in ("train", "val")}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals:
            raise click.BadParameter(f"{entry!r} is not NAME=VALUE", param_hint="--set")
        try:
            changes[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name] = text
    return changes


def _summary(outcome: "Outcome", folder: Path) -> str:
    said = f"{folder}: {_ENDED[outcome.ended]} after {outcome.step} steps"
    if not outcome.best:
        return said
    best = outcome.best
    return f"{said}; best.pt is of step {best['step']:.0f}: mAP50 {best['map50']:.4f}, mAP50-95 {best['map50_95']:.4f}"
