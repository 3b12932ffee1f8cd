"""Looks for settings that move a ship's chunks faster, while they are moved: `migrate --tune`.

A trial is a span of the migration under one setting: strategy, chunk target, number of workers.
What it came to is kept in pymig.trial, under the shape of the ship, as a multiple of what the
default moved shortly before. Optuna chooses what is tried next. All of this is advice: chunks are
moved by `pymig.backfill_chunk`, under the rules it has for everybody, and what a person set counts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from datetime import timedelta
from itertools import product
from typing import Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState, create_trial

from pymig import db
from pymig.fleet import Fleet, Setting, Ship, Step, Tuning
from pymig.progress import Progress

#: Seconds a chunk may be asked to take; longer ones would hold up a stop and vacuum.
_TARGETS: Final = (0.5, 1.0, 2.0)
_DEFAULT_TARGET: Final = 1.0
#: Numbers of workers that may be tried.
_WORKERS: Final = (1, 2, 4)
#: How often Optuna is asked before chance decides: it likes to try the best once more.
_ASKS: Final = 20
#: More workers than by default are tried where so many times as many connections are free.
_LEAVE: Final = 3
#: A setting is taken in place of the default if it moves so many times as many rows.
_WORTH: Final = 1.05
#: A trial ends early below this multiple of the default.
_HOPELESS: Final = 0.6
#: For so long the default need not be measured anew, in seconds.
_FRESH: Final = 3600.0
#: Below this multiple of what was learned it is not believed for this ship.
_DOUBTFUL: Final = 0.5


@dataclass(frozen=True)
class Values:
    """One setting, nothing left open."""

    strategy: str
    chunk_target: float
    workers: int

    def __str__(self) -> str:
        return f"{self.strategy}, chunks of {self.chunk_target:g} s, workers: {self.workers}"


@dataclass(frozen=True)
class Known:
    """What the trials of one setting came to: a row of pymig.known_trials."""

    values: Values
    trials: int
    gain: float
    rows_per_second: float
    is_within: bool
    seconds_ago: float

    @classmethod
    def of(cls, row: db.Row) -> Known:
        """Take a row."""
        values = Values(row.pop("strategy"), row.pop("chunk_target"), row.pop("workers"))
        return cls(values, **row)

    @property
    def score(self) -> float:
        """What optuna is to make great: nothing, where ingest was too slow."""
        return self.gain if self.is_within else 0.0


@dataclass(frozen=True)
class Pins:
    """What a person set; None may be tuned."""

    strategy: str | None
    chunk_target: float | None
    workers: int | None


@dataclass(frozen=True)
class Space:
    """Values that may be tried, and the default among them."""

    strategies: tuple[str, ...]
    targets: tuple[float, ...]
    workers: tuple[int, ...]
    default: Values

    @classmethod
    def of(cls, pins: Pins, strategies: Sequence[str], workers: int, free: int) -> Space:
        """strategies: what auto takes comes first; workers: of the default; free: connections."""
        workers = pins.workers or workers
        some = {each for each in _WORKERS if each - workers <= free // _LEAVE}
        return cls(
            tuple(strategies),
            (pins.chunk_target,) if pins.chunk_target else _TARGETS,
            (workers,) if pins.workers else tuple(sorted({*some, workers})),
            Values(strategies[0], pins.chunk_target or _DEFAULT_TARGET, workers),
        )

    def all(self) -> set[Values]:
        """Every setting there is."""
        return {Values(*each) for each in product(self.strategies, self.targets, self.workers)}

    def choices(self) -> dict[str, BaseDistribution]:
        """As optuna takes them."""
        return {
            "strategy": CategoricalDistribution(self.strategies),
            "chunk_target": CategoricalDistribution(self.targets),
            "workers": CategoricalDistribution(self.workers),
        }


def ask(space: Space, known: Sequence[Known], trials: int) -> Values | None:
    """The setting optuna wants tried next, knowing those; None where each of the space is known."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choices = space.choices()
    scores = {each.values: each.score for each in known}
    unknown = space.all() - scores.keys()
    if not unknown:
        return None
    sampler = optuna.samplers.TPESampler(n_startup_trials=max(1, trials // 2))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for values, score in scores.items():
        params = dict(zip(choices, astuple(values), strict=True))
        study.add_trial(create_trial(params=params, distributions=choices, value=score))
    for _ in range(_ASKS):
        trial = study.ask(choices)
        values = Values(**trial.params)
        if values in unknown:
            return values
        study.tell(trial, state=TrialState.FAIL)
    return random.choice(list(unknown))


def best(space: Space, known: Sequence[Known]) -> Known | None:
    """The setting that is worth leaving the default for; None: there is none."""
    default = next((each for each in known if each.values == space.default), None)
    within = [each for each in known if each.is_within and each.values != space.default]
    # Where ingest can't bear the default, whatever it can bear is better.
    least = _WORTH if default is None or default.is_within else 0.0
    better = [each for each in within if each.gain >= least]
    return max(better, key=lambda each: each.gain, default=None)


def is_enough(space: Space, known: Sequence[Known], trials: int) -> bool:
    """Whether nothing is left to be tried: so many trials, and what seems best tried twice."""
    chosen = best(space, known)
    if chosen and chosen.trials == 1:
        return False
    others = [each for each in known if each.values != space.default]
    return sum(each.trials for each in others) >= trials or len(others) >= len(space.all()) - 1


class Tuner:
    """Tunes the first ship that is moved; each ship has a course of its own."""

    def __init__(self, tuning: Tuning, workers: int, progress: Progress) -> None:
        """workers: of the default."""
        self._tuning: Final = tuning
        self._workers: Final = workers
        self._progress: Final = progress
        self._courses: Final[dict[str, _Course]] = {}

    def look(self, fleet: Fleet, session: db.Session) -> None:
        """See how the trial goes and what is next. Called twice a second. Raises PymigError."""
        moving = [ship for ship in fleet.ships if ship.step is Step.MOVE]
        first = next((ship for ship in moving if not ship.held_up_by), None)
        for ship in moving:
            if ship is not first and (course := self._courses.get(ship.name)):
                course.interrupt(session)
        if not first:
            return
        if first.name not in self._courses:
            self._courses[first.name] = _Course(
                first, fleet.options.source, self._tuning, self._workers, self._progress
            )
        workers_set = first.limit or fleet.workers_set
        if not self._tuning.tunes_workers:
            workers_set = workers_set or self._workers
        self._courses[first.name].look(session, workers_set)


@dataclass
class _Trial:
    """A span under one setting that is being measured."""

    values: Values
    after: int
    began: float = field(default_factory=time.monotonic)
    latency: float | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def note_latency(self, row: db.Row) -> None:
        if row["latency"] is not None:
            self.latency = max(row["latency"], self.latency or 0.0)


class _Course:
    """What is tried on one ship, until it is settled how the rest is moved."""

    def __init__(
        self, ship: Ship, source: str | None, tuning: Tuning, workers: int, progress: Progress
    ) -> None:
        self._ship: Final = ship
        self._asked: Final = {"p_entity": ship.name, "p_source": source}
        self._tuning: Final = tuning
        self._workers: Final = workers
        self._progress: Final = progress
        self._began: Final = time.monotonic()
        self._part_before: float | None = None
        self._begin(None)

    def _begin(self, pins: Pins | None) -> None:
        self._pins = pins
        self._ship.setting = Setting()
        self._strategies: list[str] | None = None
        self._trial: _Trial | None = None
        self._settled: Known | None = None
        self._is_done = False
        self._default_rate: float | None = None
        self._span = 0.0
        self._spent = 0.0

    def interrupt(self, session: db.Session) -> None:
        """The ship is held up, or another one is before it: a trial shows nothing."""
        if not self._trial:
            return
        row = self._look_at(session)
        if self._settled:
            self._watch(row, self._settled)
        else:
            self._ship.setting = Setting()
            if row["is_over"]:
                self._keep(session, row)
        self._trial = None

    def look(self, session: db.Session, workers_set: int | None) -> None:
        """See how the trial goes and what is next; workers_set: by a person."""
        row = self._look_at(session)
        if self._part_before is None:
            self._part_before = row["part_done"]
        pins = Pins(row["strategy"], row["chunk_target"], workers_set)
        if pins != self._pins:
            self._begin(pins)
            self._begin_with_what_is_known(session, pins, row["free_connections"])
        self._strategies = self._strategies or row["strategies"]
        if self._settled:
            self._watch(row, self._settled)
        elif self._trial:
            self._trial.note_latency(row)
            if row["is_over"] or self._is_measured(row, self._trial):
                self._keep(session, row)
        if not (self._trial or self._is_done or row["is_over"]) and self._strategies:
            free = row["free_connections"]
            self._go_on(session, row, Space.of(pins, self._strategies, self._workers, free))

    def _known(self, session: db.Session) -> list[Known]:
        return [Known.of(row) for row in session.select("known_trials", **self._asked)]

    def _begin_with_what_is_known(self, session: db.Session, pins: Pins, free: int) -> None:
        """The best from the first chunk on, or trials, where another ship of this shape began."""
        known = self._known(session)
        default = (pins.chunk_target or _DEFAULT_TARGET, pins.workers or self._workers)
        defaults = [k for k in known if (k.values.chunk_target, k.values.workers) == default]
        if not defaults:
            return
        # What most trials of the default were made with is what auto found.
        found = max(defaults, key=lambda each: each.trials).values.strategy
        others = sorted({each.values.strategy for each in known} - {found})
        strategies = [pins.strategy] if pins.strategy else [found, *others]
        space = Space.of(pins, strategies, self._workers, free)
        fitting = [each for each in known if each.values in space.all()]
        default_known = next((k for k in fitting if k.values == space.default), None)
        if not default_known:
            return
        if is_enough(space, fitting, self._tuning.trials):
            chosen = best(space, fitting) or default_known
            self._settle(chosen)
            said = f"begins with what was learned: {chosen.values}"
            self._progress.say(f"{self._ship.name}: {said}")
        elif default_known.seconds_ago < _FRESH:
            self._strategies = strategies
            self._default_rate, self._span = default_known.rows_per_second, self._tuning.seconds

    def _go_on(self, session: db.Session, row: db.Row, space: Space) -> None:
        """Begin the next trial, or settle on the best."""
        if len(space.all()) == 1:
            self._give_up()
            return
        if self._default_rate is None:
            self._try(space.default, row)
            return
        if not row["part_done"]:
            return  # nobody knows yet how long it will take
        known = [each for each in self._known(session) if each.values in space.all()]
        chosen = best(space, known)
        asked = None
        if not is_enough(space, known, self._tuning.trials) and self._may_try(row):
            again = chosen.values if chosen and chosen.trials == 1 else None
            asked = again or ask(space, known, self._tuning.trials)
        if asked:
            self._try(asked, row)
        elif chosen and chosen.trials > 1:
            self._settle(chosen)
            times = f"{chosen.gain:.2f} times as fast as the default"
            self._progress.say(f"{self._ship.name}: goes on with {chosen.values}, {times}")
        else:
            self._give_up()

    def _may_try(self, row: db.Row) -> bool:
        """Whether the time a ship takes allows for one more trial."""
        before = self._part_before or 0.0
        part: float = row["part_done"] - before
        if part <= 0 or row["part_done"] >= 1:
            return False
        total = (time.monotonic() - self._began) / part * (1 - before)
        return self._spent + self._span <= self._tuning.share * total

    def _try(self, values: Values, row: db.Row) -> None:
        self._use(values)
        self._trial = _Trial(values, row["last_chunk"] or 0)

    def _settle(self, chosen: Known) -> None:
        """Move the rest so; watched, lest this ship be unlike those it was learned from."""
        self._settled, self._trial = chosen, None
        self._use(chosen.values)

    def _use(self, values: Values) -> None:
        # A person's number may be for this ship alone: it is not to hold the workers of others up.
        workers = None if self._pins and self._pins.workers else values.workers
        self._ship.setting = Setting(values.strategy, values.chunk_target, workers)

    def _give_up(self) -> None:
        """Move the rest by default."""
        self._settled, self._trial, self._is_done = None, None, True
        self._ship.setting = Setting()

    def _watch(self, row: db.Row, settled: Known) -> None:
        """Back to the default where it is not what was learned: far slower, or too much."""
        is_measured = self._trial and self._is_measured(row, self._trial)
        if row["is_over"]:
            self._give_up()
            said = "holds ingest up; it goes on with the default"
            self._progress.say(f"{self._ship.name}: {said}")
        elif is_measured and _rate(row, settled.values) < _DOUBTFUL * settled.rows_per_second:
            self._give_up()
            said = "is slower than those it was learned from; it goes on with the default"
            self._progress.say(f"{self._ship.name}: {said}")
        elif is_measured or not self._trial:
            self._try(settled.values, row)

    def _is_measured(self, row: db.Row, trial: _Trial) -> bool:
        """Whether each worker has moved a chunk, for long enough or clearly too slowly."""
        if row["workers"] < trial.values.workers or not row["rows_per_second"]:
            return False
        if trial.seconds >= self._tuning.seconds:
            return True
        return _rate(row, trial.values) < _HOPELESS * (self._default_rate or 0.0)

    def _keep(self, session: db.Session, row: db.Row) -> None:
        """End the trial, and write down what it came to."""
        assert self._trial
        trial, self._trial = self._trial, None
        self._ship.setting = Setting()
        trial.note_latency(row)
        rate = _rate(row, trial.values)
        if self._default_rate is None:
            self._default_rate, self._span = rate, trial.seconds
        else:
            self._spent += trial.seconds
        session.select(
            "keep_trial",
            **self._asked,
            p_strategy=trial.values.strategy,
            p_chunk_target=timedelta(seconds=trial.values.chunk_target),
            p_workers=trial.values.workers,
            p_rows_per_second=rate,
            p_gain=rate / self._default_rate if self._default_rate else 1.0,
            p_latency=trial.latency,
        )

    def _look_at(self, session: db.Session) -> db.Row:
        after = self._trial.after if self._trial else None
        return session.select("look_at_trial", **self._asked, p_after=after)[0]


def _rate(row: db.Row, values: Values) -> float:
    """Narrow rows a second of all workers together."""
    return float(row["rows_per_second"] or 0.0) * values.workers
