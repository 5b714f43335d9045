"""What a person may ask the workflow for: readable names beside files, and an answer for every slip."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from recu.base.errors import ConfigError
from recu.experiment import paths
from recu.experiment.plan import Plan, alias, table_files

_LISTED = 12


def targets(plan: Plan) -> dict[str, list[str]]:
    """The files behind every readable name: `prepare-DATASET`, `train-ID` and `evaluate-ID` with '-' for
    '/' in the id, `table-SUITE`.

    A name that two experiments share (ids may hold '-' themselves) stands for neither; their files still do.
    """
    results, reports = Path(plan.config.results_dir), Path(plan.config.reports_dir)
    trained, measured = plan.experiments.values(), plan.planned.values()
    datasets = sorted({each.dataset for each in measured})
    found = [
        *((f"prepare-{name}", [str(paths.manifest_file(results, name))]) for name in datasets),
        *((f"train-{alias(each)}", _metrics(paths.train_folder(results, each.id))) for each in trained),
        *((f"evaluate-{alias(each)}", _metrics(paths.evaluate_folder(results, each.id))) for each in measured),
        *((f"table-{name}", table_files(reports, name, suite)) for name, suite in plan.suites.items()),
    ]
    times = Counter(name for name, _ in found)
    return {name: files for name, files in found if times[name] == 1}


def unknown_target(target: str, plan: Plan, rules: Iterable[str], available: Iterable[str]) -> ConfigError:
    """The error for what is neither a rule nor a file that a rule makes.

    Args:
        target: what the user wrote.
        plan: what can be made.
        rules: names of all rules.
        available: names of all suites, chosen or not.

    Returns:
        One line with the nearest right name, or with the suite that has to be chosen.
    """
    chosen, named = tuple(plan.suites), targets(plan)
    suite = _other_suite(target, plan, set(available) - set(chosen))
    if suite is not None:
        wanted = ",".join((*chosen, suite))
        return ConfigError(
            f"{target}: suite {suite} is not chosen (chosen: {', '.join(chosen)}): add --config suites={wanted}"
        )
    planned = plan.planned.values()
    shared = [each.id for each in planned if target in (f"train-{alias(each)}", f"evaluate-{alias(each)}")]
    if len(shared) > 1:
        return ConfigError(f"{target} stands for {' and '.join(shared)}: name the file below results/ that is wanted")
    files = [file for each in named.values() for file in each]
    names = files if "/" in target else sorted({*rules, *named})
    nearest = difflib.get_close_matches(target, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    shown = "" if len(names) > _LISTED else f" (known: {', '.join(names)})"
    return ConfigError(f"unknown target {target}{hint}{shown}; `snakemake --list-rules` names all")


def _metrics(folder: Path) -> list[str]:
    return [str(folder / paths.METRICS)]


def _other_suite(target: str, plan: Plan, others: set[str]) -> str | None:
    """The suite, not chosen, that a target belongs to; of several the longest name."""
    config = plan.config
    prefixes = {
        name: (
            *(f"{kind}-{name}-" for kind in ("train", "evaluate")),
            *(f"{config.results_dir}/{kind}/{name}/" for kind in ("train", "evaluate", "export", "speed", "report")),
            f"{config.reports_dir}/{name}.",
        )
        for name in others
    }
    found = [name for name in others if target == f"table-{name}" or target.startswith(prefixes[name])]
    return max(found, key=len, default=None)
