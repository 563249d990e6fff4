"""Opens everything that a deployment names, the way the gateway would, to see whether it can be."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from backends.registry import backend_maker
from router.deployment import Deployment
from router.generation import Generation, open_generation


def trial_problems(deployment: Deployment, models_dir: Path) -> list[str]:
    """A sentence for each model that cannot be opened; servers are not contacted."""
    return asyncio.run(_open_and_close(deployment, models_dir))


async def _open_and_close(deployment: Deployment, models_dir: Path) -> list[str]:
    nothing = Generation.empty()
    generation = await open_generation(deployment, nothing, backend_maker(models_dir), time.monotonic, None)
    problems = generation.problems(generation.instances())
    await generation.close_all_but(nothing)
    return problems
