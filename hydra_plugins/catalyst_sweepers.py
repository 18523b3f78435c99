"""The sweepers of llm-catalyst. Hydra reads this file whenever it starts, so the package is imported when they run."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override


class Grid(BasicSweeper):
    """Every combination of the values given, as Hydra's own sweeper; one that fails ends no other."""

    def sweep(self, arguments: list[str]) -> None:
        """Carry out all combinations, and print a summary."""
        from llm_catalyst.sweeps.job_checks import check_jobs
        from llm_catalyst.sweeps.launchers import begin_sweep, launch_jobs
        from llm_catalyst.sweeps.status import conclude_sweep

        numbers = count()
        sweep = self.make_sweep()
        batches = self.split_arguments(self.parsed(arguments), self.max_batch_size)
        launches = [{next(numbers): overrides for overrides in batch} for batch in batches]
        check_jobs(sweep.loader, sweep.config, {n: overrides for jobs in launches for n, overrides in jobs.items()})
        begin_sweep(sweep)
        with conclude_sweep(sweep.folder):
            for jobs in launches:
                launch_jobs(sweep, jobs)

    def make_sweep(self) -> Any:
        """The sweep that launches the jobs."""
        from llm_catalyst.sweeps.launchers import Sweep

        assert self.launcher is not None
        assert self.config is not None
        assert self.hydra_context is not None
        return Sweep(self.launcher, self.config, self.hydra_context.config_loader)

    def parsed(self, arguments: list[str]) -> list[Override]:
        """The overrides of the command, and those of a configuration's hydra.sweeper.params."""
        assert self.hydra_context is not None
        words = [f"{key}={value}" for key, value in self.params.items()] + arguments
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(words)


class Search(Grid):
    """Optuna's choice of values, by the best metric on dev; the study lies in the sweep's folder."""

    def __init__(self, params: Mapping[str, str] | None, trials: int, at_once: int, sampler: str, seed: int) -> None:
        super().__init__(None, dict(params or {}))
        self.plan: dict[str, Any] = {"trials": trials, "at_once": at_once, "sampler": sampler, "seed": seed}

    def sweep(self, arguments: list[str]) -> None:
        """Carry out the trials, and print the best."""
        from llm_catalyst.utils.validation import ConfigurationError

        try:
            from llm_catalyst.sweeps.optuna_search import Plan, run_search
        except ImportError as error:
            raise ConfigurationError(f"a search needs Optuna ({error}): pip install 'llm-catalyst[sweep]'") from None
        run_search(self.make_sweep(), self.parsed(arguments), Plan(**self.plan))
