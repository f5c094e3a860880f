"""The table of plots."""

from collections.abc import Callable

from legollm.data.world.draw import Draw
from legollm.data.world.plots_people import (
    harvest,
    journey,
    lesson,
    market,
    meal,
    pet,
    quarrel,
    race,
    show,
    storm,
    visit,
)
from legollm.data.world.plots_things import errand, lending, lost, moved, nested, present, repair, swap
from legollm.data.world.state import World

PLOTS: tuple[Callable[[Draw, World], None], ...] = (
    errand,
    swap,
    present,
    moved,
    lost,
    nested,
    lending,
    repair,
    meal,
    storm,
    quarrel,
    journey,
    market,
    lesson,
    pet,
    harvest,
    race,
    show,
    visit,
)
